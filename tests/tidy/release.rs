//! The version of a release, which several files name.

use super::{files, name, none, read, root};

/// A release changes its version in several files, which must agree.
#[test]
fn every_file_names_the_same_version() {
    let version = env!("CARGO_PKG_VERSION");
    let mut pages: Vec<_> = files("k8s", &["yaml", "md"]);
    pages.extend(
        ["compose.yaml", "Dockerfile", "docs/api.md", "charts/roomcast/Chart.yaml"].map(|page| root().join(page)),
    );
    let marks =
        ["roomcast:", "kubernetes.io/version: ", "image.version=\"", "\nversion: ", "appVersion: ", "\"version\": \""];
    let mut findings = Vec::new();
    let mut named = 0;
    for page in pages {
        let text = read(&page);
        for mark in marks {
            for (_, rest) in text.match_indices(mark).map(|(at, mark)| text.split_at(at + mark.len())) {
                let said: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
                if said.split('.').count() == 3 {
                    named += 1;
                    findings.extend((said != version).then(|| format!("{}: {mark}{said}", name(&page))));
                }
            }
        }
    }
    none("the version is another one than in Cargo.toml", &findings);
    assert!(named > 15, "{named} versions");
    assert!(
        read(&root().join("CHANGELOG.md")).contains(&format!("## [{version}] - ")),
        "CHANGELOG.md has no {version}"
    );
}
