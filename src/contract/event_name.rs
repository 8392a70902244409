//! The name of an event that the node sends: a fixed text, or a text with placeholders.

use std::borrow::Cow;

use serde_json::Value;

use super::path::Path;
use super::schema::Schema;
use super::scope::Scope;
use super::template::{Piece, split};
use crate::protocol::RESERVED_EVENTS;

/// Maximum length of an event's name, in bytes.
pub const MAX_EVENT_NAME_BYTES: usize = 128;

/// The name of an event that the node sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventName {
    /// The name is the same each time.
    Fixed(String),
    /// The name contains values of the client's event.
    Made(Vec<NamePart>),
}

/// A part of a name with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePart {
    /// Literal text.
    Text(String),
    /// A placeholder, which is replaced by a value.
    Path(Path),
}

impl EventName {
    /// Compiles a name. `{{` and `}}` stand for braces.
    ///
    /// # Errors
    /// Returns the problem, described for the author of the contract.
    pub fn compile(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for piece in split(text)? {
            parts.push(match piece {
                Piece::Text(text) => NamePart::Text(text),
                Piece::Name(name) => NamePart::Path(Path::parse(name.trim())?),
            });
        }
        Ok(match parts.as_slice() {
            [NamePart::Text(text)] => Self::Fixed(text.clone()),
            _ => Self::Made(parts),
        })
    }

    /// Returns the name, if it is the same each time.
    pub fn fixed(&self) -> Option<&str> {
        match self {
            Self::Fixed(name) => Some(name),
            Self::Made(_) => None,
        }
    }

    /// Returns the name `{event.name}`: the name of the client's event, unchanged.
    pub(super) fn own() -> Self {
        Self::compile("{event.name}").expect("it is a path")
    }

    /// Whether this is the name of the client's event, unchanged.
    pub(super) fn is_own(&self) -> bool {
        *self == Self::own()
    }

    /// Whether the name has values of the payload.
    pub fn reads_payload(&self) -> bool {
        self.paths().any(Path::reads_payload)
    }

    /// Returns the name for this event.
    ///
    /// # Errors
    /// Returns the reason why the values make no name. It contains none of them.
    pub fn render<'a>(&'a self, scope: &Scope<'_>) -> Result<Cow<'a, str>, String> {
        let parts = match self {
            Self::Fixed(name) => return Ok(Cow::Borrowed(name)),
            Self::Made(parts) => parts,
        };
        let mut name = String::new();
        for part in parts {
            match part {
                NamePart::Text(text) => name.push_str(text),
                NamePart::Path(path) => match path.find(scope) {
                    Some(Value::String(text)) if !text.is_empty() => name.push_str(&text),
                    Some(Value::Number(number)) if number.is_u64() || number.is_i64() => {
                        name.push_str(&number.to_string());
                    }
                    _ => return Err(format!("{} is not a text that an event's name can have", path.text())),
                },
            }
        }
        match problem_of(&name) {
            Some(problem) => Err(problem),
            None => Ok(Cow::Owned(name)),
        }
    }

    /// Returns the first placeholder for which clients choose any text, if the name begins without a fixed text.
    pub(super) fn unbounded(&self, schema: Option<&Schema>) -> Option<&Path> {
        match self {
            Self::Made(parts) if !matches!(parts.first(), Some(NamePart::Text(_))) => {
                let is_free = |path: &&Path| path.reads_payload() && !schema.is_some_and(|schema| schema.bounds(path));
                self.paths().find(is_free)
            }
            _ => None,
        }
    }

    /// Whether a client that chooses the values can make this name.
    pub(super) fn can_be(&self, name: &str, schema: Option<&Schema>) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Made(parts) => fits(parts, name, schema),
        }
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let parts = match self {
            Self::Fixed(_) => &[][..],
            Self::Made(parts) => parts,
        };
        parts.iter().filter_map(|part| match part {
            NamePart::Text(_) => None,
            NamePart::Path(path) => Some(path),
        })
    }
}

