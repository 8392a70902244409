//! Parses JSON bodies member by member: reports all mistakes at once, shows no value, and leaves payloads encoded.
//!
//! serde's derived parsers stop at the first mistake and quote the value in their message. A backend should see all
//! mistakes, and a log should see no payload.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use indexmap::IndexMap;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{ApiError, Detail, MAX_DETAILS};
use super::text;
use crate::error::Code;

/// A JSON object that is being parsed. A method that reads a member notes mistakes and returns a default;
/// [`Object::finish`] then refuses the whole object.
pub struct Object<'a> {
    place: String,
    members: IndexMap<String, &'a RawValue>,
    mistakes: Vec<Detail>,
}

impl<'a> Object<'a> {
    /// Begins to parse an object. `place` is its key path in the body, empty for the body itself.
    ///
    /// # Errors
    /// The value is not an object, or has a member twice.
    pub fn read(raw: &'a RawValue, place: &str) -> Result<Self, ApiError> {
        let at = if place.is_empty() { "body" } else { place };
        let Members { members, twice } = serde_json::from_str(raw.get())
            .map_err(|_| invalid(vec![mistake(at, "must be an object of a few members")]))?;
        let mut object = Self { place: place.to_owned(), members, mistakes: Vec::new() };
        for name in twice {
            object.note(&name, "is there twice");
        }
        Ok(object)
    }

    /// A required string of 1 to `max` characters.
    pub fn string(&mut self, name: &str, max: usize) -> String {
        match self.required(name) {
            Some(raw) => self.checked(name, text::read(raw, max)).unwrap_or_default(),
            None => String::new(),
        }
    }

    /// An optional id of printable ASCII.
    pub fn id(&mut self, name: &str) -> Option<String> {
        let raw = self.take(name)?;
        self.checked(name, text::read_id(raw))
    }

    /// A required path of a namespace.
    pub fn namespace(&mut self) -> String {
        let path = self.string("namespace", text::MAX_NAME);
        if !path.is_empty() && !path.starts_with('/') {
            self.note("namespace", "must start with a slash");
        }
        path
    }

    /// A required room name.
    pub fn room(&mut self, name: &str) -> String {
        match self.required(name) {
            Some(raw) => self.checked(name, text::read_room(raw)).unwrap_or_default(),
            None => String::new(),
        }
    }

    /// An array of strings, at most [`text::MAX_LIST`]. Empty if absent.
    pub fn strings(&mut self, name: &str) -> Vec<String> {
        self.list(name, |raw| text::read(raw, text::MAX_NAME))
    }

    /// An array of rooms, at most [`text::MAX_LIST`]. Empty if absent.
    pub fn rooms(&mut self, name: &str) -> Vec<String> {
        self.list(name, text::read_room)
    }

    /// `true` or `false`. False if absent.
    pub fn flag(&mut self, name: &str) -> bool {
        let Some(raw) = self.take(name) else { return false };
        self.checked(name, serde_json::from_str(raw.get()).map_err(|_| "must be true or false".into()))
            .unwrap_or_default()
    }

    /// A time with its unit, at most `max`.
    pub fn period(&mut self, name: &str, default: Duration, max: Duration) -> Duration {
        let Some(raw) = self.take(name) else { return default };
        self.checked(name, text::read_period(raw, max)).unwrap_or(default)
    }

    /// A required JSON value, undecoded.
    pub fn raw(&mut self, name: &str) -> Box<RawValue> {
        match self.members.shift_remove(name) {
            Some(raw) => raw.to_owned(),
            None => {
                self.note(name, "is missing");
                RawValue::NULL.to_owned()
            }
        }
    }

    /// An array of JSON values, undecoded. Empty if absent.
    pub fn raws(&mut self, name: &str) -> Vec<Box<RawValue>> {
        let Some(raw) = self.take(name) else { return Vec::new() };
        self.checked(name, serde_json::from_str(raw.get()).map_err(|_| "must be an array".into())).unwrap_or_default()
    }

    /// An optional object, decoded.
    pub fn object(&mut self, name: &str) -> Option<Value> {
        let raw = self.take(name)?;
        let read = crate::json::read(raw.get()).map(Value::Object).map_err(|_| "must be an object".into());
        self.checked(name, read)
    }

