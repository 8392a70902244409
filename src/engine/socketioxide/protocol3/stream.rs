//! Translates packets on a WebSocket. It lies between the library and the connection, and looks only at the first bytes
//! of each frame.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::packet::{self, MAX_TRANSLATED};
use crate::engine::native::frame;

/// The size of one read in bytes.
const READ: usize = 1024;

/// The first byte of a frame that is a whole text message: FIN, and the opcode 1.
const WHOLE_TEXT: u8 = 0x81;

/// The bit of a frame's second byte that says that the payload is masked.
const MASKED: u8 = 0x80;

/// A WebSocket's connection, on which packets are translated.
pub struct Translated<S> {
    stream: S,
    received: Frames,
    sent: Frames,
    /// Translated bytes that the library has not read yet.
    incoming: BytesMut,
    /// Translated bytes of the library's last write that the stream has not taken yet.
    outgoing: BytesMut,
}

impl<S> Translated<S> {
    /// Wraps the connection of a client of Engine.IO 3.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            received: Frames::new(packet::CONNECT, packet::from_client),
            sent: Frames::new(packet::ERROR, packet::to_client),
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Translated<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.incoming.is_empty() {
            let mut space = [MaybeUninit::uninit(); READ];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.received.pass(read.filled(), &mut this.incoming);
        }
        let taken = this.incoming.len().min(buffer.remaining());
        buffer.put_slice(&this.incoming[..taken]);
        advance(&mut this.incoming, taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Translated<S> {
    /// Writes the translated bytes that wait.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            advance(&mut self.outgoing, written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Translated<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        this.sent.pass(bytes, &mut this.outgoing);
        // The next write or flush writes the bytes that the stream does not take now.
        let _ = this.poll_drain(cx)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// Removes bytes from the start of the buffer. An empty buffer frees its memory, because most connections are idle.
fn advance(buffer: &mut BytesMut, bytes: usize) {
    buffer.advance(bytes);
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}

/// The WebSocket frames of one direction.
struct Frames {
    /// Only packets that begin with this text are translated.
    begin: &'static str,
    translate: fn(&str) -> Option<String>,
    /// The bytes of a frame whose packet may have to be translated.
    held: Vec<u8>,
    /// How many bytes of the current frame still pass unchanged.
    passing: u64,
}

/// A frame's head.
struct Head {
    is_text: bool,
    mask: Option<[u8; 4]>,
    length: usize,
    payload: u64,
}

/// The next step for a frame whose first bytes are held.
enum Decision {
    /// This many more bytes are needed to decide whether the frame is translated.
    Need(usize),
    /// The frame, of this many bytes, passes unchanged.
    Pass(u64),
    /// The whole frame is held, and its packet may have to be translated.
    Translate(Head),
}

impl Frames {
    fn new(begin: &'static str, translate: fn(&str) -> Option<String>) -> Self {
        Self { begin, translate, held: Vec::new(), passing: 0 }
    }

    /// Appends the next bytes to `out`, with their packets translated.
    fn pass(&mut self, mut bytes: &[u8], out: &mut BytesMut) {
        while !bytes.is_empty() {
            if self.passing > 0 {
                let most = usize::try_from(self.passing).unwrap_or(usize::MAX);
                let (now, rest) = bytes.split_at(most.min(bytes.len()));
                out.extend_from_slice(now);
                self.passing -= now.len() as u64;
                bytes = rest;
                continue;
            }
            match self.decide() {
                Decision::Need(more) => {
                    let (now, rest) = bytes.split_at(more.min(bytes.len()));
                    self.held.extend_from_slice(now);
                    bytes = rest;
                }
                decided => self.release(&decided, out),
            }
        }
        // A frame without a payload is complete with its head.
        if self.passing == 0
            && let decided @ (Decision::Pass(_) | Decision::Translate(_)) = self.decide()
        {
            self.release(&decided, out);
        }
    }

    /// Appends the held bytes to `out`.
    fn release(&mut self, decision: &Decision, out: &mut BytesMut) {
        let held = std::mem::take(&mut self.held);
        match decision {
            Decision::Need(_) => self.held = held,
            Decision::Pass(length) => {
                self.passing = length.saturating_sub(held.len() as u64);
                out.extend_from_slice(&held);
            }
            Decision::Translate(head) => {
                let packet = head.unmasked(&held[head.length..]);
                match std::str::from_utf8(&packet).ok().and_then(self.translate) {
                    Some(packet) => out.extend_from_slice(&text_frame(&packet, head.mask.is_some())),
                    None => out.extend_from_slice(&held),
                }
            }
        }
    }

    fn decide(&self) -> Decision {
        let head = match Head::read(&self.held) {
            Ok(head) => head,
            Err(more) => return Decision::Need(more),
        };
        let whole = head.payload.saturating_add(head.length as u64);
        let payload = usize::try_from(head.payload).unwrap_or(usize::MAX);
        if !head.is_text || payload < self.begin.len() || payload > MAX_TRANSLATED {
            return Decision::Pass(whole);
        }
        let (held, begin) = (self.held.len() - head.length, self.begin.len());
        if held < begin {
            return Decision::Need(begin - held);
        }
        if head.unmasked(&self.held[head.length..][..begin]) != self.begin.as_bytes() {
            return Decision::Pass(whole);
        }
        if held < payload { Decision::Need(payload - held) } else { Decision::Translate(head) }
    }
}

impl Head {
    /// Reads a frame's head. `Err`: at least this many more bytes are needed.
    fn read(bytes: &[u8]) -> Result<Self, usize> {
        let &[first, second, ref rest @ ..] = bytes else { return Err(2 - bytes.len()) };
        let extended: usize = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = second & MASKED != 0;
        let mask_length = if masked { 4 } else { 0 };
        let missing = (extended + mask_length).saturating_sub(rest.len());
        if missing > 0 {
            return Err(missing);
        }
        let (length, rest) = rest.split_at(extended);
        let payload = match extended {
            0 => u64::from(second & !MASKED),
            _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let mask = masked.then(|| [rest[0], rest[1], rest[2], rest[3]]);
        let length = 2 + extended + mask_length;
        Ok(Self { is_text: first == WHOLE_TEXT, mask, length, payload })
    }

    fn unmasked(&self, payload: &[u8]) -> Vec<u8> {
        let mask = self.mask.unwrap_or_default();
        payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
    }
}

/// A text frame. Frames for the library must be masked; the mask is zero, so that it changes nothing.
fn text_frame(text: &str, masked: bool) -> Vec<u8> {
    let mut frame = frame::text(text).to_vec();
    if masked {
        frame[1] |= MASKED;
        let payload = frame.len() - text.len();
        frame.splice(payload..payload, [0; 4]);
    }
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Writes a frame as a client writes it.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [7, 200, 3, 99];
        let mut frame = text_frame(&"x".repeat(payload.len()), true);
        frame[0] = first;
        let at = frame.len() - payload.len();
        frame[at - 4..at].copy_from_slice(&mask);
        for (index, byte) in payload.iter().enumerate() {
            frame[at + index] = byte ^ mask[index % 4];
        }
        frame
    }

    fn from_client(bytes: &[u8], step: usize) -> Vec<u8> {
        let mut frames = Frames::new(packet::CONNECT, packet::from_client);
        let mut out = BytesMut::new();
        bytes.chunks(step).for_each(|chunk| frames.pass(chunk, &mut out));
        out.to_vec()
    }

    #[test]
    fn only_a_packet_with_a_query_is_changed() {
        let others: Vec<_> = [
            masked(WHOLE_TEXT, b"2probe"),
            masked(WHOLE_TEXT, b""),
            masked(0x82, b"40/chat?x=1,"),
            masked(0x01, b"40/chat?x=1,"),
            masked(0x89, b""),
            masked(WHOLE_TEXT, "42/chat,[\"40/?é\"]".repeat(9).as_bytes()),
            masked(WHOLE_TEXT, &[b"40/chat?x=".as_slice(), &[b'y'; MAX_TRANSLATED]].concat()),
            masked(WHOLE_TEXT, &vec![b'z'; 70_000]),
            masked(WHOLE_TEXT, b"40/\xff?x=1,"),
        ]
        .concat();
        let connect = masked(WHOLE_TEXT, b"40/chat?token=abc,");
        let translated = text_frame(r#"40/chat,{"token":"abc"}"#, true);
        let given = [&others[..], &connect, &others].concat();
        let expected = [&others[..], &translated, &others].concat();
        for step in [1, 2, 3, 7, 1024, given.len()] {
            assert!(from_client(&given, step) == expected, "in steps of {step} bytes");
        }
    }

    #[test]
    fn a_frame_is_passed_on_as_soon_as_it_is_complete() {
        for frame in [masked(0x89, b""), masked(WHOLE_TEXT, b"2"), masked(WHOLE_TEXT, b"40/chat,")] {
            assert_eq!(from_client(&frame, frame.len()), frame);
            assert_eq!(from_client(&frame, 1), frame);
        }
    }

    #[tokio::test]
    async fn a_refusal_is_changed_on_its_way_to_the_client() {
        let (ours, mut client) = tokio::io::duplex(16);
        let mut ours = Translated::new(ours);
        let message = "long ".repeat(40);
        let refusal = text_frame(&format!(r#"44/chat,{{"message":"{message}"}}"#), false);
        let event = text_frame(r#"42["a"]"#, false);
        let sending = tokio::spawn(async move {
            ours.write_all(&refusal).await.unwrap();
            ours.write_all(&event).await.unwrap();
            ours.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        sending.await.unwrap();
        let expected = [text_frame(&format!(r#"44/chat,"{message}""#), false), text_frame(r#"42["a"]"#, false)];
        assert_eq!(got, expected.concat());
    }

    #[tokio::test]
    async fn a_packet_is_changed_on_its_way_to_the_library() {
        let (ours, mut client) = tokio::io::duplex(64);
        client.write_all(&masked(WHOLE_TEXT, b"40/chat?a=b,")).await.unwrap();
        drop(client);
        let mut got = Vec::new();
        Translated::new(ours).read_to_end(&mut got).await.unwrap();
        assert_eq!(got, text_frame(r#"40/chat,{"a":"b"}"#, true));
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_frames_pass(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1_usize..50) {
            let out = from_client(&bytes, step);
            prop_assert!(out.len() <= bytes.len() + 64);
        }
    }
}
