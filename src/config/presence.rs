//! `[presence]`

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;
use super::check::SectionCheck;

/// Minimum heartbeat. A shorter one would only add load; tests use short ones.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(100);

/// Presence: which users are in which rooms, over all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Presence")]
pub struct PresenceSettings {
    /// How often a node confirms its presence entries in Redis. Entries of a node that has died disappear within two
    /// heartbeats.
    pub heartbeat: Period,
    /// How long a user's status is kept after the user's last socket is gone.
    pub status_ttl: Period,
    /// How many joins and leaves may wait for Redis. Beyond that, the node writes all of its presence again.
    pub queue: usize,
}

impl Default for PresenceSettings {
    fn default() -> Self {
        Self { heartbeat: Period::from_secs(5), status_ttl: Period::from_secs(3600), queue: 65_536 }
    }
}

impl PresenceSettings {
    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
        check.must(*self.heartbeat >= SHORTEST_HEARTBEAT, "heartbeat", "must be at least 100ms");
        check.time("status_ttl", *self.status_ttl);
        check.count("queue", self.queue);
    }
}
