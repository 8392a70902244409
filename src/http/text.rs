//! The texts of requests: names, ids and times, with their limits. Bodies, parameters and the OpenAPI document use the
//! same types.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::value::RawValue;

use super::fields::{BodyMember, Mistakes};
use crate::config::schema::inline_schema;
use crate::protocol::{RESERVED_EVENTS, RESERVED_PREFIX};

/// Maximum length of a name, in characters: of a room, an event, a user, a socket, a namespace, a contract.
pub const MAX_NAME: usize = 256;

/// Maximum length of an id, in characters.
const MAX_ID: usize = 128;

/// The units of a time, with their seconds.
const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];

/// A text of a request that follows a rule.
pub trait Text: Into<String> + JsonSchema {
    /// The rule as a JSON Schema.
    fn schema() -> Schema {
        Self::json_schema(&mut SchemaGenerator::default())
    }

    /// Checks a text by the rule.
    ///
    /// # Errors
    /// Returns the problem, without the text.
    fn check(text: &str) -> Result<(), String>;
}

/// Declares types of texts: the documentation, the name, the function that checks, and the same rule as a JSON Schema.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $check:ident, $schema:tt;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(pub String);

        impl Text for $name {
            fn check(text: &str) -> Result<(), String> {
                $check(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl BodyMember for $name {
            fn read(raw: &RawValue) -> Result<Self, Mistakes> {
                let text: String = crate::json::read(raw.get()).map_err(|_| "must be a string")?;
                $check(&text)?;
                Ok(Self(text))
            }
        }

        inline_schema!($name, $schema);
    )+};
}

texts! {
    /// The name of a contract, a user, a socket or a token.
    NameText: check_name, { "type": "string", "minLength": 1, "maxLength": MAX_NAME };
    /// The name of an event that clients get.
    EventText: check_event, {
        "type": "string", "minLength": 1, "maxLength": MAX_NAME, "not": { "enum": RESERVED_EVENTS },
    };
    /// The name of a room.
    RoomText: check_room, { "type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": "^[^$]" };
    /// The path of a namespace.
    NamespaceText: check_namespace, { "type": "string", "maxLength": MAX_NAME, "pattern": "^/" };
    /// The id of a publish.
    IdText: check_id, { "type": "string", "pattern": "^[!-~]{1,128}$" };
}

/// A time with its unit, such as `90s`, and at most `MAX` seconds.
#[derive(Debug)]
pub struct PeriodText<const MAX: u64>(pub Duration);

impl<const MAX: u64> JsonSchema for PeriodText<MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("PeriodText{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": period_pattern(MAX) })
    }
}

impl<const MAX: u64> BodyMember for PeriodText<MAX> {
    fn read(raw: &RawValue) -> Result<Self, Mistakes> {
        let text: String = crate::json::read(raw.get()).unwrap_or_default();
        let period =
            parse_period(&text).ok_or(r#"must be a time with its unit, such as "90s", "15m", "24h" or "7d""#)?;
        let max = Duration::from_secs(MAX);
        if period > max {
            return Err(format!("must be at most {}", humantime::format_duration(max)).into());
        }
        Ok(Self(period))
    }
}

/// Checks that a text has 1 to `max` characters.
pub fn check_length(text: &str, max: usize) -> Result<(), String> {
    match text.chars().count() {
        0 => Err("must not be empty".into()),
        length if length > max => Err(format!("has {length} characters; at most {max} are permitted")),
        _ => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    check_length(name, MAX_NAME)
}

fn check_event(name: &str) -> Result<(), String> {
    check_name(name)?;
    if RESERVED_EVENTS.contains(&name) {
        return Err("is reserved by Socket.IO; choose another".into());
    }
    Ok(())
}

fn check_room(name: &str) -> Result<(), String> {
    check_name(name)?;
    if name.starts_with(RESERVED_PREFIX) {
        return Err(format!("must not start with {RESERVED_PREFIX}: the node uses such rooms itself"));
    }
    Ok(())
}

fn check_namespace(path: &str) -> Result<(), String> {
    check_name(path)?;
    if path.starts_with('/') { Ok(()) } else { Err("must start with a slash".into()) }
}

fn check_id(id: &str) -> Result<(), String> {
    if (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!("must be 1 to {MAX_ID} printable ASCII characters without spaces"))
}

/// Returns the pattern of the times of at most `max` seconds.
fn period_pattern(max: u64) -> String {
    let units = UNITS.into_iter().filter(|(_, seconds)| max >= *seconds);
    let units: Vec<_> = units.map(|(unit, seconds)| format!("({}){unit}", up_to(max / seconds))).collect();
    format!("^({})$", units.join("|"))
}

/// Returns the pattern of the whole numbers from 1 to `max`, which is at least 1.
fn up_to(max: u64) -> String {
    let digits: Vec<u32> = max.to_string().chars().filter_map(|digit| digit.to_digit(10)).collect();
    let mut patterns = Vec::new();
    if digits.len() > 1 {
        patterns.push(format!("[1-9][0-9]{{0,{}}}", digits.len() - 2));
    }
    let mut same = String::new();
    for (at, digit) in digits.iter().enumerate() {
        let least = u32::from(at == 0);
        if *digit > least {
            patterns.push(format!("{same}[{least}-{}][0-9]{{{}}}", digit - 1, digits.len() - at - 1));
        }
        same.push_str(&digit.to_string());
    }
    patterns.push(same);
    patterns.join("|")
}

fn parse_period(text: &str) -> Option<Duration> {
    let last = text.chars().last()?;
    let unit = UNITS.iter().find(|(unit, _)| *unit == last)?.1;
    let digits = &text[..text.len() - 1];
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    let count: u64 = digits.parse().ok().filter(|_| plain)?;
    count.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH: u64 = 30 * 86_400;

    fn period(text: &str) -> Option<Duration> {
        let read = PeriodText::<MONTH>::read(serde_json::from_str(&format!("{text:?}")).unwrap());
        read.ok().map(|PeriodText(period)| period)
    }

    #[test]
    fn times_have_a_unit_and_a_bound() {
        assert_eq!(period("90s"), Some(Duration::from_secs(90)));
        assert_eq!(period("720h"), Some(Duration::from_secs(MONTH)));
        for text in
            ["", "s", "0s", "01m", "-1s", "+1s", "1", "1.5h", "31d", "721h", "99999999999999999999d", "1 d", "1y", "١s"]
        {
            assert!(period(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_documented_pattern_is_what_is_read() {
        let counts =
            [0, 1, 9, 10, 29, 30, 31, 719, 720, 721, 9999, 43199, 43200, 43201, 99999, 2591999, 2592000, 2592001];
        for max in [1, 9, 30, 100, 4711, MONTH] {
            let pattern = period_pattern(max);
            let validator = jsonschema::validator_for(&serde_json::json!({ "pattern": pattern })).unwrap();
            for text in
                counts.iter().flat_map(|count| ["s", "m", "h", "d", "x", ""].map(|unit| format!("{count}{unit}")))
            {
                let is_read = period(&text).is_some_and(|period| period.as_secs() <= max);
                assert_eq!(validator.is_valid(&serde_json::Value::from(text.as_str())), is_read, "{text} by {pattern}");
            }
        }
    }
}
