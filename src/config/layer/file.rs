//! The layer `roomcast.toml`.

use figment::value::Value;

use super::Layer;
use crate::config::mistake::SettingMistake;
use crate::toml_file::{TomlFile, parse_value};

/// Parses TOML, and records the line of each key.
pub(in crate::config) fn read(name: &str, text: &str, mistakes: &mut Vec<SettingMistake>) -> (Layer, TomlFile) {
    let mut file = TomlFile::parse(text);
    for (line, problem) in std::mem::take(&mut file.mistakes) {
        mistakes.push(SettingMistake {
            key: String::new(),
            value: None,
            layer: Some(format!("{name}:{}", line.unwrap_or(1))),
            problem: format!("not TOML: {problem}"),
            remedy: String::new(),
        });
    }
    (Layer { name: name.to_owned(), values: convert(&file.tree) }, file)
}

/// Reads one TOML value.
pub(in crate::config) fn read_value(text: &str) -> Result<Value, String> {
    parse_value(text).map(|value| convert(&value))
}

// A number that TOML does not allow stays a text. Deserializing reports the range.
fn convert(value: &serde_json::Value) -> Value {
    Value::serialize(value).expect("figment has every value of JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

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
