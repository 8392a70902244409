//! Checks a contract file against the JSON Schema of contract files: unknown keys, missing keys, wrong types. Wrong
//! parts are reported and removed from the tree, so that the rest can be read and checked, too.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::document::{Document, KeyPath};
use super::report::ContractReport;
use crate::suggest::{nearest, one_of_quoted};

/// Words that authors may know from other software, each with the contract key that has the same meaning. The first
/// column is a pattern of the table's key path.
const RENAMED: &[(&str, &str, &str)] = &[
    ("", "title", "name"),
    ("", "description", "summary"),
    ("", "authentication", "auth"),
    ("", "events", "client"),
    ("", "emits", "server"),
    ("auth", "required", "mode"),
    ("auth", "source", "tokens"),
    ("auth", "sources", "tokens"),
    ("auth", "sub", "user"),
    ("rooms.*", "template", "name"),
    ("rooms.*", "allow", "join"),
    ("rooms.*", "rule", "join"),
    ("rooms.*", "alphabet", "chars"),
    ("rooms.*.history", "size", "events"),
    ("rooms.*.history", "limit", "events"),
    ("rooms.*.presence", "throttle", "every"),
    ("rooms.*.presence", "limit", "most"),
    ("rooms.*.presence", "per", "each"),
    ("client.*", "schema", "payload.schema"),
    ("client.*", "shorthand", "payload.shorthand"),
    ("client.*", "args", "payload.args"),
    ("client.*", "emit", "relay"),
    ("client.*", "broadcast", "relay"),
    ("client.*", "respond", "reply"),
    ("client.*", "hook", "call"),
    ("client.*", "allow", "require"),
    ("client.*", "rate", "limit"),
    ("client.*", "rate_limit", "limit"),
    ("client.*", "debounce", "throttle"),
    ("client.*.relay", "broadcast", "others"),
    ("client.*.relay", "payload", "data"),
    ("server.*", "room", "rooms"),
    ("server.*", "payload", "schema"),
    ("server.*", "defaults", "fill"),
    ("server.*", "final", "terminal"),
];

/// Checks a document. Reports wrong parts and removes them from its tree.
pub(super) fn check(document: &mut Document, schema: &Value, report: &mut ContractReport) {
    let mut tree = std::mem::take(&mut document.tree);
    let mut walk = StructureCheck { document, root: schema, report };
    if !walk.fits(&KeyPath::default(), &mut tree, schema) && !tree.is_object() {
        tree = Value::Object(Map::new());
    }
    document.tree = tree;
}

struct StructureCheck<'w> {
    document: &'w Document,
    root: &'w Value,
    report: &'w mut ContractReport,
}

impl<'w> StructureCheck<'w> {
    /// Checks a value. Returns false when the whole value must be removed.
    fn fits(&mut self, key_path: &KeyPath, value: &mut Value, schema: &'w Value) -> bool {
        let choices = self.choices(schema);
        let Some(schema) = choices.iter().find(|choice| accepts_type(choice, value)) else {
            self.wrong_type(key_path, value, &choices);
            return false;
        };
        let words: Vec<&str> = choices.iter().filter_map(|choice| choice.get("const")?.as_str()).collect();
        match value {
            Value::String(text) if !words.is_empty() && words.len() == choices.len() => {
                let known = words.contains(&text.as_str());
                if !known {
                    self.unknown_word(key_path, text, &words);
                }
                known
            }
            Value::Number(number) => self.in_range(key_path, number, schema),
            Value::Object(members) => self.members_fit(key_path, members, schema),
            Value::Array(items) => {
                if let Some(inner) = schema.get("items") {
                    let mut at = 0;
                    items.retain_mut(|item| {
                        at += 1;
                        self.fits(&key_path.index(Some(at - 1)), item, inner)
                    });
                }
                true
            }
            _ => true,
        }
    }

