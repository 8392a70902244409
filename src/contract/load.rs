//! Finds contract files, reads them, and merges them into namespaces.

mod find;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use indexmap::IndexMap;
use sha2::{Digest, Sha256};

use super::compile::{FileKeys, compile};
use super::document::{Document, KeyPath};
use super::file;
use super::model::{Contract, Namespace};
use super::report::{ContractReport, ContractSummary, Summary};
use super::sent::check_names;
use super::structure;

/// The JSON Schema of contract files. Built once, because it is the same for every file.
static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(file::json_schema);

/// The text of a contract and the place that it comes from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file's path, or `embedded:<name>`.
    pub name: String,
    /// The text of the contract, in TOML.
    pub text: String,
}

/// A source, and the directory that the paths of its schemas are relative to.
struct FoundSource {
    source: Source,
    base: Option<PathBuf>,
}

/// Reads, checks and compiles contracts. Entries are paths, globs (`*` in the file name), directories,
/// `embedded:<name>` and `embedded:*`.
///
/// # Errors
/// Returns every mistake of every file.
pub fn load(entries: &[String]) -> Result<Vec<Namespace>, ContractReport> {
    let mut report = ContractReport::default();
    let found = find::find(entries, &mut report);
    finish(found, report)
}

/// Loads contracts from texts in memory. Their schemas must be inline.
///
/// # Errors
/// Returns every mistake of every text.
pub fn load_sources(sources: Vec<Source>) -> Result<Vec<Namespace>, ContractReport> {
    let found = sources.into_iter().map(|source| FoundSource { source, base: None }).collect();
    finish(found, ContractReport::default())
}

/// Checks contracts and returns a summary of them.
///
/// # Errors
/// Returns every mistake of every file.
pub fn check(entries: &[String]) -> Result<Summary, ContractReport> {
    let namespaces = load(entries)?;
    let contracts = namespaces.iter().flat_map(|namespace| &namespace.contracts).map(|contract| summarize(contract));
    Ok(Summary { contracts: contracts.collect() })
}

fn summarize(contract: &Contract) -> ContractSummary {
    ContractSummary {
        name: contract.name.to_string(),
        namespace: contract.namespace.to_string(),
        source: contract.source.clone(),
        rooms: contract.rooms.len(),
        client_events: contract.client.len(),
        server_events: contract.server.len(),
    }
}

fn finish(found: Vec<FoundSource>, mut report: ContractReport) -> Result<Vec<Namespace>, ContractReport> {
    let mut parts: Vec<(Arc<Contract>, Arc<Document>)> = Vec::new();
    for FoundSource { source, base } in found {
        let (contract, document) = read(&source, base, &SCHEMA, &mut report);
        check_name(&contract, &document, &parts, &mut report);
        parts.push((Arc::new(contract), Arc::new(document)));
    }
    let mut by_path: IndexMap<Arc<str>, Vec<_>> = IndexMap::new();
    for (contract, document) in parts {
        by_path.entry(contract.namespace.clone()).or_default().push((contract, document));
    }
    by_path.values().for_each(|parts| check_names(parts, &mut report));
    let namespaces = by_path.into_values().map(|parts| Namespace::merge(parts, &mut report)).collect();
    report.into_result()?;
    Ok(namespaces)
}

fn read(
    source: &Source,
    base: Option<PathBuf>,
    schema: &serde_json::Value,
    report: &mut ContractReport,
) -> (Contract, Document) {
    let mut own = ContractReport::default();
    let mut document = Document::parse(&source.name, &source.text, &mut own);
    let misspelt: Vec<Option<usize>> = own.diagnostics.iter().map(|mistake| mistake.line).collect();
    let keys = FileKeys::of(&document);
    let mut found = ContractReport::default();
    structure::check(&mut document, schema, &mut found);
    let mut contract = compile(&document, &keys, base, &mut found);
    contract.digest = Sha256::digest(&source.text).iter().map(|byte| format!("{byte:02x}")).collect();
    // If a line is not valid TOML, other mistakes on this line follow from that one and are not reported.
    own.diagnostics.extend(found.diagnostics.into_iter().filter(|mistake| !misspelt.contains(&mistake.line)));
    report.diagnostics.extend(own.diagnostics);
    (contract, document)
}

fn check_name(
    contract: &Contract,
    document: &Document,
    earlier: &[(Arc<Contract>, Arc<Document>)],
    report: &mut ContractReport,
) {
    let twin = earlier.iter().find(|(other, _)| other.name == contract.name && !other.name.is_empty());
    if let Some((_, other)) = twin {
        let key_path = KeyPath::top("name");
        let line = other.line(&key_path).map_or_else(String::new, |line| format!(":{line}"));
        let problem = format!("{}{line} has the same name", other.file);
        report.push(document.mistake(&key_path, problem, "rename one of them"));
    }
}

#[cfg(test)]
mod tests;
