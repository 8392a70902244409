//! Whole contracts: those that are shipped, bad ones, and several in one namespace.

use super::*;

/// Loads texts under the names `0.toml`, `1.toml` …
fn load_texts(texts: &[&str]) -> Result<Vec<Namespace>, Vec<String>> {
    let source = |(at, text): (usize, &&str)| Source { name: format!("{at}.toml"), text: (*text).to_owned() };
    load_sources(texts.iter().enumerate().map(source).collect())
        .map_err(|report| report.diagnostics.iter().map(ToString::to_string).collect())
}

#[test]
fn all_contracts_of_the_binary_load() {
    let namespaces = load(&["embedded:*".to_owned()]).map_err(|report| report.to_string()).unwrap();
    let paths: Vec<&str> = namespaces.iter().map(|namespace| &*namespace.path).collect();
    assert_eq!(paths, ["/", "/jobs", "/realtime"]);
}
