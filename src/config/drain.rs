//! `[drain]`

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;
use super::check::SectionCheck;

/// Minimum time that `delay` and `last_words` must leave of the deadline for closing sockets.
const SHORTEST_WAVES: Duration = Duration::from_millis(100);

/// How a node hands over its clients before it ends: see `docs/drain.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Drain")]
pub struct DrainSettings {
    /// How long a draining node keeps its clients while load balancers learn from `/ready` that it leaves. Set it a
    /// little above the probe's interval times its failure threshold. The node does not wait if no other node could
    /// take its clients.
    pub delay: Period,
    /// Maximum time from the start of the drain until the process has ended (or, if it stays, until every socket is
    /// closed). Must be shorter than the supervisor's limit: Kubernetes' grace period, systemd's TimeoutStopSec.
    pub deadline: Period,
    /// The part of the deadline that is reserved for the end: notices to backends, writes to Redis, and answers to
    /// requests that are under way.
    pub last_words: Period,
    /// How many new connections per second this node offers to take while other nodes drain. It offers fewer while it
    /// is busy.
    pub accepts: u32,
    /// Maximum number of sockets that are closed per second, unless the deadline needs more. 0: as many as the other
    /// nodes can take.
    pub pace: u32,
    /// How far the time of a wave may be shifted at random, in percent of the time between two waves.
    pub jitter: u8,
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self {
            delay: Period::from_secs(5),
            deadline: Period::from_secs(25),
            last_words: Period::from_secs(5),
            accepts: 200,
            pace: 0,
            jitter: 50,
        }
    }
}

impl DrainSettings {
    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
        let needed = self.delay.saturating_add(*self.last_words).saturating_add(SHORTEST_WAVES);
        check.must(
            needed <= *self.deadline,
            "deadline",
            "must be at least 100ms more than `delay` and `last_words` together",
        );
        check.must(self.accepts >= 1, "accepts", "must be at least 1");
        check.must(self.jitter <= 100, "jitter", "must be 0 to 100");
    }
}
