//! Writes JSON text as MessagePack, in one pass.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::Unusable;
use crate::json;

/// The member that marks an object as the placeholder of an attachment.
const PLACEHOLDER: &str = "_placeholder";

pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    match text.len() {
        // Each pattern fits its cast; no text is longer than 4 GiB.
        length @ 0..=31 => out.put_u8(0xa0 | length as u8),
        length @ 32..=0xff => {
            out.put_u8(0xd9);
            out.put_u8(length as u8);
        }
        length @ 0x100..=0xffff => {
            out.put_u8(0xda);
            out.put_u16(length as u16);
        }
        length => {
            out.put_u8(0xdb);
            out.put_u32(length as u32);
        }
    }
    out.put_slice(text.as_bytes());
}

pub(super) fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    match bytes.len() {
        length @ 0..=0xff => {
            out.put_u8(0xc4);
            out.put_u8(length as u8);
        }
        length @ 0x100..=0xffff => {
            out.put_u8(0xc5);
            out.put_u16(length as u16);
        }
        length => {
            out.put_u8(0xc6);
            out.put_u32(length as u32);
        }
    }
    out.put_slice(bytes);
}

pub(super) fn put_names(out: &mut BytesMut, names: &[String]) {
    match names.len() {
        count @ 0..=15 => out.put_u8(0x90 | count as u8),
        count => {
            out.put_u8(0xdd);
            out.put_u32(count as u32);
        }
    }
    names.iter().for_each(|name| put_text(out, name));
}

/// Writes a JSON text. Placeholders become the attachments that they refer to.
pub(super) fn put_json(out: &mut BytesMut, text: &str, attachments: &[Bytes]) -> Result<(), Unusable> {
    let start = out.len();
    json::with_whole_strings(text, |text| {
        out.truncate(start);
        let mut source = serde_json::Deserializer::from_str(text);
        Writer { out, attachments }.deserialize(&mut source)?;
        source.end()
    })
    .map_err(|_| Unusable::Malformed)
}

/// Writes one value.
struct Writer<'a> {
    out: &'a mut BytesMut,
    attachments: &'a [Bytes],
}

impl Writer<'_> {
    fn again(&mut self) -> Writer<'_> {
        Writer { out: self.out, attachments: self.attachments }
    }

    /// Writes the head of an array or map whose count is not known yet. Returns the position of the count.
    fn head(&mut self, marker: u8) -> usize {
        self.out.put_u8(marker);
        self.out.put_u32(0);
        self.out.len() - 4
    }

    fn count(&mut self, place: usize, count: u32) {
        self.out[place..place + 4].copy_from_slice(&count.to_be_bytes());
    }
}

impl<'de> DeserializeSeed<'de> for Writer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Writer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.out.put_u8(0xc0);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.out.put_u8(if value { 0xc3 } else { 0xc2 });
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match value {
            // The patterns ensure that each value fits the cast.
            0..=0x7f => self.out.put_u8(value as u8),
            0x80..=0xff => {
                self.out.put_u8(0xcc);
                self.out.put_u8(value as u8);
            }
            0x100..=0xffff => {
                self.out.put_u8(0xcd);
                self.out.put_u16(value as u16);
            }
            0x1_0000..=0xffff_ffff => {
                self.out.put_u8(0xce);
                self.out.put_u32(value as u32);
            }
            _ => {
                self.out.put_u8(0xcf);
                self.out.put_u64(value);
            }
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match value {
            0.. => return self.visit_u64(value.cast_unsigned()),
            -32..=-1 => self.out.put_i8(value as i8),
            -0x80..=-33 => {
                self.out.put_u8(0xd0);
                self.out.put_i8(value as i8);
            }
            -0x8000..=-0x81 => {
                self.out.put_u8(0xd1);
                self.out.put_i16(value as i16);
            }
            -0x8000_0000..=-0x8001 => {
                self.out.put_u8(0xd2);
                self.out.put_i32(value as i32);
            }
            _ => {
                self.out.put_u8(0xd3);
                self.out.put_i64(value);
            }
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.out.put_u8(0xcb);
        self.out.put_f64(value);
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        put_text(self.out, value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let (place, mut count) = (self.head(0xdd), 0);
        while items.next_element_seed(self.again())?.is_some() {
            count += 1;
        }
        self.count(place, count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let start = self.out.len();
        let (place, mut count) = (self.head(0xdf), 0);
        let mut number = None;
        let mut marked = false;
        while let Some(key) = members.next_key::<String>()? {
            put_text(self.out, &key);
            count += 1;
            if key == PLACEHOLDER {
                marked = members.next_value::<bool>()?;
                self.again().visit_bool(marked)?;
            } else if marked && key == "num" {
                let value: usize = members.next_value()?;
                number = Some(value);
                self.again().visit_u64(value as u64)?;
            } else {
                members.next_value_seed(self.again())?;
            }
        }
        if let Some(bytes) = number.filter(|_| count == 2).and_then(|number| self.attachments.get(number)) {
            self.out.truncate(start);
            put_binary(self.out, bytes);
        } else {
            self.count(place, count);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Result<Vec<u8>, Unusable> {
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
        ] {
            assert_eq!(written(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn placeholders_become_binary_where_there_is_some() {
        assert_eq!(written(r#"{"_placeholder":true,"num":0}"#).unwrap(), b"\xc4\x02ab");
        assert!(written(r#"{"_placeholder":true,"num":7}"#).unwrap().starts_with(b"\xdf\0\0\0\x02"));
        assert!(written(r#"{"_placeholder":false,"num":0}"#).unwrap().starts_with(b"\xdf\0\0\0\x02"));
        for bad in ["", "[", "[1,]", "1 2", r#"{"_placeholder":1}"#] {
            assert!(written(bad).is_err(), "{bad}");
        }
    }
}
