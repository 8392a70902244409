//! Templates: JSON with `{path}` in its strings.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::path::Path;
use super::scope::{MembersNeed, Scope};

/// A JSON value whose strings may hold placeholders `{path}`. A string that consists of one placeholder becomes the
/// value itself, with its type; in other strings, values are filled in as text. `{{` and `}}` stand for braces.
///
/// If a placeholder has no value, its string is left out of the object or array. The string `{null}` stands for `null`.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(TemplateNode);

#[derive(Debug, Clone, PartialEq)]
enum TemplateNode {
    Fixed(Value),
    Path(Path),
    Text(Vec<TextPart>),
    Object(Vec<(String, TemplateNode)>),
    Array(Vec<TemplateNode>),
}

/// A piece of a template string.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TextPart {
    Text(String),
    Path(Path),
}

/// The string that stands for `null`, which TOML does not have.
const NULL: &str = "{null}";

/// A mistake in a template: its key path inside the template, and the problem.
pub type TemplateMistake = (Vec<String>, String);

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// Returns the problem, described for the author of the contract.
    pub fn compile(value: Value) -> Result<Self, String> {
        Self::compile_all(value)
            .map_err(|mistakes| mistakes.into_iter().map(|(_, problem)| problem).collect::<Vec<_>>().join("; "))
    }

    /// Compiles a template. Reports every mistake with its key path.
    ///
    /// # Errors
    /// Returns all mistakes.
    pub fn compile_all(value: Value) -> Result<Self, Vec<TemplateMistake>> {
        let mut mistakes = Vec::new();
        let node = compile(value, &mut Vec::new(), &mut mistakes);
        if mistakes.is_empty() { Ok(Self(node)) } else { Err(mistakes) }
    }

    /// Fills the template in, and returns the value. A string with a placeholder that has no value is left out. If the
    /// template is only such a string, the result is `null`. Numbers of the payload keep the text that their sender
    /// wrote.
    pub fn render<'a>(&'a self, scope: &'a Scope<'a>) -> impl Serialize + use<'a> {
        Rendered(resolve(&self.0, scope), scope)
    }

    /// Fills the template in and returns the members of the object as JSON text. Empty when the template is no object.
    pub fn members<'a>(&'a self, scope: &Scope<'_>) -> Vec<(&'a str, Box<RawValue>)> {
        let text = |value: Option<Resolved<'_>>| to_raw_value(&Rendered(Some(value?), scope)).ok();
        match &self.0 {
            TemplateNode::Object(members) => {
                members.iter().filter_map(|(name, node)| Some((&**name, text(resolve(node, scope))?))).collect()
            }
            TemplateNode::Fixed(Value::Object(members)) => members
                .iter()
                .filter_map(|(name, value)| Some((&**name, text(Some(Resolved::Value(Cow::Borrowed(value))))?)))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Fills in a template that is a string. `None` when the template is no string, or has a placeholder without a
    /// value or with a value that is no string.
    pub fn render_text(&self, scope: &Scope<'_>) -> Option<String> {
        match resolve(&self.0, scope)? {
            Resolved::Text(text) => Some(text),
            Resolved::Value(Cow::Borrowed(Value::String(text))) => Some(text.clone()),
            Resolved::Value(Cow::Owned(Value::String(text))) => Some(text),
            _ => None,
        }
    }

    /// Returns every path in the template, with the key path of the string that contains it.
    pub fn paths(&self) -> Vec<(Vec<String>, &Path)> {
        let mut found = Vec::new();
        collect(&self.0, &mut Vec::new(), &mut found);
        found
    }

    /// Whether the template uses a path for which the condition is true.
    pub fn uses(&self, is_such: fn(&Path) -> bool) -> bool {
        self.paths().into_iter().any(|(_, path)| is_such(path))
    }

    /// How much of the members of a room the template needs.
    pub fn members_need(&self) -> MembersNeed {
        self.paths().into_iter().map(|(_, path)| path.members_need()).max().unwrap_or_default()
    }

    /// Whether the template reads the payload.
    pub fn reads_payload(&self) -> bool {
        self.uses(Path::reads_payload)
    }

    /// Whether the template is a JSON object.
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
    if text == NULL {
        return Ok(TemplateNode::Fixed(Value::Null));
    }
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

/// A part of a template, together with the values that fill it in. Only the parts of an object or array are still to be
/// filled in.
enum Resolved<'a> {
    Value(Cow<'a, Value>),
    /// Text of the payload, unchanged.
    Sent(&'a RawValue),
    Text(String),
    Object(&'a [(String, TemplateNode)]),
    Array(&'a [TemplateNode]),
}

/// Looks up the value of a part; `None` when a placeholder has no value.
fn resolve<'a>(node: &'a TemplateNode, scope: &Scope<'a>) -> Option<Resolved<'a>> {
    Some(match node {
        TemplateNode::Fixed(value) => Resolved::Value(Cow::Borrowed(value)),
        TemplateNode::Path(path) => {
            let value = path.find_in(scope)?;
            path.sent(scope, &value).map_or(Resolved::Value(value), Resolved::Sent)
        }
        TemplateNode::Text(parts) => Resolved::Text(fill(parts, scope)?),
        TemplateNode::Object(members) => Resolved::Object(members),
        TemplateNode::Array(items) => Resolved::Array(items),
    })
}

fn fill(parts: &[TextPart], scope: &Scope<'_>) -> Option<String> {
    let mut text = String::new();
    for part in parts {
        match part {
            TextPart::Text(plain) => text.push_str(plain),
            TextPart::Path(path) => match path.find_in(scope)?.as_ref() {
                Value::String(value) => text.push_str(value),
                value => match path.sent(scope, value) {
                    Some(sent) => text.push_str(sent.get()),
                    None => text.push_str(&value.to_string()),
                },
            },
        }
    }
    Some(text)
}

/// Writes a part of a template; `null` when it has no value.
struct Rendered<'a, 's>(Option<Resolved<'a>>, &'s Scope<'a>);

impl Serialize for Rendered<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(part, scope) = self;
        let inner = |node| Some(Rendered(Some(resolve(node, scope)?), scope));
        match part {
            None => serializer.serialize_unit(),
            Some(Resolved::Value(value)) => value.serialize(serializer),
            Some(Resolved::Sent(text)) => text.serialize(serializer),
            Some(Resolved::Text(text)) => serializer.serialize_str(text),
            Some(Resolved::Object(members)) => {
                serializer.collect_map(members.iter().filter_map(|(name, node)| Some((name, inner(node)?))))
            }
            Some(Resolved::Array(items)) => serializer.collect_seq(items.iter().filter_map(inner)),
        }
    }
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
        let template = Template::compile(template).unwrap();
        let scope = Scope::new(&user, &payload, SystemTime::UNIX_EPOCH);
        serde_json::to_value(template.render(&scope)).unwrap()
    }

    #[test]
    fn numbers_keep_the_digits_that_were_sent() {
        let numbers = "[9007199254740993,1.50,123456789012345678901234567890,-0,1E3,0.10]";
        let sent = format!(r#"{{"list":{numbers},"price":1.50,"deep":{{"n":[{{"id":-0}}]}},"whole":7}}"#);
        let sent: &RawValue = serde_json::from_str(&sent).unwrap();
        let payload: Value = crate::json::read(sent.get()).unwrap();
        let user = User::named("u1");
        let scope = Scope { text: Some(sent), ..Scope::new(&user, &payload, SystemTime::UNIX_EPOCH) };
        let template = json!({
            "all": "{payload.list}", "deep": ["{payload.deep.n.0.id}", "{payload.none}", "{payload.whole}"],
            "text": "{payload.price} of {payload.list}",
        });
        let template = Template::compile(template).unwrap();
        let expected = format!(r#"{{"all":{numbers},"deep":[-0,7],"text":"1.50 of {numbers}"}}"#);
        assert_eq!(serde_json::to_string(&template.render(&scope)).unwrap(), expected);
        let members = template.members(&scope);
        assert_eq!(members.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["all", "deep", "text"]);
        assert_eq!(members[0].1.get(), numbers);
        let whole = Template::compile(json!("{payload}")).unwrap();
        assert_eq!(serde_json::to_string(&whole.render(&scope)).unwrap(), sent.get());
    }

    #[test]
    fn placeholder_alone_keeps_the_type_of_its_value() {
        let payload = json!({ "n": 7, "list": [1], "flag": true, "none": null });
        let template =
            json!({ "n": "{payload.n}", "l": ["{payload.list}"], "f": "{payload.flag}", "z": "{payload.none}" });
        assert_eq!(rendered(template, payload), json!({ "n": 7, "l": [[1]], "f": true, "z": null }));
    }

    #[test]
    fn null_can_be_written() {
        let template = json!({ "error": "{null}", "list": ["{null}", "{payload.none}"] });
        assert_eq!(rendered(template, json!({})), json!({ "error": null, "list": [null] }));
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
