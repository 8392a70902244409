//! Compares the codecs with references: frames with tungstenite's, packets with the official JavaScript parsers.
//!
//! `PROPTEST_CASES` sets the number of cases per property. Without this variable there are few cases, so that every
//! test run can afford them. `make properties` tries many new cases.

mod frames;
mod js;
mod packets;
mod values;

/// The configuration of the property tests, with this number of cases unless `PROPTEST_CASES` sets another number.
fn cases(usual: u32) -> proptest::test_runner::Config {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    proptest::test_runner::Config {
        cases: asked.unwrap_or(usual),
        // Failing cases are not stored in files, because each failure becomes a test with a name.
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    }
}
