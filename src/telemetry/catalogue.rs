//! Generates `docs/metrics.md` from the declarations of the metrics.

use std::fmt::Write;

use super::metrics::Metrics;

/// The page `docs/metrics.md`.
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

This page is for operators: it lists every metric of a node. `GET /metrics` on the API's listener answers in Prometheus' text format, and needs no key.

```console run
$ curl http://127.0.0.1:3001/metrics
…
```

Names end in their unit: `_seconds`, `_bytes`; counters end in `_total`. Labels come from contracts and from the node's own words, never from a client: no
socket, user, room or address is a label, so the configuration bounds the number of series. `nsp` is the path of a Socket.IO namespace (Kubernetes uses
`namespace`). `contract` and `event` are names in contract files; events that no contract knows are `unknown`. Every value is of one node; add the nodes'
values for the cluster.

The page is generated from the declarations in `src/telemetry/metrics.rs`: after a change there, run `UPDATE_DOCS=1 cargo test --lib catalogue`.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |
";

const TAIL: &str = "
Gauges are read at the scrape. Counters exist from the start with the value 0, for every reason, result, code and kind, every namespace and every configured hook,
so that the first occurrence is an increase. The exceptions are the results of single events
(`roomcast_events_received_total`, `roomcast_acks_total`, `roomcast_throttled_total`), which would be too many, and HTTP statuses.

## Canaries

Every node sends the others a numbered message each `redis.canary_interval`, through the same queues, connections and Redis as
events. The others count each number once: `roomcast_canaries_received_total{from}`, or `roomcast_canaries_lost_total{from}` if it has not
arrived five seconds after a later one. A canary that Redis did not accept uses up a number too, so the other nodes count it as lost. For each pair of
nodes, the number sent equals the number received plus the number lost, counted from the first canary that the receiver gets after a start of the sender. `from` is a node's id. A node follows at most 128 others; it removes a node that
has left, or was silent for five minutes, with its metrics. Canaries do not measure the way from a node's receiving queue to its clients.

## Dashboards and alerts

`charts/roomcast/files/dashboards/*.json` are dashboards for Grafana 10 or later (import them, or let the chart make ConfigMaps): the
fleet, a node, a contract. `charts/roomcast/files/rules.yaml` has recording and alert rules, for `rule_files` of Prometheus 2.42 or
later and in the chart's PrometheusRule; each alert has its section in [runbook.md](runbook.md). `scripts/observe` runs all their queries
against a real Prometheus that has scraped a cluster under load, and tests every alert.

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
