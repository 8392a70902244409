//! `Forwarded` and `X-Forwarded-For`: bounded, and the nearest hops do not depend on what a client writes before them.

use roomcast::engine::edge::forwarded::{forwarded, x_forwarded_for};

/// Runs the target.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    assert!(forwarded(text).len() <= 64);
    assert!(x_forwarded_for(text).len() <= 64);
    let nearest = "192.0.2.7".parse().ok();
    assert_eq!(x_forwarded_for(&format!("{text}, 192.0.2.7")).last(), Some(&nearest));
    // A value that breaks the grammar is not believed at all.
    let hops = forwarded(&format!("{text}, for=192.0.2.7"));
    assert!(hops.last() == Some(&nearest) || hops == [None]);
}
