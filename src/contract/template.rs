//! Templates: JSON with `{path}` in its strings.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::path::Path;
use super::scope::Scope;

/// A JSON value whose strings may hold placeholders `{path}`. A string that consists of one placeholder becomes the
/// value itself, with its type; in other strings, values are filled in as text. `{{` and `}}` stand for braces.
///
/// If a placeholder has no value, its string is left out of the object or array.
#[derive(Debug, Clone)]
pub struct Template(TemplateNode);

#[derive(Debug, Clone)]
enum TemplateNode {
    Fixed(Value),
    Path(Path),
    Text(Vec<TextPart>),
    Object(Vec<(String, TemplateNode)>),
    Array(Vec<TemplateNode>),
}

/// A piece of a string.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TextPart {
    Text(String),
    Path(Path),
}

/// A mistake in a template: its key path in the value, and the problem.
pub type TemplateMistake = (Vec<String>, String);

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// The problem, described for the author of the contract.
    pub fn compile(value: Value) -> Result<Self, String> {
        Self::compile_all(value)
            .map_err(|mistakes| mistakes.into_iter().map(|(_, problem)| problem).collect::<Vec<_>>().join("; "))
    }

    /// Compiles a template. Reports every mistake with its key path.
    ///
    /// # Errors
    /// All mistakes.
    pub fn compile_all(value: Value) -> Result<Self, Vec<TemplateMistake>> {
        let mut mistakes = Vec::new();
        let node = compile(value, &mut Vec::new(), &mut mistakes);
        if mistakes.is_empty() { Ok(Self(node)) } else { Err(mistakes) }
    }

    /// Fills the template in. A string with a placeholder that has no value is left out. If the template is only such
    /// a string, the result is `null`.
    pub fn render(&self, scope: &Scope<'_>) -> Value {
        render(&self.0, scope).unwrap_or(Value::Null)
    }

    /// Fills the template in and returns the members of the object. Empty when the template is no object.
    pub fn render_members(&self, scope: &Scope<'_>) -> Map<String, Value> {
        match self.render(scope) {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    /// Every path in the template, with the key path of the string that holds it.
    pub fn paths(&self) -> Vec<(Vec<String>, &Path)> {
        let mut found = Vec::new();
        collect(&self.0, &mut Vec::new(), &mut found);
        found
    }

    /// Whether the template reads the payload.
    pub fn reads_payload(&self) -> bool {
        self.paths().into_iter().any(|(_, path)| path.reads_payload())
    }

    /// Whether the template is an object.
    pub fn is_object(&self) -> bool {
        matches!(self.0, TemplateNode::Object(_) | TemplateNode::Fixed(Value::Object(_)))
    }
}

fn compile(value: Value, key_path: &mut Vec<String>, mistakes: &mut Vec<TemplateMistake>) -> TemplateNode {
    let mut inner = |key: String, value: Value| {
        key_path.push(key);
        let node = compile(value, key_path, mistakes);
        key_path.pop();
        node
    };
    let node = match value {
        Value::String(text) => compile_text(&text).unwrap_or_else(|problem| {
            mistakes.push((key_path.clone(), problem));
            TemplateNode::Fixed(Value::Null)
        }),
        Value::Object(members) => {
            TemplateNode::Object(members.into_iter().map(|(key, value)| (key.clone(), inner(key, value))).collect())
        }
        Value::Array(items) => {
            TemplateNode::Array(items.into_iter().enumerate().map(|(at, value)| inner(at.to_string(), value)).collect())
        }
        other => TemplateNode::Fixed(other),
    };
    fold(node)
}

/// Combines parts without placeholders into one value, so that rendering clones it in one piece.
fn fold(node: TemplateNode) -> TemplateNode {
    let fixed = |node: &TemplateNode| matches!(node, TemplateNode::Fixed(_));
    let value = |node: TemplateNode| match node {
        TemplateNode::Fixed(value) => value,
        _ => Value::Null,
    };
    match node {
        TemplateNode::Object(members) if members.iter().all(|(_, node)| fixed(node)) => {
            TemplateNode::Fixed(Value::Object(members.into_iter().map(|(key, node)| (key, value(node))).collect()))
        }
        TemplateNode::Array(items) if items.iter().all(fixed) => {
            TemplateNode::Fixed(Value::Array(items.into_iter().map(value).collect()))
        }
        other => other,
    }
}

fn compile_text(text: &str) -> Result<TemplateNode, String> {
    let mut parts = Vec::new();
    for piece in split(text)? {
        parts.push(match piece {
            Piece::Text(text) => TextPart::Text(text),
            Piece::Name(name) => TextPart::Path(Path::parse(name.trim())?),
        });
    }
    Ok(match <[TextPart; 1]>::try_from(parts) {
        Ok([TextPart::Path(path)]) => TemplateNode::Path(path),
        Ok([TextPart::Text(text)]) => TemplateNode::Fixed(Value::String(text)),
        Err(parts) if parts.is_empty() => TemplateNode::Fixed(Value::String(String::new())),
        Err(parts) => TemplateNode::Text(parts),
    })
}

/// A piece of a text with placeholders.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Literal text.
    Text(String),
    /// The text between braces.
    Name(String),
}

