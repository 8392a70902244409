//! PROXY protocol headers: the same bytes give the same result, and a result does not change when more bytes arrive.

use roomcast::engine::proxy::{MAX_V2, ProxyHeader};

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let whole = ProxyHeader::read(bytes);
    if let ProxyHeader::Whole(length, _) = whole {
        assert!((8..=MAX_V2).contains(&length) && length <= bytes.len());
        assert_eq!(ProxyHeader::read(&bytes[..length]), whole);
    }
    for cut in [1, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let before = ProxyHeader::read(&bytes[..cut.min(bytes.len())]);
        assert!(before == ProxyHeader::Partial || before == whole, "{before:?} became {whole:?}");
    }
}
