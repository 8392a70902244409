//! The contracts that are part of the binary, to try things with and to copy from.

/// Name and text of each, in the order of their names. `build.rs` collects them.
pub const CONTRACTS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The text of one.
pub fn text(name: &str) -> Option<&'static str> {
    CONTRACTS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
