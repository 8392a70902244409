//! Names and times in requests, with their limits.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::protocol::RESERVED_PREFIX;

/// Maximum length of a name, in characters: of a room, an event, a user, a socket, a namespace, a contract.
pub const MAX_NAME: usize = 256;

/// Maximum number of elements in a list of names.
pub const MAX_LIST: usize = 1000;

/// Maximum length of an id, in characters.
const MAX_ID: usize = 128;

/// The pattern of an id.
pub const ID_PATTERN: &str = "^[!-~]{1,128}$";

/// The pattern of a time. Each unit goes up to 30 days.
pub const PERIOD_PATTERN: &str = concat!(
    r"^(([1-9][0-9]{0,5}|1[0-9]{6}|2[0-4][0-9]{5}|25[0-8][0-9]{4}|259[01][0-9]{3}|2592000)s",
    r"|([1-9][0-9]{0,3}|[1-3][0-9]{4}|4[0-2][0-9]{3}|43[01][0-9]{2}|43200)m",
    r"|([1-9][0-9]?|[1-6][0-9]{2}|7[01][0-9]|720)h",
    r"|([1-9]|[12][0-9]|30)d)$"
);

/// The name, cut to a length that an error can show.
pub fn cut(name: &str) -> String {
    const SHOWN: usize = 64;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Checks a name's length.
pub fn check(name: &str, max: usize) -> Result<(), String> {
    match name.chars().count() {
        0 => Err("must not be empty".into()),
        length if length > max => Err(format!("has {length} characters; at most {max} are permitted")),
        _ => Ok(()),
    }
}

/// Checks a room's name.
pub fn check_room(name: &str) -> Result<(), String> {
    check(name, MAX_NAME)?;
    if name.starts_with(RESERVED_PREFIX) {
        return Err(format!("must not start with {RESERVED_PREFIX}: the node uses such rooms itself"));
    }
    Ok(())
}

/// Parses a JSON string of 1 to `max` characters.
pub fn read(raw: &RawValue, max: usize) -> Result<String, String> {
    let text: String = crate::json::read(raw.get()).map_err(|_| "must be a string".to_owned())?;
    check(&text, max)?;
    Ok(text)
}

/// Parses a JSON string that is a room's name.
pub fn read_room(raw: &RawValue) -> Result<String, String> {
    let text: String = crate::json::read(raw.get()).map_err(|_| "must be a string".to_owned())?;
    check_room(&text)?;
    Ok(text)
}

/// Parses a JSON string that is an id.
pub fn read_id(raw: &RawValue) -> Result<String, String> {
    let text: String = crate::json::read(raw.get()).map_err(|_| "must be a string".to_owned())?;
    if (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text);
    }
    Err(format!("must be 1 to {MAX_ID} printable ASCII characters without spaces"))
}

/// Parses a JSON string such as `"90s"`, `"15m"`, `"24h"`, `"7d"`.
pub fn read_period(raw: &RawValue, max: Duration) -> Result<Duration, String> {
    let text: String = crate::json::read(raw.get()).unwrap_or_default();
    let period = parse_period(&text).ok_or(r#"must be a time with its unit, such as "90s", "15m", "24h" or "7d""#)?;
    if period > max {
        return Err(format!("must be at most {}", humantime::format_duration(max)));
    }
    Ok(period)
}

fn parse_period(text: &str) -> Option<Duration> {
    let unit = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    let count: u64 = digits.parse().ok().filter(|_| plain)?;
    count.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH: Duration = Duration::from_secs(30 * 86_400);

    fn period(text: &str) -> Result<Duration, String> {
        read_period(serde_json::from_str(&format!("{text:?}")).unwrap(), MONTH)
    }

    #[test]
    fn times_have_a_unit_and_a_bound() {
        assert_eq!(period("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(period("720h"), Ok(MONTH));
        for text in
            ["", "s", "0s", "01m", "-1s", "+1s", "1", "1.5h", "31d", "721h", "99999999999999999999d", "1 d", "1y", "١s"]
        {
            assert!(period(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_documented_pattern_is_what_is_read() {
        let validator = jsonschema::validator_for(&serde_json::json!({ "pattern": PERIOD_PATTERN })).unwrap();
        let counts =
            [0, 1, 9, 10, 29, 30, 31, 719, 720, 721, 9999, 43199, 43200, 43201, 99999, 2591999, 2592000, 2592001];
        for text in counts.iter().flat_map(|count| ["s", "m", "h", "d", "x", ""].map(|unit| format!("{count}{unit}"))) {
            assert_eq!(validator.is_valid(&serde_json::Value::from(text.as_str())), period(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn names_are_cut_at_characters() {
        assert_eq!(cut(&"é".repeat(100)).chars().count(), 65);
    }
}
