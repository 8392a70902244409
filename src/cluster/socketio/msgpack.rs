//! Reads MessagePack, as JavaScript's notepack writes it, into the JSON text that clients get.
//!
//! It takes one pass and builds no values. Binary becomes an attachment that shares the memory of the message.

use bytes::Bytes;
use chrono::{DateTime, Datelike};

use super::{MAX_ATTACHMENTS, MAX_DEPTH, Unusable};

/// The extension type of a point in time.
const TIMESTAMP: i8 = -1;

/// The extension type that some versions use for `undefined`.
const UNDEFINED: i8 = 0;

/// The largest date that JavaScript can represent, in milliseconds before or after 1970.
const MAX_DATE_MS: i64 = 8_640_000_000_000_000;

/// A value, or the head of an array or map.
#[derive(Debug)]
pub(super) enum Token {
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Str(Bytes),
    Bin(Bytes),
    Array(usize),
    Map(usize),
    Ext(i8, Bytes),
}

impl Token {
    /// Whether the value is falsy in JavaScript.
    pub(super) fn is_falsy(&self) -> bool {
        match self {
            Self::Nil | Self::Bool(false) | Self::Int(0) | Self::Uint(0) | Self::Ext(UNDEFINED, _) => true,
            Self::Float(number) => *number == 0.0 || number.is_nan(),
            Self::Str(bytes) => bytes.is_empty(),
            _ => false,
        }
    }

    /// Whether the value stands for an absent list or map: it is falsy in JavaScript, or empty.
    pub(super) fn is_none(&self) -> bool {
        self.is_falsy() || matches!(self, Self::Array(0) | Self::Map(0))
    }
}

