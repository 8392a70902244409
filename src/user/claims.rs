//! The claims of a verified token, kept as long as the connection.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// All claims, stored as JSON text.
///
/// A decoded map would take five times the memory for every connection, and only few connections need the claims. A
/// rule or a room's name that uses claims decodes them when it is evaluated.
#[derive(Clone)]
pub struct Claims(Arc<RawValue>);

impl Claims {
    /// Creates claims from a map.
    pub fn of(claims: &Map<String, Value>) -> Self {
        Self::of_members(claims.iter().map(|(name, value)| (name.as_str(), value)))
    }

    /// Creates claims from pairs of a name and a value. Each name must occur once.
    pub fn of_members<'c>(claims: impl Iterator<Item = (&'c str, &'c Value)> + Clone) -> Self {
        let text = serde_json::value::to_raw_value(&Members(claims)).unwrap_or_else(|_| unreachable!("keys are texts"));
        Self(text.into())
    }

    /// Decodes one claim; the others are skipped.
    pub fn get(&self, name: &str) -> Option<Value> {
        serde_json::Deserializer::from_str(self.0.get()).deserialize_map(Find(name)).ok()?
    }

    /// Decodes all claims.
    pub fn to_map(&self) -> Map<String, Value> {
        serde_json::from_str(self.0.get()).unwrap_or_default()
    }

    /// Whether the token has no claims.
    pub fn is_empty(&self) -> bool {
        self.0.get() == "{}"
    }
}

impl Default for Claims {
    fn default() -> Self {
        Self::of(&Map::new())
    }
}

impl Serialize for Claims {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

// Claims can hold personal data, so they are not shown.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims")
    }
}

/// Serializes pairs as the members of a JSON object.
struct Members<I>(I);

impl<'c, I: Iterator<Item = (&'c str, &'c Value)> + Clone> Serialize for Members<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.clone())
    }
}

/// Finds the member of an object that has this name.
struct Find<'n>(&'n str);

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Option<Value>, A::Error> {
        let mut found = None;
        while let Some(same) = members.next_key_seed(Is(self.0))? {
            if same {
                found = Some(members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a key with this name, without copying the key.
struct Is<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a claim's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Claims {
        Claims::of(value.as_object().unwrap())
    }

    #[test]
    fn each_is_found_by_its_name_and_all_are_as_they_were() {
        let all = json!({ "sub": "u", "a\"b\u{1}": 2, "org": { "id": [1, 2.5, null] }, "é": true, "big": u64::MAX });
        let kept = claims(&all);
        for (name, value) in all.as_object().unwrap() {
            assert_eq!(kept.get(name).as_ref(), Some(value), "{name}");
        }
        assert_eq!(kept.get("id"), None);
        assert_eq!(Value::Object(kept.to_map()), all);
        assert_eq!(serde_json::to_value(&kept).unwrap(), all);
        assert!(!kept.is_empty() && Claims::default().is_empty() && Claims::default().get("sub").is_none());
    }

    #[test]
    fn they_are_not_shown() {
        assert!(!format!("{:?}", claims(&json!({ "mail": "a@example.org" }))).contains("example"));
    }
}
