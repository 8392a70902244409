//! Reads values from files (`<key>_file`), and resolves paths that are relative to the configuration file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use figment::value::{Tag, Value};

use super::draft::Draft;
use super::keys::{self, SettingKey};
use super::tree;

/// Maximum size of a file that holds one value, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Replaces each key `<key>_file` by `<key>` with the file's contents.
pub(super) fn read_all(draft: &mut Draft, base: &Path) {
    for path in tables(&draft.origins.values) {
        for name in file_keys(&draft.origins.values, &path) {
            let mut file = path.clone();
            file.push(format!("{name}_file"));
            let mut key = path.clone();
            key.push(name);
            read_one(draft, base, &key, &file);
        }
    }
}

fn read_one(draft: &mut Draft, base: &Path, key: &[String], file: &[String]) {
    let Some(value) = tree::get(&draft.origins.values, file).cloned() else { return };
    if let Some(other) = tree::get(&draft.origins.values, key).map(Value::tag) {
        let (same, above) = (other == value.tag(), other > value.tag());
        if same {
            draft.refuse(file, "both the value and its file are set", "remove one of them");
        }
        if same || above {
            tree::remove(&mut draft.origins.values, file);
            return;
        }
    }
    let is_of_file = draft.origins.is_of_file(value.tag());
    match value.as_str().ok_or_else(|| "must be a path".to_owned()).and_then(|path| {
        let path = if is_of_file { base.join(path) } else { PathBuf::from(path) };
        read(&path).map_err(|error| format!("cannot be read: {error}"))
    }) {
        Ok(text) => tree::set(&mut draft.origins.values, key, Value::String(value.tag(), text)),
        Err(problem) => draft.refuse(file, &problem, "name a readable file that holds nothing but the value"),
    }
    tree::remove(&mut draft.origins.values, file);
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    // Editors and `echo` end a file with a newline that is not part of the value.
    let trimmed = text.strip_suffix('\n').unwrap_or(&text);
    Ok(trimmed.strip_suffix('\r').unwrap_or(trimmed).to_owned())
}

/// Makes relative paths in the configuration file relative to its directory.
pub(super) fn anchor_all(draft: &mut Draft, base: &Path) {
    let keys: Vec<&SettingKey> = keys::all().iter().filter(|key| names_files(&key.path)).collect();
    for table in tables(&draft.origins.values) {
        for key in &keys {
            let name = key.path.rsplit('.').next().unwrap_or_default();
            let mut path = table.clone();
            path.push(name.to_owned());
            if keys::find(&path).is_some_and(|found| found.path == key.path) {
                anchor(draft, base, &path);
            }
        }
    }
}

fn anchor(draft: &mut Draft, base: &Path, path: &[String]) {
    let Some(tag) = tree::get(&draft.origins.values, path).map(Value::tag) else { return };
    if !draft.origins.is_of_file(tag) {
        return;
    }
    match tree::get_mut(&mut draft.origins.values, path) {
        Some(Value::String(_, text)) => *text = joined(base, text),
        Some(Value::Array(_, items)) => {
            for item in items {
                if let Value::String(_, text) = item {
                    *text = joined(base, text);
                }
            }
        }
        _ => {}
    }
}

fn joined(base: &Path, text: &str) -> String {
    if text.starts_with("embedded:") { text.to_owned() } else { base.join(text).to_string_lossy().into_owned() }
}

/// Whether the value of a key is a path, or a list of paths, that is not replaced by the file's contents.
pub(super) fn names_files(path: &str) -> bool {
    path == "contracts.files" || path == "auth.jwks.file" || path.ends_with("_file")
}

/// The keys of a table that may be given as `<name>_file`.
fn file_keys(root: &Value, path: &[String]) -> Vec<String> {
    let Some(Value::Dict(_, members)) = tree::get(root, path) else { return Vec::new() };
    let stems = members.keys().filter_map(|name| name.strip_suffix("_file"));
    let may = |stem: &&str| {
        let mut path = path.to_vec();
        path.push((*stem).to_owned());
        keys::find(&path).is_some_and(|key| key.kind.may_be_in_a_file())
    };
    stems.filter(may).map(str::to_owned).collect()
}

/// The paths of all tables, outer tables first.
fn tables(root: &Value) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = vec![(Vec::new(), root)];
    while let Some((path, value)) = rest.pop() {
        let enter = |segment: String| [path.clone(), vec![segment]].concat();
        match value {
            Value::Dict(_, members) => {
                rest.extend(members.iter().map(|(name, value)| (enter(name.clone()), value)));
                found.push(path);
            }
            Value::Array(_, items) => {
                rest.extend(items.iter().enumerate().map(|(index, value)| (enter(index.to_string()), value)));
            }
            _ => {}
        }
    }
    found
}

impl super::SettingOrigins {
    /// Whether a value was set in the configuration file.
    fn is_of_file(&self, tag: Tag) -> bool {
        let name = self.figment.get_metadata(tag).map(|metadata| metadata.name.as_ref());
        self.file.as_ref().is_some_and(|(file, _)| Some(file.as_str()) == name)
    }
}
