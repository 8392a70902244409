//! Writes the medians and ranges of the figures: as JSON, as tables, and as one plot per scenario.

mod plot;
mod targets;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use indexmap::IndexMap;
use serde::Serialize;

use crate::scenario::{Figures, SCENARIOS, Scenario, Size};
use crate::server::Peer;

/// The figures of one run of a scenario with one server.
#[derive(Debug, Serialize)]
pub struct Run {
    /// The number of the repetition.
    pub turn: u32,
    /// The scenario's name.
    pub scenario: &'static str,
    /// The server.
    pub peer: Peer,
    /// The figures.
    pub figures: Figures,
}

/// All measurements.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: IndexMap<&'static str, String>,
    /// The measurements that failed.
    pub failures: Vec<String>,
    /// The measurements.
    pub runs: Vec<Run>,
}

/// The median, minimum and maximum of several runs.
#[derive(Debug, Clone, Copy)]
struct Range {
    median: f64,
    least: f64,
    most: f64,
}

impl Range {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        Some(Self { median: values[values.len() / 2], least, most })
    }
}

impl Report {
    /// Creates an empty report for this machine.
    pub fn new(repeat: u32, size: Size) -> Self {
        let Size { idle, seconds } = size;
        let run = format!("BENCH_REPEAT={repeat} BENCH_IDLE={idle} BENCH_SECONDS={seconds} make bench");
        let mut machine = machine();
        machine.insert("run", run);
        Self { machine, failures: Vec::new(), runs: Vec::new() }
    }

    /// Writes `results/`, or the folder that `BENCH_RESULTS` names.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn write(&self) -> anyhow::Result<()> {
        let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        let out = std::env::var_os("BENCH_RESULTS").map_or_else(usual, PathBuf::from);
        std::fs::create_dir_all(&out)?;
        std::fs::write(out.join("results.json"), serde_json::to_string_pretty(self)? + "\n")?;
        for scenario in self.measured() {
            plot::draw(self, scenario, &out.join(plot_name(scenario)))?;
        }
        std::fs::write(out.join("results.md"), self.page())?;
        Ok(())
    }

    fn measured(&self) -> impl Iterator<Item = &'static Scenario> {
        SCENARIOS.iter().filter(|scenario| self.runs.iter().any(|run| run.scenario == scenario.name))
    }

    fn range(&self, scenario: &str, peer: Peer, figure: &str) -> Option<Range> {
        let runs = self.runs.iter().filter(|run| run.scenario == scenario && run.peer == peer);
        Range::of(runs.filter_map(|run| run.figures.get(figure).copied()))
    }

    fn page(&self) -> String {
        let mut page = String::from(
            "# Results\n\nMedians, and least to most. Written by `make bench`; README.md says what is measured and how.\n\n",
        );
        for (name, value) in &self.machine {
            let _ = writeln!(page, "- {name}: {value}");
        }
        for failure in &self.failures {
            let _ = writeln!(page, "- **not measured**: {failure}");
        }
        targets::table(self, &mut page);
        for scenario in self.measured() {
            self.table(scenario, &mut page);
        }
        page
    }

    fn table(&self, scenario: &Scenario, page: &mut String) {
        let Some(first) = self.runs.iter().find(|run| run.scenario == scenario.name) else { return };
        let figures: Vec<&str> = first.figures.keys().copied().collect();
        let _ = writeln!(page, "\n## {}\n\n{}\n", scenario.name, scenario.about);
        let _ = writeln!(page, "| | {} |\n| --- |{}", figures.join(" | "), " --- |".repeat(figures.len()));
        for peer in scenario.peers {
            let cells: Vec<String> = figures
                .iter()
                .map(|figure| self.range(scenario.name, *peer, figure).map_or_else(|| "–".into(), shown_range))
                .collect();
            let _ = writeln!(page, "| {} | {} |", peer.name(), cells.join(" | "));
        }
        let _ = writeln!(page, "\n![{}]({})", scenario.name, plot_name(scenario).display());
    }
}

fn shown_range(range: Range) -> String {
    let Range { median, least, most } = range;
    if least == most { shown(median) } else { format!("{} ({}–{})", shown(median), shown(least), shown(most)) }
}

fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn plot_name(scenario: &Scenario) -> PathBuf {
    let plain: String =
        scenario.name.chars().filter(|c| *c != ',').map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    PathBuf::from(format!("{plain}.svg"))
}

fn machine() -> IndexMap<&'static str, String> {
    let said = |command: &str, args: &[&str]| {
        let output = Command::new(command).args(args).output().ok().filter(|output| output.status.success());
        output.map_or_else(|| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processors: Vec<&str> =
        info.lines().filter(|line| line.starts_with("model name")).filter_map(|line| line.split(": ").nth(1)).collect();
    let package = |name: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("node_modules").join(name).join("package.json");
        let version = || -> anyhow::Result<String> {
            let package: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
            Ok(package["version"].as_str().context("no version")?.to_owned())
        };
        version().unwrap_or_else(|_| "unknown".into())
    };
    IndexMap::from([
        ("date", said("date", &["+%Y-%m-%d"])),
        ("processors", format!("{} × {}", processors.len(), processors.first().unwrap_or(&"unknown"))),
        ("memory", said("sh", &["-c", "free -g | awk '/Mem:/ { print $2 \" GiB\" }'"])),
        ("kernel", said("uname", &["-r"])),
        ("roomcast", said("git", &["describe", "--always", "--dirty"])),
        ("socket.io", package("socket.io")),
        ("@socket.io/redis-adapter", package("@socket.io/redis-adapter")),
        ("node", said("node", &["--version"])),
        ("redis", said("redis-server", &["--version"])),
    ])
}
