//! Long-polling payloads: the bodies that clients post, and the answers to polls.
//!
//! On every transport, a packet is queued as WebSocket frames. For a poll, a text message is taken out of its frame
//! without copying. A binary message becomes text: `b` and its base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};

use super::frame;

/// The byte that separates two messages of a payload.
const SEPARATOR: u8 = 0x1e;

/// The payload that ends a poll when nothing is queued.
pub const NOOP: Bytes = Bytes::from_static(b"6");

/// Iterates over the messages of a posted payload. It only splits them and does not validate them.
#[derive(Debug)]
pub struct Posted {
    body: Bytes,
    ended: bool,
}

impl Posted {
    /// Splits this body.
    pub const fn new(body: Bytes) -> Self {
        Self { body, ended: false }
    }
}

impl Iterator for Posted {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let Some(end) = memchr::memchr(SEPARATOR, &self.body) else {
            self.ended = true;
            return Some(std::mem::take(&mut self.body));
        };
        let message = self.body.split_to(end);
        let _ = self.body.split_to(1);
        Some(message)
    }
}

/// Encodes packets as one payload.
pub fn payload(packets: &[Bytes]) -> Bytes {
    if let [only] = packets
        && let Some(text) = frame::only_text(only)
    {
        return text;
    }
    let mut out = BytesMut::with_capacity(packets.iter().map(|packet| packet.len() + 1).sum());
    for (text, message) in packets.iter().flat_map(|packet| frame::messages(packet)) {
        if !out.is_empty() {
            out.put_u8(SEPARATOR);
        }
        if text {
            out.put_slice(message);
        } else {
            out.put_slice(base64(message).as_bytes());
        }
    }
    out.freeze()
}

/// Converts the binary messages of a packet to base64, for polling clients. The result can be shared by all of them.
pub fn to_polling(packet: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(packet.len() / 3 * 4 + 16);
    for (text, message) in frame::messages(packet) {
        if text {
            frame::put_message(&mut out, true, &[message], None);
        } else {
            frame::put_message(&mut out, true, &[base64(message).as_bytes()], None);
        }
    }
    out.freeze()
}

/// Reverses [`to_polling`], for a client that no longer polls. Other packets are returned unchanged.
pub fn from_polling(packet: &Bytes) -> Bytes {
    if !frame::messages(packet).any(|(text, message)| text && message.first() == Some(&b'b')) {
        return packet.clone();
    }
    let mut out = BytesMut::with_capacity(packet.len());
    for (text, message) in frame::messages(packet) {
        match message.split_first().filter(|(first, _)| text && **first == b'b') {
            // A text that begins with `b` but is not base64 was not made by [`polled`].
            Some((_, encoded)) => match STANDARD.decode(encoded) {
                Ok(bytes) => frame::put_message(&mut out, false, &[&bytes], None),
                Err(_) => frame::put_message(&mut out, true, &[message], None),
            },
            None => frame::put_message(&mut out, text, &[message], None),
        }
    }
    out.freeze()
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 3 * 4 + 5);
    text.push('b');
    STANDARD.encode_string(bytes, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn posted(body: &'static str) -> Vec<Bytes> {
        Posted::new(Bytes::from_static(body.as_bytes())).collect()
    }

    fn packet(messages: &[(bool, &[u8])]) -> Bytes {
        let mut out = BytesMut::new();
        messages.iter().for_each(|(text, message)| frame::put_message(&mut out, *text, &[message], None));
        out.freeze()
    }

    #[test]
    fn a_body_is_split_at_every_separator() {
        assert_eq!(posted("4a\x1e4b\x1e3"), ["4a", "4b", "3"]);
        assert_eq!(posted("4a"), ["4a"]);
        assert_eq!(posted(""), [""], "an empty body is one empty message, which is malformed");
        assert_eq!(posted("\x1e"), ["", ""]);
    }

    #[test]
    fn packets_become_a_payload_and_a_single_text_is_not_copied() {
        let one = packet(&[(true, b"42[1]")]);
        let text = payload(std::slice::from_ref(&one));
        assert_eq!(text, "42[1]");
        assert_eq!(text.as_ptr(), one[2..].as_ptr());
        let binary = packet(&[(true, b"451-[]"), (false, &[1, 2, 3, 4])]);
        assert_eq!(payload(&[one, binary.clone()]), "42[1]\x1e451-[]\x1ebAQIDBA==");
        assert_eq!(payload(&[to_polling(&binary)]), "451-[]\x1ebAQIDBA==");
        assert_eq!(payload(&[]), "");
    }

    proptest! {
        #[test]
        fn a_polled_packet_is_the_same_payload_and_goes_back(
            messages in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200)), 1..5),
        ) {
            let messages: Vec<(bool, Vec<u8>)> = messages.into_iter().map(|(text, bytes)| match text {
                true => (true, [b"4".to_vec(), b"x".repeat(bytes.len())].concat()),
                false => (false, bytes),
            }).collect();
            let packet = packet(&messages.iter().map(|(text, bytes)| (*text, &**bytes)).collect::<Vec<_>>());
            prop_assert_eq!(payload(&[to_polling(&packet)]), payload(std::slice::from_ref(&packet)));
            prop_assert_eq!(from_polling(&to_polling(&packet)), packet);
        }

        #[test]
        fn any_body_is_split_without_a_loss(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let messages: Vec<Bytes> = Posted::new(body.clone().into()).collect();
            prop_assert_eq!(messages.join(&SEPARATOR), body);
        }
    }
}
