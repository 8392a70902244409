//! Shows the effective values as TOML, each with the layer from which it came. Secrets stay hidden.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::LoadedConfig;

/// The column in which comments begin, if the line is shorter than the column.
const COMMENT_COLUMN: usize = 44;

impl LoadedConfig {
    /// Writes the effective values as TOML. Keys without a value are comments.
    pub fn to_toml(&self) -> String {
        let values = serde_json::to_value(&self.config).unwrap_or_default();
        let mut page = SettingsPage { loaded: self, text: String::new() };
        if let Value::Object(sections) = &values {
            for (name, section) in sections {
                let path = std::slice::from_ref(name);
                page.table(path, path, section);
            }
        }
        page.text
    }
}

struct SettingsPage<'a> {
    loaded: &'a LoadedConfig,
    text: String,
}

impl SettingsPage<'_> {
    /// Writes a table. `path` finds the layer and contains list indexes; `head` is the same path without them.
    fn table(&mut self, path: &[String], head: &[String], value: &Value) {
        let Value::Object(members) = value else { return };
        // A table that holds only tables, such as `[hooks]`, needs no header.
        if members.values().any(|member| !is_table(member)) {
            self.head(&format!("[{}]", header(head)));
        } else if members.is_empty() {
            self.head(&format!("# [{}] is empty", header(head)));
        }
        self.members(path, head, members);
    }

    fn members(&mut self, path: &[String], head: &[String], members: &Map<String, Value>) {
        let with = |path: &[String], name: &str| [path, &[name.to_owned()]].concat();
        for (name, member) in members.iter().filter(|(_, member)| !is_table(member)) {
            self.line(name, &with(path, name), member);
        }
        for (name, member) in members.iter().filter(|(_, member)| is_table(member)) {
            let (path, head) = (with(path, name), with(head, name));
            let Value::Array(items) = member else {
                self.table(&path, &head, member);
                continue;
            };
            for (index, item) in items.iter().enumerate() {
                self.head(&format!("[[{}]]", header(&head)));
                if let Value::Object(members) = item {
                    self.members(&with(&path, &index.to_string()), &head, members);
                }
            }
        }
    }

    fn head(&mut self, head: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        _ = writeln!(self.text, "{gap}{head}");
    }

    fn line(&mut self, name: &str, path: &[String], value: &Value) {
        if value.is_null() {
            _ = writeln!(self.text, "# {name} is not set");
            return;
        }
        let line = format!("{} = {}", key(name), toml_of(value));
        let layer = self.loaded.origins.layer_of(path).unwrap_or_else(|| "default".into());
        _ = writeln!(self.text, "{line:<COMMENT_COLUMN$} # {layer}");
    }
}

/// Whether the value is a table, or a list of tables.
fn is_table(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(items) => items.iter().any(Value::is_object),
        _ => false,
    }
}

fn header(names: &[String]) -> String {
    names.iter().map(|name| key(name)).collect::<Vec<_>>().join(".")
}

fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if bare { name.to_owned() } else { quoted(name) }
}

fn toml_of(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string().replace('\n', " ")
}
