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
    page.push_str(TAIL);
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

const TAIL: &str = "
Gauges are taken from the truth at the scrape. Counters of a reason begin at 0, so that the first of its kind is an increase: every reason, result,
code and kind is there from the start, for every namespace and every configured hook. Left out are the results of single events
(`roomcast_events_received_total`, `roomcast_acks_total`, `roomcast_throttled_total`), which would be too many, and HTTP statuses.

## Canaries

Every node sends the others a numbered message each `redis.canary_interval`, through the same queues, connections and Redis as
events. The others count each number once: `roomcast_canaries_received_total{from}`, or `roomcast_canaries_lost_total{from}` when it
is not there five seconds after a later one. A number that could not be handed to Redis is given as well, and so is lost to the
others: sent is received and lost, at every other node, from the first canary of a run that it hears. `from` is a node's id: a node
follows at most 128 others, and forgets one that said goodbye, or was silent for five minutes, with its metrics. What canaries do not
measure is the way from a node's receiving queue to its clients.

## Dashboards and alerts

`charts/roomcast/files/dashboards/*.json` are dashboards for Grafana 10 or later (import them, or let the chart make ConfigMaps): the
fleet, a node, a contract. `charts/roomcast/files/rules.yaml` has recording and alert rules, for `rule_files` of Prometheus 2.42 or
later and in the chart's PrometheusRule; each alert has its section in [runbook.md](runbook.md). `scripts/observe` asks a real
Prometheus that has scraped a cluster under load everything that they ask, and tries every alert.

## Cost

A scrape at 10,000 clients in 10,100 rooms takes 9 ms of processor time in a release: 0.06 % of one processor at a scrape every 15 s, for 240 series
in 25 kB (two virtual processors of an Intel Xeon that had other things to do: 26 to 31 ms until the answer was there). Nothing is kept for it between scrapes. `node benchmarks/scrape.js 10000` measures it.
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