    fn members_fit(&mut self, key_path: &KeyPath, members: &mut Map<String, Value>, schema: &'w Value) -> bool {
        let properties = schema.get("properties").and_then(Value::as_object);
        let additional = schema.get("additionalProperties");
        let known: BTreeSet<&str> = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        for name in members.keys().cloned().collect::<Vec<_>>() {
            let inner = match (properties.and_then(|all| all.get(&name)), additional) {
                (Some(inner), _) => inner,
                (None, Some(Value::Bool(false))) => {
                    self.unknown_key(key_path, &name, &known);
                    members.remove(&name);
                    continue;
                }
                (None, Some(inner)) => inner,
                (None, None) => continue,
            };
            let fits = members.get_mut(&name).is_some_and(|value| self.fits(&key_path.key(&name), value, inner));
            if !fits {
                members.remove(&name);
            }
        }
        self.required_are_there(key_path, members, schema)
    }

    fn required_are_there(&mut self, key_path: &KeyPath, members: &Map<String, Value>, schema: &Value) -> bool {
        let required = schema.get("required").and_then(Value::as_array);
        let mut complete = true;
        for name in required.into_iter().flatten().filter_map(Value::as_str).filter(|name| !members.contains_key(*name))
        {
            complete = false;
            // A missing key may have been removed because its value was wrong. Such a mistake has been reported
            // already.
            let told = self
                .report
                .diagnostics
                .iter()
                .any(|d| d.file == self.document.file && d.key.starts_with(&key_path.key(name).to_string()));
            if !told {
                let meaning = schema.pointer(&format!("/properties/{name}/description")).and_then(Value::as_str);
                let remedy = format!("add `{name}`: {}", meaning.unwrap_or("it is needed").trim_end_matches('.'));
                self.report.push(self.document.mistake(key_path, format!("`{name}` is missing"), remedy));
            }
        }
        complete
    }

    /// Returns the alternatives that the schema permits, with references resolved.
    fn choices(&self, schema: &'w Value) -> Vec<&'w Value> {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let target = self.root.pointer(name.trim_start_matches('#'));
            return target.map(|target| self.choices(target)).unwrap_or_default();
        }
        let alternatives = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
        match alternatives {
            Some(alternatives) => alternatives.iter().flat_map(|choice| self.choices(choice)).collect(),
            None => vec![schema],
        }
    }

    fn wrong_type(&mut self, key_path: &KeyPath, value: &Value, choices: &[&Value]) {
        let mut wanted: Vec<&str> =
            choices.iter().filter_map(|choice| choice.get("type")?.as_str()).map(toml_type).collect();
        wanted.dedup();
        let problem = format!("this is {}", toml_type(json_type(value)));
        self.report.push(self.document.mistake(key_path, problem, format!("write {}", wanted.join(" or "))));
    }

