//! A minimal WebSocket client: sends and receives short text frames.

use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Maximum length of a frame, in bytes. A longer frame is an error.
const LONGEST: u64 = 64 * 1024;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;

/// The next event on a WebSocket connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FrameEvent {
    /// A text frame.
    Text(String),
    /// The connection ended, with the close code if there was one.
    End(Option<u16>),
    /// Neither a text frame nor the end of the connection arrived within the caller's time.
    Silence,
}

/// A WebSocket connection after its upgrade.
pub(super) struct FrameClient<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> FrameClient<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Sends a text frame.
    pub(super) async fn send(&mut self, text: &str) -> std::io::Result<()> {
        let mut frame = BytesMut::with_capacity(text.len() + 14);
        frame.put_u8(0x80 | TEXT);
        match text.len() {
            len @ 0..=125 => frame.put_u8(0x80 | u8::try_from(len).unwrap_or(0)),
            len @ 126..=0xffff => {
                frame.put_u8(0x80 | 126);
                frame.put_u16(u16::try_from(len).unwrap_or(0));
            }
            len => {
                frame.put_u8(0x80 | 127);
                frame.put_u64(len as u64);
            }
        }
        // The mask is all zeros, which is permitted. Masks protect caches against chosen bytes; these bytes are
        // harmless.
        frame.put_u32(0);
        frame.put_slice(text.as_bytes());
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    /// Waits at most `within` for the next text or the end of the connection.
    pub(super) async fn next(&mut self, within: Duration) -> FrameEvent {
        let until = Instant::now() + within;
        loop {
            match self.take() {
                Some((TEXT, body)) => return FrameEvent::Text(String::from_utf8_lossy(&body).into_owned()),
                Some((CLOSE, body)) => {
                    return FrameEvent::End(body.first_chunk().map(|code| u16::from_be_bytes(*code)));
                }
                // Frames of all other kinds are ignored. A node sends no WebSocket pings; a proxy that does would not
                // miss an answer within so short a time.
                Some((PING, _)) | Some(_) => continue,
                None => {}
            }
            if self.declared().is_some_and(|length| length > LONGEST) {
                return FrameEvent::End(None);
            }
            let left = until.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.stream.read_buf(&mut self.buffer)).await {
                Err(_) => return FrameEvent::Silence,
                Ok(Ok(0) | Err(_)) => return FrameEvent::End(None),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// The length that the first frame in the buffer declares, once it can be read.
    fn declared(&self) -> Option<u64> {
        match (self.buffer.get(1)? & 0x7f, self.buffer.get(2..)?) {
            (126, rest) => rest.first_chunk().map(|length| u64::from(u16::from_be_bytes(*length))),
            (127, rest) => rest.first_chunk().map(|length| u64::from_be_bytes(*length)),
            (length, _) => Some(u64::from(length)),
        }
    }

    /// Removes the first frame from the buffer, once it is complete.
    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let length = usize::try_from(self.declared()?).ok()?;
        let head: usize = match self.buffer[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        if self.buffer.len() < head.checked_add(length)? {
            return None;
        }
        let opcode = self.buffer[0] & 0x0f;
        self.buffer.advance(head);
        Some((opcode, self.buffer.split_to(length).to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn texts_come_whole_however_they_are_cut_and_the_end_has_a_code() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut frames = FrameClient::new(ours);
        let long = "x".repeat(300);
        let mut sent = vec![0x81, 1, b'2', 0x81, 126, 1, 44];
        sent.extend(long.as_bytes());
        sent.extend([0x88, 2, 3, 0xe8]);
        for part in sent.chunks(7) {
            theirs.write_all(part).await.unwrap();
        }
        let second = Duration::from_secs(1);
        assert_eq!(frames.next(second).await, FrameEvent::Text("2".into()));
        assert_eq!(frames.next(second).await, FrameEvent::Text(long));
        assert_eq!(frames.next(second).await, FrameEvent::End(Some(1000)));
        assert_eq!(frames.next(Duration::from_millis(1)).await, FrameEvent::Silence);
    }

    #[tokio::test]
    async fn a_frame_without_end_is_the_end() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(&[0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
        assert_eq!(FrameClient::new(ours).next(Duration::from_secs(1)).await, FrameEvent::End(None));
    }
}
