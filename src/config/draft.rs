//! A configuration while its mistakes are collected.

use super::mistake::SettingMistake;
use super::{SettingOrigins, keys};

/// A configuration whose mistakes are still being collected.
pub(super) struct Draft {
    pub(super) origins: SettingOrigins,
    pub(super) mistakes: Vec<SettingMistake>,
}

impl Draft {
    /// Notes a mistake of a key, with its value and layer. Each key is reported once.
    pub(super) fn refuse(&mut self, path: &[String], problem: &str, remedy: &str) {
        let key = dotted(path);
        let told =
            |known: &str| key == known || key.strip_prefix(known).is_some_and(|rest| rest.starts_with(['.', '[']));
        if self.mistakes.iter().any(|mistake| !mistake.key.is_empty() && told(&mistake.key)) {
            return;
        }
        self.mistakes.push(SettingMistake {
            value: self.origins.shown(path),
            layer: self.origins.layer_of(path),
            key,
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
}

/// `auth.keys[0].kid`
pub(super) fn dotted(path: &[String]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment.parse::<usize>() {
            Ok(index) => text.push_str(&format!("[{index}]")),
            Err(_) if text.is_empty() => text.push_str(segment),
            Err(_) => text.push_str(&format!(".{segment}")),
        }
    }
    text
}

/// The remedy of a mistake, such as "remove it for the default, 25s".
pub(super) fn default_of(path: &[String]) -> String {
    match keys::find(path).and_then(|key| key.default.as_ref()) {
        Some(serde_json::Value::String(text)) if text.is_empty() => String::new(),
        Some(serde_json::Value::Object(_)) => "remove it for its defaults".into(),
        Some(default) => format!("remove it for the default, {default}"),
        None => "remove it for none".into(),
    }
}
