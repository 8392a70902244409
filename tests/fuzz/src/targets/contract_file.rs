//! A contract file is accepted, or its mistakes are reported. A file that was accepted once is accepted again.
use roomcast::contract::load::{Source, load_sources};

/// Runs the target.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let load = || load_sources(vec![Source { name: "fuzz.toml".into(), text: text.into() }]);
    let first = load().map_err(|report| report.to_string());
    if let Err(report) = &first {
        assert!(!report.is_empty(), "a refusal without a reason");
    }
    // Most inputs are refused, and a second parse takes half of the time, so only some refused inputs are parsed again.
    if first.is_ok() || input.len().is_multiple_of(8) {
        assert_eq!(first.is_ok(), load().is_ok());
    }
}
