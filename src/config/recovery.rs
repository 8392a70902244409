//! `[recovery]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;

/// As many as one history's page holds.
const MOST_EVENTS: usize = 1000;

/// Bounds on the sessions of clients that come back. Whether and how soon they may is said by contracts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Recovery {
    /// How many sessions of clients that left a node without Redis keeps; beyond it the oldest go.
    pub sessions: usize,
    /// A client that has missed more events than this is not recovered.
    pub events: usize,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { sessions: 10_000, events: MOST_EVENTS }
    }
}

impl Recovery {
    pub(super) fn check(&self, check: &mut Check<'_>) {
        check.count("sessions", self.sessions);
        check.must((1..=MOST_EVENTS).contains(&self.events), "events", "must be 1 to 1000");
    }
}