    fn unknown_word(&mut self, key_path: &KeyPath, word: &str, known: &[&str]) {
        let remedy = match nearest(word, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => {
                format!("write {}", known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "))
            }
        };
        self.report.push(self.document.mistake(key_path, format!("\"{word}\" is not known here"), remedy));
    }

    fn unknown_key(&mut self, key_path: &KeyPath, name: &str, known: &BTreeSet<&str>) {
        let here = key_path.key(name);
        let renamed = RENAMED.iter().find(|(pattern, old, _)| *old == name && matches(pattern, key_path));
        let (problem, remedy) = match (renamed, nearest(name, known.iter().copied())) {
            (Some((_, _, new)), _) => (format!("`{name}` is called `{new}`"), format!("write `{new}`")),
            (None, Some(near)) => ("unknown key".to_owned(), format!("did you mean `{near}`?")),
            (None, None) => {
                ("unknown key".to_owned(), format!("known here are {}", one_of_quoted(known.iter().copied())))
            }
        };
        self.report.push(self.document.mistake(&here, problem, remedy));
    }

    fn in_range(&mut self, key_path: &KeyPath, number: &serde_json::Number, schema: &Value) -> bool {
        let bound = |keyword| schema.get(keyword).and_then(Value::as_f64);
        let value = number.as_f64().unwrap_or(f64::NAN);
        let (low, high) = (bound("minimum"), bound("maximum"));
        if low.is_none_or(|low| value >= low) && high.is_none_or(|high| value <= high) {
            return true;
        }
        let remedy = match (low, high) {
            (Some(low), Some(high)) => format!("write a number from {low} to {high}"),
            (Some(low), None) => format!("write at least {low}"),
            (_, high) => format!("write at most {}", high.unwrap_or_default()),
        };
        self.report.push(self.document.mistake(key_path, format!("{number} is out of range"), remedy));
        false
    }
}

/// Whether a key path matches a pattern. Indices of lists are ignored.
fn matches(pattern: &str, key_path: &KeyPath) -> bool {
    let segments = key_path.segments().iter().enumerate().filter(|(at, s)| *at < 2 || s.parse::<usize>().is_err());
    let words: Vec<&str> = pattern.split('.').filter(|word| !word.is_empty()).collect();
    let segments: Vec<&String> = segments.map(|(_, segment)| segment).collect();
    words.len() == segments.len() && words.iter().zip(segments).all(|(word, segment)| *word == "*" || word == segment)
}

fn accepts_type(schema: &Value, value: &Value) -> bool {
    let kind = json_type(value);
    match schema.get("type") {
        None => true,
        Some(Value::String(wanted)) => wanted == kind || (wanted == "number" && kind == "integer"),
        Some(Value::Array(wanted)) => wanted.iter().any(|wanted| wanted == kind),
        Some(_) => false,
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn toml_type(kind: &str) -> &'static str {
    match kind {
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "a string",
        "array" => "a list",
        "object" => "a table",
        _ => "a value of another type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::file::json_schema;

    fn mistakes(text: &str) -> (Value, Vec<String>) {
        let mut report = ContractReport::default();
        let mut document = Document::parse("f", text, &mut report);
        check(&mut document, &json_schema(), &mut report);
        (document.tree, report.diagnostics.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_wrong_is_told_and_taken_out() {
        let (tree, told) = mistakes(
            "name = 'x'\nnamspace = '/'\ncolour = 1\nunknown = 'ignor'\n[auth]\nmode = 7\n[rooms.a]\njoin = 'true'\n[rooms.b]\nname = 'b'\nallow = 'true'\nhistory = { events = 0 }\n[server.e]\nrooms = [1, 'b']\nterminal = 'yes'\n",
        );
        assert_eq!(
            tree,
            serde_json::json!({
                "name": "x", "auth": {}, "rooms": { "b": { "name": "b", "history": {} } }, "server": { "e": { "rooms": ["b"] } }
            })
        );
        assert_eq!(told.len(), 9, "{told:#?}");
        assert_eq!(told[0], "f:2: namspace: unknown key; did you mean `namespace`?");
        assert!(told[1].starts_with("f:3: colour: unknown key; known here are `auth`, "));
        assert_eq!(told[2], "f:4: unknown: \"ignor\" is not known here; did you mean \"ignore\"?");
        assert_eq!(told[3], "f:6: auth.mode: this is a whole number; write a string");
        assert!(
            told[4].starts_with("f:7: rooms.a: `name` is missing; add `name`: The pattern of the rooms' names"),
            "{}",
            told[4]
        );
        assert_eq!(told[5], "f:11: rooms.b.allow: `allow` is called `join`; write `join`");
        assert_eq!(told[6], "f:12: rooms.b.history.events: 0 is out of range; write a number from 1 to 100000");
        assert_eq!(told[7], "f:14: server.e.rooms[0]: this is a whole number; write a string or a table");
        assert_eq!(told[8], "f:15: server.e.terminal: this is a string; write true or false");
    }

    #[test]
    fn new_names_are_keys_and_old_names_are_not() {
        let schema = json_schema();
        for (pattern, old, new) in RENAMED {
            let mut keys: Vec<&str> = pattern.split('.').filter(|word| !word.is_empty()).collect();
            let mut document = Map::new();
            let inner = Value::Object(Map::from_iter([((*old).to_owned(), Value::Bool(true))]));
            let mut value = inner;
            while let Some(key) = keys.pop() {
                value = Value::Object(Map::from_iter([(key.to_owned(), value)]));
            }
            document.extend(value.as_object().unwrap().clone());
            let text = toml::to_string(&document).unwrap();
            let (_, told) = mistakes(&text);
            assert!(told.iter().any(|line| line.ends_with(&format!("write `{new}`"))), "{pattern} {old}: {told:#?}");
            let first = new.split('.').next().unwrap();
            assert!(schema.to_string().contains(&format!("\"{first}\":")), "{new}");
        }
    }
}
