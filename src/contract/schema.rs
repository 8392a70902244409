//! Checks payloads against a JSON Schema.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::path::Path;
use crate::suggest::nearest;

/// A compiled JSON Schema (2020-12).
///
/// Formats are checked. Patterns run on an engine that takes linear time in the size of the payload.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    source: Value,
}

/// Maximum length of a member's name in a message, in characters. Longer names are cut.
const MAX_PLACE_CHARS: usize = 80;

impl Schema {
    /// Compiles a schema. Refuses references to other documents, and keywords that look like misspelt ones.
    ///
    /// # Errors
    /// Returns the problem, described for the author of the contract.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        if !schema.is_object() && !schema.is_boolean() {
            return Err("a schema is a table".to_owned());
        }
        check_keywords(schema)?;
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .with_pattern_options(PatternOptions::regex())
            .build(schema)
            .map(|validator| Self { validator, source: schema.clone() })
            .map_err(|error| describe_schema_error(&error))
    }

    /// Checks a payload.
    ///
    /// # Errors
    /// Returns the first violation, with its position in the payload. Never contains the value.
    pub fn check(&self, payload: &Value) -> Result<(), String> {
        self.validator.validate(payload).map_err(|error| describe(&error))
    }
}

impl Schema {
    /// Whether the schema bounds the texts at this path of the payload, by an `enum`, or by a `pattern` for the whole
    /// text.
    pub(super) fn bounds(&self, path: &Path) -> bool {
        let member = self.member(path);
        let is_whole = |pattern: &str| pattern.starts_with('^') && pattern.ends_with('$');
        member.is_some_and(|member| member.get("enum").is_some_and(Value::is_array))
            || member.and_then(|member| member.get("pattern")?.as_str()).is_some_and(is_whole)
    }

    /// Whether the schema permits this text at a path of the payload. A number has no letters, so only a text with
    /// digits alone can also come from a number.
    pub(super) fn could_have(&self, path: &Path, text: &str) -> bool {
        let Some(member) = self.member(path) else { return true };
        let is_number = || text.parse::<i64>().is_ok();
        is_number() || Self::compile(member).is_ok_and(|schema| schema.check(&Value::from(text)).is_ok())
    }

    fn member(&self, path: &Path) -> Option<&Value> {
        path.payload_keys()?.try_fold(&self.source, |schema, key| {
            // `properties` does not apply to arrays, and a client can send an array where a path has a number.
            let key = Some(key).filter(|key| key.parse::<usize>().is_err())?;
            schema.get("properties")?.get(key)
        })
    }
}

fn describe_schema_error(error: &ValidationError<'_>) -> String {
    let key_path = error.instance_path().as_str();
    let key_path = if key_path.is_empty() { String::new() } else { format!(" at {key_path}") };
    format!("this is not a JSON Schema of 2020-12{key_path}: {error}")
}

