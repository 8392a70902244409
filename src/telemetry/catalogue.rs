//! `docs/metrics.md`, made of the metrics' declarations.

use std::fmt::Write;

use super::metrics::Metrics;

/// The page. It is current when it is what this returns.
pub fn page() -> String {
    let mut page = String::from(HEAD);
    for (name, kind, labels, help) in Metrics::CATALOGUE {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {} |", help.trim().replace('|', "\\|"));
    }
    page
}

const HEAD: &str = "\
# Metrics

`GET /metrics` on the API's listener answers in Prometheus' text format; it needs no key. This page is made of the
declarations in `src/telemetry/metrics.rs`: after a change there, `UPDATE_DOCS=1 cargo test --lib catalogue` writes it again.

Names end in their unit: `_seconds`, `_bytes`; what only grows ends in `_total`. Labels come from contracts and from
the node's own words, never from a client: no socket, user, room or address is a label, so their number is bounded by the
configuration. `nsp` is the path of a Socket.IO namespace (`namespace` would be Kubernetes'), `contract` and `event` are
those of the contract files (events that no contract knows are `unknown`). Every number is this node's; sums over the
nodes are the cluster's.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(written == page(), "docs/metrics.md is not current; run UPDATE_DOCS=1 cargo test --lib catalogue");
    }
}
