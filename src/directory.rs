//! Questions about the clients of the whole cluster, and actions on them: who is connected, and where.
//!
//! The HTTP API uses these traits; `presence` and `cluster` implement them. Every answer is one page. No answer waits
//! for every node; an incomplete answer lists the nodes that are missing.

mod revocation;

use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

pub use revocation::*;

use crate::event::{Args, Event};
use crate::time::iso8601;

/// Number of items on a page if the caller gives no limit.
pub const DEFAULT_PAGE: usize = 100;

/// Maximum number of items on a page.
pub const MAX_PAGE: usize = 1000;

/// Answers questions about the whole cluster. The caller must check that some contract has the namespace.
pub trait Directory: Send + Sync {
    /// A page of the namespace's connections, in a stable order.
    fn connections<'a>(&'a self, namespace: &'a str, page: PageRequest) -> DirectoryFuture<'a, Page<ConnectionInfo>>;

    /// The slowest connections of this node, the slowest first, at most `limit`. [`Survey`] asks every node.
    fn slowest_here(&self, namespace: &str, by: Slowness, limit: usize) -> Vec<ConnectionInfo>;

    /// Returns one connection; `None` when no node that answers has the connection.
    fn connection<'a>(&'a self, namespace: &'a str, socket_id: &'a str) -> DirectoryFuture<'a, Option<ConnectionInfo>>;

    /// A page of the namespace's rooms, without the room that each client has for itself. `members` is empty here.
    fn rooms<'a>(&'a self, namespace: &'a str, page: PageRequest) -> DirectoryFuture<'a, Page<RoomInfo>>;

    /// Returns one room with the first page of its members; `None` when the room has no members.
    fn room<'a>(&'a self, namespace: &'a str, room: &'a str) -> DirectoryFuture<'a, Option<RoomInfo>>;

    /// A page of a room's members.
    fn members<'a>(
        &'a self,
        namespace: &'a str,
        room: &'a str,
        page: PageRequest,
    ) -> DirectoryFuture<'a, Page<MemberInfo>>;

    /// A page of the users who are connected to the namespace.
    fn users<'a>(&'a self, namespace: &'a str, page: PageRequest) -> DirectoryFuture<'a, Page<UserInfo>>;

    /// Returns one user; `None` when the user has no connection.
    fn user<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> DirectoryFuture<'a, Option<UserInfo>>;

    /// A page of a user's connections.
    fn user_connections<'a>(
        &'a self,
        namespace: &'a str,
        user_id: &'a str,
        page: PageRequest,
    ) -> DirectoryFuture<'a, Page<ConnectionInfo>>;

    /// Counts the connections, rooms and users of the cluster, in constant time.
    fn count<'a>(&'a self, namespace: &'a str, of: CountOf<'a>) -> DirectoryFuture<'a, Count>;
}

/// Questions about connection data that is not in Redis. Each node answers them for its own connections.
pub trait Survey: Send + Sync {
    /// The slowest connections of the cluster, the slowest first, at most `limit`. The page names the nodes that did
    /// not answer in time.
    fn slowest_connections<'a>(
        &'a self,
        namespace: &'a str,
        by: Slowness,
        limit: usize,
    ) -> DirectoryFuture<'a, Page<ConnectionInfo>>;
}

/// Actions on clients of the whole cluster. An action takes effect on this node at once, and on another node when it
/// receives the request.
pub trait Actions: Send + Sync {
    /// Puts the selected clients into a room. No rule of the contract is checked, because a backend decided this.
    fn join<'a>(&'a self, selection: &'a Selection, room: &'a str) -> DirectoryFuture<'a, ActionResult>;

    /// Takes the selected clients out of a room.
    fn leave<'a>(&'a self, selection: &'a Selection, room: &'a str) -> DirectoryFuture<'a, ActionResult>;

    /// Disconnects the selected clients. With `transport`, the whole connection is closed, and the official client
    /// reconnects by itself. Without it, only the namespace is disconnected, and the official client does not
    /// reconnect.
    fn disconnect<'a>(&'a self, selection: &'a Selection, transport: bool) -> DirectoryFuture<'a, ActionResult>;

    /// Sends the selected clients an event and collects their acknowledgements.
    fn ask<'a>(&'a self, question: AckQuestion) -> DirectoryFuture<'a, Acknowledged>;
}

/// The future that the methods of these traits return.
pub type DirectoryFuture<'a, T> = BoxFuture<'a, Result<T, DirectoryError>>;

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// Redis is unavailable, so the data of the other nodes cannot be read.
    #[error("Redis is away, or refuses writes; the data of the other nodes cannot be read")]
    Unavailable,
    /// The cursor was not issued for this list.
    #[error("the cursor does not belong to this list")]
    Cursor,
    /// The maximum number of revocations is reached.
    #[error("there are {MAX_REVOCATIONS} revocations already; lift some, or use a shorter ttl")]
    Full,
}

