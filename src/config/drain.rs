//! `[drain]`

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;
use super::check::Check;

/// What remains for the sockets must be worth it.
const SHORTEST_WAVES: Duration = Duration::from_millis(100);

/// How a node leaves: see `docs/drain.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// How long a node that leaves keeps its clients while load balancers find out from `/ready`: a little more than their
    /// probe's interval times the failures that it wants. Not waited where no other node could take them.
    pub delay: Period,
    /// By then, counted from the decision, the process has ended (or, if it stays, every socket is closed). Must be below what
    /// stops it waits for: Kubernetes' grace period, systemd's TimeoutStopSec.
    pub deadline: Period,
    /// Of the deadline, what is kept for the last words: notices to backends, what is written to Redis, answers under way.
    pub last_words: Period,
    /// New connections a second that this node says it can take while others leave. It says less while it is busy.
    pub accepts: u32,
    /// At most so many sockets are closed a second, unless the deadline needs more; 0: as many as the other nodes can take.
    pub pace: u32,
    /// How far a wave may be from its time, in percent of the time between two.
    pub jitter: u8,
}

impl Default for Drain {
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

impl Drain {
    pub(super) fn check(&self, check: &mut Check<'_>) {
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
