//! A contract file is accepted or its mistakes are told; and what was accepted once is accepted again.
use roomcast::contract::load::{Source, load_sources};

/// Runs the target.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let load = || load_sources(vec![Source { name: "fuzz.toml".into(), text: text.into() }]);
    let first = load().map_err(|report| report.to_string());
    if let Err(report) = &first {
        assert!(!report.is_empty(), "a refusal without a reason");
    }
    // What is refused is looked at again now and then only: most inputs are, and it is half of the time.
    if first.is_ok() || input.len().is_multiple_of(8) {
        assert_eq!(first.is_ok(), load().is_ok());
    }
}
