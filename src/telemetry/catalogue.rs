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

This page lists every metric of a node for operators. `GET /metrics` on the API's listener answers in Prometheus' text format, and needs no key.

```console run
$ curl http://127.0.0.1:3001/metrics
…
```

The name of a metric ends in its unit (`_seconds`, `_bytes`), and the name of a counter ends in `_total`. The values of labels come from contracts and from
the node, never from a client: no socket, user, room or address is a label, so the configuration bounds the number of series. The label `nsp` is the path of a
Socket.IO namespace (Kubernetes uses the label `namespace`). The labels `contract` and `event` are names in contract files; an event that no contract knows
has the label `unknown`. Every metric is of one node; add the nodes' values for the cluster.

This page is generated from `src/telemetry/metrics.rs`: after a change of this file, run `UPDATE_DOCS=1 cargo test --lib catalogue`.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |
";

const TAIL: &str = "
The node reads gauges when Prometheus scrapes them. Counters exist from the start with the value 0, for every reason, result, code and kind, every namespace
and every configured hook, so that the first occurrence is an increase. Two kinds of counters begin to exist when they first count: the results of single
events (`roomcast_events_received_total`, `roomcast_acks_total`, `roomcast_throttled_total`), which would be too many, and HTTP statuses.

## Canaries

A canary is a numbered message that every node sends to the other nodes each `redis.canary_interval`, through the same queues, connections and Redis as events.
The receiving nodes count each canary once, in `roomcast_canaries_received_total{from}`, or in `roomcast_canaries_lost_total{from}` if the canary has not
arrived five seconds after a later one. A canary that Redis did not accept uses up a number too, so the other nodes count it as lost. For each pair of nodes,
the number of canaries sent equals the number received plus the number lost, counted from the first canary that the receiver gets after a start of the sender.
The label `from` is the id of the sending node. A node counts the canaries of at most 128 other nodes. The metrics of a node that has left, or was silent for
five minutes, are removed. Canaries do not measure the way from a node's receiving queue to its clients.

## Dashboards and alerts

`charts/roomcast/files/dashboards/*.json` are dashboards of the fleet, a node and a contract for Grafana 10 or later (import them, or
let the chart make ConfigMaps). `charts/roomcast/files/rules.yaml` has recording and alert rules, for `rule_files` of Prometheus 2.42 or later and for the chart's
PrometheusRule; each alert has a section in [runbook.md](runbook.md). `scripts/observe` runs all queries of dashboards and rules against a real Prometheus that
has scraped a cluster under load, and tests every alert.

## Cost

A scrape of the metrics with 10,000 clients in 10,100 rooms takes 9 ms of a release build's processor time. With a scrape every 15 s this is 0.06 % of one
processor, for 240 series in 25 kB. On two virtual processors of an Intel Xeon, which other programs used too, the answer to a scrape took 26 to 31 ms. The
node keeps no memory for metrics between scrapes. `node benchmarks/scrape.js 10000` measures the cost of a scrape.
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
