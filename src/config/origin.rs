//! Records the layer from which each value came.

use figment::Figment;
use figment::value::{Tag, Value};

use super::{keys, tree};
use crate::toml_file::TomlFile;

/// The merged values and the layer of each value.
#[derive(Debug)]
pub struct SettingOrigins {
    pub(super) figment: Figment,
    pub(super) values: Value,
    pub(super) file: Option<(String, TomlFile)>,
}

impl SettingOrigins {
    /// Returns the layer that sets a key, with the line if the layer is a file. `None` for a default.
    pub fn layer_of(&self, path: &[String]) -> Option<String> {
        let value = tree::get(&self.values, path)?;
        self.layer(value.tag(), path)
    }

    /// Returns the layer that a tag stands for.
    pub(super) fn layer(&self, tag: Tag, path: &[String]) -> Option<String> {
        let name = &self.figment.get_metadata(tag)?.name;
        let line = self.file.as_ref().filter(|(file, _)| file == name).and_then(|(_, toml)| toml.line(path));
        Some(line.map_or_else(|| name.to_string(), |line| format!("{name}:{line}")))
    }

    /// Returns the value as messages may show it.
    pub(super) fn shown(&self, path: &[String]) -> Option<String> {
        let value = tree::get(&self.values, path)?;
        match keys::find(path).map(|key| key.kind) {
            Some(keys::SettingType::Secret | keys::SettingType::Pem) => None,
            Some(keys::SettingType::Url) => value.as_str().map(|url| format!("{:?}", super::Url::new(url).masked())),
            _ if holds_tables(value) => None,
            // An unknown key may be a misspelt secret, so messages do not show its value.
            None if !names_file_of_key(path) => None,
            None => Some(tree::show(value)),
            Some(_) => Some(tree::show(value)),
        }
    }
}

fn names_file_of_key(path: &[String]) -> bool {
    let Some((last, parent)) = path.split_last() else { return false };
    let Some(stem) = last.strip_suffix("_file") else { return false };
    let path = [parent, &[stem.to_owned()]].concat();
    keys::find(&path).is_some_and(|key| key.kind.may_be_in_a_file())
}

fn holds_tables(value: &Value) -> bool {
    matches!(value, Value::Dict(..) | Value::Array(..))
}
