//! Converts MessagePack, in the form that JavaScript's library notepack writes, to JSON text.
//!
//! Version 2 of notepack, which `socket.io-msgpack-parser` uses, has extensions of its own, all of type 0: `undefined`
//! (1 byte), a `Date` (8 bytes), and an `ArrayBuffer` (with a length).
//!
//! The conversion takes one pass over the bytes and builds no tree of values. A binary value becomes an attachment that
//! shares the memory of the message.

use bytes::Bytes;
use bytestring::ByteString;
use chrono::{DateTime, Datelike, Utc};
use rmp::Marker;

use super::{MAX_DEPTH, Unreadable};
use crate::protocol::MAX_ATTACHMENTS;

/// The extension type of MessagePack's timestamps.
const TIMESTAMP: i8 = -1;

/// The extension type of notepack's own extensions.
const NOTEPACK: i8 = 0;

/// The first two bytes of `undefined` in notepack's format.
const UNDEFINED: &[u8] = b"\xd4\0";

/// The largest date that JavaScript can represent, in milliseconds before or after 1970.
const MAX_DATE_MS: i64 = 8_640_000_000_000_000;

/// A value, or the head of an array or map.
#[derive(Debug)]
pub enum Token {
    /// The value nil.
    Nil,
    /// A boolean.
    Bool(bool),
    /// A number that was written as a signed integer.
    Int(i64),
    /// A number that was written as an unsigned integer.
    Uint(u64),
    /// A floating point number.
    Float(f64),
    /// A string, whose bytes may be invalid UTF-8.
    Str(Bytes),
    /// A binary value.
    Bin(Bytes),
    /// The head of an array, with the number of items that follow.
    Array(usize),
    /// The head of a map, with the number of members that follow, each as a key and a value.
    Map(usize),
    /// JavaScript's `undefined`.
    Undefined,
    /// A point in time. `None` if JavaScript cannot represent it.
    Time(Option<DateTime<Utc>>),
    /// Another extension type.
    Extension,
}

impl Token {
    /// Whether the value is falsy in JavaScript.
    pub fn is_falsy(&self) -> bool {
        match self {
            Self::Nil | Self::Undefined | Self::Bool(false) | Self::Int(0) | Self::Uint(0) => true,
            Self::Float(number) => *number == 0.0 || number.is_nan(),
            Self::Str(bytes) => bytes.is_empty(),
            _ => false,
        }
    }

    /// The number of values that follow an array's or map's head.
    const fn items(&self) -> usize {
        match self {
            Self::Array(count) => *count,
            Self::Map(count) => 2 * *count,
            _ => 0,
        }
    }

    /// Whether the value stands for an absent list or map: it is falsy in JavaScript, or empty.
    pub fn is_none(&self) -> bool {
        self.is_falsy() || matches!(self, Self::Array(0) | Self::Map(0))
    }
}

/// Reads a message from its start.
pub struct MsgpackReader {
    bytes: Bytes,
}

