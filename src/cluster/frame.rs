//! The header of every message that a node publishes. With the header the other nodes detect messages that never
//! arrived.
//!
//! ```text
//! "rc" version:1 | incarnation:8 number:8 sent_at_us:8 | node: length:1 bytes | body
//! ```
//! Numbers are big-endian. A node that receives another version ignores the message and counts it. So nodes of two
//! versions can share a cluster during an upgrade; they miss each other's events, and the counter shows it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::formats::FRAME;

const MAGIC: &[u8; 2] = b"rc";
const VERSION: u8 = FRAME.version;
const FIXED: usize = MAGIC.len() + 1 + 3 * 8 + 1;

/// Maximum length of a node's id, in bytes.
pub const MAX_NODE_ID: usize = 255;

/// The sender of a message: the node's id, and a number that changes each time the node starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSender {
    /// The node's id.
    pub node: Arc<str>,
    /// The node's start time, in microseconds of Unix time. Tells the node's starts apart, because message numbers
    /// begin again at each start.
    pub incarnation: u64,
}

/// A message with its header.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// The sender.
    pub origin: FrameSender,
    /// The number of the message among all messages of this sender on this channel (see the module `numbers`). 0 means
    /// that the message has no number and receivers do not count it.
    pub number: u64,
    /// When the message was sent, by the sender's clock, in microseconds of Unix time.
    pub sent_at_us: u64,
    /// The content of the message.
    pub body: Bytes,
}

/// Why bytes cannot be read as a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A program that is not roomcast published the message.
    #[error("the message was not sent by a node")]
    Foreign,
    /// The frame has a version that this node does not know.
    #[error("the message has version {0}, but this node understands only {VERSION}")]
    Version(u8),
    /// The frame is cut off, or its content is invalid.
    #[error("the message is malformed")]
    Malformed,
}

impl Frame {
    /// Writes a frame. A node id of more than [`MAX_NODE_ID`] bytes is truncated.
    pub fn encode(origin: &FrameSender, number: u64, sent_at_us: u64, body: &[u8]) -> Bytes {
        let node = &origin.node.as_bytes()[..origin.node.len().min(MAX_NODE_ID)];
        let mut out = BytesMut::with_capacity(FIXED + node.len() + body.len());
        out.put_slice(MAGIC);
        out.put_u8(VERSION);
        out.put_u64(origin.incarnation);
        out.put_u64(number);
        out.put_u64(sent_at_us);
        out.put_u8(u8::try_from(node.len()).unwrap_or(u8::MAX));
        out.put_slice(node);
        out.put_slice(body);
        out.freeze()
    }

    /// Reads a frame. The body shares the memory of `bytes`.
    ///
    /// # Errors
    /// Returns a [`FrameError`] that says why the bytes are no frame.
    pub fn decode(mut bytes: Bytes) -> Result<Self, FrameError> {
        if !bytes.starts_with(MAGIC) {
            return Err(FrameError::Foreign);
        }
        bytes.advance(MAGIC.len());
        match bytes.try_get_u8() {
            Ok(VERSION) => {}
            Ok(version) => return Err(FrameError::Version(version)),
            Err(_) => return Err(FrameError::Malformed),
        }
        let mut number = || bytes.try_get_u64().map_err(|_| FrameError::Malformed);
        let (incarnation, counted, sent_at_us) = (number()?, number()?, number()?);
        let length = usize::from(bytes.try_get_u8().map_err(|_| FrameError::Malformed)?);
        if bytes.len() < length {
            return Err(FrameError::Malformed);
        }
        let node = bytes.split_to(length);
        let node = std::str::from_utf8(&node).map_err(|_| FrameError::Malformed)?.into();
        Ok(Self { origin: FrameSender { node, incarnation }, number: counted, sent_at_us, body: bytes })
    }

    /// How long the sender had been running when the sender sent the frame, by the sender's clock.
    pub fn uptime(&self) -> Duration {
        Duration::from_micros(self.sent_at_us.saturating_sub(self.origin.incarnation))
    }

    /// How long ago the frame was sent. Zero if the sender's clock is ahead.
    pub fn age(&self) -> Duration {
        Duration::from_micros(now_us().saturating_sub(self.sent_at_us))
    }
}

/// Unix time in microseconds.
pub(super) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::frozen;

    fn origin() -> FrameSender {
        FrameSender { node: "node-a".into(), incarnation: 7 }
    }

    #[test]
    fn frame_survives_the_wire() {
        let bytes = Frame::encode(&origin(), 3, 99, b"body");
        let frame = Frame::decode(bytes).unwrap();
        let expected = Frame { origin: origin(), number: 3, sent_at_us: 99, body: Bytes::from_static(b"body") };
        assert_eq!(frame, expected);
    }

    #[test]
    fn header_is_the_frozen_one() {
        let frozen = frozen::check(&FRAME, "header", &Frame::encode(&origin(), 3, 99, b"body"));
        let expected = Frame { origin: origin(), number: 3, sent_at_us: 99, body: Bytes::from_static(b"body") };
        assert_eq!(Frame::decode(frozen.into()).unwrap(), expected);
    }

    #[test]
    fn every_cut_is_an_error_and_no_panic() {
        let bytes = Frame::encode(&origin(), 3, 99, b"");
        for length in 0..bytes.len() {
            assert!(Frame::decode(bytes.slice(..length)).is_err(), "{length}");
        }
    }

    #[test]
    fn other_versions_and_strangers_are_told_apart() {
        assert_eq!(Frame::decode(Bytes::from_static(b"rc\x09rest")), Err(FrameError::Version(9)));
        assert_eq!(Frame::decode(Bytes::from_static(b"\x96abc")), Err(FrameError::Foreign));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut framed = b"rc\x02".to_vec();
            framed.extend(&bytes);
            let _ = Frame::decode(bytes.into());
            let _ = Frame::decode(framed.into());
        }
    }
}
