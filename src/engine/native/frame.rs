//! WebSocket frames (RFC 6455): reads the frames of clients, and writes the frames of this node.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use super::deflate::{Deflate, inflate};
pub use super::violation::Violation;

/// The maximum length of a control frame's payload, in bytes (RFC 6455, 5.5).
const MAX_CONTROL: usize = 125;

/// The maximum length of a frame's head: 2 bytes, 8 bytes of length and 4 bytes of mask.
const MAX_HEAD: usize = 14;

/// The reserved bit that marks a compressed message (RFC 7692, 6).
const RSV1: u8 = 0x40;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// The result of reading one frame.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameProgress<'a> {
    /// The frame is not complete. At least this many more bytes are needed.
    More(usize),
    /// A frame with a fragment of a message that is not complete. The reader keeps it.
    Fragment,
    /// A text message.
    Text(Cow<'a, str>),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping. It must be answered with a pong that has this payload.
    Ping(&'a [u8]),
    /// A pong, which needs no answer.
    Pong,
    /// The client closes the connection, perhaps with a code.
    Close(Option<u16>),
}

/// Reads a client's frames. Keeps the fragments of an incomplete message.
#[derive(Debug)]
pub struct FrameReader {
    max_payload: usize,
    /// Whether compression was negotiated.
    deflate: bool,
    message: Option<Box<PartialMessage>>,
}

#[derive(Debug)]
struct PartialMessage {
    text: bool,
    deflated: bool,
    payload: Vec<u8>,
    /// The number of bytes that are known to be valid UTF-8.
    checked: usize,
}

/// A frame's head.
struct FrameHead {
    fin: bool,
    deflated: bool,
    opcode: u8,
    mask: [u8; 4],
    payload: usize,
    length: usize,
}

impl FrameReader {
    /// Creates a reader for messages of at most `max_payload` bytes.
    pub fn new(max_payload: usize) -> Self {
        Self { max_payload, deflate: false, message: None }
    }

    /// Sets whether the client has negotiated permessage-deflate.
    #[must_use]
    pub fn inflating(self, deflate: bool) -> Self {
        Self { deflate, ..self }
    }

    /// Reads one frame from the start of `bytes`, and unmasks it in place. Returns the frame's length in bytes.
    ///
    /// # Errors
    ///
    /// See [`Violation`]. After an error, the reader must not be used again.
    pub fn step<'a>(&mut self, bytes: &'a mut [u8]) -> Result<(usize, FrameProgress<'a>), Violation> {
        let Some(head) = self.head(bytes)? else {
            return Ok((0, FrameProgress::More(missing_head(bytes))));
        };
        let used = head.length + head.payload;
        if bytes.len() < used {
            return Ok((0, FrameProgress::More(used - bytes.len())));
        }
        let payload = &mut bytes[head.length..used];
        unmask(payload, head.mask);
        let step = match head.opcode {
            CONTINUATION | TEXT | BINARY => self.data(&head, payload)?,
            PING => FrameProgress::Ping(payload),
            PONG => FrameProgress::Pong,
            _ => FrameProgress::Close(close_code(payload)?),
        };
        Ok((used, step))
    }

    fn data<'a>(&mut self, head: &FrameHead, payload: &'a [u8]) -> Result<FrameProgress<'a>, Violation> {
        if head.opcode != CONTINUATION {
            let text = head.opcode == TEXT;
            if head.fin {
                return self.finish(text, head.deflated, Cow::Borrowed(payload));
            }
            let mut message =
                Box::new(PartialMessage { text, deflated: head.deflated, payload: payload.to_vec(), checked: 0 });
            message.check()?;
            self.message = Some(message);
            return Ok(FrameProgress::Fragment);
        }
        let message = self.message.as_mut().ok_or(Violation::Fragments)?;
        message.payload.extend_from_slice(payload);
        if !head.fin {
            message.check()?;
            return Ok(FrameProgress::Fragment);
        }
        let message = self.message.take().ok_or(Violation::Fragments)?;
        self.finish(message.text, message.deflated, Cow::Owned(message.payload))
    }

    fn finish<'a>(&self, text: bool, deflated: bool, payload: Cow<'a, [u8]>) -> Result<FrameProgress<'a>, Violation> {
        if deflated { finish(text, Cow::Owned(inflate(&payload, self.max_payload)?)) } else { finish(text, payload) }
    }

    /// Reads a frame's head, and checks each part as soon as its bytes are there. Returns `None` if more bytes are
    /// needed.
    fn head(&self, bytes: &[u8]) -> Result<Option<FrameHead>, Violation> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0F);
        // Only the first frame of a message is marked as compressed (RFC 7692, 6).
        let deflated = first & 0x70 == RSV1 && self.deflate && matches!(opcode, TEXT | BINARY);
        if first & 0x70 != 0 && !deflated {
            return Err(Violation::ReservedBit);
        }
        let control = opcode >= CLOSE;
        match opcode {
            CONTINUATION if self.message.is_none() => return Err(Violation::Fragments),
            TEXT | BINARY if self.message.is_some() => return Err(Violation::Fragments),
            CONTINUATION | TEXT | BINARY => {}
            CLOSE | PING | PONG if fin => {}
            CLOSE | PING | PONG => return Err(Violation::Control),
            _ => return Err(Violation::Opcode),
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        if control && usize::from(second & 0x7F) > MAX_CONTROL {
            return Err(Violation::Control);
        }
        let Some((payload, at)) = length(bytes, second & 0x7F)? else { return Ok(None) };
        let kept = if control { 0 } else { self.message.as_ref().map_or(0, |message| message.payload.len()) };
        let payload = usize::try_from(payload).map_err(|_| Violation::TooLarge)?;
        if !control && payload > self.max_payload.saturating_sub(kept) {
            return Err(Violation::TooLarge);
        }
        let Some(mask) = bytes.get(at..at + 4).and_then(|mask| mask.try_into().ok()) else { return Ok(None) };
        Ok(Some(FrameHead { fin, deflated, opcode, mask, payload, length: at + 4 }))
    }
}

