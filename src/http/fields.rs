//! Reads JSON bodies: reports all mistakes at once, shows no value, and leaves payloads encoded.
//!
//! A body is declared once, with `body!`, for its reader and for the OpenAPI document. serde's derived readers stop at
//! the first mistake and quote the value in their message. A backend should see all mistakes, and a log should see no
//! payload.

use std::collections::HashSet;
use std::fmt;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::answer::{ApiError, Detail, MAX_DETAILS, cut};
use crate::error::Code;

/// Maximum number of elements in a list of texts.
pub const MAX_LIST: usize = 1000;

/// The body of a request.
pub trait Body: Sized {
    /// Takes the members of the body out of an object. Returns `None` after it has noted a mistake in the object.
    fn take(object: &mut ObjectReader<'_>) -> Option<Self>;
}

/// The value of a body's member.
pub trait BodyMember: Sized {
    /// Reads the value.
    ///
    /// # Errors
    /// Returns all mistakes. Their places are relative to the member.
    fn read(raw: &RawValue) -> Result<Self, Mistakes>;

    /// The value of a member that the body does not have. `None`: the member is required.
    fn absent() -> Option<Self> {
        None
    }
}

/// The mistakes in the value of a member.
#[derive(Debug)]
pub struct Mistakes(Vec<Detail>);

/// Declares a body: a struct whose fields are the members. The reader and the schema come from this declaration.
///
/// The form `..name: Type` includes the members of another body.
/// - `one_of(a, b)` after the name of the struct requires that at least one of these lists is not empty.
macro_rules! body {
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(one_of($($list:ident),+))? {
            $(..$base:ident: $base_type:ty,)?
            $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        #[derive(schemars::JsonSchema)]
        $(#[$meta])*
        #[schemars(deny_unknown_fields $(, extend("anyOf" = $crate::http::fields::one_of(&[$(stringify!($list)),+])))?)]
        pub struct $name {
            $(#[schemars(flatten)] $base: $base_type,)?
            $($(#[$field_meta])* $field: $type,)*
        }

        impl $crate::http::fields::Body for $name {
            fn take(object: &mut $crate::http::fields::ObjectReader<'_>) -> Option<Self> {
                $(let $base = <$base_type as $crate::http::fields::Body>::take(object);)?
                $(let $field: Option<$type> = object.member(stringify!($field));)*
                $(object.one_of(&[$((stringify!($list), $list.as_ref().is_some_and($crate::http::fields::is_empty))),+]);)?
                Some(Self { $($base: $base?,)? $($field: $field?,)* })
            }
        }
    };
}

pub(super) use body;

/// A JSON object that is being read.
pub struct ObjectReader<'a> {
    place: String,
    members: IndexMap<String, &'a RawValue>,
    mistakes: Vec<Detail>,
}

impl<'a> ObjectReader<'a> {
    /// Begins to read an object. `place` is its key path in the body, empty for the body itself.
    ///
    /// # Errors
    /// Returns an error if the value is not an object.
    pub fn open(raw: &'a RawValue, place: &str) -> Result<Self, ApiError> {
        let at = if place.is_empty() { "body" } else { place };
        let RawMembers { members, twice } = serde_json::from_str(raw.get())
            .map_err(|_| invalid(vec![Detail::new(at, "must be an object of a few members")]))?;
        let mut object = Self { place: place.to_owned(), members, mistakes: Vec::new() };
        for name in twice {
            object.note(&name, "is there twice");
        }
        Ok(object)
    }

    /// Reads the object as a body.
    ///
    /// # Errors
    /// Returns all mistakes, including members that the body does not have.
    pub fn read<T: Body>(mut self) -> Result<T, ApiError> {
        let body = T::take(&mut self);
        self.finish()?;
        body.ok_or_else(|| invalid(Vec::new()))
    }

    /// Takes a member. Returns `None` after it has noted a mistake.
    pub fn member<T: BodyMember>(&mut self, name: &str) -> Option<T> {
        let read = match self.members.shift_remove(name) {
            Some(raw) => T::read(raw),
            None => T::absent().ok_or_else(|| "is missing".into()),
        };
        let Mistakes(mistakes) = match read {
            Ok(value) => return Some(value),
            Err(mistakes) => mistakes,
        };
        for Detail { at, problem } in mistakes {
            self.note(&format!("{name}{at}"), &problem);
        }
        None
    }

    /// Returns the elements of an array, undecoded. Empty if absent.
    pub fn array(&mut self, name: &str) -> Vec<&'a RawValue> {
        let raw = self.members.shift_remove(name).filter(|raw| raw.get() != "null");
        let items = raw.map_or_else(|| Ok(Vec::new()), |raw| serde_json::from_str(raw.get()));
        items.unwrap_or_else(|_| {
            self.note(name, "must be an array");
            Vec::new()
        })
    }

    /// Whether the body has the member.
    pub fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Records a mistake if all of these lists are empty. Each is given with whether it is.
    pub fn one_of(&mut self, lists: &[(&str, bool)]) {
        if let ([(first, _), others @ ..], true) = (lists, lists.iter().all(|(_, is_empty)| *is_empty)) {
            let others: Vec<_> = others.iter().map(|(name, _)| *name).collect();
            self.note(first, &format!("is empty, and so are {}", others.join(" and ")));
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Returns all mistakes, including members that were not taken.
    pub fn finish(mut self) -> Result<(), ApiError> {
        for name in std::mem::take(&mut self.members).into_keys() {
            self.note(&name, "is not a known member");
        }
        if self.mistakes.is_empty() { Ok(()) } else { Err(invalid(self.mistakes)) }
    }

    fn note(&mut self, name: &str, problem: &str) {
        if self.mistakes.len() < MAX_DETAILS {
            let name = cut(name);
            let at = if self.place.is_empty() { name } else { format!("{}.{name}", self.place) };
            self.mistakes.push(Detail::new(at, problem));
        }
    }
}

/// Creates the error 422 with these mistakes.
pub fn invalid(mistakes: Vec<Detail>) -> ApiError {
    ApiError::new(Code::InvalidPayload, "the body is invalid; see details").with_details(mistakes)
}

/// Whether a list is absent or has no elements.
pub fn is_empty<T>(list: &Option<List<T>>) -> bool {
    list.as_ref().is_none_or(|List(items)| items.is_empty())
}

/// The JSON Schema of [`ObjectReader::one_of`].
pub fn one_of(lists: &[&str]) -> Value {
    let filled =
        |list: &&str| json!({ "required": [list], "properties": { *list: { "type": "array", "minItems": 1 } } });
    lists.iter().map(filled).collect()
}

impl<T: Into<String>> From<T> for Mistakes {
    fn from(problem: T) -> Self {
        Self(vec![Detail::new("", problem)])
    }
}

// === kinds of values ===

/// An optional member, which may also be `null`.
impl<T: BodyMember> BodyMember for Option<T> {
    fn read(raw: &RawValue) -> Result<Self, Mistakes> {
        if raw.get() == "null" { Ok(None) } else { T::read(raw).map(Some) }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl BodyMember for bool {
    fn read(raw: &RawValue) -> Result<Self, Mistakes> {
        serde_json::from_str(raw.get()).map_err(|_| "must be true or false".into())
    }
}

impl BodyMember for Map<String, Value> {
    fn read(raw: &RawValue) -> Result<Self, Mistakes> {
        crate::json::read(raw.get()).map_err(|_| "must be an object".into())
    }
}

/// JSON values, undecoded.
impl BodyMember for Vec<Box<RawValue>> {
    fn read(raw: &RawValue) -> Result<Self, Mistakes> {
        serde_json::from_str(raw.get()).map_err(|_| "must be an array".into())
    }
}

/// Any JSON value, undecoded, or no value. `null` is a value.
#[derive(Debug)]
pub struct Payload(pub Option<Box<RawValue>>);

impl BodyMember for Payload {
    fn read(raw: &RawValue) -> Result<Self, Mistakes> {
        Ok(Self(Some(raw.to_owned())))
    }

    fn absent() -> Option<Self> {
        Some(Self(None))
    }
}

/// A list of at most [`MAX_LIST`] texts.
#[derive(Debug, JsonSchema)]
#[schemars(inline)]
pub struct List<T>(#[schemars(length(max = MAX_LIST))] Vec<T>);

impl<T: Into<String>> List<T> {
    /// Returns the texts of an optional list.
    pub fn strings(list: Option<Self>) -> Vec<String> {
        list.into_iter().flat_map(|List(items)| items).map(T::into).collect()
    }
}

impl<T: BodyMember> BodyMember for List<T> {
    fn read(raw: &RawValue) -> Result<Self, Mistakes> {
        let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| "must be an array")?;
        if items.len() > MAX_LIST {
            return Err(format!("has {} elements; at most {MAX_LIST} are permitted", items.len()).into());
        }
        let (mut read, mut mistakes) = (Vec::with_capacity(items.len()), Vec::new());
        for (at, item) in items.into_iter().enumerate() {
            match T::read(item) {
                Ok(item) => read.push(item),
                Err(Mistakes(found)) => {
                    mistakes.extend(
                        found.into_iter().map(|Detail { problem, .. }| Detail::new(format!("[{at}]"), problem)),
                    );
                }
            }
        }
        if mistakes.is_empty() { Ok(Self(read)) } else { Err(Mistakes(mistakes)) }
    }
}

/// Returns an object's members, undecoded, and the names that occur twice.
struct RawMembers<'a> {
    members: IndexMap<String, &'a RawValue>,
    twice: HashSet<String>,
}

impl<'de> Deserialize<'de> for RawMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = RawMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut members, mut twice) = (IndexMap::new(), HashSet::new());
                while let Some((name, raw)) = map.next_entry::<String, &'de RawValue>()? {
                    // No valid request has this many members.
                    if members.len() > MAX_DETAILS * 4 {
                        return Err(de::Error::custom("too many members"));
                    }
                    if members.contains_key(&name) {
                        twice.insert(name.clone());
                    }
                    members.insert(name, raw);
                }
                Ok(RawMembers { members, twice })
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::{NameText, PeriodText, RoomText};
    use super::*;

    body! {
        /// A body.
        pub struct Sample one_of(rooms) {
            contract: NameText,
            event: NameText,
            rooms: Option<List<RoomText>>,
            ttl: Option<PeriodText<9>>,
            close: Option<bool>,
            #[schemars(with = "Option<Value>")]
            data: Payload,
        }
    }

    fn read(text: &str) -> Result<Sample, ApiError> {
        ObjectReader::open(serde_json::from_str(text).unwrap(), "").and_then(ObjectReader::read)
    }

    fn places(text: &str) -> Vec<String> {
        let error = read(text).err().unwrap().body();
        assert!(!serde_json::to_string(&error).unwrap().contains("secret"));
        error.details.into_iter().map(|detail| detail.at).collect()
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_no_value_is_echoed() {
        let body = r#"{"contract":"","event":7,"rooms":["a","$b",3],"hidden":"secret-value","ttl":"9y","hidden":1}"#;
        assert_eq!(places(body), ["hidden", "contract", "event", "rooms[1]", "rooms[2]", "ttl", "hidden"]);
        assert_eq!(places(r#"{"rooms":[],"close":0}"#), ["contract", "event", "close", "rooms"]);
    }

    #[test]
    fn payload_bytes_are_kept() {
        let body = read(r#"{"contract":"c","event":"e","rooms":["r"],"data": {"n": 1.50, "s":"\ud800"} }"#).unwrap();
        assert_eq!(body.data.0.unwrap().get(), r#"{"n": 1.50, "s":"\ud800"}"#);
        assert_eq!(
            (body.contract.0, body.event.0, List::strings(body.rooms)),
            ("c".into(), "e".into(), vec!["r".into()])
        );
    }

    #[test]
    fn null_stands_for_a_member_that_is_not_there() {
        let body = read(r#"{"contract":"c","event":"e","rooms":["r"],"ttl":null,"close":null,"data":null}"#).unwrap();
        assert!(body.ttl.is_none() && body.close.is_none());
        assert_eq!(body.data.0.unwrap().get(), "null");
        assert!(read(r#"{"contract":"c","event":"e","rooms":["r"]}"#).unwrap().data.0.is_none());
    }
}
