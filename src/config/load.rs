//! Merges the layers, and finds every mistake in them.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::error::{Actual, Kind as Fault};

use super::draft::{Draft, default_of, dotted};
use super::keys::{self, SettingType};
use super::layer::{environment, file, merged, original};
use super::mistake::{ConfigError, SettingMistake};
use super::{Config, SettingOrigins, check, files, renamed, tree};
use crate::suggest;
use crate::toml_file::TomlFile;

/// The configuration file that is read when no other file is named and this file exists.
pub const DEFAULT_FILE: &str = "roomcast.toml";

/// Maximum number of values whose types are reported as wrong. The search ends there.
const MAX_MISTAKES: usize = 200;

/// The sources of the settings: a file, environment variables and the command line.
#[derive(Debug, Default)]
pub struct Sources {
    /// The configuration file, which must exist. `None`: `roomcast.toml`, if it exists.
    pub file: Option<PathBuf>,
    /// Variables of the environment. Variables of other programs are ignored.
    pub variables: Vec<(String, String)>,
    /// Values of the command line, which replace all others: the flag, the dotted key, and the value as in a variable.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

impl Sources {
    /// Takes the environment of this process. `ROOMCAST_CONFIG` names the file, unless one is given.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(&'static str, &'static str, String)>) -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let variables: Vec<_> = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        let named = variables.iter().find(|(name, value)| name == "ROOMCAST_CONFIG" && !value.is_empty());
        let file = file.or_else(|| named.map(|(_, value)| value.into()));
        Self { file, variables, flags }
    }
}

/// A configuration without mistakes.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The effective values.
    pub config: Config,
    /// The layer from which each value came.
    pub origins: SettingOrigins,
}

/// Merges defaults, the file, variables of an earlier server, `ROOMCAST_…` variables, and the command line, in this
/// order.
///
/// # Errors
/// Returns all mistakes of all layers.
pub fn load(mut sources: Sources) -> Result<LoadedConfig, ConfigError> {
    sources.variables.sort();
    let mut mistakes = Vec::new();
    let (mut figment, file, base) = read_file(&sources, &mut mistakes);
    figment = original::add(figment, &sources.variables, &mut mistakes);
    figment = environment::add(figment, &sources.variables, &mut mistakes);
    figment = environment::add_flags(figment, &sources.flags, &mut mistakes);
    let values = merged(&figment);
    let mut draft = Draft { origins: SettingOrigins { figment, values, file }, mistakes };
    renamed::refuse(&mut draft);
    files::read_all(&mut draft, &base);
    files::anchor_all(&mut draft, &base);
    let config = draft.deserialize();
    check::all(&config, &mut draft);
    match draft.mistakes.as_slice() {
        [] => Ok(LoadedConfig { config, origins: draft.origins }),
        _ => Err(ConfigError { mistakes: draft.mistakes }),
    }
}

type FileLayer = (Figment, Option<(String, TomlFile)>, PathBuf);

fn read_file(sources: &Sources, mistakes: &mut Vec<SettingMistake>) -> FileLayer {
    let path = sources.file.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let name = path.display().to_string();
    let base = path.parent().unwrap_or(Path::new("")).to_owned();
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let (layer, toml) = file::read(&name, &text, mistakes);
            (Figment::new().merge(layer), Some((name, toml)), base)
        }
        Err(error) if sources.file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            (Figment::new(), None, base)
        }
        Err(error) => {
            mistakes.push(SettingMistake {
                key: String::new(),
                value: None,
                layer: Some(name),
                problem: format!("cannot be read: {error}"),
                remedy: "name another file with --config".into(),
            });
            (Figment::new(), None, base)
        }
    }
}

// === impl Draft ===

impl Draft {
    /// Removes wrong values one after the other, until the rest can be deserialized.
    fn deserialize(&mut self) -> Config {
        for _ in 0..MAX_MISTAKES {
            let error = match self.origins.values.deserialize::<Config>() {
                Ok(config) => return config,
                Err(error) => error,
            };
            let path = error.path.clone();
            let (problem, remedy) = explain(&path, &error.kind);
            self.refuse(&path, &problem, &remedy);
            if !tree::remove(&mut self.origins.values, &path) {
                break;
            }
        }
        Config::default()
    }
}

/// The problem and the remedy of a value that its type refuses.
fn explain(path: &[String], fault: &Fault) -> (String, String) {
    let key = keys::find(path);
    let problem = match fault {
        Fault::UnknownField(name, known) => return unknown(path, name, known),
        Fault::UnknownVariant(_, known) => {
            return (format!("must be {}", suggest::one_of(known.iter().copied())), default_of(path));
        }
        Fault::Message(message) if message.contains("socket address") => {
            "must be an address and a port, such as 127.0.0.1:3000 or [::1]:3000".into()
        }
        Fault::Message(message) => message.clone(),
        _ => format!("must be {}", expected(key.map(|key| key.kind), fault)),
    };
    (problem, default_of(path))
}

fn expected(kind: Option<SettingType>, fault: &Fault) -> String {
    match (kind, fault) {
        (
            Some(SettingType::Number),
            Fault::InvalidType(Actual::Signed(_) | Actual::Unsigned(_), _) | Fault::InvalidValue(..),
        ) => "a whole number within its range".into(),
        (Some(SettingType::Number), _) => "a whole number".into(),
        (Some(SettingType::Bool), _) => "true or false".into(),
        (Some(SettingType::Texts), _) => "a list of texts".into(),
        (Some(SettingType::Table | SettingType::Map), _) => "a table".into(),
        (Some(SettingType::Tables), _) => "a list of tables".into(),
        (Some(SettingType::Text | SettingType::Secret | SettingType::Url | SettingType::Pem), _) => {
            "a text, in quotes".into()
        }
        (_, Fault::InvalidType(_, expected) | Fault::InvalidValue(_, expected)) => expected.clone(),
        (_, fault) => fault.to_string(),
    }
}

fn unknown(path: &[String], name: &str, known: &[&str]) -> (String, String) {
    let similar = suggest::nearest(name, known.iter().copied());
    let remedy = match similar.or_else(|| suggest::longer_or_shorter(name, known.iter().copied())) {
        Some(near) => format!("did you mean `{near}`?"),
        None if path.len() <= 1 => format!("the sections are {}", suggest::list(known.iter().copied())),
        None => format!("`{}` has {}", dotted(&path[..path.len() - 1]), suggest::list(known.iter().copied())),
    };
    ("unknown key".into(), remedy)
}