/// Which part of a list is requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Maximum number of items; 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// The `next` of the previous page. `None` requests the first page.
    pub cursor: Option<String>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor of the next page; null on the last page.
    pub next: Option<String>,
    /// Whether some nodes' items are missing or older than two heartbeats.
    pub partial: bool,
    /// The ids of the nodes whose items are missing or old.
    pub missing_nodes: Vec<String>,
}

/// One client in one namespace.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionInfo {
    /// The Socket.IO id.
    pub socket_id: String,
    /// The user's id; null for anonymous users.
    pub user_id: Option<String>,
    /// The namespace's path.
    pub namespace: String,
    /// The id of the node that serves the client.
    pub node: String,
    /// The transport with which the session opened: `websocket` or `polling`.
    pub transport: String,
    /// When the client connected: ISO 8601 in UTC with milliseconds.
    #[serde(serialize_with = "iso")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub connected_at: SystemTime,
    /// The client's rooms, sorted, without the client's own room.
    pub rooms: Vec<String>,
    /// The metadata that events and hooks have set.
    pub metadata: Map<String, Value>,
    /// How fast the client reads. Only the node that serves the connection knows it: not there when another node
    /// answers, except in a list that is sorted by it.
    #[serde(flatten)]
    pub pace: Option<ReadPace>,
}

/// How fast a client reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Pace")]
pub struct ReadPace {
    /// Bytes that wait to be written to the client's connection, over all its namespaces.
    pub queued_bytes: u64,
    /// Packets that wait to be written; missing where the engine cannot count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_packets: Option<u64>,
    /// Events for the client that were dropped since it connected to the namespace, because the client is slow.
    pub dropped: u64,
    /// When the kernel last took bytes for the client: ISO 8601 in UTC with milliseconds; null if it never did.
    #[serde(serialize_with = "iso_option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub last_write_at: Option<SystemTime>,
}

/// The measures by which slow clients are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slowness {
    /// Most bytes first.
    QueuedBytes,
    /// Most packets first.
    QueuedPackets,
    /// Most dropped events first.
    Dropped,
    /// The connection with the longest time since its last write first. Connections without waiting data come last.
    LastWriteAt,
}

impl Slowness {
    /// The API's words for the measures of slowness. The first word means that the list is not sorted by slowness.
    pub const WORDS: &'static [&'static str] = &["none", "queuedBytes", "queuedPackets", "dropped", "lastWriteAt"];

    /// How slow a connection is by this measure; a larger number is slower. `written_at_ms` is the Unix time of the
    /// last write, 0 before the first.
    pub fn degree(self, queued_bytes: u64, queued_packets: u64, dropped: u64, written_at_ms: u64) -> u64 {
        match self {
            Self::QueuedBytes => queued_bytes,
            Self::QueuedPackets => queued_packets,
            Self::Dropped => dropped,
            // A client with an empty write queue is idle, not slow.
            Self::LastWriteAt if queued_bytes == 0 => 0,
            Self::LastWriteAt => u64::MAX - written_at_ms,
        }
    }

    /// The API's word for this measure.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueuedBytes => "queuedBytes",
            Self::QueuedPackets => "queuedPackets",
            Self::Dropped => "dropped",
            Self::LastWriteAt => "lastWriteAt",
        }
    }

    /// Returns the measure that a word of the API names.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::QueuedBytes, Self::QueuedPackets, Self::Dropped, Self::LastWriteAt];
        all.into_iter().find(|measure| measure.as_str() == word)
    }
}

/// One room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomInfo {
    /// Its name.
    pub name: String,
    /// The namespace's path.
    pub namespace: String,
    /// How many clients are in the room.
    pub member_count: u64,
    /// The room's members, at most 100; `…/members` has pages of all members. Empty in lists of rooms.
    pub members: Vec<MemberInfo>,
    /// When the first present member joined the room: ISO 8601 in UTC with milliseconds; null if the time is not known.
    #[serde(serialize_with = "iso_option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub created_at: Option<SystemTime>,
    /// Whether some nodes' members are missing or older than two heartbeats.
    pub partial: bool,
    /// The ids of the nodes whose members are missing or old.
    pub missing_nodes: Vec<String>,
}

/// A client in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberInfo {
    /// The Socket.IO id.
    pub socket_id: String,
    /// The user's id; null for anonymous users.
    pub user_id: Option<String>,
    /// The id of the node that serves the client.
    pub node: String,
}

