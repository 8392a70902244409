//! `Forwarded` and `X-Forwarded-For`: parsing is bounded, and what a client writes first does not change the nearest
//! hops.

use roomcast::engine::edge::forwarded::{forwarded, x_forwarded_for};

/// Runs the target.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    assert!(forwarded(text).len() <= 64);
    assert!(x_forwarded_for(text).len() <= 64);
    let nearest = "192.0.2.7".parse().ok();
    assert_eq!(x_forwarded_for(&format!("{text}, 192.0.2.7")).last(), Some(&nearest));
    // A value with invalid syntax is ignored completely.
    let hops = forwarded(&format!("{text}, for=192.0.2.7"));
    assert!(hops.last() == Some(&nearest) || hops == [None]);
}
