//! The payloads of polling in Engine.IO 3. Each packet follows its length: `6:4hello2:2x`. The length counts UTF-16
//! code units, because JavaScript does.
//!
//! A browser sends a payload with binary data in another framing: a byte 0 (text) or 1 (binary), the digits of the
//! length as bytes, the byte 255, and the packet.

use bytes::Bytes;

use super::packet;

/// The byte that ends a length in binary framing.
const END_OF_LENGTH: u8 = 0xff;

/// The maximum number of digits of a length.
const MAX_DIGITS: usize = 10;

/// Writes a packet with its length before it.
pub fn with_length(packet: &str) -> String {
    format!("{}:{packet}", packet.encode_utf16().count())
}

/// Translates a client's payload. A payload that cannot be read stays as it is, and the library refuses it.
pub(super) fn from_client(payload: Bytes) -> Bytes {
    if contains(&payload, packet::CONNECT) { translated(payload, packet::from_client) } else { payload }
}

/// Translates a client's payload with binary framing.
pub(super) fn from_client_framed(payload: Bytes) -> Bytes {
    if !contains(&payload, packet::CONNECT) {
        return payload;
    }
    match frames(&payload) {
        Some(frames) => frames.concat().into(),
        None => payload,
    }
}

/// Translates a payload of the library. The library's answer is empty if the session ends during the poll; the client
/// then gets the close packet.
pub(super) fn to_client(payload: Bytes) -> Bytes {
    if payload.is_empty() { super::CLOSE.into() } else { translated(payload, packet::to_client) }
}

fn contains(payload: &[u8], text: &str) -> bool {
    memchr::memmem::find(payload, text.as_bytes()).is_some()
}

fn translated(payload: Bytes, translate: fn(&str) -> Option<String>) -> Bytes {
    let Some(packets) = std::str::from_utf8(&payload).ok().and_then(packets) else { return payload };
    let translations: Vec<_> = packets.iter().map(|packet| translate(packet)).collect();
    if translations.iter().all(Option::is_none) {
        return payload;
    }
    let pairs = packets.iter().zip(&translations);
    let written = pairs.map(|(packet, translation)| with_length(translation.as_deref().unwrap_or(packet)));
    written.collect::<String>().into()
}

/// The packets of a payload. `None`: it is malformed.
fn packets(mut payload: &str) -> Option<Vec<&str>> {
    let mut packets = Vec::new();
    while !payload.is_empty() {
        let (length, rest) = payload.split_once(':')?;
        let (packet, rest) = rest.split_at(utf16_offset(rest, length.parse().ok()?)?);
        packets.push(packet);
        payload = rest;
    }
    Some(packets)
}

/// Returns the position in bytes after this many UTF-16 code units.
fn utf16_offset(text: &str, units: usize) -> Option<usize> {
    let mut left = units;
    for (at, c) in text.char_indices() {
        if left == 0 {
            return Some(at);
        }
        left = left.checked_sub(c.len_utf16())?;
    }
    (left == 0).then_some(text.len())
}

/// The translated frames of a payload with binary framing. `None`: it is malformed.
fn frames(mut payload: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    while let Some((kind, rest)) = payload.split_first() {
        let end = rest.iter().take(MAX_DIGITS + 1).position(|byte| *byte == END_OF_LENGTH)?;
        let is_digit = |byte: &u8| *byte < 10;
        let digits = rest[..end].iter().take_while(|byte| is_digit(byte)).count();
        let length = rest[..end].iter().fold(0_usize, |sum, digit| sum.saturating_mul(10) + usize::from(*digit));
        let packet = rest.get(end + 1..)?.get(..length).filter(|_| digits == end && end > 0)?;
        let text = std::str::from_utf8(packet).ok().filter(|_| *kind == 0);
        frames.push(match text.and_then(packet::from_client) {
            Some(translated) => framed(translated.as_bytes()),
            None => payload[..end + 2 + length].to_vec(),
        });
        payload = &payload[end + 2 + length..];
    }
    Some(frames)
}

/// Writes a text packet in binary framing.
fn framed(packet: &[u8]) -> Vec<u8> {
    let digits: Vec<_> = packet.len().to_string().bytes().map(|digit| digit - b'0').collect();
    [&[0], &digits[..], &[END_OF_LENGTH], packet].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packets_of_a_payload_are_translated() {
        let of = |payload: &'static str| from_client(Bytes::from_static(payload.as_bytes()));
        assert_eq!(of("16:40/chat?token=é,3:4🙂"), "21:40/chat,{\"token\":\"é\"}3:4🙂");
        assert_eq!(of("9:40/chat?,3:4🙂"), "10:40/chat,{}3:4🙂", "a surrogate pair is two units");
        for same in ["8:40/chat,", "2:2x1:2", "7:42[\"a\"]", "99:40/chat?x,", "x40/?", "4:4🙂40/", ""] {
            assert_eq!(of(same), same);
        }
    }

    #[test]
    fn packets_with_binary_framing_are_translated() {
        let attachment = b"\x01\x03\xff\x04\x00\xff".to_vec();
        let payload = [framed(b"40/chat?x=1,"), attachment.clone(), framed(b"2")].concat();
        let expected = [framed(br#"40/chat,{"x":"1"}"#), attachment, framed(b"2")].concat();
        assert_eq!(from_client_framed(payload.into()), expected);
        for same in [&b"\x0040/?"[..], b"\x00\xff40/?", b"\x00\x09\x09\xff40/?", b"\x00\x0b\xff40/?"] {
            assert_eq!(from_client_framed(Bytes::from_static(same)), same, "{same:?}");
        }
    }

    #[test]
    fn payloads_of_the_library_are_translated() {
        let of = |payload: &'static str| to_client(Bytes::from_static(payload.as_bytes()));
        assert_eq!(of("8:451-[\"a\"5:bAAH/"), "8:451-[\"a\"6:b4AAH/");
        assert_eq!(of("17:44{\"message\":\"no\"}"), "17:44{\"message\":\"no\"}", "a wrong length");
        assert_eq!(of("18:44{\"message\":\"no\"}2:40"), "6:44\"no\"2:40");
        assert_eq!(of(""), "1:1");
        assert_eq!(of("2:40"), "2:40");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(all in proptest::collection::vec(".{0,9}", 0..5)) {
            let payload: String = all.iter().map(|packet| with_length(packet)).collect();
            prop_assert_eq!(packets(&payload).unwrap(), all);
        }

        #[test]
        fn any_payload_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[0-9:40/?,b]{0,40}") {
            from_client_framed([&bytes[..], b"40/?"].concat().into());
            from_client([&bytes[..], b"40/?"].concat().into());
            from_client(text.clone().into());
            to_client(text.into());
        }
    }
}