/// Reads a message from its start.
pub(super) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes that were not read yet.
    pub(super) fn rest(self) -> Bytes {
        self.bytes
    }

    /// Whether the next value is binary.
    pub(super) fn is_binary(&self) -> bool {
        matches!(self.bytes.first(), Some(0xc4..=0xc6))
    }

    /// Reads the next value. For an array or map it reads only the number of items, which is never larger than the
    /// number of bytes left.
    pub(super) fn token(&mut self) -> Result<Token, Unusable> {
        let marker = self.take(1)?[0];
        Ok(match marker {
            0x00..=0x7f => Token::Uint(u64::from(marker)),
            0xe0..=0xff => Token::Int(i64::from(marker.cast_signed())),
            0x80..=0x8f => self.map(usize::from(marker & 0x0f))?,
            0x90..=0x9f => self.array(usize::from(marker & 0x0f))?,
            0xa0..=0xbf => Token::Str(self.take(usize::from(marker & 0x1f))?),
            0xc0 => Token::Nil,
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4..=0xc6 => {
                let length = self.length(marker - 0xc4)?;
                Token::Bin(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(marker - 0xc7)?;
                self.ext(length)?
            }
            0xca => Token::Float(f64::from(f32::from_be_bytes(self.number()?))),
            0xcb => Token::Float(f64::from_be_bytes(self.number()?)),
            0xcc => Token::Uint(u64::from(u8::from_be_bytes(self.number()?))),
            0xcd => Token::Uint(u64::from(u16::from_be_bytes(self.number()?))),
            0xce => Token::Uint(u64::from(u32::from_be_bytes(self.number()?))),
            0xcf => Token::Uint(u64::from_be_bytes(self.number()?)),
            0xd0 => Token::Int(i64::from(i8::from_be_bytes(self.number()?))),
            0xd1 => Token::Int(i64::from(i16::from_be_bytes(self.number()?))),
            0xd2 => Token::Int(i64::from(i32::from_be_bytes(self.number()?))),
            0xd3 => Token::Int(i64::from_be_bytes(self.number()?)),
            0xd4..=0xd8 => self.ext(1 << (marker - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.length(marker - 0xd9)?;
                Token::Str(self.take(length)?)
            }
            0xdc | 0xdd => {
                let count = self.length(marker - 0xdc + 1)?;
                self.array(count)?
            }
            0xde | 0xdf => {
                let count = self.length(marker - 0xde + 1)?;
                self.map(count)?
            }
            0xc1 => return Err(Unusable::Malformed),
        })
    }

    /// Reads the head of an array, and returns its number of items.
    pub(super) fn array_head(&mut self) -> Result<usize, Unusable> {
        match self.token()? {
            Token::Array(count) => Ok(count),
            _ => Err(Unusable::Malformed),
        }
    }

    /// Reads a text. Bytes that are not UTF-8 (in JavaScript, half of a surrogate pair) are replaced, as a client would
    /// see them.
    pub(super) fn text(&mut self) -> Result<String, Unusable> {
        match self.token()? {
            Token::Str(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            _ => Err(Unusable::Malformed),
        }
    }

    /// Reads a text. `None` for a value that is falsy in JavaScript.
    pub(super) fn optional_text(&mut self) -> Result<Option<String>, Unusable> {
        match self.token()? {
            token if token.is_falsy() => Ok(None),
            Token::Str(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            _ => Err(Unusable::Malformed),
        }
    }

    /// Reads a value, and returns whether it is truthy in JavaScript.
    pub(super) fn flag(&mut self, depth: usize) -> Result<bool, Unusable> {
        let token = self.token()?;
        let truthy = !token.is_falsy();
        self.skip_items(&token, depth)?;
        Ok(truthy)
    }

    /// Skips a value.
    pub(super) fn skip(&mut self, depth: usize) -> Result<(), Unusable> {
        let token = self.token()?;
        self.skip_items(&token, depth)
    }

    fn skip_items(&mut self, token: &Token, depth: usize) -> Result<(), Unusable> {
        let items = match token {
            Token::Array(count) => *count,
            Token::Map(count) => count * 2,
            _ => return Ok(()),
        };
        if depth >= MAX_DEPTH {
            return Err(Unusable::TooLarge);
        }
        (0..items).try_for_each(|_| self.skip(depth + 1))
    }

    /// Reads a value and writes it as JSON.
    pub(super) fn json(&mut self, out: &mut Json, depth: usize) -> Result<(), Unusable> {
        match self.token()? {
            Token::Nil | Token::Ext(UNDEFINED, _) => out.raw("null"),
            Token::Bool(true) => out.raw("true"),
            Token::Bool(false) => out.raw("false"),
            Token::Int(number) => out.raw(&number.to_string()),
            Token::Uint(number) => out.raw(&number.to_string()),
            Token::Float(number) => out.float(number),
            Token::Str(bytes) => out.string(&String::from_utf8_lossy(&bytes)),
            Token::Bin(bytes) => out.attachment(bytes)?,
            Token::Ext(TIMESTAMP, bytes) => match iso(&bytes)? {
                Some(text) => out.string(&text),
                None => out.raw("null"),
            },
            Token::Ext(..) => return Err(Unusable::Malformed),
            Token::Array(_) | Token::Map(_) if depth >= MAX_DEPTH => return Err(Unusable::TooLarge),
            Token::Array(count) => {
                out.raw("[");
                for at in 0..count {
                    out.comma(at);
                    self.json(out, depth + 1)?;
                }
                out.raw("]");
            }
            Token::Map(count) => {
                out.raw("{");
                for at in 0..count {
                    out.comma(at);
                    out.string(&self.key()?);
                    out.raw(":");
                    self.json(out, depth + 1)?;
                }
                out.raw("}");
            }
        }
        Ok(())
    }

    /// Reads a map's key as text, which is the only kind of key in JavaScript.
    pub(super) fn key(&mut self) -> Result<String, Unusable> {
        match self.token()? {
            Token::Str(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Token::Int(number) => Ok(number.to_string()),
            Token::Uint(number) => Ok(number.to_string()),
            _ => Err(Unusable::Malformed),
        }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, Unusable> {
        if length > self.bytes.len() {
            return Err(Unusable::Malformed);
        }
        Ok(self.bytes.split_to(length))
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Unusable> {
        <[u8; N]>::try_from(&*self.take(N)?).map_err(|_| Unusable::Malformed)
    }

    /// Reads a length of 1, 2 or 4 bytes, for a `size` of 0, 1 or 2.
    fn length(&mut self, size: u8) -> Result<usize, Unusable> {
        Ok(match size {
            0 => usize::from(u8::from_be_bytes(self.number()?)),
            1 => usize::from(u16::from_be_bytes(self.number()?)),
            _ => u32::from_be_bytes(self.number()?) as usize,
        })
    }

    fn array(&self, count: usize) -> Result<Token, Unusable> {
        if count > self.bytes.len() { Err(Unusable::Malformed) } else { Ok(Token::Array(count)) }
    }

    fn map(&self, count: usize) -> Result<Token, Unusable> {
        if count > self.bytes.len() / 2 { Err(Unusable::Malformed) } else { Ok(Token::Map(count)) }
    }

    fn ext(&mut self, length: usize) -> Result<Token, Unusable> {
        let kind = i8::from_be_bytes(self.number()?);
        Ok(Token::Ext(kind, self.take(length)?))
    }
}

/// JSON text, and the attachments that its placeholders refer to.
#[derive(Default)]
pub(super) struct Json {
    pub(super) text: String,
    pub(super) attachments: Vec<Bytes>,
}

impl Json {
    pub(super) fn raw(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(super) fn comma(&mut self, at: usize) {
        if at > 0 {
            self.text.push(',');
        }
    }

    pub(super) fn string(&mut self, text: &str) {
        // Serializing a text never fails.
        self.text.push_str(&serde_json::to_string(text).unwrap_or_default());
    }

    /// Writes a number as `JSON.stringify` does: infinity and NaN become null.
    fn float(&mut self, number: f64) {
        if !number.is_finite() {
            self.raw("null");
        } else if number.fract() == 0.0 && number.abs() < 9e15 {
            self.raw(&format!("{number:.0}").replace("-0", "0"));
        } else {
            self.raw(&serde_json::Number::from_f64(number).map_or_else(String::new, |number| number.to_string()));
        }
    }

    fn attachment(&mut self, bytes: Bytes) -> Result<(), Unusable> {
        if self.attachments.len() >= MAX_ATTACHMENTS {
            return Err(Unusable::TooLarge);
        }
        self.raw(&format!("{{\"_placeholder\":true,\"num\":{}}}", self.attachments.len()));
        self.attachments.push(bytes);
        Ok(())
    }
}

/// Writes a time as `Date.prototype.toJSON` does. `None` if JavaScript cannot represent it.
fn iso(bytes: &[u8]) -> Result<Option<String>, Unusable> {
    let (seconds, nanos) = match bytes.len() {
        4 => (i64::from(u32::from_be_bytes(array(bytes)?)), 0),
        8 => {
            let both = u64::from_be_bytes(array(bytes)?);
            // The seconds take 34 bits and the nanoseconds 30, so both fit.
            ((both & 0x3_ffff_ffff).cast_signed(), (both >> 34) as u32)
        }
        12 => (i64::from_be_bytes(array(&bytes[4..])?), u32::from_be_bytes(array(&bytes[..4])?)),
        _ => return Err(Unusable::Malformed),
    };
    let Some(at) = DateTime::from_timestamp(seconds, nanos) else { return Ok(None) };
    if at.timestamp_millis().abs() > MAX_DATE_MS {
        return Ok(None);
    }
    let rest = at.format("-%m-%dT%H:%M:%S%.3fZ");
    Ok(Some(match at.year() {
        year @ 0..=9999 => format!("{year:04}{rest}"),
        year => format!("{}{:06}{rest}", if year < 0 { '-' } else { '+' }, year.abs()),
    }))
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Unusable> {
    bytes.try_into().map_err(|_| Unusable::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(bytes: &'static [u8]) -> Result<String, Unusable> {
        let mut out = Json::default();
        let mut reader = Reader::new(Bytes::from_static(bytes));
        reader.json(&mut out, 0)?;
        assert!(reader.is_at_end());
        Ok(out.text)
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
        ] {
            assert_eq!(json(bytes).unwrap(), text);
        }
    }

    #[test]
    fn years_of_more_than_four_digits_are_signed() {
        let at = |seconds: i64| iso(&[[0; 4].as_slice(), &seconds.to_be_bytes()].concat()).unwrap().unwrap();
        assert_eq!(at(253_402_300_800), "+010000-01-01T00:00:00.000Z");
        assert_eq!(at(-62_167_219_201), "-000001-12-31T23:59:59.000Z");
    }

    #[test]
    fn what_is_cut_or_promises_too_much_is_refused() {
        for bytes in [
            &b""[..],
            b"\xc1",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\x7f\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xc4\x05a",
            b"\xd4\x07\0",
        ] {
            assert_eq!(json(bytes).unwrap_err(), Unusable::Malformed);
        }
        let mut deep = vec![0x91; 100_000];
        deep.push(0);
        let mut reader = Reader::new(deep.clone().into());
        assert_eq!(reader.json(&mut Json::default(), 0).unwrap_err(), Unusable::TooLarge);
        assert_eq!(Reader::new(deep.into()).skip(0).unwrap_err(), Unusable::TooLarge);
    }
}
