//! JSON as JavaScript writes it.
//!
//! JavaScript can cut a string between the two halves of an emoji (`"👍".slice(0, 1)`), and `JSON.stringify` writes the
//! half as `\ud83d`: a *lone surrogate*. It is valid JSON (RFC 8259, 8.2), but UTF-8 text cannot hold it, so
//! `serde_json` refuses to decode it into a string. Text that is passed on unchanged keeps it. Where a string must be
//! decoded, U+FFFD replaces it, as in a browser.

use std::borrow::Cow;

use serde::de::{DeserializeOwned, Error as _};

/// A key that `serde_json` treats specially: it decodes an object with this key into what the key's value contains. A
/// client could so show the contract's rules another value than the one that is passed on.
const RAW_VALUE_KEY: &str = "$serde_json::private::RawValue";

/// The escape that replaces a lone surrogate. It is exactly as long as the escape that it replaces.
const REPLACEMENT: &[u8; 6] = br"\ufffd";

/// Reads a value. Lone surrogates become U+FFFD.
///
/// # Errors
/// Returns an error when the text is not JSON, does not fit `T`, or has a key that only `serde_json` itself may use.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    if has_reserved_key(text) {
        return Err(serde_json::Error::custom(format!("the key {RAW_VALUE_KEY:?} is reserved")));
    }
    with_whole_strings(text, |text| serde_json::from_str(text))
}

/// Reads a JSON value from bytes. Lone surrogates become U+FFFD.
///
/// # Errors
/// Returns the same errors as [`read`], and an error when the bytes are not UTF-8.
pub fn read_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    read(std::str::from_utf8(bytes).map_err(serde_json::Error::custom)?)
}

/// Whether an object in the text has the key [`RAW_VALUE_KEY`]. In a string that is a value, the quotes would be
/// escaped, or no colon would follow.
fn has_reserved_key(text: &str) -> bool {
    let text = with_plain_ascii(text);
    memchr::memmem::find_iter(text.as_bytes(), RAW_VALUE_KEY).any(|at| {
        let behind = text[at + RAW_VALUE_KEY.len()..].strip_prefix('"');
        text[..at].ends_with('"') && behind.is_some_and(|rest| rest.trim_start().starts_with(':'))
    })
}

/// Returns the text with ASCII characters in place of their long escapes, such as `$` for `\u0024`. Quotes and
/// backslashes stay escaped.
fn with_plain_ascii(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    if memchr::memmem::find(bytes, br"\u00").is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let (mut at, mut kept) = (0, 0);
    while let Some(next) = memchr::memchr(b'\\', &bytes[at..]) {
        at += next;
        match unit(&bytes[at..]).and_then(|unit| u8::try_from(unit).ok()) {
            Some(ascii @ 0x20..0x7f) if !matches!(ascii, b'"' | b'\\') => {
                plain.push_str(&text[kept..at]);
                plain.push(char::from(ascii));
                at += 6;
                kept = at;
            }
            // Skips any other escape: the backslash and the character after it, which cannot begin another escape.
            _ => at = (at + 2).min(bytes.len()),
        }
    }
    plain.push_str(&text[kept..]);
    Cow::Owned(plain)
}

/// Runs `work` on a JSON text. If it fails and the text has lone surrogates, runs it again on a copy without them. Text
/// on which `work` succeeds, which is nearly all text, is not scanned.
///
/// # Errors
/// Returns the error of the last run of `work`.
pub fn with_whole_strings<T, E>(text: &str, mut work: impl FnMut(&str) -> Result<T, E>) -> Result<T, E> {
    work(text).or_else(|error| match replace_lone_surrogates(text) {
        Some(whole) => work(&whole),
        None => Err(error),
    })
}

/// Returns the text with `null` in place of each number that is larger than every float, which JavaScript reads as
/// infinity and writes as null; `None` when the text has no such number.
pub fn without_infinities(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut whole: Option<String> = None;
    let (mut at, mut kept, mut quoted) = (0, 0, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'-' | b'0'..=b'9' if !quoted => {
                let rest = &bytes[at..];
                let number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let end = at + rest.iter().take_while(number).count();
                if text[at..end].parse::<f64>().is_ok_and(f64::is_infinite) {
                    let whole = whole.get_or_insert_default();
                    whole.push_str(&text[kept..at]);
                    whole.push_str("null");
                    kept = end;
                }
                at = end - 1;
            }
            _ => {}
        }
        at += 1;
    }
    whole.map(|whole| whole + &text[kept..])
}

