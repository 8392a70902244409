//! `[server.compression]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Size;
use super::check::Check;

/// Compression of WebSocket messages (permessage-deflate) for clients that offer it, on the native engine. Each message is
/// compressed for itself, so that an idle connection keeps nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Compression {
    /// Shorter messages are sent as they are; so are those longer than 64 KiB.
    pub threshold: Size,
    /// 1 (fast) to 9 (small).
    pub level: u32,
}

impl Default for Compression {
    fn default() -> Self {
        Self { threshold: Size::from_bytes(1000), level: 1 }
    }
}

impl Compression {
    pub(super) fn check(&self, check: &mut Check<'_>) {
        check.must((1..=9).contains(&self.level), "level", "must be 1 to 9");
    }
}
