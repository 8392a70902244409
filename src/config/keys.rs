//! Describes every key of the configuration, from the structs' JSON schema.
//!
//! The structs are the only source: the types of environment variables, the defaults in messages, and
//! `docs/configuration.md` come from them.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::Config;

/// The type of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingType {
    /// Any text.
    Text,
    /// A text that is secret and is never shown.
    Secret,
    /// A URL. Its user information is never shown.
    Url,
    /// A public key, as PEM.
    Pem,
    /// A number of bytes, with or without a unit.
    Size,
    /// A time with its unit.
    Time,
    /// A number of events in a time, such as `10/s`.
    Rate,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Bool,
    /// A list of texts.
    Texts,
    /// A table.
    Table,
    /// A list of tables.
    Tables,
    /// Tables by names that the operator chooses.
    Map,
}

impl SettingType {
    /// The name of the type in docs/configuration.md.
    #[cfg(test)]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Secret => "secret",
            Self::Url => "URL",
            Self::Pem => "PEM",
            Self::Size => "size",
            Self::Time => "time",
            Self::Rate => "rate",
            Self::Number => "number",
            Self::Bool => "true or false",
            Self::Texts => "list of texts",
            Self::Table => "table",
            Self::Tables => "list of tables",
            Self::Map => "tables by name",
        }
    }

    /// Whether the value may be read from a file that the key `<key>_file` names.
    pub const fn may_be_in_a_file(self) -> bool {
        matches!(self, Self::Secret | Self::Url | Self::Pem)
    }
}

/// One key.
#[derive(Debug, Clone)]
pub struct SettingKey {
    /// The dotted path. `*` stands for a name that the operator chooses, `[]` for an entry of a list.
    pub path: String,
    /// The type of the key's value.
    pub kind: SettingType,
    /// The permitted values of the key, if only some values are permitted.
    pub choices: Vec<String>,
    /// The default of the key; `None` if the key has no default.
    pub default: Option<Value>,
    /// The description.
    pub doc: String,
}

/// Returns every key, in the order of the structs.
pub fn all() -> &'static [SettingKey] {
    static KEYS: LazyLock<Vec<SettingKey>> = LazyLock::new(|| {
        let schema = schemars::schema_for!(Config).to_value();
        let mut keys = Vec::new();
        collect(&schema, &schema, &mut Vec::new(), &mut keys);
        keys
    });
    &KEYS
}

/// Returns the key at a path such as `["auth", "keys", "0", "kid"]`.
pub fn find(path: &[String]) -> Option<&'static SettingKey> {
    all().iter().find(|key| matches(&key.path, path))
}

fn matches(pattern: &str, path: &[String]) -> bool {
    let mut segments = pattern.split('.').filter(|segment| !segment.is_empty());
    let all = path.iter().all(|name| {
        segments.next().is_some_and(|segment| match segment {
            "*" => true,
            "[]" => name.parse::<usize>().is_ok(),
            _ => segment == name,
        })
    });
    all && segments.next().is_none()
}

/// Collects values first and tables after them, as TOML requires.
fn collect(root: &Value, schema: &Value, path: &mut Vec<String>, keys: &mut Vec<SettingKey>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let is_table = |property: &Value| {
        matches!(kind_of(root, resolve(root, property)), SettingType::Table | SettingType::Tables | SettingType::Map)
    };
    let (tables, values): (Vec<_>, Vec<_>) = properties.iter().partition(|(_, property)| is_table(property));
    for (name, property) in values.into_iter().chain(tables) {
        path.push(name.clone());
        collect_key(root, property, path, keys);
        path.pop();
    }
}

fn collect_key(root: &Value, property: &Value, path: &mut Vec<String>, keys: &mut Vec<SettingKey>) {
    let schema = resolve(root, property);
    let kind = kind_of(root, schema);
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    keys.push(SettingKey {
        path: path.join("."),
        kind,
        choices: choices_of(schema),
        default: property.get("default").filter(|value| !value.is_null()).cloned(),
        doc: text(property, "description").unwrap_or_default().replace('\n', " "),
    });
    let (segment, inner) = match kind {
        SettingType::Table => return collect(root, schema, path, keys),
        SettingType::Tables => ("[]", schema.get("items")),
        SettingType::Map => ("*", schema.get("additionalProperties")),
        _ => return,
    };
    let Some(inner) = inner else { return };
    path.push(segment.into());
    keys.push(SettingKey {
        path: path.join("."),
        kind: SettingType::Table,
        choices: Vec::new(),
        default: None,
        doc: text(resolve(root, inner), "description").unwrap_or_default(),
    });
    collect(root, resolve(root, inner), path, keys);
    path.pop();
}

