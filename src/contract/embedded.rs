//! The contracts that are part of the binary: examples to try and to copy from.

/// The name and text of each embedded contract, sorted by name. `build.rs` collects them.
pub const CONTRACTS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Returns the text of the embedded contract with this name.
pub fn text(name: &str) -> Option<&'static str> {
    CONTRACTS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
