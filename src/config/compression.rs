//! `[server.compression]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Size;
use super::check::SectionCheck;

/// Compression of WebSocket messages (permessage-deflate) for clients that offer it; native engine only. Each message
/// is compressed on its own, so that an idle connection keeps no compression state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Compression")]
pub struct CompressionSettings {
    /// Messages shorter than this size, or longer than 64 KiB, are sent uncompressed.
    pub threshold: Size,
    /// Compression level: 1 (fastest) to 9 (smallest).
    pub level: u32,
}

impl Default for CompressionSettings {
    fn default() -> Self {
        Self { threshold: Size::from_bytes(1000), level: 1 }
    }
}

impl CompressionSettings {
    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
        check.must((1..=9).contains(&self.level), "level", "must be 1 to 9");
    }
}