impl PartialMessage {
    /// Refuses text that is certainly not UTF-8 before the rest of the message arrives.
    fn check(&mut self) -> Result<(), Violation> {
        if !self.text || self.deflated {
            return Ok(());
        }
        match std::str::from_utf8(&self.payload[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Violation::Utf8),
        }
        Ok(())
    }
}

/// Reads the payload's length, and returns it with the position after it. The shortest form is required (RFC 6455,
/// 5.2).
fn length(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, Violation> {
    let (length, at, least) = match short {
        126 => {
            let Some(&[a, b]) = bytes.get(2..4).and_then(|bytes| bytes.first_chunk()) else { return Ok(None) };
            (u64::from(u16::from_be_bytes([a, b])), 4, 126)
        }
        127 => {
            let Some(long) = bytes.get(2..10).and_then(|bytes| bytes.first_chunk()) else { return Ok(None) };
            (u64::from_be_bytes(*long), 10, 65_536)
        }
        short => (u64::from(short), 2, 0),
    };
    if length < least || length >> 63 != 0 {
        return Err(Violation::Length);
    }
    Ok(Some((length, at)))
}

/// Returns the minimum number of bytes that are missing from a head.
fn missing_head(bytes: &[u8]) -> usize {
    let whole = match bytes.get(1).map_or(0, |second| second & 0x7F) {
        126 => 8,
        127 => MAX_HEAD,
        _ => 6,
    };
    whole - bytes.len().min(whole - 1)
}

/// Unmasks eight bytes at a time. The compiler vectorizes this further.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn finish(text: bool, payload: Cow<'_, [u8]>) -> Result<FrameProgress<'_>, Violation> {
    if !text {
        return Ok(FrameProgress::Binary(payload));
    }
    let text = match payload {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Violation::Utf8)?,
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Violation::Utf8)?,
    };
    Ok(FrameProgress::Text(text))
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::CloseCode),
        [a, b, reason @ ..] => (u16::from_be_bytes([*a, *b]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::CloseCode);
    }
    std::str::from_utf8(reason).map_err(|_| Violation::Utf8)?;
    Ok(Some(code))
}

// === outgoing frames: never masked, never fragmented ===

/// Writes a message whose payload is the concatenation of `parts`. The message is compressed if `deflate` is set and
/// compression makes it shorter.
pub fn put_message(out: &mut BytesMut, text: bool, parts: &[&[u8]], deflate: Option<&Deflate>) {
    let opcode = if text { TEXT } else { BINARY };
    if let Some(small) = deflate.and_then(|deflate| deflate.compress(parts)) {
        put_head(out, RSV1 | opcode, small.len());
        out.put_slice(&small);
        return;
    }
    put_head(out, opcode, parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.put_slice(part));
}

/// Returns the length of a frame with this payload length, in bytes.
pub const fn framed_length(payload: usize) -> usize {
    payload
        + match payload {
            ..126 => 2,
            126..65_536 => 4,
            _ => 10,
        }
}

/// Writes the frame of a text message.
pub fn text(payload: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(framed_length(payload.len()));
    put_head(&mut out, TEXT, payload.len());
    out.put_slice(payload.as_bytes());
    out.freeze()
}

/// Writes a pong with the payload of a ping, which has at most 125 bytes.
pub fn pong(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(framed_length(payload.len()));
    put_head(&mut out, PONG, payload.len());
    out.put_slice(payload);
    out.freeze()
}

/// Whether an outgoing frame is a pong.
pub fn is_pong(frame: &[u8]) -> bool {
    frame.first() == Some(&(0x80 | PONG))
}

/// Writes a close frame, with a code if a code is given.
pub fn close(code: Option<u16>) -> Bytes {
    let mut out = BytesMut::with_capacity(4);
    put_head(&mut out, CLOSE, if code.is_some() { 2 } else { 0 });
    if let Some(code) = code {
        out.put_u16(code);
    }
    out.freeze()
}

/// Iterates over the messages in frames that this node has written without compression. Yields whether each is text,
/// and its payload. Skips control frames.
pub fn messages(frames: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    let mut rest = frames;
    std::iter::from_fn(move || {
        loop {
            let (&first, &second) = (rest.first()?, rest.get(1)?);
            let (length, at) = length(rest, second & 0x7F).ok()??;
            let end = at.checked_add(usize::try_from(length).ok()?)?;
            let payload = rest.get(at..end)?;
            rest = &rest[end..];
            match first & 0x0F {
                TEXT => return Some((true, payload)),
                BINARY => return Some((false, payload)),
                _ => {}
            }
        }
    })
}

/// The text of a packet that consists of one text message. It is not copied.
pub fn only_text(packet: &Bytes) -> Option<Bytes> {
    let mut messages = messages(packet);
    let (text, message) = messages.next()?;
    (text && messages.next().is_none()).then(|| packet.slice_ref(message))
}

#[expect(clippy::cast_possible_truncation, reason = "each arm says how large it is")]
fn put_head(out: &mut BytesMut, opcode: u8, length: usize) {
    out.put_u8(0x80 | opcode);
    match length {
        ..126 => out.put_u8(length as u8),
        126..65_536 => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
}

#[cfg(test)]
mod tests;
