//! The performance targets of the native engine, and whether the engine reaches them.

use std::fmt::Write as _;

use super::{Report, shown};
use crate::server::Peer;

/// A target for a figure of the native engine: absolute, or relative to another server's figure.
struct Target {
    scenario: &'static str,
    figure: &'static str,
    of: Option<Peer>,
    most: f64,
    unit: &'static str,
}

const fn alone(scenario: &'static str, figure: &'static str, most: f64, unit: &'static str) -> Target {
    Target { scenario, figure, of: None, most, unit }
}

const fn part(scenario: &'static str, of: Peer, most: f64) -> Target {
    Target { scenario, figure: "delivery_us", of: Some(of), most, unit: "×" }
}

const UPGRADED: &str = "idle, upgraded";
const FAN_OUT: &str = "room of 1,000, 50/s";
const SMALL_ROOMS: &str = "200 rooms of 10, 2,000/s";
const SATURATED: &str = "room of 1,000, saturated";

const TARGETS: &[Target] = &[
    alone("idle", "connect_us", 30.0, "µs"),
    alone("idle", "idle_kib", 4.0, "KiB"),
    alone("idle", "after_64_packets_kib", 4.0, "KiB"),
    alone("idle", "after_30_kB_kib", 4.0, "KiB"),
    alone("idle", "after_return_kib", 4.0, "KiB"),
    alone(UPGRADED, "idle_kib", 4.0, "KiB"),
    alone(UPGRADED, "after_64_packets_kib", 4.0, "KiB"),
    alone(UPGRADED, "after_30_kB_kib", 4.0, "KiB"),
    alone(UPGRADED, "after_return_kib", 4.0, "KiB"),
    alone("idle, polling", "idle_kib", 6.0, "KiB"),
    part("room of 100 that polls, 20/s", Peer::Node, 0.5),
    part(FAN_OUT, Peer::Node, 0.45),
    part(FAN_OUT, Peer::Floor, 1.3),
    part(SMALL_ROOMS, Peer::Node, 0.4),
    part(SATURATED, Peer::Node, 0.2),
    alone(FAN_OUT, "lost", 0.0, "events"),
    alone(FAN_OUT, "disordered", 0.0, "events"),
    alone(SMALL_ROOMS, "lost", 0.0, "events"),
    alone(SMALL_ROOMS, "disordered", 0.0, "events"),
    alone(SATURATED, "lost", 0.0, "events"),
    alone(SATURATED, "disordered", 0.0, "events"),
    alone("two nodes, one without members", "uninterested_us", 1.0, "µs"),
];

impl Target {
    /// Ratios compare medians, because each repetition ran all servers in turn.
    fn measured(&self, report: &Report) -> Option<f64> {
        let own = report.range(self.scenario, Peer::Native, self.figure)?.median;
        match self.of {
            None => Some(own),
            Some(peer) => Some(own / report.range(self.scenario, peer, self.figure)?.median),
        }
    }
}

pub(super) fn table(report: &Report, page: &mut String) {
    let rows: Vec<(&Target, f64)> =
        TARGETS.iter().filter_map(|target| Some((target, target.measured(report)?))).collect();
    if rows.is_empty() {
        return;
    }
    page.push_str("\n## What the native engine has to reach\n\n| scenario | figure | at most | measured | |\n| --- | --- | --- | --- | --- |\n");
    for (target, measured) in rows {
        let figure = match target.of {
            None => target.figure.to_owned(),
            Some(peer) => format!("{} beside {}", target.figure, peer.name()),
        };
        let verdict = if measured <= target.most { "reached" } else { "**missed**" };
        let (most, measured) = (shown(target.most), shown(measured));
        let _ = writeln!(
            page,
            "| {} | {figure} | {most} {unit} | {measured} {unit} | {verdict} |",
            target.scenario,
            unit = target.unit
        );
    }
}