/// Follows references in the schema, and picks the alternative that is not null.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        return root.pointer(target.trim_start_matches('#')).unwrap_or(schema);
    }
    let alternatives = schema.get("anyOf").and_then(Value::as_array);
    let some = alternatives.and_then(|all| all.iter().find(|one| one.get("type") != Some(&json!("null"))));
    some.map_or(schema, |some| resolve(root, some))
}

fn kind_of(root: &Value, schema: &Value) -> SettingType {
    match schema.get("format").and_then(Value::as_str) {
        Some("secret") => return SettingType::Secret,
        Some("url") => return SettingType::Url,
        Some("pem") => return SettingType::Pem,
        Some("size") => return SettingType::Size,
        Some("time") => return SettingType::Time,
        Some("rate") => return SettingType::Rate,
        _ => {}
    }
    let is = |name: &str| match schema.get("type") {
        Some(Value::String(one)) => one == name,
        Some(Value::Array(several)) => several.contains(&json!(name)),
        _ => false,
    };
    let names_are_free = schema.get("additionalProperties").is_some_and(Value::is_object);
    let of_tables = || schema.get("items").is_some_and(|item| kind_of(root, resolve(root, item)) == SettingType::Table);
    if is("object") {
        return if names_are_free { SettingType::Map } else { SettingType::Table };
    }
    if is("array") {
        return if of_tables() { SettingType::Tables } else { SettingType::Texts };
    }
    if is("boolean") {
        return SettingType::Bool;
    }
    if is("integer") { SettingType::Number } else { SettingType::Text }
}

fn choices_of(schema: &Value) -> Vec<String> {
    let strings = |list: &Vec<Value>, get: fn(&Value) -> Option<&Value>| {
        list.iter().filter_map(get).filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return strings(list, |one| Some(one));
    }
    match schema.get("oneOf").and_then(Value::as_array) {
        Some(list) => strings(list, |one| one.get("const")),
        None => Vec::new(),
    }
}

/// The JSON Schema of `roomcast.toml`, for editors.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Config).to_value();
    allow_files(&mut schema);
    schema
}

/// Adds `<key>_file` beside every key whose value may be read from a file.
fn allow_files(schema: &mut Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        let mut files = Map::new();
        for (name, property) in properties.iter() {
            let format = property.get("format").and_then(Value::as_str);
            if matches!(format, Some("secret" | "url" | "pem")) {
                files.insert(
                    format!("{name}_file"),
                    json!({ "type": "string", "description": format!("The file that holds `{name}`.") }),
                );
            }
        }
        properties.append(&mut files);
    }
    match schema {
        Value::Object(members) => members.values_mut().for_each(allow_files),
        Value::Array(items) => items.iter_mut().for_each(allow_files),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn keys_are_found_with_their_types() {
        for (key, kind) in [
            ("server.listen", SettingType::Text),
            ("server.ping_interval", SettingType::Time),
            ("server.max_payload", SettingType::Size),
            ("server.max_connections", SettingType::Number),
            ("server.cors_origins", SettingType::Texts),
            ("node.dev", SettingType::Bool),
            ("auth", SettingType::Table),
            ("auth.keys", SettingType::Tables),
            ("auth.keys.0.secret", SettingType::Secret),
            ("auth.keys.1.public_key", SettingType::Pem),
            ("auth.jwks.url", SettingType::Url),
            ("auth.jwks.algorithms", SettingType::Texts),
            ("limits.connections_per_ip", SettingType::Rate),
            ("redis.password", SettingType::Secret),
            ("redis.database", SettingType::Number),
            ("hooks", SettingType::Map),
            ("hooks.songs.breaker.open", SettingType::Time),
        ] {
            assert_eq!(find(&path(key)).unwrap_or_else(|| panic!("{key}")).kind, kind, "{key}");
        }
        assert_eq!(find(&path("log.format")).unwrap().choices, ["human", "json"]);
        assert!(find(&path("auth.keys.first.secret")).is_none());
        assert!(find(&path("server.port")).is_none());
    }

    #[test]
    fn every_key_has_a_sentence_and_every_scalar_knows_its_default() {
        for key in all() {
            assert!(key.doc.ends_with(['.', '…']), "{}: {:?}", key.path, key.doc);
        }
        assert_eq!(find(&path("server.ping_interval")).unwrap().default, Some(json!("25s")));
        assert_eq!(find(&path("hooks.any.timeout")).unwrap().default, Some(json!("5s")));
    }
}
