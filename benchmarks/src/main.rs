//! Runs the scenarios in alternation, and writes what was measured. Arguments pick scenarios and servers by a part of
//! their names; `BENCH_REPEAT`, `BENCH_IDLE`, `BENCH_SECONDS` and `BENCH_RESULTS` change a run.

use std::process::ExitCode;

use anyhow::Context as _;
use roomcast_bench::report::{Report, Run};
use roomcast_bench::scenario::{SCENARIOS, Size};

fn main() -> anyhow::Result<ExitCode> {
    let repeat = setting("BENCH_REPEAT", 3)?;
    let size = Size { idle: setting("BENCH_IDLE", 10_000)? as usize, seconds: setting("BENCH_SECONDS", 4)? };
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let picks = |name: &str| wanted.iter().any(|part| name.contains(part.as_str()));
    // Arguments select scenarios and servers by a part of their names.
    let all_scenarios = !SCENARIOS.iter().any(|scenario| picks(scenario.name));
    let all_peers = !SCENARIOS.iter().flat_map(|scenario| scenario.peers).any(|peer| picks(peer.name()));
    let is_wanted = |scenario: &str, peer: &str| (all_scenarios || picks(scenario)) && (all_peers || picks(peer));
    let mut report = Report::new(repeat, size);
    for turn in 0..repeat {
        for scenario in SCENARIOS {
            for peer in scenario.peers.iter().filter(|peer| is_wanted(scenario.name, peer.name())) {
                let told = || format!("{} · {}", scenario.name, peer.name());
                match scenario.measure(*peer, size).with_context(told) {
                    Ok(figures) => {
                        println!("{}/{repeat} {}: {}", turn + 1, told(), serde_json::to_string(&figures)?);
                        report.runs.push(Run { turn, scenario: scenario.name, peer: *peer, figures });
                    }
                    // A scenario that fails is reported, and the other measurements go on.
                    Err(error) => {
                        println!("{}/{repeat} not measured: {error:#}", turn + 1);
                        report.failures.push(format!("{error:#}"));
                    }
                }
            }
        }
    }
    report.write()?;
    let failed = report.failures.len();
    if failed > 0 {
        eprintln!("{failed} measurements failed");
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn setting(name: &str, fallback: u32) -> anyhow::Result<u32> {
    std::env::var(name).map_or(Ok(fallback), |value| value.parse()).with_context(|| format!("{name} is not a number"))
}
