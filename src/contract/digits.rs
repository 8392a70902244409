//! Numbers in JSON, written exactly as their sender wrote them. A decoded value has whole numbers of up to 64 bits
//! exactly; it has every other number, such as `1.50` or an integer of 30 digits, as a double. The text of the payload
//! has all digits.

use serde_json::Value;
use serde_json::value::RawValue;

use super::json_object::JsonObject;

/// Whether every number in the value is written exactly as its sender wrote it.
pub fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => !number.is_f64(),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// Whether the text is a whole number without fraction and exponent. Each such number has one spelling only, so equal
/// numbers have equal texts. `-0` is none, because it equals `0`.
pub(super) fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || digits.starts_with(|first| first != '0'))
}

/// Returns the text at a path in a JSON text. `None` where the path leads nowhere, or the name of a member is not valid
/// text.
pub(super) fn at<'t>(text: &'t RawValue, path: &[Box<str>]) -> Option<&'t RawValue> {
    path.iter().try_fold(text, |text, key| match text.get().as_bytes().first()? {
        b'{' => serde_json::from_str::<JsonObject<'t>>(text.get()).ok()?.get(key),
        b'[' => serde_json::from_str::<Vec<&RawValue>>(text.get()).ok()?.get(key.parse::<usize>().ok()?).copied(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_whole_numbers_up_to_64_bits_is_exact() {
        for (text, exact) in [
            (r#"[18446744073709551615,-9223372036854775808,{"a":"1.50"},null,true]"#, true),
            ("18446744073709551616", false),
            ("[[1.0]]", false),
            (r#"{"a":{"b":1e3}}"#, false),
            ("-0", false),
        ] {
            assert_eq!(is_exact(&crate::json::read(text).unwrap()), exact, "{text}");
        }
    }

    #[test]
    fn whole_numbers_have_one_spelling() {
        for text in ["0", "7", "-12", "123456789012345678901234567890"] {
            assert!(is_whole(text), "{text}");
        }
        for text in ["-0", "7.0", "7e0", "7E1", "1.5", "-", "", "07", "+7"] {
            assert!(!is_whole(text), "{text}");
        }
    }

    #[test]
    fn text_at_a_path_is_as_it_was_written() {
        let text = r#"{"a":[{"n": 1.50 },-0],"\u0062":1E3,"b":2e1,"\ud83d":1}"#;
        let found = |text: &'static str, path: &[&str]| {
            let text: &RawValue = serde_json::from_str(text).unwrap();
            let path: Vec<Box<str>> = path.iter().map(|key| Box::from(*key)).collect();
            at(text, &path).map(RawValue::get)
        };
        let whole = r#"{"a":[{"n": 1.50 },-0],"\u0062":1E3,"b":2e1}"#;
        assert_eq!(found(whole, &["a", "0", "n"]), Some("1.50"));
        assert_eq!(found(whole, &["a", "1"]), Some("-0"));
        assert_eq!(found(whole, &["b"]), Some("2e1"), "the last member of a name counts");
        assert_eq!(found(whole, &[]), Some(whole));
        for path in [&["a", "2"][..], &["c"], &["b", "c"], &["a", "x"]] {
            assert_eq!(found(whole, path), None, "{path:?}");
        }
        assert_eq!(found(text, &["a"]), None, "half an emoji in a name");
    }
}