/// Returns the text with `\ufffd` in place of each lone surrogate; `None` when the text has no lone surrogate.
fn replace_lone_surrogates(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut replaced: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'\\', &bytes[at..]) {
        at += next;
        at += match unit(&bytes[at..]) {
            Some(0xd800..=0xdbff) if matches!(unit(&bytes[at + 6..]), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                let out = replaced.get_or_insert_with(|| bytes.to_vec());
                out[at..at + REPLACEMENT.len()].copy_from_slice(REPLACEMENT);
                6
            }
            Some(_) => 6,
            // A short escape such as `\\`, `\"` or `\n`, or the end of the text.
            None => 2,
        };
        if at >= bytes.len() {
            break;
        }
    }
    // The result is UTF-8, because ASCII was replaced by ASCII.
    String::from_utf8(replaced?).ok()
}

/// Returns the UTF-16 code unit of the escape, such as `\u00e9`, at the start of the bytes.
fn unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(br"\u")?.get(..4)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_an_emoji_is_replaced_and_a_whole_one_is_not() {
        for (text, whole) in [
            (r#""nice \ud83d""#, "nice \u{fffd}"),
            (r#""\udc4d!""#, "\u{fffd}!"),
            (r#""\ud83d\udc4d""#, "👍"),
            (r#""\ud83d\ud83d\udc4d\ud83d""#, "\u{fffd}👍\u{fffd}"),
            (r#""\ud83dx\udc4d""#, "\u{fffd}x\u{fffd}"),
            (r#""\uD83D\u00e9""#, "\u{fffd}é"),
            (r#""\\ud83d\ud83d""#, "\\ud83d\u{fffd}"),
            (r#""caf\u00e9""#, "café"),
        ] {
            assert_eq!(read::<String>(text).unwrap(), whole, "{text}");
            assert_eq!(read_slice::<String>(text.as_bytes()).unwrap(), whole, "{text}");
        }
    }

    #[test]
    fn objects_with_a_key_of_the_library_are_refused() {
        for text in [
            r#"{"$serde_json::private::RawValue":"[1]"}"#,
            r#"[{"a":{"$serde_json::private::RawValue" : "[1]"}}]"#,
            r#"{"\u0024serde_json::private::RawValue":"1"}"#,
            r#"{"$serde\u005fjson::private::Ra\u0077Value"
            :"1"}"#,
        ] {
            assert!(read::<serde_json::Value>(text).is_err(), "{text}");
            assert!(read_slice::<serde_json::Value>(text.as_bytes()).is_err(), "{text}");
        }
        for text in [
            r#"{"a":"$serde_json::private::RawValue"}"#,
            r#"{"a":"\"$serde_json::private::RawValue\":1","b":"\\u0024serde_json::private::RawValue"}"#,
            r#"{"a $serde_json::private::RawValue":1,"\u00e9\u0024":2}"#,
        ] {
            let value: serde_json::Value = read(text).unwrap();
            assert_eq!(value, serde_json::from_str::<serde_json::Value>(text).unwrap(), "{text}");
            assert!(value.is_object());
        }
    }

    #[test]
    fn numbers_beyond_all_floats_become_null() {
        let text = r#"[1e999,-1E+400,"1e999\"-1e999",12.5,{"a":1e308}]"#;
        assert_eq!(without_infinities(text).unwrap(), r#"[null,null,"1e999\"-1e999",12.5,{"a":1e308}]"#);
        assert_eq!(without_infinities(&"9".repeat(400)).unwrap(), "null");
        assert_eq!(without_infinities(r#"["1e999",1]"#), None);
    }

    #[test]
    fn text_that_is_not_json_stays_an_error() {
        for text in [r#""\ud83d"#, r#""\ud83"#, r#""\"#, r#""\ud83d\"#, r#""\u"#, "", r#""\ud83d\x""#] {
            assert!(read::<String>(text).is_err(), "{text}");
        }
        assert!(read_slice::<String>(b"\"\xff\"").is_err());
    }

    proptest! {
        #[test]
        fn strings_of_any_units_are_read_as_javascript_shows_them(units in proptest::collection::vec(
            prop_oneof![0xd7fe_u16..0xe002, any::<u16>(), Just(u16::from(b'\\')), Just(u16::from(b'u'))], 0..12,
        )) {
            let escaped: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(read::<String>(&format!("\"{escaped}\"")).unwrap(), String::from_utf16_lossy(&units));
        }

        #[test]
        fn any_text_is_judged(text in r#"["\\ud83dDc\[\]a]{0,40}"#) {
            let _ = read::<serde_json::Value>(&text);
        }
    }
}
