//! The claims of a token during its verification. They are kept in a list: most tokens have a handful, and a map costs
//! more to build and to search.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Claims by name, in the token's order, each name once. If a name occurs twice, the last value counts (RFC 7519, 4). A
/// repeated name that the JWT library checks has already made the token invalid.
#[derive(Debug)]
pub(super) struct ClaimSet(Vec<(String, Value)>);

impl ClaimSet {
    /// The value of a claim.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// All claims.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> + Clone {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl<'de> Deserialize<'de> for ClaimSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ClaimsVisitor)
    }
}

struct ClaimsVisitor;

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = ClaimSet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<ClaimSet, A::Error> {
        let mut claims: Vec<(String, Value)> = Vec::with_capacity(8);
        while let Some((name, value)) = members.next_entry::<String, Value>()? {
            match claims.iter_mut().find(|(known, _)| *known == name) {
                None => claims.push((name, value)),
                Some((_, before)) => *before = value,
            }
        }
        Ok(ClaimSet(claims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once_and_the_last_value_counts() {
        let claims: ClaimSet = serde_json::from_str(r#"{"a":1,"exp":2,"b":{"a":3},"a":4}"#).unwrap();
        let all: Vec<_> = claims.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(all, ["a=4", "exp=2", r#"b={"a":3}"#]);
        assert_eq!((claims.get("a"), claims.get("c")), (Some(&4.into()), None));
        assert!(serde_json::from_str::<ClaimSet>("[]").is_err());
    }
}
