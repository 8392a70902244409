//! Finds the contract files that the configuration's entries name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{FoundSource, Source};
use crate::contract::embedded;
use crate::contract::report::ContractReport;
use crate::suggest::{nearest, one_of_quoted};

/// Maximum size of a contract file, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The sources that the entries name, in their order, each file once. Files that cannot be read are reported.
pub(super) fn find(entries: &[String], report: &mut ContractReport) -> Vec<FoundSource> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in entries {
        if let Some(name) = entry.strip_prefix("embedded:") {
            find_embedded(entry, name, &mut seen, &mut found, report);
            continue;
        }
        for path in paths(entry, report) {
            let identity = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
            if seen.insert(identity) {
                found.extend(read(&path, report));
            }
        }
    }
    found
}

fn find_embedded(
    entry: &str,
    name: &str,
    seen: &mut BTreeSet<PathBuf>,
    found: &mut Vec<FoundSource>,
    report: &mut ContractReport,
) {
    let known = || embedded::CONTRACTS.iter().map(|(name, _)| *name);
    if name != "*" && embedded::text(name).is_none() {
        let remedy = match nearest(name, known()) {
            Some(near) => format!("did you mean `embedded:{near}`?"),
            None => format!("after `embedded:` write {} or `*`", one_of_quoted(known())),
        };
        return report.push_file(entry, "there is no such contract in the binary", remedy);
    }
    for (known, text) in embedded::CONTRACTS.iter().filter(|(known, _)| name == "*" || name == *known) {
        let name = format!("embedded:{known}");
        if seen.insert(PathBuf::from(&name)) {
            found.push(FoundSource { source: Source { name, text: (*text).to_owned() }, base: None });
        }
    }
}

fn paths(entry: &str, report: &mut ContractReport) -> Vec<PathBuf> {
    let path = Path::new(entry);
    let pattern = path.file_name().and_then(|name| name.to_str()).filter(|name| name.contains('*'));
    if path.is_dir() {
        return list(path, "*.toml", entry, report);
    }
    match pattern {
        Some(pattern) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            list(parent, pattern, entry, report)
        }
        None => vec![path.to_owned()],
    }
}

/// The files of a directory whose names match a pattern, sorted by name.
fn list(directory: &Path, pattern: &str, entry: &str, report: &mut ContractReport) -> Vec<PathBuf> {
    let files = match fs::read_dir(directory) {
        Ok(files) => files,
        Err(error) => {
            report.push_file(entry, format!("cannot be read ({error})"), "name a directory that exists");
            return Vec::new();
        }
    };
    let fits = |path: &PathBuf| {
        path.is_file() && path.file_name().and_then(|name| name.to_str()).is_some_and(|name| glob(pattern, name))
    };
    // `./` is removed from the names of files, unless the entry was written with `./`.
    let bare = |path: PathBuf| {
        if entry.starts_with('.') { path } else { path.strip_prefix(".").map(Path::to_owned).unwrap_or(path) }
    };
    let mut paths: Vec<PathBuf> = files.filter_map(|file| Some(file.ok()?.path())).filter(fits).map(bare).collect();
    paths.sort();
    if paths.is_empty() {
        report.push_file(entry, "there is no contract file", "name a file, a pattern or a directory that holds *.toml");
    }
    paths
}

/// Whether a file's name matches a pattern in which `*` stands for any characters.
fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| glob(after, &rest[at..]))
        }),
    }
}

fn read(path: &Path, report: &mut ContractReport) -> Option<FoundSource> {
    let name = path.display().to_string();
    let size = fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
    if size > MAX_FILE_BYTES {
        report.push_file(&name, format!("is larger than {MAX_FILE_BYTES} bytes"), "split it into several contracts");
        return None;
    }
    match fs::read_to_string(path) {
        Ok(text) => {
            let base = path.parent().map(Path::to_owned);
            Some(FoundSource { source: Source { name, text }, base })
        }
        Err(error) => {
            report.push_file(&name, format!("cannot be read ({error})"), "name a file that exists, in UTF-8");
            None
        }
    }
}