/// Writes a position in the payload as `payload.job.id`. Names that come from the client are cut to a bounded length.
fn key_path(location: &Location) -> String {
    let mut key_path = String::from("payload");
    for segment in location.iter() {
        match segment {
            LocationSegment::Property(name) => {
                key_path.push('.');
                key_path.push_str(&name);
            }
            LocationSegment::Index(index) => key_path.push_str(&format!("[{index}]")),
        }
    }
    cut(&key_path)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_PLACE_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Writes a message for a violation of the schema. Never contains the value.
fn describe(error: &ValidationError<'_>) -> String {
    use ValidationErrorKind as Kind;
    let at = key_path(error.instance_path());
    match error.kind() {
        Kind::Required { property } => format!("{at}.{} is missing", property.as_str().unwrap_or("?")),
        Kind::Type { kind: TypeKind::Single(kind) } => format!("{at} must be of type {kind}"),
        Kind::Type { kind: TypeKind::Multiple(kinds) } => {
            let kinds: Vec<String> = kinds.into_iter().map(|kind| kind.to_string()).collect();
            format!("{at} must be of type {}", kinds.join(" or "))
        }
        Kind::Enum { options } => format!("{at} must be one of {options}"),
        Kind::Constant { expected_value } => format!("{at} must be {expected_value}"),
        Kind::Maximum { limit } => format!("{at} must be at most {limit}"),
        Kind::Minimum { limit } => format!("{at} must be at least {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("{at} must be less than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("{at} must be more than {limit}"),
        Kind::MaxLength { limit } => format!("{at} must have at most {limit} characters"),
        Kind::MinLength { limit } => format!("{at} must have at least {limit} characters"),
        Kind::MaxItems { limit } => format!("{at} must have at most {limit} items"),
        Kind::MinItems { limit } => format!("{at} must have at least {limit} items"),
        Kind::MaxProperties { limit } => format!("{at} must have at most {limit} members"),
        Kind::MinProperties { limit } => format!("{at} must have at least {limit} members"),
        Kind::Pattern { pattern } => format!("{at} must match {pattern}"),
        Kind::Format { format } => format!("{at} must be of the format {format}"),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let name = unexpected.first().map_or("", String::as_str);
            format!("{at} has a member that is not known: {}", cut(name))
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => describe_alternatives(&at, context),
        other => format!("{at} does not satisfy `{}`", other.keyword()),
    }
}

/// Says what each alternative lacks: "payload.room is missing, or payload.to is missing".
fn describe_alternatives(at: &str, context: &[Vec<ValidationError<'static>>]) -> String {
    let mut lacks: Vec<String> = context.iter().filter_map(|errors| errors.first()).map(describe).collect();
    lacks.dedup();
    if lacks.is_empty() || lacks.len() > 4 {
        return format!("{at} satisfies none of its alternatives");
    }
    lacks.join(", or ")
}

/// JSON Schema keywords whose value is a schema.
const WITH_SCHEMA: &[&str] = &[
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
/// JSON Schema keywords whose value is an array of schemas.
const WITH_SCHEMAS: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
/// JSON Schema keywords whose value is an object of schemas.
const WITH_NAMED_SCHEMAS: &[&str] = &["properties", "patternProperties", "$defs", "dependentSchemas", "definitions"];
/// All other keywords.
const PLAIN: &[&str] = &[
    "$schema",
    "$id",
    "$ref",
    "$anchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "$comment",
    "$vocabulary",
    "type",
    "enum",
    "const",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "required",
    "dependentRequired",
    "format",
    "contentEncoding",
    "contentMediaType",
    "title",
    "description",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "examples",
];

/// Checks for misspelt keywords: a validator ignores them, so everything would silently be permitted.
fn check_keywords(schema: &Value) -> Result<(), String> {
    let Value::Object(keywords) = schema else {
        return Ok(());
    };
    for (keyword, value) in keywords {
        let word = keyword.as_str();
        if WITH_SCHEMA.contains(&word) {
            check_keywords(value)?;
        } else if WITH_SCHEMAS.contains(&word) {
            value.as_array().into_iter().flatten().try_for_each(check_keywords)?;
        } else if WITH_NAMED_SCHEMAS.contains(&word) {
            value.as_object().into_iter().flat_map(|named| named.values()).try_for_each(check_keywords)?;
        } else if !PLAIN.contains(&word) {
            let known = [WITH_SCHEMA, WITH_SCHEMAS, WITH_NAMED_SCHEMAS, PLAIN].concat();
            if let Some(near) = nearest(word, known) {
                return Err(format!("`{word}` is not a keyword of JSON Schema: did you mean `{near}`?"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn violation(schema: Value, payload: Value) -> String {
        Schema::compile(&schema).unwrap().check(&payload).unwrap_err()
    }

    #[test]
    fn violation_names_the_place_and_never_the_value() {
        let schema = json!({ "type": "object", "required": ["id"], "properties": {
            "id": { "type": "string", "maxLength": 3 }, "n": { "type": ["integer", "string"], "maximum": 100 },
            "list": { "items": { "enum": ["a", "b"] } }, "mail": { "format": "email" } } });
        for (payload, text) in [
            (json!({}), "payload.id is missing"),
            (json!("secret"), "payload must be of type object"),
            (json!({ "id": "secret" }), "payload.id must have at most 3 characters"),
            (json!({ "id": "x", "n": 101 }), "payload.n must be at most 100"),
            (json!({ "id": "x", "n": [] }), "payload.n must be of type integer or string"),
            (json!({ "id": "x", "list": ["a", "secret"] }), "payload.list[1] must be one of [\"a\",\"b\"]"),
            (json!({ "id": "x", "mail": "secret" }), "payload.mail must be of the format email"),
        ] {
            assert_eq!(violation(schema.clone(), payload), text);
        }
    }

    #[test]
    fn alternatives_are_told() {
        let schema = json!({ "anyOf": [{ "required": ["room"] }, { "required": ["to"] }] });
        assert_eq!(violation(schema, json!({})), "payload.room is missing, or payload.to is missing");
    }

    #[test]
    fn long_member_names_are_cut() {
        let schema = json!({ "additionalProperties": false });
        assert!(violation(schema, json!({ "x".repeat(5000): 1 })).len() < 200);
    }

    #[test]
    fn bad_schema_is_refused() {
        for schema in [
            json!({ "type": "objekt" }),
            json!({ "$ref": "http://example.com/schema.json" }),
            json!({ "$ref": "other.json" }),
            json!({ "requird": ["id"] }),
            json!({ "properties": { "a": { "typo": "string" } } }),
            json!({ "pattern": "(" }),
            json!({ "format": "nonsense" }),
            json!("object"),
        ] {
            assert!(Schema::compile(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn members_may_be_called_like_keywords() {
        let schema = json!({ "properties": { "typ": { "type": "string" } }, "$defs": { "requird": {} }, "x-note": 1 });
        assert!(Schema::compile(&schema).is_ok());
    }
}
