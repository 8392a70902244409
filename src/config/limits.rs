//! `[limits]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Size;
use super::check::SectionCheck;
use crate::protocol::MAX_ATTACHMENTS;
use crate::rate::Rate;

/// Maximum of `max_depth`. The node's parsers reject deeper JSON.
const DEEPEST: usize = 120;

/// Maximum of `max_room_name`. Contracts make no longer names.
const LONGEST_ROOM_NAME: usize = 256;

/// Limits on rates and sizes that apply besides the limits of contracts. Each node counts for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Limits")]
pub struct LimitsSettings {
    /// Rate of new connections from one IP address (IPv6: one /64).
    pub connections_per_ip: Option<Rate>,
    /// How many connections one IP address (IPv6: one /64) may have at a time. 0: no limit.
    pub max_connections_per_ip: u32,
    /// How many TCP connections may be without a session at a time. Beyond that, the one that has waited longest is
    /// closed. 0: no limit.
    pub max_pending_connections: usize,
    /// How many sockets one user may have at a time, over all namespaces. 0: no limit. Anonymous users are not counted.
    pub max_sockets_per_user: u32,
    /// Rate of events from one socket, over all event names, including events that no contract declares.
    pub events_per_socket: Option<Rate>,
    /// Rate of events from all sockets of one user.
    pub events_per_user: Option<Rate>,
    /// Rate of events from all sockets of the node.
    pub events_per_node: Option<Rate>,
    /// A socket is disconnected after this number of refused events in a row. 0: never.
    pub strikes: u32,
    /// How many events of one socket may wait until an earlier event of the socket is handled.
    pub max_pending_events: usize,
    /// How many bytes of events of one socket may wait until an earlier event is handled. One event may always wait.
    pub max_pending_bytes: Size,
    /// The maximum number of bytes of events that wait on this node, over all sockets. An event waits for an earlier
    /// event or for a hook's answer; an event that waits for a hook's answer counts four times.
    pub max_pending_bytes_per_node: Size,
    /// Maximum length of the name of a client's event, in bytes.
    pub max_event_name: usize,
    /// Maximum depth of the JSON of a client's event: nested arrays and objects, including the event's own array.
    pub max_depth: usize,
    /// How many binary attachments an event of a client may have.
    pub max_attachments: usize,
    /// Maximum size of one attachment of a client's event. `server.max_payload` limits the text and all attachments
    /// together.
    pub max_attachment: Size,
    /// How many rooms a socket may be in, not counting its own and its user's.
    pub max_rooms_per_socket: usize,
    /// Maximum length of the name of a room that a client may join, in bytes.
    pub max_room_name: usize,
}

impl Default for LimitsSettings {
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

impl LimitsSettings {
    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
        check.count("max_pending_events", self.max_pending_events);
        check.count("max_event_name", self.max_event_name);
        check.count("max_rooms_per_socket", self.max_rooms_per_socket);
        check.must((1..=DEEPEST).contains(&self.max_depth), "max_depth", "must be 1 to 120");
        check.must(self.max_attachments <= MAX_ATTACHMENTS, "max_attachments", "must be 0 to 1024");
        check.must((1..=LONGEST_ROOM_NAME).contains(&self.max_room_name), "max_room_name", "must be 1 to 256");
    }
}
