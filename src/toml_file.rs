//! TOML with the line of each value, for the configuration and for contracts.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

/// A parsed file: its values as JSON, and the line of each value, counted from 1.
#[derive(Debug, Default)]
pub struct TomlFile {
    /// The file's values, in the order of the file. A value that JSON does not have is the text that the file has.
    pub tree: Value,
    /// Where the file has a value that JSON does not have.
    pub foreign: Vec<(Vec<String>, Foreign)>,
    /// Mistakes of the syntax, with their lines: the first mistake of each line, because the other mistakes of the line
    /// follow from the first.
    pub mistakes: Vec<(Option<usize>, String)>,
    lines: HashMap<Vec<String>, usize>,
}

/// A kind of value that TOML has and JSON does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// An integer of more than 64 bits.
    LargeInteger,
    /// `inf` or `nan`.
    NotFinite,
    /// A date, a time of day, or both.
    Date,
}

impl TomlFile {
    /// Parses a file. Recovers from mistakes where possible, so that the rest of the file is checked, too.
    pub fn parse(text: &str) -> Self {
        let newlines: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let mut reader = Reader { newlines, path: Vec::new(), file: Self::default() };
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut mistakes = BTreeMap::new();
        for error in errors {
            let line = error.span().map(|span| reader.line(span.start));
            mistakes.entry(line).or_insert_with(|| message(&error));
        }
        let tree = reader.table(table.get_ref());
        Self { tree, mistakes: mistakes.into_iter().collect(), ..reader.file }
    }

    /// The line of a key path, or of the closest enclosing key whose line is known.
    pub fn line(&self, path: &[String]) -> Option<usize> {
        (1..=path.len()).rev().find_map(|depth| self.lines.get(&path[..depth]).copied())
    }
}

/// Parses one value.
///
/// # Errors
/// The mistake.
pub fn parse_value(text: &str) -> Result<Value, String> {
    let value = DeValue::parse(text).map_err(|error| message(&error))?;
    Ok(Reader { newlines: Vec::new(), path: Vec::new(), file: TomlFile::default() }.value(&value))
}

struct Reader {
    newlines: Vec<usize>,
    path: Vec<String>,
    file: TomlFile,
}

impl Reader {
    fn line(&self, offset: usize) -> usize {
        self.newlines.partition_point(|newline| *newline < offset) + 1
    }

    fn table(&mut self, table: &DeTable<'_>) -> Value {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let member = |(key, value): (&Spanned<_>, _)| {
            let name = AsRef::<str>::as_ref(key.get_ref()).to_owned();
            (name.clone(), self.inner(name, key.span().start, value))
        };
        Value::Object(entries.into_iter().map(member).collect::<Map<_, _>>())
    }

    fn inner(&mut self, key: String, offset: usize, value: &Spanned<DeValue<'_>>) -> Value {
        self.path.push(key);
        self.file.lines.insert(self.path.clone(), self.line(offset));
        let value = self.value(value);
        self.path.pop();
        value
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>) -> Value {
        match value.get_ref() {
            DeValue::String(text) => Value::from(text.as_ref()),
            DeValue::Integer(integer) => {
                let digits = integer.as_str().replace('_', "");
                let number = i64::from_str_radix(&digits, integer.radix()).ok().map(Value::from);
                number.unwrap_or_else(|| self.foreign(Foreign::LargeInteger, integer.as_str()))
            }
            DeValue::Float(float) => {
                let number = float.as_str().replace('_', "").parse().ok().and_then(Number::from_f64);
                number.map(Value::Number).unwrap_or_else(|| self.foreign(Foreign::NotFinite, float.as_str()))
            }
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(time) => self.foreign(Foreign::Date, &time.to_string()),
            DeValue::Array(items) => {
                let item =
                    |(at, item): (usize, &Spanned<DeValue<'_>>)| self.inner(at.to_string(), item.span().start, item);
                Value::Array(items.iter().enumerate().map(item).collect())
            }
            DeValue::Table(table) => self.table(table),
        }
    }

    fn foreign(&mut self, kind: Foreign, text: &str) -> Value {
        self.file.foreign.push((self.path.clone(), kind));
        text.into()
    }
}

/// The message of an error, in one line.
fn message(error: &Error) -> String {
    error.message().trim().replace('\n', ", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_keep_their_order_and_know_their_lines() {
        let text =
            "b = 1_000\na = [\n  \"x\",\n  { c = -0.5 },\n]\n\n[t.\"q.r\"]\nh = 0xff\n[[u]]\nk = 1\n[[u]]\nk = 2\n";
        let file = TomlFile::parse(text);
        let expected = json!({
            "b": 1000, "a": ["x", { "c": -0.5 }], "t": { "q.r": { "h": 255 } }, "u": [{ "k": 1 }, { "k": 2 }],
        });
        assert_eq!((&file.tree, file.mistakes.len(), file.foreign.len()), (&expected, 0, 0));
        assert_eq!(file.tree.as_object().unwrap().keys().collect::<Vec<_>>(), ["b", "a", "t", "u"]);
        let line = |path: &[&str]| file.line(&path.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>());
        assert_eq!(line(&["a", "1", "c"]), Some(4));
        assert_eq!(line(&["t", "q.r", "h"]), Some(8));
        assert_eq!(line(&["t", "q.r", "missing"]), Some(7));
        assert_eq!((line(&["u", "0", "k"]), line(&["u", "1", "k"])), (Some(10), Some(12)));
        assert_eq!(line(&["missing"]), None);
    }

    #[test]
    fn every_mistake_of_the_syntax_is_told_and_the_rest_is_read() {
        let file = TomlFile::parse("a = \nb = 1\nc = = 2\nd = 1979-05-27\ne = 99999999999999999999\nf = inf\n");
        assert_eq!(file.tree["b"], 1);
        assert_eq!(file.mistakes.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [Some(1), Some(3)]);
        assert!(file.mistakes.iter().all(|(_, problem)| !problem.contains('\n')), "{:?}", file.mistakes);
        let kinds: Vec<_> = file.foreign.iter().map(|(path, kind)| (path.join("."), *kind)).collect();
        let expected = [("d", Foreign::Date), ("e", Foreign::LargeInteger), ("f", Foreign::NotFinite)];
        assert_eq!(kinds, expected.map(|(path, kind)| (path.to_owned(), kind)));
        assert_eq!(file.tree["d"], "1979-05-27");
    }
}
