//! The parameters of a route, in its path and its query. They are declared once, for parsing and for the OpenAPI
//! document.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::answer::{ApiError, Detail, cut};
use super::text::{self, NameText, NamespaceText, RoomText, Text};
use crate::directory::{DEFAULT_PAGE, MAX_PAGE, PageRequest};
use crate::error::Code;
use crate::query;

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// The parameter's name.
    pub name: &'static str,
    /// The kind of the parameter's value.
    pub kind: ParamKind,
    /// A description of the parameter in one line, for people.
    pub doc: &'static str,
}

/// The kind of a parameter's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// The name of something that is part of the path.
    PathName,
    /// The name of a room that is part of the path.
    PathRoom,
    /// A name.
    Name,
    /// A room.
    Room,
    /// A namespace's path. Default: `/`.
    Namespace,
    /// The maximum number of items.
    Limit,
    /// The position where a page begins.
    Cursor,
    /// An offset in a history.
    Offset,
    /// One of these fixed words. Default: the first.
    Choice(&'static [&'static str]),
}

/// The values of a request's parameters, already checked.
#[derive(Debug, Default)]
pub struct Params(HashMap<&'static str, String>);

// === impl Kind ===

impl ParamKind {
    /// Whether the parameter is in the path.
    pub const fn in_path(self) -> bool {
        matches!(self, Self::PathName | Self::PathRoom)
    }

    /// The JSON Schema of the value.
    pub fn schema(self) -> Value {
        match self {
            Self::PathName | Self::Name => NameText::schema().into(),
            Self::PathRoom | Self::Room => RoomText::schema().into(),
            Self::Namespace => {
                let mut schema = NamespaceText::schema();
                schema.insert("default".into(), "/".into());
                schema.into()
            }
            Self::Limit => json!({ "type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE }),
            Self::Cursor => json!({ "type": "string", "minLength": 1, "maxLength": MAX_CURSOR }),
            Self::Offset => json!({ "type": "integer", "minimum": 0, "maximum": MAX_OFFSET }),
            Self::Choice(words) => json!({ "type": "string", "enum": words, "default": words[0] }),
        }
    }

    fn check(self, value: &str) -> Result<(), String> {
        match self {
            Self::PathName | Self::Name => NameText::check(value),
            Self::PathRoom | Self::Room => RoomText::check(value),
            Self::Namespace => NamespaceText::check(value),
            Self::Limit => number(value, 1, MAX_PAGE as u64).map(drop),
            Self::Cursor => text::check_length(value, MAX_CURSOR),
            Self::Offset => number(value, 0, MAX_OFFSET).map(drop),
            Self::Choice(words) if words.contains(&value) => Ok(()),
            Self::Choice(words) => Err(format!("must be one of {}", words.join(", "))),
        }
    }
}

/// Maximum length of a cursor, in characters.
const MAX_CURSOR: usize = 1024;

/// The largest integer that every JSON parser reads exactly.
const MAX_OFFSET: u64 = (1 << 53) - 1;

fn number(value: &str, min: u64, max: u64) -> Result<u64, String> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = value.parse::<u64>().ok().filter(|number| digits && (min..=max).contains(number));
    parsed.ok_or_else(|| format!("must be a whole number from {min} to {max}"))
}

// === impl Params ===

impl Params {
    /// Parses path and query by the route's declarations.
    ///
    /// # Errors
    /// Returns 400 if the query is not percent-encoded UTF-8, and 422 with all other mistakes.
    pub fn read(
        declared: &'static [Param],
        path: impl IntoIterator<Item = (String, String)>,
        query: &str,
    ) -> Result<Self, ApiError> {
        let mut params = Self::default();
        let mut mistakes = Vec::new();
        for (name, value) in path {
            params.add(declared, &name, value, true, &mut mistakes);
        }
        for (name, value) in query::pairs(query) {
            let (Some(name), Some(value)) = (query::decode_strictly(name), query::decode_strictly(value)) else {
                return Err(ApiError::new(Code::InvalidPayload, "the query is not percent-encoded UTF-8")
                    .with_status(http::StatusCode::BAD_REQUEST));
            };
            params.add(declared, &name, value, false, &mut mistakes);
        }
        if mistakes.is_empty() {
            return Ok(params);
        }
        Err(ApiError::new(Code::InvalidPayload, "a parameter is invalid; see details").with_details(mistakes))
    }

    fn add(
        &mut self,
        declared: &'static [Param],
        name: &str,
        value: String,
        in_path: bool,
        mistakes: &mut Vec<Detail>,
    ) {
        let found = declared.iter().find(|param| param.name == name && param.kind.in_path() == in_path);
        let problem = match found {
            None => "is not a known parameter".to_owned(),
            Some(param) => match param.kind.check(&value) {
                Err(problem) => problem,
                Ok(()) if self.0.insert(param.name, value).is_some() => "is there twice".to_owned(),
                Ok(()) => return,
            },
        };
        let mark = if in_path { "" } else { "?" };
        mistakes.push(Detail::new(format!("{mark}{}", cut(name)), problem));
    }

    /// Returns the value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The requested namespace.
    pub fn namespace(&self) -> &str {
        self.get("namespace").unwrap_or("/")
    }

    /// Returns the value of a parameter, as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Returns the requested number of items.
    pub fn limit(&self) -> usize {
        self.number("limit").map_or(DEFAULT_PAGE, |limit| limit as usize)
    }

    /// The requested page.
    pub fn page(&self) -> PageRequest {
        PageRequest { limit: self.limit(), cursor: self.get("cursor").map(str::to_owned) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: &[Param] = &[
        Param { name: "room", kind: ParamKind::PathRoom, doc: "" },
        Param { name: "namespace", kind: ParamKind::Namespace, doc: "" },
        Param { name: "limit", kind: ParamKind::Limit, doc: "" },
        Param { name: "order", kind: ParamKind::Choice(&["asc", "desc"]), doc: "" },
    ];

    fn read(query: &str) -> Result<Params, ApiError> {
        Params::read(DECLARED, [("room".to_owned(), "r".to_owned())], query)
    }

    #[test]
    fn parameters_have_defaults() {
        let params = read("").unwrap();
        assert_eq!((params.namespace(), params.page(), params.get("room")), ("/", PageRequest::default(), Some("r")));
        let params = read("namespace=%2Fjobs&limit=7&order=desc&").unwrap();
        assert_eq!((params.namespace(), params.limit(), params.get("order")), ("/jobs", 7, Some("desc")));
    }

    #[test]
    fn every_parameter_is_checked() {
        for query in [
            "limit=0",
            "limit=1001",
            "limit=",
            "limit=+1",
            "limit=9e9",
            "order=up",
            "namespace=x",
            "room=x",
            "x",
            "limit=1&limit=1",
        ] {
            assert_eq!(read(query).err().map(|error| error.status().as_u16()), Some(422), "{query}");
        }
        assert_eq!(read("namespace=%ff").err().map(|error| error.status().as_u16()), Some(400));
        assert_eq!(read("a=1&b=2&c=3").unwrap_err().body().details.len(), 3);
    }
}
