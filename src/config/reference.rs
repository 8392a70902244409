//! Generates `docs/configuration.md` and `roomcast.example.toml` from the structs.

use std::fmt::Write as _;

use serde_json::Value;

use super::keys::{self, SettingKey, SettingType};
use super::layer::original;
use super::{files, secret};

/// The page `docs/configuration.md`.
pub fn page() -> String {
    let mut page = String::from(include_str!("reference/head.md"));
    for key in keys::all().iter().filter(|key| !key.path.contains('.')) {
        _ = write!(page, "\n## `[{}]`\n\n{}\n\n", section_name(key), key.doc);
        page.push_str("| key | type | default | variable | meaning |\n| --- | --- | --- | --- | --- |\n");
        let prefix = format!("{}.", key.path);
        let inner = keys::all().iter().filter(|inner| inner.path.starts_with(&prefix) && is_value(inner));
        for inner in inner {
            page.push_str(&row(inner));
        }
    }
    page.push_str(include_str!("reference/original.md"));
    for (name, key, _) in original::VARIABLES {
        _ = writeln!(page, "| `{name}` | `{key}` | {} |", original::meaning(name));
    }
    page
}

/// The file `roomcast.example.toml`: every key as a comment, with its default.
pub fn example() -> String {
    let mut text = String::from(include_str!("reference/example.head.toml"));
    for key in keys::all() {
        let Some((parent, name)) = key.path.rsplit_once('.') else {
            if key.kind == SettingType::Table {
                _ = write!(text, "\n# {}\n[{}]\n", key.doc, key.path);
            }
            continue;
        };
        match (key.kind, name) {
            (SettingType::Table, "*" | "[]") => {
                let head = table_name(parent).replace('*', "example");
                let (open, close) = if name == "[]" { ("[[", "]]") } else { ("[", ".example]") };
                _ = write!(text, "\n# {}\n# {open}{head}{close}\n", key.doc);
            }
            (SettingType::Table, _) => {
                let hash = if is_chosen(&key.path) || is_optional(key) { "# " } else { "" };
                _ = write!(text, "\n# {}\n{hash}[{}]\n", key.doc, table_name(&key.path).replace('*', "example"));
            }
            (SettingType::Tables | SettingType::Map, _) => {}
            _ => _ = write!(text, "# {}\n# {name} = {}\n", key.doc, sample(key)),
        }
    }
    text
}

fn section_name(key: &SettingKey) -> String {
    if key.kind == SettingType::Map { format!("{}.NAME", key.path) } else { key.path.clone() }
}

/// Whether the key has a value of its own and is not a table. Tables and entries of lists have none.
fn is_value(key: &SettingKey) -> bool {
    !matches!(key.kind, SettingType::Table | SettingType::Tables | SettingType::Map)
}

/// Whether a table is inside a table whose name the operator chooses.
fn is_chosen(path: &str) -> bool {
    path.split('.').any(|segment| matches!(segment, "*" | "[]"))
}

/// Whether a table has no effect unless the file contains it.
fn is_optional(key: &SettingKey) -> bool {
    key.default.is_none()
}

/// Returns the name for `auth.keys.[]`: `auth.keys`.
fn table_name(path: &str) -> String {
    path.split('.').filter(|segment| *segment != "[]").collect::<Vec<_>>().join(".")
}

/// Returns the name of a key, such as `hooks.NAME.url` or `auth.keys[].kid`.
fn key_name(path: &str) -> String {
    path.replace(".[]", "[]").replace('*', "NAME")
}

/// Returns the environment variable of a key, such as `ROOMCAST_AUTH__KEYS__<N>__KID`.
fn variable(path: &str) -> String {
    let segments = path.split('.').map(|segment| match segment {
        "*" => "<NAME>".to_owned(),
        "[]" => "<N>".to_owned(),
        other => other.to_uppercase(),
    });
    format!("ROOMCAST_{}", segments.collect::<Vec<_>>().join("__"))
}

