//! Makes a minimal value for a JSON Schema.

use serde_json::{Map, Value, json};

/// How many levels of a schema the sample follows.
const MAX_DEPTH: usize = 8;
/// The value of every text in a sample, so that all ids in one example are equal.
const TEXT: &str = "demo";

/// A small value for the schema. It is a guess: the caller must validate it.
pub(super) fn sample(schema: &Value) -> Value {
    at(schema, MAX_DEPTH)
}

fn at(schema: &Value, depth: usize) -> Value {
    if let Some(value) = schema.get("const").or_else(|| schema.get("default")).or_else(|| schema.pointer("/enum/0")) {
        return value.clone();
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        kind => kind.and_then(Value::as_str),
    };
    match kind {
        Some("object") => object(schema, depth),
        Some("array") => array(schema, depth),
        Some("integer" | "number") => number(schema),
        Some("boolean") => json!(true),
        Some("null") => Value::Null,
        _ if schema.get("required").is_some() || schema.get("properties").is_some() => object(schema, depth),
        _ => text(schema),
    }
}

fn object(schema: &Value, depth: usize) -> Value {
    let mut members = Map::new();
    // Of several alternatives, takes the first.
    let first = ["anyOf", "oneOf", "allOf"].iter().filter_map(|key| schema.get(key)?.get(0)).collect::<Vec<_>>();
    let required = std::iter::once(schema).chain(first).filter_map(|schema| schema.get("required")?.as_array());
    for name in required.flatten().filter_map(Value::as_str) {
        let member = schema.get("properties").and_then(|properties| properties.get(name));
        let value = match depth.checked_sub(1) {
            Some(depth) => at(member.unwrap_or(&Value::Null), depth),
            None => Value::Null,
        };
        members.insert(name.to_owned(), value);
    }
    Value::Object(members)
}

fn array(schema: &Value, depth: usize) -> Value {
    let fewest = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0).min(MAX_DEPTH as u64);
    let item = || match depth.checked_sub(1) {
        Some(depth) => at(schema.get("items").unwrap_or(&Value::Null), depth),
        None => Value::Null,
    };
    (0..fewest).map(|_| item()).collect()
}

fn number(schema: &Value) -> Value {
    schema.get("minimum").or_else(|| schema.get("maximum")).cloned().unwrap_or_else(|| json!(1))
}

fn text(schema: &Value) -> Value {
    let fewest = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0).min(256);
    let mut text = TEXT.to_owned();
    while (text.len() as u64) < fewest {
        text.push('o');
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_has_what_is_required_and_no_more() {
        let schema = json!({
            "type": "object",
            "required": ["id", "n", "kind", "tags", "inner", "any"],
            "anyOf": [{ "required": ["room"] }, { "required": ["to"] }],
            "properties": {
                "id": { "type": ["string", "integer"], "minLength": 6 },
                "n": { "type": "number", "minimum": 2 },
                "kind": { "enum": ["a", "b"] },
                "tags": { "type": "array", "minItems": 1, "items": { "type": "boolean" } },
                "inner": { "required": ["x"], "properties": { "x": { "const": 5 } } },
                "optional": { "type": "string" }
            }
        });
        let expected = json!({
            "id": "demooo", "n": 2, "kind": "a", "tags": [true], "inner": { "x": 5 }, "any": "demo", "room": "demo"
        });
        assert_eq!(sample(&schema), expected);
    }

    #[test]
    fn depth_is_bounded() {
        let mut schema = json!({ "type": "string" });
        for _ in 0..100 {
            schema = json!({ "required": ["x"], "properties": { "x": schema } });
        }
        assert!(sample(&schema).to_string().len() < 100);
    }
}
