//! `[limits]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use crate::rate::Rate;

/// How often, and how much, beyond what contracts say. Rates are counted on each node alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// New connections from one IP address (IPv6: one /64), over all contracts.
    pub connections_per_ip: Option<Rate>,
    /// Events of one socket, all names together, those that no contract knows among them.
    pub events_per_socket: Option<Rate>,
    /// Events of all sockets of one user.
    pub events_per_user: Option<Rate>,
    /// Events of all sockets of the node.
    pub events_per_node: Option<Rate>,
    /// A socket that is refused so often in a row is disconnected; 0: never.
    pub strikes: u32,
    /// Events of one socket that wait for an earlier one of it.
    pub max_pending_events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_ip: None,
            events_per_socket: None,
            events_per_user: None,
            events_per_node: None,
            strikes: 0,
            max_pending_events: 256,
        }
    }
}

impl Limits {
    pub(super) fn check(&self, check: &mut Check<'_>) {
        check.count("max_pending_events", self.max_pending_events);
    }
}
