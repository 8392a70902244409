//! A JSON object whose values are kept as text, so that adding members does not change how the other values are
//! written.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// The members of a JSON object, in order.
#[derive(Default)]
pub struct JsonObject<'a>(IndexMap<MemberName<'a>, Cow<'a, RawValue>>);

#[derive(Deserialize, Serialize, PartialEq, Eq, Hash)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> JsonObject<'a> {
    /// Splits the text of a JSON object into its members. `None` when the text is no object. `decoded` is the same
    /// object; it is used when a name cannot be decoded because it holds half of a surrogate pair.
    pub fn read(text: &'a RawValue, decoded: &'a Value) -> Option<Self> {
        let split = serde_json::from_str(text.get()).ok();
        split.or_else(|| Some(Self::of(decoded.as_object()?)))
    }

    /// The members of a decoded object.
    pub fn of(members: impl IntoIterator<Item = (&'a String, &'a Value)>) -> Self {
        let mut all = Self::default();
        members.into_iter().for_each(|(name, value)| all.set(name, value));
        all
    }

    /// Sets a member to a value that is JSON text already.
    pub fn set_raw(&mut self, name: &'a str, value: &'a RawValue) {
        self.0.insert(MemberName(Cow::Borrowed(name)), Cow::Borrowed(value));
    }

    /// Sets a member. An existing member keeps its position.
    fn set(&mut self, name: &'a str, value: &Value) {
        if let Ok(value) = to_raw_value(value) {
            self.0.insert(MemberName(Cow::Borrowed(name)), Cow::Owned(value));
        }
    }

    /// Returns the text of a member.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        match self.0.get(&MemberName(Cow::Borrowed(name)))? {
            Cow::Borrowed(text) => Some(text),
            Cow::Owned(_) => None,
        }
    }

    /// Returns the object as JSON text.
    pub fn to_raw(&self) -> Option<Box<RawValue>> {
        to_raw_value(self).ok()
    }
}

impl Serialize for JsonObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = JsonObject<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = IndexMap::new();
                while let Some((key, value)) = map.next_entry::<MemberName<'de>, &'de RawValue>()? {
                    members.insert(key, Cow::Borrowed(value));
                }
                Ok(JsonObject(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_stay_as_they_were_written() {
        let text = RawValue::from_string(r#"{"n": 1.50, "big":123456789012345678901234567890,"\u0061":[ 1 ]}"#.into());
        let text = text.unwrap();
        let mut members = JsonObject::read(&text, &Value::Null).unwrap();
        members.set("at", &json!("now"));
        members.set("n", &json!(2));
        let expected = r#"{"n":2,"big":123456789012345678901234567890,"a":[ 1 ],"at":"now"}"#;
        assert_eq!(members.to_raw().unwrap().get(), expected);
    }

    #[test]
    fn the_last_of_two_members_of_a_name_counts_and_only_an_object_has_members() {
        let raw = |text: &str| RawValue::from_string(text.into()).unwrap();
        let twice = raw(r#"{"a":1,"b":2,"a":3}"#);
        assert_eq!(JsonObject::read(&twice, &Value::Null).unwrap().to_raw().unwrap().get(), r#"{"a":3,"b":2}"#);
        for text in ["[]", "1", "null", r#""{}""#] {
            assert!(JsonObject::read(&raw(text), &Value::Null).is_none(), "{text}");
        }
    }

    #[test]
    fn half_an_emoji_passes_in_a_value_and_is_replaced_in_a_name() {
        for (text, expected) in [
            (r#"{"a":"\ud83d"}"#, r#"{"a":"\ud83d","b":1}"#),
            (r#"{"\ud83d":"\ud83d"}"#, "{\"\u{fffd}\":\"\u{fffd}\",\"b\":1}"),
        ] {
            let decoded: Value = crate::json::read(text).unwrap();
            let text = RawValue::from_string(text.to_owned()).unwrap();
            let mut members = JsonObject::read(&text, &decoded).unwrap();
            members.set("b", &json!(1));
            assert_eq!(members.to_raw().unwrap().get(), expected);
        }
    }
}
