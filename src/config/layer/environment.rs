//! Reads the variables `ROOMCAST_<SECTION>__<KEY>`.

use figment::Figment;
use figment::value::{Tag, Value};

use super::file::read_value;
use super::{Layer, merged};
use crate::config::keys::{self, SettingType};
use crate::config::mistake::SettingMistake;
use crate::config::tree;

/// The prefix of every variable of roomcast.
const PREFIX: &str = "ROOMCAST_";

/// Variables that have roomcast's prefix and are not settings.
pub(in crate::config) const OTHERS: [&str; 2] = ["ROOMCAST_CONFIG", "ROOMCAST_ANNOUNCE"];

/// Adds each variable, which replaces the value of the layers so far. An empty variable counts as not set.
pub(in crate::config) fn add(
    mut figment: Figment,
    variables: &[(String, String)],
    mistakes: &mut Vec<SettingMistake>,
) -> Figment {
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if OTHERS.contains(&name.as_str()) || text.is_empty() {
            continue;
        }
        let below = merged(&figment);
        match read(&below, rest, text) {
            Ok(values) => figment = figment.merge(Layer { name: format!("environment {name}"), values }),
            Err((problem, remedy)) => {
                mistakes.push(SettingMistake { key: name.clone(), value: None, layer: None, problem, remedy })
            }
        }
    }
    figment
}

/// Adds the command line's values, which replace the values of all other layers.
pub(in crate::config) fn add_flags(
    mut figment: Figment,
    flags: &[(&'static str, &'static str, String)],
    mistakes: &mut Vec<SettingMistake>,
) -> Figment {
    for (flag, key, text) in flags {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        match value_of(&path, text).and_then(|value| tree::nest(&merged(&figment), &path, value)) {
            Ok(values) => figment = figment.merge(Layer { name: format!("command line {flag}"), values }),
            Err(problem) => mistakes.push(SettingMistake {
                key: (*flag).to_owned(),
                value: None,
                layer: None,
                problem,
                remedy: String::new(),
            }),
        }
    }
    figment
}

/// The problem of a variable and its remedy.
type VariableMistake = (String, String);

fn read(below: &Value, rest: &str, text: &str) -> Result<Value, VariableMistake> {
    if rest.split("__").any(str::is_empty) || (!rest.contains("__") && keys::find(&[rest.to_lowercase()]).is_none()) {
        return Err(not_a_setting(rest));
    }
    let path = path_of(below, rest);
    let value = value_of(&path, text).map_err(|problem| (problem, "write it as in roomcast.toml".to_owned()))?;
    tree::nest(below, &path, value).map_err(|problem| (problem, String::new()))
}

fn not_a_setting(rest: &str) -> VariableMistake {
    let made_by_kubernetes = rest.contains("SERVICE_HOST") || rest.contains("SERVICE_PORT") || rest.contains("PORT");
    let remedy = if made_by_kubernetes {
        "if Kubernetes made it for a Service: set `enableServiceLinks: false` in the pod"
    } else {
        "write ROOMCAST_SECTION__KEY with two underscores, or remove it"
    };
    ("not a setting".to_owned(), remedy.to_owned())
}

/// The path of the setting that an environment variable sets, such as `server.listen`. Names that operators choose are
/// matched with the layers below, ignoring case, and with `_` for `-`.
fn path_of(below: &Value, rest: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    for segment in rest.split("__") {
        let segment = segment.to_lowercase();
        let is_map = keys::find(&path).is_some_and(|key| key.kind == SettingType::Map);
        let known = match tree::get(below, &path) {
            Some(Value::Dict(_, members)) if is_map => {
                members.keys().find(|name| name.to_lowercase().replace('-', "_") == segment).cloned()
            }
            _ => None,
        };
        path.push(known.unwrap_or(segment));
    }
    path
}

/// Parses the text as the key's type.
fn value_of(path: &[String], text: &str) -> Result<Value, String> {
    let toml = || read_value(text).map_err(|error| format!("not a TOML value: {error}"));
    match keys::find(path).map(|key| key.kind) {
        Some(SettingType::Bool) => Ok(text.parse::<bool>().map_or_else(|_| text.into(), Value::from)),
        Some(SettingType::Number) => Ok(text.parse::<i64>().map_or_else(|_| text.into(), Value::from)),
        Some(SettingType::Texts) if !text.trim_start().starts_with('[') => {
            let items = text.split(',').map(|item| Value::from(item.trim())).collect();
            Ok(Value::Array(Tag::Default, items))
        }
        Some(SettingType::Texts | SettingType::Table | SettingType::Tables | SettingType::Map) => toml(),
        _ => Ok(text.into()),
    }
}
