//! The layer `roomcast.toml`.

use std::collections::HashMap;

use figment::value::{Dict, Tag, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Layer;
use crate::config::mistake::SettingMistake;

/// The line on which each dotted path of a file is set, counted from 1.
#[derive(Debug, Default)]
pub(in crate::config) struct Lines(HashMap<String, usize>);

impl Lines {
    /// The line of a path, or of the nearest enclosing table.
    pub(in crate::config) fn find(&self, path: &[String]) -> Option<usize> {
        (1..=path.len()).rev().find_map(|length| self.0.get(&path[..length].join(".")).copied())
    }
}

/// Parses TOML, and records the line of each key.
pub(in crate::config) fn read(name: &str, text: &str, mistakes: &mut Vec<SettingMistake>) -> (Layer, Lines) {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        mistakes.push(SettingMistake {
            key: String::new(),
            value: None,
            layer: Some(format!("{name}:{line}")),
            problem: format!("not TOML: {}", error.message().trim().replace('\n', ", ")),
            remedy: String::new(),
        });
    }
    let mut lines = Lines::default();
    let values = members(text, table.get_ref(), &mut Vec::new(), &mut lines);
    (Layer { name: name.to_owned(), values }, lines)
}

/// Reads one TOML value.
pub(in crate::config) fn read_value(text: &str) -> Result<Value, String> {
    let value = DeValue::parse(text).map_err(|error| error.message().trim().replace('\n', ", "))?;
    Ok(convert(text, &value, &mut Vec::new(), &mut Lines::default()))
}

fn members(text: &str, table: &DeTable<'_>, path: &mut Vec<String>, lines: &mut Lines) -> Value {
    let mut dict = Dict::new();
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        lines.0.insert(path.join("."), line_of(text, key.span().start));
        dict.insert(key.get_ref().to_string(), convert(text, value, path, lines));
        path.pop();
    }
    Value::Dict(Tag::Default, dict)
}

fn convert(text: &str, value: &Spanned<DeValue<'_>>, path: &mut Vec<String>, lines: &mut Lines) -> Value {
    match value.get_ref() {
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.into(),
            // Too large for TOML: deserializing reports the range.
            Err(_) => number.as_str().into(),
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) => number.into(),
            Err(_) => number.as_str().into(),
        },
        DeValue::String(string) => string.as_ref().into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Table(table) => members(text, table, path, lines),
        DeValue::Array(items) => {
            let mut values = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                lines.0.insert(path.join("."), line_of(text, item.span().start));
                values.push(convert(text, item, path, lines));
                path.pop();
            }
            Value::Array(Tag::Default, values)
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_knows_the_line_of_every_key() {
        let text = "[server]\nlisten = \"127.0.0.1:1\"\n\n[[auth.keys]]\nkid = \"a\"\n[[auth.keys]]\nkid = \"b\"\n";
        let (layer, lines) = read("x.toml", text, &mut Vec::new());
        let line = |path: &str| lines.find(&path.split('.').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(line("server.listen"), Some(2));
        assert_eq!(line("auth.keys.0.kid"), Some(5));
        assert_eq!(line("auth.keys.1.kid"), Some(7));
        assert_eq!(line("auth.keys.1.algorithm"), Some(6));
        assert_eq!(line("log.level"), None);
        assert!(layer.values.find_ref("server.listen").is_some());
    }

    #[test]
    fn every_fault_of_the_syntax_is_told_with_its_line() {
        let mut mistakes = Vec::new();
        let (layer, _) = read("x.toml", "[log]\nlevel = info\nformat = \n[node]\ndev = true\n", &mut mistakes);
        let told: Vec<String> = mistakes.iter().map(SettingMistake::to_string).collect();
        assert!(told.iter().any(|line| line.starts_with("(from x.toml:2): not TOML: ")), "{told:?}");
        assert!(told.iter().any(|line| line.starts_with("(from x.toml:3): not TOML: ")), "{told:?}");
        assert!(layer.values.find_ref("node.dev").is_some());
    }
}
