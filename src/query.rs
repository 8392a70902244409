//! Query strings: pairs of names and values, percent-encoded.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The pairs of a query string, as they are written. A name without `=` has an empty value.
pub fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let written = query.split('&').filter(|pair| !pair.is_empty());
    written.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Decodes a name or a value. A percent sign without two hexadecimal digits stands for itself, and bytes that are not
/// UTF-8 are replaced.
pub fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// Decodes a name or a value. `None`: what it encodes is not UTF-8, or a percent sign stands alone.
pub fn decode_strictly(text: &str) -> Option<String> {
    let is_digit = |digit: Option<&u8>| digit.is_some_and(u8::is_ascii_hexdigit);
    let mut after = text.split('%').skip(1).map(str::as_bytes);
    if !after.all(|after| is_digit(after.first()) && is_digit(after.get(1))) {
        return None;
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_as_written() {
        let all: Vec<_> = pairs("a=1&&b&c=%3D=").collect();
        assert_eq!(all, [("a", "1"), ("b", ""), ("c", "%3D=")]);
        assert_eq!(pairs("").count(), 0);
    }

    #[test]
    fn values_are_decoded() {
        for (text, decoded) in
            [("plain", "plain"), ("a%20b+c%C3%A9", "a b cé"), ("%", "%"), ("%4", "%4"), ("%zz", "%zz")]
        {
            assert_eq!(decode(text), decoded, "{text}");
        }
        assert_eq!(decode("%+1"), "% 1");
        assert_eq!(decode("%ff"), "\u{fffd}");
    }

    #[test]
    fn percent_signs_are_decoded_strictly() {
        assert_eq!(decode_strictly("a%20b+c%C3%A9"), Some("a b cé".into()));
        for text in ["%", "%4", "%zz", "%+1", "%ff", "%c3"] {
            assert_eq!(decode_strictly(text), None, "{text}");
        }
    }
}
