//! The parts of a WebSocket test case: the bytes to send, the expected answers, and how socketioxide differs.

/// The argument of an event that the node must not receive, because the connection has ended before it.
pub const FORBIDDEN: &str = "must not arrive";

/// An expected answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    Text(String),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    /// A close frame with this code, and the end of the connection.
    Close(Option<u16>),
    /// A frame that no server may send. The value is the wrong byte of the frame's head.
    Wrong(u8),
}

/// How the answer of socketioxide's WebSocket may differ from the expected answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// socketioxide answers as the case says, but its close frame for a mistake may have no code.
    Same,
    /// socketioxide ends the connection before it answers the messages that arrived in the same read.
    Ends,
    /// socketioxide waits for the rest of the frame's head, or accepts the mistake.
    Waits,
    /// socketioxide waits for the whole frame, so the case is not run.
    Patient,
    /// socketioxide treats the close code as one that a client may not send.
    Refuses,
}

/// One case.
pub struct Case {
    pub id: String,
    pub about: &'static str,
    pub frames: Vec<Vec<u8>>,
    pub want: Vec<Want>,
    pub library: Library,
}

impl Case {
    pub fn new(id: impl Into<String>, about: &'static str, frames: Vec<Vec<u8>>, want: Vec<Want>) -> Self {
        Self { id: id.into(), about, frames, want, library: Library::Same }
    }

    pub fn library(self, library: Library) -> Self {
        Self { library, ..self }
    }
}

/// A client's frame, masked by a key that its content chooses.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = head(first, payload.len());
    let sum = payload.iter().fold(u32::from(first), |sum, byte| sum.rotate_left(5) ^ u32::from(*byte));
    let mask = (sum.wrapping_mul(2_654_435_761) | 0x0100_0001).to_be_bytes();
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// The head of a masked frame without its mask. The length has its shortest encoding.
pub fn head(first: u8, length: usize) -> Vec<u8> {
    let mut out = vec![first];
    match length {
        ..126 => out.push(0x80 | u8::try_from(length).unwrap()),
        126..65_536 => {
            out.push(0xFE);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            out.push(0xFF);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out
}

/// A whole text message.
pub fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// The frames of a message that is sent in fragments with these payloads.
pub fn fragments<'a>(opcode: u8, parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let parts: Vec<&[u8]> = parts.into_iter().collect();
    let last = parts.len() - 1;
    let first = |at: usize| (if at == 0 { opcode } else { 0 }) | (if at == last { 0x80 } else { 0 });
    parts.iter().enumerate().map(|(at, part)| frame(first(at), part)).collect()
}

/// An event that the server must acknowledge with the event's own argument.
pub fn ask(argument: &str) -> String {
    format!(r#"421["e","{argument}"]"#)
}

/// The expected acknowledgement of an event made by [`ask`].
pub fn told(argument: &str) -> Want {
    Want::Text(format!(r#"431["{argument}"]"#))
}

/// The text frame of an event with one attachment.
pub const ASK_BINARY: &str = r#"451-1["e",{"_placeholder":true,"num":0}]"#;

/// The expected acknowledgement of [`ASK_BINARY`] with this attachment: a text frame and a binary frame.
pub fn told_binary(payload: &[u8]) -> [Want; 2] {
    let text = r#"461-1[{"_placeholder":true,"num":0}]"#;
    [Want::Text(text.into()), Want::Binary(payload.to_vec())]
}

/// The frame of an event that a client sends after the end of the connection, and that must not be answered.
pub fn too_late() -> Vec<u8> {
    text(&ask(FORBIDDEN))
}

/// Reads the server's first frame. Returns the frame and its length in bytes.
pub fn read(bytes: &[u8]) -> Option<(Want, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, at) = match second {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let payload = bytes.get(at..at + length)?.to_vec();
    let want = match (first, second) {
        (_, 128..) => Want::Wrong(second),
        (0x81, _) => Want::Text(String::from_utf8(payload).expect("text is UTF-8")),
        (0x82, _) => Want::Binary(payload),
        (0xC1, _) => Want::Text(String::from_utf8(inflate(&payload)).expect("text is UTF-8")),
        (0xC2, _) => Want::Binary(inflate(&payload)),
        (0x8A, _) => Want::Pong(payload),
        (0x88, _) => Want::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
        (other, _) => Want::Wrong(other),
    };
    Some((want, at + length))
}

/// Decompresses the payload of a message (RFC 7692, 7.2.2).
fn inflate(payload: &[u8]) -> Vec<u8> {
    let mut inflate = flate2::Decompress::new(false);
    let mut out = Vec::with_capacity(2 << 20);
    inflate.decompress_vec(&[payload, &[0, 0, 0xFF, 0xFF]].concat(), &mut out, flate2::FlushDecompress::Sync).unwrap();
    assert!(out.len() < out.capacity());
    out
}