impl MsgpackReader {
    /// Creates a reader that starts at the first of these bytes.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// Whether all bytes have been read.
    pub fn is_at_end(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes that were not read yet.
    pub fn rest(self) -> Bytes {
        self.bytes
    }

    /// Whether the next value is binary.
    pub fn is_binary(&self) -> bool {
        matches!(self.bytes.first(), Some(0xc4..=0xc6))
    }

    /// Reads the next value. For an array or map it reads only the number of items, which is never larger than the
    /// number of bytes left.
    pub fn token(&mut self) -> Result<Token, Unreadable> {
        Ok(match Marker::from_u8(self.take(1)?[0]) {
            Marker::FixPos(number) => Token::Uint(u64::from(number)),
            Marker::FixNeg(number) => Token::Int(i64::from(number)),
            Marker::FixMap(count) => self.map(usize::from(count))?,
            Marker::FixArray(count) => self.array(usize::from(count))?,
            Marker::FixStr(length) => Token::Str(self.take(usize::from(length))?),
            Marker::Null => Token::Nil,
            Marker::False => Token::Bool(false),
            Marker::True => Token::Bool(true),
            Marker::F32 => Token::Float(f64::from(f32::from_be_bytes(self.number()?))),
            Marker::F64 => Token::Float(f64::from_be_bytes(self.number()?)),
            Marker::U8 => Token::Uint(u64::from(u8::from_be_bytes(self.number()?))),
            Marker::U16 => Token::Uint(u64::from(u16::from_be_bytes(self.number()?))),
            Marker::U32 => Token::Uint(u64::from(u32::from_be_bytes(self.number()?))),
            Marker::U64 => Token::Uint(u64::from_be_bytes(self.number()?)),
            Marker::I8 => Token::Int(i64::from(i8::from_be_bytes(self.number()?))),
            Marker::I16 => Token::Int(i64::from(i16::from_be_bytes(self.number()?))),
            Marker::I32 => Token::Int(i64::from(i32::from_be_bytes(self.number()?))),
            Marker::I64 => Token::Int(i64::from_be_bytes(self.number()?)),
            marker @ (Marker::Bin8 | Marker::Bin16 | Marker::Bin32) => {
                let length = self.length(marker.to_u8() - Marker::Bin8.to_u8())?;
                Token::Bin(self.take(length)?)
            }
            marker @ (Marker::Str8 | Marker::Str16 | Marker::Str32) => {
                let length = self.length(marker.to_u8() - Marker::Str8.to_u8())?;
                Token::Str(self.take(length)?)
            }
            marker @ (Marker::Ext8 | Marker::Ext16 | Marker::Ext32) => {
                let length = self.length(marker.to_u8() - Marker::Ext8.to_u8())?;
                match self.ext(length)? {
                    (NOTEPACK, bytes) => Token::Bin(bytes),
                    (kind, bytes) => extension(kind, &bytes)?,
                }
            }
            Marker::FixExt1 => self.fixed_ext(1)?,
            Marker::FixExt2 => self.fixed_ext(2)?,
            Marker::FixExt4 => self.fixed_ext(4)?,
            Marker::FixExt8 => self.fixed_ext(8)?,
            Marker::FixExt16 => self.fixed_ext(16)?,
            marker @ (Marker::Array16 | Marker::Array32) => {
                let count = self.length(marker.to_u8() - Marker::Array16.to_u8() + 1)?;
                self.array(count)?
            }
            marker @ (Marker::Map16 | Marker::Map32) => {
                let count = self.length(marker.to_u8() - Marker::Map16.to_u8() + 1)?;
                self.map(count)?
            }
            Marker::Reserved => return Err(Unreadable::Malformed),
        })
    }

    /// Reads the head of an array, and returns its number of items.
    pub fn array_head(&mut self) -> Result<usize, Unreadable> {
        match self.token()? {
            Token::Array(count) => Ok(count),
            _ => Err(Unreadable::Malformed),
        }
    }

    /// Reads a text. Bytes that are not UTF-8 (in JavaScript, half of a surrogate pair) are replaced, as a JavaScript
    /// client would replace them.
    pub fn text(&mut self) -> Result<String, Unreadable> {
        match self.token()? {
            Token::Str(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            _ => Err(Unreadable::Malformed),
        }
    }

    /// Reads a text. `None` for a value that is falsy in JavaScript.
    pub fn optional_text(&mut self) -> Result<Option<String>, Unreadable> {
        match self.token()? {
            token if token.is_falsy() => Ok(None),
            Token::Str(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            _ => Err(Unreadable::Malformed),
        }
    }

    /// Reads a value, and returns whether it is truthy in JavaScript.
    pub fn flag(&mut self) -> Result<bool, Unreadable> {
        let token = self.token()?;
        self.skip_items(&token)?;
        Ok(!token.is_falsy())
    }

    /// Skips a value of any depth.
    pub fn skip(&mut self) -> Result<(), Unreadable> {
        let token = self.token()?;
        self.skip_items(&token)
    }

    /// Skips a value, and returns its bytes.
    pub fn value(&mut self) -> Result<Bytes, Unreadable> {
        let mut value = self.bytes.clone();
        self.skip()?;
        value.truncate(value.len() - self.bytes.len());
        Ok(value)
    }

    /// Skips the items of an array or map whose head has been read. This function does not recurse, so the depth needs
    /// no limit.
    fn skip_items(&mut self, head: &Token) -> Result<(), Unreadable> {
        let mut left = head.items();
        while left > 0 {
            left = left - 1 + self.token()?.items();
        }
        Ok(())
    }

    /// Reads a value and writes it as JSON. `depth` is the number of arrays and maps around the value.
    pub fn json(&mut self, out: &mut Json, depth: usize) -> Result<(), Unreadable> {
        out.check()?;
        match self.token()? {
            Token::Nil | Token::Undefined | Token::Time(None) => out.raw("null"),
            Token::Bool(true) => out.raw("true"),
            Token::Bool(false) => out.raw("false"),
            Token::Int(number) => out.raw(&number.to_string()),
            Token::Uint(number) => out.raw(&number.to_string()),
            Token::Float(number) => out.float(number)?,
            Token::Str(bytes) => out.string(&String::from_utf8_lossy(&bytes)),
            Token::Bin(bytes) => out.attachment(bytes)?,
            Token::Time(Some(time)) => out.string(&iso(time)),
            Token::Extension => return Err(Unreadable::Extension),
            Token::Array(_) | Token::Map(_) if depth >= MAX_DEPTH => return Err(Unreadable::TooLarge),
            Token::Array(count) => {
                out.raw("[");
                for at in 0..count {
                    out.comma(at);
                    self.json(out, depth + 1)?;
                }
                out.raw("]");
            }
            Token::Map(count) => self.members(count, out, depth)?,
        }
        Ok(())
    }

    /// Writes the members of a map as an object. Like `JSON.stringify`, it leaves out members that are `undefined`.
    fn members(&mut self, count: usize, out: &mut Json, depth: usize) -> Result<(), Unreadable> {
        let mut written = 0;
        out.raw("{");
        for _ in 0..count {
            let key = self.key()?;
            if self.bytes.starts_with(UNDEFINED) {
                self.skip()?;
                continue;
            }
            out.comma(written);
            out.string(&key);
            out.raw(":");
            self.json(out, depth + 1)?;
            written += 1;
        }
        out.raw("}");
        Ok(())
    }

    /// Reads a map's key as text, because JavaScript has no other keys.
    pub fn key(&mut self) -> Result<String, Unreadable> {
        match self.token()? {
            Token::Str(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Token::Int(number) => Ok(number.to_string()),
            Token::Uint(number) => Ok(number.to_string()),
            _ => Err(Unreadable::Malformed),
        }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, Unreadable> {
        if length > self.bytes.len() {
            return Err(Unreadable::Malformed);
        }
        Ok(self.bytes.split_to(length))
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        <[u8; N]>::try_from(&*self.take(N)?).map_err(|_| Unreadable::Malformed)
    }

    /// Reads a length of 1, 2 or 4 bytes, for a `size` of 0, 1 or 2.
    fn length(&mut self, size: u8) -> Result<usize, Unreadable> {
        Ok(match size {
            0 => usize::from(u8::from_be_bytes(self.number()?)),
            1 => usize::from(u16::from_be_bytes(self.number()?)),
            _ => u32::from_be_bytes(self.number()?) as usize,
        })
    }

    fn array(&self, count: usize) -> Result<Token, Unreadable> {
        if count > self.bytes.len() { Err(Unreadable::Malformed) } else { Ok(Token::Array(count)) }
    }

    fn map(&self, count: usize) -> Result<Token, Unreadable> {
        if count > self.bytes.len() / 2 { Err(Unreadable::Malformed) } else { Ok(Token::Map(count)) }
    }

    fn fixed_ext(&mut self, length: usize) -> Result<Token, Unreadable> {
        match self.ext(length)? {
            (NOTEPACK, _) if length == 1 => Ok(Token::Undefined),
            (NOTEPACK, bytes) if length == 8 => {
                let milliseconds = i64::from_be_bytes(array(&bytes)?);
                Ok(Token::Time(representable(DateTime::from_timestamp_millis(milliseconds))))
            }
            (kind, bytes) => extension(kind, &bytes),
        }
    }

    fn ext(&mut self, length: usize) -> Result<(i8, Bytes), Unreadable> {
        let kind = i8::from_be_bytes(self.number()?);
        Ok((kind, self.take(length)?))
    }
}

/// JSON text that is being written, and the attachments that its placeholders refer to.
pub struct Json {
    text: Vec<u8>,
    attachments: Vec<Bytes>,
    max_bytes: usize,
    exact: bool,
}

impl Default for Json {
    /// Creates an empty text in which numbers are written as `JSON.stringify` writes them: NaN and infinity become
    /// null.
    fn default() -> Self {
        Self { text: Vec::new(), attachments: Vec::new(), max_bytes: usize::MAX, exact: false }
    }
}

impl Json {
    /// Creates an empty text that refuses numbers that JSON does not have, and more than `max_bytes` bytes.
    pub fn exact(max_bytes: usize) -> Self {
        Self { max_bytes, exact: true, ..Self::default() }
    }

    /// Returns the text and the attachments.
    pub fn finish(self) -> (ByteString, Vec<Bytes>) {
        let text = String::from_utf8(self.text).expect("only text was written");
        (text.into(), self.attachments)
    }

    /// Checks that the JSON text is not too long.
    pub fn check(&self) -> Result<(), Unreadable> {
        if self.text.len() > self.max_bytes { Err(Unreadable::TooLarge) } else { Ok(()) }
    }

    /// Appends JSON text.
    pub fn raw(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn comma(&mut self, at: usize) {
        if at > 0 {
            self.raw(",");
        }
    }

    /// Appends a string.
    pub fn string(&mut self, text: &str) {
        serde_json::to_writer(&mut self.text, text).expect("a string is always JSON");
    }

    fn float(&mut self, number: f64) -> Result<(), Unreadable> {
        if !number.is_finite() {
            if self.exact {
                return Err(Unreadable::NotANumber);
            }
            self.raw("null");
        } else if number.fract() == 0.0 && number.abs() < 9e15 {
            // Adding zero to a number turns -0 into 0.
            self.raw(&format!("{:.0}", number + 0.0));
        } else {
            serde_json::to_writer(&mut self.text, &number).expect("a finite number is JSON");
        }
        Ok(())
    }

    fn attachment(&mut self, bytes: Bytes) -> Result<(), Unreadable> {
        if self.attachments.len() >= MAX_ATTACHMENTS {
            return Err(Unreadable::TooLarge);
        }
        self.raw(&format!("{{\"_placeholder\":true,\"num\":{}}}", self.attachments.len()));
        self.attachments.push(bytes);
        Ok(())
    }
}

/// Reads an extension that is not notepack's own.
fn extension(kind: i8, bytes: &[u8]) -> Result<Token, Unreadable> {
    if kind != TIMESTAMP {
        return Ok(Token::Extension);
    }
    let (seconds, nanos) = match bytes.len() {
        4 => (i64::from(u32::from_be_bytes(array(bytes)?)), 0),
        8 => {
            let both = u64::from_be_bytes(array(bytes)?);
            // The seconds take 34 bits and the nanoseconds 30, so both fit.
            ((both & 0x3_ffff_ffff).cast_signed(), (both >> 34) as u32)
        }
        12 => (i64::from_be_bytes(array(&bytes[4..])?), u32::from_be_bytes(array(&bytes[..4])?)),
        _ => return Err(Unreadable::Malformed),
    };
    Ok(Token::Time(representable(DateTime::from_timestamp(seconds, nanos))))
}

/// Returns the time if JavaScript can represent that time, or else `None`.
fn representable(time: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    time.filter(|time| time.timestamp_millis().abs() <= MAX_DATE_MS)
}

/// Writes a time in the format of `Date.prototype.toJSON`.
fn iso(time: DateTime<Utc>) -> String {
    let rest = time.format("-%m-%dT%H:%M:%S%.3fZ");
    match time.year() {
        year @ 0..=9999 => format!("{year:04}{rest}"),
        year => format!("{}{:06}{rest}", if year < 0 { '-' } else { '+' }, year.abs()),
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Unreadable> {
    bytes.try_into().map_err(|_| Unreadable::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(bytes: &'static [u8]) -> Result<String, Unreadable> {
        let mut out = Json::default();
        let mut reader = MsgpackReader::new(Bytes::from_static(bytes));
        reader.json(&mut out, 0)?;
        assert!(reader.is_at_end());
        Ok(out.finish().0.into())
    }

    #[test]
    fn values_are_what_javascript_would_have_written() {
        for (bytes, text) in [
            (&b"\xc0"[..], "null"),
            (b"\xc3", "true"),
            (b"\x7f", "127"),
            (b"\xff", "-1"),
            (b"\xcc\x80", "128"),
            (b"\xd1\xff\x38", "-200"),
            (b"\xcf\0\0\0\x01\0\0\0\0", "4294967296"),
            (b"\xd3\xff\xff\xff\xfe\xff\xff\xff\xff", "-4294967297"),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
            (b"\xd3\x80\0\0\0\0\0\0\0", "-9223372036854775808"),
            (b"\xcb\x3f\xf8\0\0\0\0\0\0", "1.5"),
            (b"\xcb\x80\0\0\0\0\0\0\0", "0"),
            (b"\xcb\xc0\x24\0\0\0\0\0\0", "-10"),
            (b"\xcb\x7f\xf8\0\0\0\0\0\0", "null"),
            (b"\xcb\x7f\xf0\0\0\0\0\0\0", "null"),
            (b"\xa3a\"b", r#""a\"b""#),
            (b"\xd9\x01\xff", "\"\u{fffd}\""),
            (b"\x92\x01\x80", "[1,{}]"),
            (b"\x82\xa1b\x01\x05\xc2", r#"{"b":1,"5":false}"#),
            (b"\xd6\xff\x69\x55\xb9\x00", r#""2026-01-01T00:00:00.000Z""#),
            (b"\xd7\xff\x1d\x53\x53\x00\x69\x55\xb9\x00", r#""2026-01-01T00:00:00.123Z""#),
            (b"\xc7\x0c\xff\x3b\x8b\x87\xc0\xff\xff\xff\xff\xff\xff\xff\xff", r#""1969-12-31T23:59:59.999Z""#),
            (b"\xc7\x0c\xff\0\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", "null"),
            (b"\xd4\0\0", "null"),
            (b"\x92\xd4\0\0\x83\xa1a\xd4\0\0\xa1b\x01\xa1c\xd4\0\0", r#"[null,{"b":1}]"#),
            (b"\xd7\0\0\0\x01\x9b\x76\xda\xa8\x7b", r#""2026-01-01T00:00:00.123Z""#),
            (b"\xd7\0\xff\xff\xff\xff\xff\xff\xff\xff", r#""1969-12-31T23:59:59.999Z""#),
            (b"\xd7\0\x7f\xff\xff\xff\xff\xff\xff\xff", "null"),
            (
                b"\x92\xc7\x01\0a\xc8\0\x08\0abcdefgh",
                r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
            ),
        ] {
            assert_eq!(json(bytes).unwrap(), text);
        }
    }

    #[test]
    fn years_of_more_than_four_digits_are_signed() {
        let at = |seconds: i64| iso(DateTime::from_timestamp(seconds, 0).unwrap());
        assert_eq!(at(253_402_300_800), "+010000-01-01T00:00:00.000Z");
        assert_eq!(at(-62_167_219_201), "-000001-12-31T23:59:59.000Z");
    }

    #[test]
    fn what_is_cut_or_promises_too_much_is_refused() {
        for bytes in
            [&b""[..], b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc4\x05a"]
        {
            assert_eq!(json(bytes).unwrap_err(), Unreadable::Malformed);
        }
        assert_eq!(json(b"\xd4\x07\0").unwrap_err(), Unreadable::Extension);
        let mut deep = vec![0x91; 100_000];
        deep.push(0);
        let mut reader = MsgpackReader::new(deep.clone().into());
        assert_eq!(reader.json(&mut Json::default(), 0).unwrap_err(), Unreadable::TooLarge);
        assert_eq!(MsgpackReader::new(deep.into()).skip(), Ok(()), "skipping does not recurse");
    }

    #[test]
    fn depth_and_length_of_the_json_are_bounded() {
        let nested = |depth: usize| {
            let mut bytes = vec![0x91; depth];
            bytes.push(0);
            MsgpackReader::new(bytes.into()).json(&mut Json::default(), 0)
        };
        assert_eq!((nested(MAX_DEPTH), nested(MAX_DEPTH + 1)), (Ok(()), Err(Unreadable::TooLarge)));
        let long = |max_bytes: usize| {
            // Two control characters take six bytes each in JSON.
            let mut out = Json::exact(max_bytes);
            MsgpackReader::new(Bytes::from_static(b"\x92\xa2\x01\x01\0")).json(&mut out, 0).and_then(|()| out.check())
        };
        assert_eq!((long(18), long(17)), (Ok(()), Err(Unreadable::TooLarge)));
        let many = [&b"\xdc\x04\x01"[..], &b"\xc4\0".repeat(MAX_ATTACHMENTS + 1)].concat();
        assert_eq!(MsgpackReader::new(many.into()).json(&mut Json::default(), 0), Err(Unreadable::TooLarge));
    }

    #[test]
    fn numbers_that_json_does_not_have_are_null_or_refused() {
        for bytes in [&b"\xcb\x7f\xf8\0\0\0\0\0\0"[..], b"\xcb\xff\xf0\0\0\0\0\0\0", b"\xca\x7f\x80\0\0"] {
            assert_eq!(json(bytes).unwrap(), "null");
            let read = MsgpackReader::new(Bytes::from_static(bytes)).json(&mut Json::exact(100), 0);
            assert_eq!(read, Err(Unreadable::NotANumber));
        }
    }
}