/// A user with at least one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserInfo {
    /// The user's id.
    pub user_id: String,
    /// The namespace's path.
    pub namespace: String,
    /// How many connections the user has in the namespace.
    pub connections: u64,
    /// The presence status that the user's clients have set; null if no client has set one.
    pub status: Option<String>,
}

/// The namespace, room or user whose clients are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountOf<'a> {
    /// The whole namespace: its connections, rooms and users.
    Namespace,
    /// The members of a room.
    Room(&'a str),
    /// The connections of a user.
    User(&'a str),
}

/// A count over the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// Clients: in the namespace, in the room, or of the user.
    pub connections: u64,
    /// Rooms of the namespace, without the clients' own; null for the count of a room or user. A room with members on
    /// several nodes counts once.
    pub rooms: Option<u64>,
    /// Users of the namespace; null for the count of a room or user.
    pub users: Option<u64>,
    /// Whether some nodes' clients are missing or older than two heartbeats.
    pub partial: bool,
    /// The ids of the nodes whose clients are missing or old.
    pub missing_nodes: Vec<String>,
}

/// Which clients an action concerns. A client is selected if any list names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The namespace's path.
    pub namespace: String,
    /// Users by id.
    pub users: Vec<String>,
    /// Sockets by id.
    pub sockets: Vec<String>,
    /// Rooms by name.
    pub rooms: Vec<String>,
}

/// An event that clients are asked to acknowledge.
#[derive(Debug, Clone)]
pub struct AckQuestion {
    /// The clients that receive the event.
    pub selection: Selection,
    /// The event that is sent to the clients.
    pub event: Event,
    /// How long the clients have to acknowledge.
    pub patience: Duration,
}

/// The acknowledgements of an event.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    /// Number of clients that the event was queued for.
    pub asked: usize,
    /// Selected clients that did not get the event, because too many are selected, or the client has left or does not
    /// read.
    pub not_asked: usize,
    /// Clients whose acknowledgements were dropped, because all of them together were too large.
    pub too_large: usize,
    /// The acknowledgements, in no particular order.
    pub said: Vec<Acknowledgement>,
    /// Whether the question was sent to the other nodes.
    pub remote: SendOutcome,
    /// Known nodes that did not answer in time. The answers of their clients are missing.
    pub missing_nodes: Vec<String>,
    /// Number of Node.js servers that did not answer in time.
    pub missing_servers: usize,
}

/// A client's acknowledgement.
#[derive(Debug, Clone)]
pub struct Acknowledgement {
    /// The client's Socket.IO id; `None` for a client of a Node.js server, because these servers do not report the id.
    pub socket_id: Option<String>,
    /// The arguments.
    pub args: Args,
}

impl Acknowledged {
    /// Adds the acknowledgements that another node collected.
    pub fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.not_asked += other.not_asked;
        self.too_large += other.too_large;
        self.said.extend(other.said);
        self.missing_servers += other.missing_servers;
    }
}

/// The result of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionResult {
    /// Clients of this node that the action concerned.
    pub local: usize,
    /// Whether the action was sent to the other nodes.
    pub remote: SendOutcome,
}

/// Whether a message to the other nodes was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SendOutcome {
    /// There are no other nodes: this node runs on the in-memory adapter.
    #[default]
    Alone,
    /// Redis has accepted the request. Each other node receives the request at most once, and acts on it when it
    /// arrives.
    Carried,
    /// The request was not sent, for this reason (a label as in metrics).
    NotCarried(&'static str),
}

fn iso<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&iso8601(*at))
}

fn iso_option<S: Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => iso(at, serializer),
        None => serializer.serialize_none(),
    }
}

// === impl Page ===

impl<T> Page<T> {
    /// Creates a page that is the last page and complete.
    pub fn complete(items: Vec<T>) -> Self {
        Self { items, next: None, partial: false, missing_nodes: Vec::new() }
    }
}

// === impl PageRequest ===

impl Default for PageRequest {
    fn default() -> Self {
        Self { limit: DEFAULT_PAGE, cursor: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_spelled_as_the_applications_know_it() {
        let info = ConnectionInfo {
            socket_id: "s".into(),
            user_id: None,
            namespace: "/".into(),
            node: "n".into(),
            transport: "websocket".into(),
            connected_at: SystemTime::UNIX_EPOCH,
            rooms: vec!["r".into()],
            metadata: Map::new(),
            pace: None,
        };
        assert_eq!(
            serde_json::to_string(&info).unwrap(),
            r#"{"socketId":"s","userId":null,"namespace":"/","node":"n","transport":"websocket","connectedAt":"1970-01-01T00:00:00.000Z","rooms":["r"],"metadata":{}}"#
        );
    }
}
