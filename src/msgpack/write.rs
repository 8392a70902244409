//! Writes JSON text as MessagePack, in one pass.

use std::fmt;

use bytes::buf::Writer as BufWriter;
use bytes::{BufMut, Bytes, BytesMut};
use rmp::encode;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::Unreadable;
use crate::json;

/// The member that marks an object as the placeholder of an attachment.
const PLACEHOLDER: &str = "_placeholder";

/// An array or map of at most this many items has a head of one byte.
const SHORT: u32 = 15;

/// An array or map of at most this many bytes is moved after it was written, so that a head of one byte precedes it.
const MOVED: usize = 1024;

/// The length of a long head in bytes: the marker (1) and the count (4).
const HEAD: usize = 5;

/// The value `true` in MessagePack.
const TRUE: u8 = 0xc3;

const IN_MEMORY: &str = "memory takes every write";

fn writer(out: &mut BytesMut) -> BufWriter<&mut BytesMut> {
    out.writer()
}

/// Writes a string.
pub fn put_text(out: &mut BytesMut, text: &str) {
    encode::write_str(&mut writer(out), text).expect(IN_MEMORY);
}

/// Writes a binary value.
pub fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    encode::write_bin(&mut writer(out), bytes).expect(IN_MEMORY);
}

/// Writes a number that is not negative.
pub fn put_count(out: &mut BytesMut, number: u64) {
    encode::write_uint(&mut writer(out), number).expect(IN_MEMORY);
}

/// Writes the head of a map.
pub fn put_map(out: &mut BytesMut, members: u32) {
    encode::write_map_len(&mut writer(out), members).expect(IN_MEMORY);
}

/// Writes an array of strings.
pub fn put_names(out: &mut BytesMut, names: &[String]) {
    // No list of names is longer than 4 billion entries, so its length fits.
    encode::write_array_len(&mut writer(out), names.len() as u32).expect(IN_MEMORY);
    names.iter().for_each(|name| put_text(out, name));
}

/// Writes a JSON text. Placeholders become the attachments that they refer to. A number that is larger than every float
/// becomes nil, as `JSON.stringify` writes infinity.
///
/// # Errors
/// Returns [`Unreadable::Malformed`] when the text is not JSON or is nested deeper than 127 levels.
pub fn put_json(out: &mut BytesMut, text: &str, attachments: &[Bytes]) -> Result<(), Unreadable> {
    let start = out.len();
    let mut put = |text: &str| {
        out.truncate(start);
        let mut source = serde_json::Deserializer::from_str(text);
        MsgpackWriter { out, attachments }.deserialize(&mut source)?;
        source.end()
    };
    json::with_whole_strings(text, &mut put)
        .or_else(|error| match json::without_infinities(text) {
            Some(finite) => json::with_whole_strings(&finite, &mut put),
            None => Err(error),
        })
        .map_err(|_: serde_json::Error| Unreadable::Malformed)
}

/// Writes one value.
struct MsgpackWriter<'a> {
    out: &'a mut BytesMut,
    attachments: &'a [Bytes],
}

impl MsgpackWriter<'_> {
    fn again(&mut self) -> MsgpackWriter<'_> {
        MsgpackWriter { out: self.out, attachments: self.attachments }
    }

    /// Begins an array or map whose number of items is not known yet. Returns the position of its first byte.
    fn begin(&mut self) -> usize {
        let start = self.out.len();
        self.out.put_bytes(0, HEAD);
        start
    }

    /// Writes the head of the array or map that began at `start`. `short` and `long` are the markers of a short and a
    /// long head.
    fn end(&mut self, start: usize, count: u32, short: u8, long: u8) {
        let end = self.out.len();
        if count <= SHORT && end - start <= MOVED {
            self.out[start] = short | count as u8;
            self.out.copy_within(start + HEAD..end, start + 1);
            self.out.truncate(end - HEAD + 1);
        } else {
            self.out[start] = long;
            self.out[start + 1..start + HEAD].copy_from_slice(&count.to_be_bytes());
        }
    }
}