fn row(key: &SettingKey) -> String {
    let is_path = key.kind == SettingType::Text && files::names_files(&key.path);
    let mut kind = if is_path { "path" } else { key.kind.as_str() }.to_owned();
    if !key.choices.is_empty() {
        kind = key.choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ");
    }
    if key.kind.may_be_in_a_file() {
        kind.push_str(", or `…_file`");
    }
    let default = match &key.default {
        Some(Value::String(text)) if text.is_empty() => "needed".to_owned(),
        Some(Value::String(text)) if text == secret::HIDDEN => "needed".to_owned(),
        Some(default) => format!("`{default}`"),
        None => "none".to_owned(),
    };
    let doc = key.doc.replace('|', "\\|");
    format!("| `{}` | {kind} | {default} | `{}` | {doc} |\n", key_name(&key.path), variable(&key.path))
}

/// Returns the default of a key, or an example value of its type.
fn sample(key: &SettingKey) -> String {
    match (&key.default, key.kind) {
        (Some(Value::Array(items)), _) if items.is_empty() => "[]".to_owned(),
        (Some(Value::String(text)), _) if !text.is_empty() && text != secret::HIDDEN => format!("{text:?}"),
        (Some(default), kind) if !matches!(kind, SettingType::Url | SettingType::Secret | SettingType::Text) => {
            default.to_string()
        }
        (_, SettingType::Url) if key.path.starts_with("redis") => "\"redis://127.0.0.1:6379\"".to_owned(),
        (_, SettingType::Url) => "\"https://example.com/\"".to_owned(),
        (_, SettingType::Text) if key.path == "cluster.listen" => "\"0.0.0.0:3002\"".to_owned(),
        (_, SettingType::Rate) => "\"10/s\"".to_owned(),
        (_, SettingType::Time) => "\"20s\"".to_owned(),
        (_, SettingType::Size) => "\"4MiB\"".to_owned(),
        (_, SettingType::Number) => "0".to_owned(),
        _ => "\"…\"".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources, load};

    fn is_current(name: &str, text: &str) {
        let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == text, "{name} is not current; run UPDATE_DOCS=1 cargo test --lib reference");
    }

    #[test]
    fn the_page_and_the_example_are_current() {
        is_current("docs/configuration.md", &page());
        is_current("roomcast.example.toml", &example());
    }

    #[test]
    fn every_key_is_on_the_page_with_its_variable() {
        let page = page();
        for key in keys::all().iter().filter(|key| is_value(key)) {
            assert!(page.contains(&format!("| `{}` |", key_name(&key.path))), "{}", key.path);
            assert!(page.contains(&format!("| `{}` |", variable(&key.path))), "{}", key.path);
        }
    }

    #[test]
    fn the_example_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("roomcast.toml");
        std::fs::write(&file, example()).unwrap();
        let loaded = load(Sources { file: Some(file), ..Sources::default() }).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.config, Config::default());
    }

    #[test]
    fn the_example_is_right_without_its_hashes() {
        // Lines of the example that start with a lower-case key or a table are TOML. The rest are sentences.
        let is_toml = |line: &str| {
            let key = line.split(" = ").next().unwrap_or("");
            let is_key = line.contains(" = ") && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            is_key || line.starts_with('[')
        };
        let open = |line: &str| match line.strip_prefix("# ") {
            Some(rest) if is_toml(rest) => rest.to_owned(),
            _ => line.to_owned(),
        };
        let text = example().lines().map(open).collect::<Vec<_>>().join("\n");
        let config: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        // Without a value, these keys take the value of another key, or the feature is off.
        let write_timeout = Some(crate::config::Period::from_secs(20));
        let queue_bytes = Some(crate::config::Size::from_bytes(4 << 20));
        let compression = Some(crate::config::CompressionSettings::default());
        let server =
            crate::config::ServerSettings { write_timeout, queue_bytes, compression, ..Config::default().server };
        assert_eq!(config.server, server);
        assert_eq!((config.api.keys.len(), config.auth.keys.len(), config.hooks.len()), (1, 1, 1));
    }
}
