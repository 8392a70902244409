//! `[presence]`

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;
use super::check::Check;

/// A shorter heartbeat would be load without use; tests have it.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(100);

/// Who is where, over the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Presence {
    /// A node that has died is gone from every answer within two of these.
    pub heartbeat: Period,
    /// How long a user's status is kept after the last socket is gone.
    pub status_ttl: Period,
    /// How many joins and leaves may wait for Redis; beyond it everything is written anew.
    pub queue: usize,
}

impl Default for Presence {
    fn default() -> Self {
        Self { heartbeat: Period::from_secs(5), status_ttl: Period::from_secs(3600), queue: 65_536 }
    }
}

impl Presence {
    pub(super) fn check(&self, check: &mut Check<'_>) {
        check.must(*self.heartbeat >= SHORTEST_HEARTBEAT, "heartbeat", "must be at least 100ms");
        check.time("status_ttl", *self.status_ttl);
        check.count("queue", self.queue);
    }
}
