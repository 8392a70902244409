//! `[limits]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Size;
use super::check::Check;
use crate::protocol::MAX_ATTACHMENTS;
use crate::rate::Rate;

/// Deeper JSON is read by no parser of the node.
const DEEPEST: usize = 120;

/// Longer names are made by no contract.
const LONGEST_ROOM_NAME: usize = 256;

/// How often, and how much, beyond what contracts say. Rates are counted on each node alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// New connections from one IP address (IPv6: one /64).
    pub connections_per_ip: Option<Rate>,
    /// How many connections one IP address (IPv6: one /64) may have at a time; 0: no limit.
    pub max_connections_per_ip: u32,
    /// How many TCP connections may be without a session at a time; beyond it, the one that has waited longest is closed. 0: no limit.
    pub max_pending_connections: usize,
    /// How many sockets one user may have at a time, over all namespaces; 0: no limit. Not for anonymous users.
    pub max_sockets_per_user: u32,
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
    /// Bytes of the events of one socket that wait for an earlier one of it; one event may always wait.
    pub max_pending_bytes: Size,
    /// Bytes of the events of all sockets of the node that wait for an earlier one, or that a hook is asked about (those count four times).
    pub max_pending_bytes_per_node: Size,
    /// The longest name of an event of a client, in bytes.
    pub max_event_name: usize,
    /// How deep the JSON of an event of a client may be: arrays and objects within one another, the event's own array among them.
    pub max_depth: usize,
    /// How many binary attachments an event of a client may have.
    pub max_attachments: usize,
    /// The largest attachment of an event of a client; all of them together, with the text, are bounded by `server.max_payload`.
    pub max_attachment: Size,
    /// How many rooms a socket may be in, its own and its user's not counted.
    pub max_rooms_per_socket: usize,
    /// The longest name of a room that a client may join, in bytes.
    pub max_room_name: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_ip: None,
            max_connections_per_ip: 0,
            max_pending_connections: 16_384,
            max_sockets_per_user: 0,
            events_per_socket: None,
            events_per_user: None,
            events_per_node: None,
            strikes: 0,
            max_pending_events: 256,
            max_pending_bytes: Size::from_bytes(4_000_000),
            max_pending_bytes_per_node: Size::from_bytes(128_000_000),
            max_event_name: 128,
            max_depth: 64,
            max_attachments: 64,
            max_attachment: Size::from_bytes(1 << 30),
            max_rooms_per_socket: 1000,
            max_room_name: 256,
        }
    }
}

impl Limits {
    pub(super) fn check(&self, check: &mut Check<'_>) {
        check.count("max_pending_events", self.max_pending_events);
        check.count("max_event_name", self.max_event_name);
        check.count("max_rooms_per_socket", self.max_rooms_per_socket);
        check.must((1..=DEEPEST).contains(&self.max_depth), "max_depth", "must be 1 to 120");
        check.must(self.max_attachments <= MAX_ATTACHMENTS, "max_attachments", "must be 0 to 1024");
        check.must((1..=LONGEST_ROOM_NAME).contains(&self.max_room_name), "max_room_name", "must be 1 to 256");
    }
}