/// Why a text cannot be an event's name.
pub(super) fn problem_of(name: &str) -> Option<String> {
    if RESERVED_EVENTS.contains(&name) {
        return Some("the name is an event that Socket.IO reserves".to_owned());
    }
    if name.is_empty() || name.len() > MAX_EVENT_NAME_BYTES {
        return Some(format!("an event's name has 1 to {MAX_EVENT_NAME_BYTES} bytes"));
    }
    name.contains(char::is_control).then(|| "an event's name contains no control characters".to_owned())
}

fn fits(parts: &[NamePart], name: &str, schema: Option<&Schema>) -> bool {
    if name.len() > MAX_EVENT_NAME_BYTES {
        return false;
    }
    // The lengths of the beginnings of a name that the parts so far can make.
    let mut reached = vec![0];
    for part in parts {
        reached = match part {
            NamePart::Text(text) => {
                let follows = |at: &usize| name[*at..].starts_with(text.as_str());
                reached.into_iter().filter(follows).map(|at| at + text.len()).collect()
            }
            NamePart::Path(path) => {
                let could_be = |value: &str| schema.is_none_or(|schema| schema.could_have(path, value));
                let ends = (1..=name.len()).filter(|end| name.is_char_boundary(*end));
                ends.filter(|&end| reached.iter().any(|&at| at < end && could_be(&name[at..end]))).collect()
            }
        };
    }
    reached.contains(&name.len())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;
    use crate::user::User;

    fn made(name: &str, payload: Value) -> Result<String, String> {
        let user = User::named("u1");
        let scope = Scope::new(&user, &payload, SystemTime::UNIX_EPOCH);
        EventName::compile(name).unwrap().render(&scope).map(Cow::into_owned)
    }

    #[test]
    fn name_has_the_values_of_its_placeholders() {
        assert_eq!(made("position/{payload.trip}", json!({ "trip": "t1" })).unwrap(), "position/t1");
        assert_eq!(made("n{payload.n}:{user.id}", json!({ "n": 7 })).unwrap(), "n7:u1");
        assert_eq!(made("a{{b}}", json!({})).unwrap(), "a{b}");
        let wrong = [json!({}), json!({ "x": "" }), json!({ "x": 1.5 }), json!({ "x": true }), json!({ "x": "a\nb" })];
        for payload in wrong.into_iter().chain([json!({ "x": "y".repeat(128) })]) {
            assert!(made("e/{payload.x}", payload.clone()).is_err(), "{payload}");
        }
        assert!(made("{payload.x}", json!({ "x": "disconnect" })).unwrap_err().contains("reserves"));
    }

    #[test]
    fn name_that_a_client_can_make_is_found() {
        let schema = |json: Value| Schema::compile(&json).unwrap();
        let name = EventName::compile("client-{payload.x}").unwrap();
        assert!(name.can_be("client-a", None));
        assert!(!name.can_be("client-", None) && !name.can_be("server-a", None));
        let words = schema(json!({ "properties": { "x": { "enum": ["typing", "done"] } } }));
        assert!(name.can_be("client-done", Some(&words)) && !name.can_be("client-a", Some(&words)));
        let pattern = schema(json!({ "properties": { "x": { "pattern": "^client-[a-z]+$" } } }));
        let whole = EventName::compile("{payload.x}").unwrap();
        assert!(whole.can_be("client-a", Some(&pattern)) && !whole.can_be("news", Some(&pattern)));
        assert_eq!(whole.unbounded(None).map(Path::text), Some("payload.x"));
        assert!(whole.unbounded(Some(&pattern)).is_none() && name.unbounded(None).is_none());
        let array = schema(json!({ "properties": { "0": { "enum": ["a"] } } }));
        let element = EventName::compile("{payload.0}").unwrap();
        assert!(element.unbounded(Some(&array)).is_some(), "a client can send an array");
        let many = EventName::compile(&"{payload.a}".repeat(11)).unwrap();
        assert!(many.can_be(&"é".repeat(60), None) && !many.can_be("ten-chars.", None));
        let half = schema(json!({ "properties": { "x": { "pattern": "[a-z]" } } }));
        assert!(whole.unbounded(Some(&half)).is_some(), "a pattern that is not anchored bounds nothing");
    }
}