/// Splits a text at its placeholders. `{{` and `}}` stand for braces.
pub(super) fn split(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            plain.push_str(brace);
            rest = after;
            continue;
        }
        let name = after.find('}').filter(|_| brace == "{").map(|end| &after[..end]);
        let Some(name) = name.filter(|name| !name.contains('{')) else {
            return Err(format!("`{text}` has an unmatched `{brace}`: write `{brace}{brace}` for a brace"));
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Name(name.to_owned()));
        rest = &after[name.len() + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

fn render(node: &TemplateNode, scope: &Scope<'_>) -> Option<Value> {
    match node {
        TemplateNode::Fixed(value) => Some(value.clone()),
        TemplateNode::Path(path) => path.find(scope),
        TemplateNode::Text(parts) => render_text(parts, scope).map(Value::String),
        TemplateNode::Object(members) => Some(Value::Object(
            members.iter().filter_map(|(key, node)| Some((key.clone(), render(node, scope)?))).collect(),
        )),
        TemplateNode::Array(items) => Some(Value::Array(items.iter().filter_map(|node| render(node, scope)).collect())),
    }
}

fn render_text(parts: &[TextPart], scope: &Scope<'_>) -> Option<String> {
    let mut text = String::new();
    for part in parts {
        match part {
            TextPart::Text(plain) => text.push_str(plain),
            TextPart::Path(path) => match path.find_in(scope)? {
                Cow::Borrowed(Value::String(value)) => text.push_str(value),
                Cow::Owned(Value::String(value)) => text.push_str(&value),
                value => text.push_str(&value.to_string()),
            },
        }
    }
    Some(text)
}

fn collect<'t>(node: &'t TemplateNode, key_path: &mut Vec<String>, found: &mut Vec<(Vec<String>, &'t Path)>) {
    let mut inner = |key: String, node: &'t TemplateNode, found: &mut Vec<(Vec<String>, &'t Path)>| {
        key_path.push(key);
        collect(node, key_path, found);
        key_path.pop();
    };
    match node {
        TemplateNode::Fixed(_) => {}
        TemplateNode::Path(path) => found.push((key_path.clone(), path)),
        TemplateNode::Text(parts) => found.extend(parts.iter().filter_map(|part| match part {
            TextPart::Path(path) => Some((key_path.clone(), path)),
            TextPart::Text(_) => None,
        })),
        TemplateNode::Object(members) => members.iter().for_each(|(key, node)| inner(key.clone(), node, found)),
        TemplateNode::Array(items) => {
            items.iter().enumerate().for_each(|(at, node)| inner(at.to_string(), node, found))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;
    use crate::user::User;

    fn rendered(template: Value, payload: Value) -> Value {
        let user = User::named("u1");
        Template::compile(template).unwrap().render(&Scope::new(&user, &payload, SystemTime::UNIX_EPOCH))
    }

    #[test]
    fn placeholder_alone_keeps_the_type_of_its_value() {
        let payload = json!({ "n": 7, "list": [1], "flag": true, "none": null });
        let template =
            json!({ "n": "{payload.n}", "l": ["{payload.list}"], "f": "{payload.flag}", "z": "{payload.none}" });
        assert_eq!(rendered(template, payload), json!({ "n": 7, "l": [[1]], "f": true, "z": null }));
    }

    #[test]
    fn placeholders_within_text_are_filled_in() {
        let template = json!("user {user.id} has {payload.n} of {payload.list}");
        assert_eq!(rendered(template, json!({ "n": 7, "list": ["a"] })), json!(r#"user u1 has 7 of ["a"]"#));
    }

    #[test]
    fn what_has_no_value_is_left_out() {
        let template =
            json!({ "a": "{payload.a}", "b": "x{payload.b}", "c": ["{payload.c}", 1], "d": { "e": "{room}" } });
        assert_eq!(rendered(template, json!({})), json!({ "c": [1], "d": {} }));
        assert_eq!(rendered(json!("{payload.a}"), json!({})), json!(null));
    }

    #[test]
    fn doubled_brace_is_a_brace() {
        assert_eq!(rendered(json!("{{user.id}} {{{user.id}}}"), json!({})), json!("{user.id} {u1}"));
    }

    #[test]
    fn value_is_not_a_template_itself() {
        assert_eq!(rendered(json!("{payload.a}!"), json!({ "a": "{user.id}" })), json!("{user.id}!"));
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let mistakes = Template::compile_all(json!({ "a": "{nowhere}", "b": [1, "{open"], "c": "}" })).unwrap_err();
        let places: Vec<String> = mistakes.iter().map(|(key_path, _)| key_path.join(".")).collect();
        assert_eq!(places, ["a", "b.1", "c"]);
    }
}
