//! `[recovery]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::SectionCheck;

/// Maximum of `events`: the size of one page of a history.
const MOST_EVENTS: usize = 1000;

/// Limits on recovery. Contracts say which sessions are kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Recovery")]
pub struct RecoverySettings {
    /// How many sessions a node without Redis keeps for clients that left. Beyond that, it forgets the oldest.
    pub sessions: usize,
    /// A client that has missed more events than this number is not recovered.
    pub events: usize,
}

impl Default for RecoverySettings {
    fn default() -> Self {
        Self { sessions: 10_000, events: MOST_EVENTS }
    }
}

impl RecoverySettings {
    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
        check.count("sessions", self.sessions);
        check.must((1..=MOST_EVENTS).contains(&self.events), "events", "must be 1 to 1000");
    }
}