impl<'de> DeserializeSeed<'de> for MsgpackWriter<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MsgpackWriter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        encode::write_nil(&mut writer(self.out)).map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        encode::write_bool(&mut writer(self.out), value).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        put_count(self.out, value);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        encode::write_sint(&mut writer(self.out), value).map(drop).map_err(E::custom)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        encode::write_f64(&mut writer(self.out), value).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        put_text(self.out, value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let (start, mut count) = (self.begin(), 0);
        while items.next_element_seed(self.again())?.is_some() {
            count += 1;
        }
        self.end(start, count, 0x90, 0xdd);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let (start, mut count) = (self.begin(), 0);
        let (mut marked, mut number) = (false, None);
        while let Some(key) = members.next_key::<String>()? {
            put_text(self.out, &key);
            count += 1;
            let value = self.out.len();
            members.next_value_seed(self.again())?;
            match key.as_str() {
                PLACEHOLDER => marked = self.out[value..] == [TRUE],
                "num" => number = small_number(&self.out[value..]),
                _ => {}
            }
        }
        let attachment = number.filter(|_| marked).and_then(|number| self.attachments.get(number));
        if let Some(bytes) = attachment {
            self.out.truncate(start);
            put_binary(self.out, bytes);
        } else {
            self.end(start, count, 0x80, 0xdf);
        }
        Ok(())
    }
}

/// Reads a number from its MessagePack bytes. Returns `None` if the number is negative or too large for the number of
/// an attachment.
fn small_number(written: &[u8]) -> Option<usize> {
    match *written {
        [number @ 0..=0x7f] | [0xcc, number] => Some(usize::from(number)),
        [0xcd, high, low] => Some(usize::from(u16::from_be_bytes([high, low]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Result<Vec<u8>, Unreadable> {
        let mut out = BytesMut::new();
        put_json(&mut out, text, &[Bytes::from_static(b"ab")]).map(|()| out.to_vec())
    }

    #[test]
    fn numbers_take_their_shortest_form() {
        for (text, bytes) in [
            ("127", &b"\x7f"[..]),
            ("128", b"\xcc\x80"),
            ("-1", b"\xff"),
            ("-33", b"\xd0\xdf"),
            ("-200", b"\xd1\xff\x38"),
            ("65536", b"\xce\0\x01\0\0"),
            ("-4294967297", b"\xd3\xff\xff\xff\xfe\xff\xff\xff\xff"),
            ("1.5", b"\xcb\x3f\xf8\0\0\0\0\0\0"),
            ("null", b"\xc0"),
            (r#""\ud83d""#, b"\xa3\xef\xbf\xbd"),
            (r#"["\ud83d",-1e999]"#, b"\x92\xa3\xef\xbf\xbd\xc0"),
        ] {
            assert_eq!(written(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn placeholders_become_binary_where_there_is_some() {
        assert_eq!(written(r#"{"_placeholder":true,"num":0}"#).unwrap(), b"\xc4\x02ab");
        assert_eq!(written(r#"{"num":0,"_placeholder":true}"#).unwrap(), b"\xc4\x02ab");
        for data in [
            r#"{"_placeholder":true,"num":7}"#,
            r#"{"_placeholder":true,"num":300}"#,
            r#"{"_placeholder":true,"num":-1}"#,
            r#"{"_placeholder":false,"num":0}"#,
            r#"{"_placeholder":1,"num":"0"}"#,
        ] {
            assert!(written(data).unwrap().starts_with(b"\x82"), "{data}");
        }
        for bad in ["", "[", "[1,]", "1 2", "[1e999"] {
            assert!(written(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn short_arrays_and_maps_have_short_heads() {
        assert_eq!(written(r#"["e",{"a":[]},{}]"#).unwrap(), b"\x93\xa1e\x81\xa1a\x90\x80");
        let many = format!("[{}0]", "0,".repeat(15));
        assert!(written(&many).unwrap().starts_with(b"\xdd\0\0\0\x10\0"));
        let long = format!(r#"["{}"]"#, "x".repeat(MOVED));
        assert!(written(&long).unwrap().starts_with(b"\xdd\0\0\0\x01\xda\x04\0"));
    }
}
