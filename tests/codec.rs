//! The codecs against references: frames against tungstenite's, packets against the official parsers of JavaScript.
//!
//! `PROPTEST_CASES` says how many cases each property has; without it they are few enough for every run of the tests.
//! `make properties` tries many, and others each time.

#[path = "codec/frames.rs"]
mod frames;
#[path = "codec/js.rs"]
mod js;
#[path = "codec/packets.rs"]
mod packets;
#[path = "codec/values.rs"]
mod values;

/// So many cases, unless the environment says otherwise.
fn cases(usual: u32) -> proptest::test_runner::Config {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    proptest::test_runner::Config {
        cases: asked.unwrap_or(usual),
        // What was found becomes a test with a name.
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    }
}