    /// The elements of an array, undecoded. `None` if absent.
    pub fn array(&mut self, name: &str) -> Option<Vec<&'a RawValue>> {
        let raw = self.take(name)?;
        self.checked(name, serde_json::from_str(raw.get()).map_err(|_| "must be an array".into()))
    }

    /// Whether the member is present.
    pub fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Notes a mistake that the caller found.
    pub fn note(&mut self, name: &str, problem: &str) {
        if self.mistakes.len() < MAX_DETAILS {
            let name = text::cut(name);
            let at = if self.place.is_empty() { name } else { format!("{}.{name}", self.place) };
            self.mistakes.push(mistake(&at, problem));
        }
    }

    /// Ends the parsing.
    ///
    /// # Errors
    /// All mistakes, including members that no method read.
    pub fn finish(mut self) -> Result<(), ApiError> {
        for name in std::mem::take(&mut self.members).into_keys() {
            self.note(&name, "is not a known member");
        }
        if self.mistakes.is_empty() { Ok(()) } else { Err(invalid(self.mistakes)) }
    }

    fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        self.members.shift_remove(name).filter(|raw| raw.get() != "null")
    }

    fn required(&mut self, name: &str) -> Option<&'a RawValue> {
        let raw = self.members.shift_remove(name);
        if raw.is_none() {
            self.note(name, "is missing");
        }
        raw
    }

    fn checked<T>(&mut self, name: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|problem| self.note(name, &problem)).ok()
    }

    fn list(&mut self, name: &str, read: impl Fn(&RawValue) -> Result<String, String>) -> Vec<String> {
        let items = self.array(name).unwrap_or_default();
        if items.len() > text::MAX_LIST {
            self.note(name, &format!("has {} elements; at most {} are permitted", items.len(), text::MAX_LIST));
            return Vec::new();
        }
        let items = items.into_iter().enumerate();
        items.filter_map(|(at, raw)| self.checked(&format!("{name}[{at}]"), read(raw))).collect()
    }
}

/// 422 with these mistakes.
pub fn invalid(mistakes: Vec<Detail>) -> ApiError {
    ApiError::new(Code::InvalidPayload, "the body is invalid; see details").with_details(mistakes)
}

fn mistake(at: &str, problem: &str) -> Detail {
    Detail { at: at.to_owned(), problem: problem.to_owned() }
}

/// An object's members, undecoded, and the names that occur twice.
struct Members<'a> {
    members: IndexMap<String, &'a RawValue>,
    twice: HashSet<String>,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut members, mut twice) = (IndexMap::new(), HashSet::new());
                while let Some((name, raw)) = map.next_entry::<String, &'de RawValue>()? {
                    // No request has this many members.
                    if members.len() > MAX_DETAILS * 4 {
                        return Err(de::Error::custom("too many members"));
                    }
                    if members.contains_key(&name) {
                        twice.insert(name.clone());
                    }
                    members.insert(name, raw);
                }
                Ok(Members { members, twice })
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_no_value_is_echoed() {
        let body = r#"{"contract":"","event":7,"rooms":["a","$b",3],"hidden":"secret-value","ttl":"9y","hidden":1}"#;
        let mut object = Object::read(raw(body), "").unwrap();
        object.string("contract", 8);
        object.string("event", 8);
        object.rooms("rooms");
        object.period("ttl", Duration::ZERO, Duration::from_secs(9));
        object.raw("data");
        let error = object.finish().unwrap_err().body();
        let places: Vec<_> = error.details.iter().map(|detail| detail.at.as_str()).collect();
        assert_eq!(places, ["hidden", "contract", "event", "rooms[1]", "rooms[2]", "ttl", "data", "hidden"]);
        assert!(!serde_json::to_string(&error).unwrap().contains("secret"));
    }

    #[test]
    fn payload_bytes_are_kept() {
        let mut object = Object::read(raw(r#"{"data": {"n": 1.50, "s":"\ud800"} }"#), "").unwrap();
        assert_eq!(object.raw("data").get(), r#"{"n": 1.50, "s":"\ud800"}"#);
        object.finish().unwrap();
    }

    #[test]
    fn null_stands_for_a_member_that_is_not_there() {
        let mut object = Object::read(raw(r#"{"volatile":null,"data":null}"#), "").unwrap();
        assert!(!object.flag("volatile"));
        assert_eq!(object.raw("data").get(), "null");
        object.finish().unwrap();
    }
}
