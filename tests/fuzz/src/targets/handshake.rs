//! The head of a request: the same bytes give the same result, and a result does not change when more bytes arrive.
use roomcast::contract::handshake::HandshakePart;
use roomcast::engine::native::head::FirstRequest;

fn verdict(bytes: &[u8]) -> &'static str {
    match FirstRequest::read(bytes, "/socket.io/", &[HandshakePart::Header("x-tenant".into())]) {
        FirstRequest::Partial => "partial",
        FirstRequest::Other => "other",
        FirstRequest::Open(opening) => {
            assert!(opening.length <= bytes.len());
            assert!(opening.answer(opening.deflate().as_deref()).starts_with(b"HTTP/1.1 101 "));
            "open"
        }
    }
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let whole = verdict(bytes);
    for cut in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let before = verdict(&bytes[..cut]);
        assert!(before == "partial" || before == whole, "{before} became {whole}");
    }
}
