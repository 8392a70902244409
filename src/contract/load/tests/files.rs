//! Tests entries that name files.

use std::fs;
use std::path::Path;

use super::super::*;

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn sources(entries: &[String]) -> Vec<String> {
    let namespaces = load(entries).map_err(|report| report.to_string()).unwrap();
    namespaces
        .iter()
        .flat_map(|namespace| &namespace.contracts)
        .map(|contract| contract.source.rsplit('/').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn paths_patterns_and_directories_name_files_once() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let a = write(here, "a.toml", "name = 'a'");
    write(here, "ab.toml", "name = 'ab'");
    write(here, "b.toml", "name = 'b'");
    write(here, "notes.txt", "not a contract");
    let all = here.display().to_string();
    assert_eq!(sources(std::slice::from_ref(&all)), ["a.toml", "ab.toml", "b.toml"]);
    assert_eq!(sources(&[format!("{all}/a*.toml")]), ["a.toml", "ab.toml"]);
    assert_eq!(sources(&[format!("{all}/*b.toml"), a, all]), ["ab.toml", "b.toml", "a.toml"]);
}

#[test]
fn what_cannot_be_found_is_told_all_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().display().to_string();
    let (known, _) = crate::contract::embedded::CONTRACTS[0];
    let entries = [here.clone(), format!("{here}/x*.toml"), format!("{here}/none.toml"), format!("embedded:{known}x")];
    let report = load(&entries).unwrap_err();
    assert_eq!(report.diagnostics.len(), 4, "{report}");
    assert!(report.to_string().contains(&format!("did you mean `embedded:{known}`?")));
}

#[test]
fn schema_in_a_file_is_found_beside_its_contract() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    fs::create_dir(here.join("schemas")).unwrap();
    write(&here.join("schemas"), "id.json", r#"{ "required": ["id"] }"#);
    let good = write(here, "good.toml", "name = 'x'\n[client.e]\npayload = { schema = 'schemas/id.json' }\n");
    let namespaces = load(&[good]).unwrap();
    assert!(namespaces[0].client["e"].1.payload.payload(&[]).is_ok());
    let raw = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
    assert!(namespaces[0].client["e"].1.payload.payload(&[&raw]).is_err());
    let bad = write(here, "bad.toml", "name = 'x'\n[client.e]\npayload = { schema = 'schemas/no.json' }\n");
    let report = load(&[bad]).unwrap_err();
    assert_eq!((report.diagnostics[0].line, report.diagnostics[0].key.as_str()), (Some(3), "client.e.payload.schema"));
}
