//! WebSocket frames: the same messages and the same end, wherever the bytes are cut.
use roomcast::engine::native::frame::{FrameProgress, FrameReader};

const MAX_PAYLOAD: usize = 4096;

/// Reads all messages if the bytes arrive in pieces of `cut` bytes. Returns the messages, and the violation if there is
/// one.
fn read(bytes: &[u8], cut: usize) -> (Vec<String>, Option<String>) {
    let mut reader = FrameReader::new(MAX_PAYLOAD);
    let (mut seen, mut held) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(cut.max(1)) {
        held.extend_from_slice(piece);
        loop {
            let (used, more) = match reader.step(&mut held) {
                Err(violation) => return (seen, Some(format!("{violation:?}"))),
                Ok((used, FrameProgress::More(missing))) => {
                    assert!(used == 0 && missing > 0);
                    break;
                }
                Ok((used, step)) => {
                    if let FrameProgress::Text(text) = &step {
                        assert!(text.len() <= MAX_PAYLOAD);
                    }
                    seen.push(format!("{step:?}"));
                    (used, used > 0)
                }
            };
            assert!(more, "a step that takes nothing");
            held.drain(..used);
        }
    }
    (seen, None)
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let whole = read(bytes, bytes.len());
    for cut in [1, 7] {
        assert_eq!(whole, read(bytes, cut), "in pieces of {cut}");
    }
}
