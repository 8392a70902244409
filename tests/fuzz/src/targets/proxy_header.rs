//! PROXY protocol headers: the same bytes give the same result, and a result does not change when more bytes arrive.

use roomcast::engine::proxy::{Header, MAX_V2};

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let whole = Header::read(bytes);
    if let Header::Whole(length, _) = whole {
        assert!((8..=MAX_V2).contains(&length) && length <= bytes.len());
        assert_eq!(Header::read(&bytes[..length]), whole);
    }
    for cut in [1, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let before = Header::read(&bytes[..cut.min(bytes.len())]);
        assert!(before == Header::Partial || before == whole, "{before:?} became {whole:?}");
    }
}
