//! A contract file as a tree of values with the line of each value.

use serde_json::{Map, Value};

use super::report::{ContractReport, Diagnostic};
use crate::toml_file::{Foreign, TomlFile};

/// A parsed file: its values as JSON, and the line of each value.
#[derive(Debug)]
pub(super) struct Document {
    /// The file's path, or `embedded:<name>`.
    pub file: String,
    /// The file's values, in the order of the file.
    pub tree: Value,
    toml: TomlFile,
}

/// A key path in a document, from the top level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyPath(Vec<String>);

impl KeyPath {
    /// The path of a key at the top level.
    pub fn top(key: &str) -> Self {
        Self::default().key(key)
    }

    /// The path of a key or list index below this path.
    pub fn key(&self, key: &str) -> Self {
        Self(self.0.iter().cloned().chain([key.to_owned()]).collect())
    }

    /// The path of a list element below this path. `None` means that there is no list.
    pub fn index(&self, index: Option<usize>) -> Self {
        index.map_or_else(|| self.clone(), |index| self.key(&index.to_string()))
    }

    /// The path of several nested keys below this path.
    pub fn keys(&self, keys: &[String]) -> Self {
        Self(self.0.iter().chain(keys).cloned().collect())
    }

    /// The keys of the path, from the top level.
    pub fn segments(&self) -> &[String] {
        &self.0
    }
}

// Writes the key path as in the file: `client."room:join".relay[1].when`.
impl std::fmt::Display for KeyPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            let bare =
                !segment.is_empty() && segment.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            if at > 0 && segment.chars().all(|c| c.is_ascii_digit()) && !segment.is_empty() {
                write!(f, "[{segment}]")?;
                continue;
            }
            let dot = if at == 0 { "" } else { "." };
            if bare { write!(f, "{dot}{segment}")? } else { write!(f, "{dot}{segment:?}")? }
        }
        Ok(())
    }
}

impl Document {
    /// Parses TOML. Recovers from mistakes where possible, so that the rest of the file is checked, too.
    pub fn parse(file: &str, text: &str, report: &mut ContractReport) -> Self {
        let mut toml = TomlFile::parse(text);
        for (line, problem) in std::mem::take(&mut toml.mistakes) {
            let (key, remedy, problem) = (String::new(), String::new(), format!("this is not TOML: {problem}"));
            report.push(Diagnostic { file: file.to_owned(), line, key, problem, remedy });
        }
        let (tree, foreign) = (std::mem::take(&mut toml.tree), std::mem::take(&mut toml.foreign));
        let document = Self { file: file.to_owned(), tree, toml };
        for (path, kind) in foreign {
            let (problem, remedy) = match kind {
                Foreign::LargeInteger => ("this number is too large", "write a smaller one"),
                Foreign::NotFinite => ("JSON has no such number", "write a finite one"),
                Foreign::Date => ("contracts contain no dates", "write it as a string, in quotes"),
            };
            report.push(document.mistake(&KeyPath(path), problem, remedy));
        }
        document
    }

    /// Returns the line of a key, or of the closest enclosing key whose line is known.
    pub fn line(&self, key_path: &KeyPath) -> Option<usize> {
        self.toml.line(&key_path.0)
    }

    /// Creates a mistake at a key path.
    pub fn mistake(&self, key_path: &KeyPath, problem: impl Into<String>, remedy: impl Into<String>) -> Diagnostic {
        Diagnostic {
            file: self.file.clone(),
            line: self.line(key_path),
            key: key_path.to_string(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// Returns the keys of a table, in the order of the file.
    pub fn keys(&self, table: &str) -> Vec<String> {
        let table = self.tree.get(table).and_then(Value::as_object);
        table.into_iter().flat_map(Map::keys).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_keep_their_order_and_know_their_lines() {
        let text = "b = 1\na = [\n  \"x\",\n  { c = -0.5 },\n]\n\n[t.\"q:r\"]\nh = 0xff\n";
        let mut report = ContractReport::default();
        let document = Document::parse("f.toml", text, &mut report);
        assert!(report.is_empty());
        assert_eq!(document.tree, json!({ "b": 1, "a": ["x", { "c": -0.5 }], "t": { "q:r": { "h": 255 } } }));
        assert_eq!(document.tree.as_object().unwrap().keys().collect::<Vec<_>>(), ["b", "a", "t"]);
        let inner = KeyPath::top("a").index(Some(1)).key("c");
        assert_eq!((document.line(&inner), inner.to_string()), (Some(4), "a[1].c".to_owned()));
        let quoted = KeyPath::top("t").key("q:r").key("h");
        assert_eq!((document.line(&quoted), quoted.to_string()), (Some(8), "t.\"q:r\".h".to_owned()));
        assert_eq!(document.line(&quoted.key("missing")), Some(8));
    }

    #[test]
    fn every_mistake_of_spelling_is_told_and_the_rest_is_read() {
        let mut report = ContractReport::default();
        let document =
            Document::parse("f.toml", "a = \nb = 1\nc = = 2\nd = 1979-05-27\ne = 99999999999999999999\n", &mut report);
        assert_eq!(document.tree["b"], 1);
        let lines: Vec<_> = report.diagnostics.iter().filter_map(|d| d.line).collect();
        assert_eq!(lines, [1, 3, 4, 5], "{report}");
    }
}
