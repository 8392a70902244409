//! `[client]` and `[server]`, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{OneOrMany, RoomRef};

/// Something a client may send.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Client {
    /// What the payload must be.
    pub payload: Payload,
    /// A CEL rule that must hold.
    pub require: Option<String>,
    /// Rooms to join.
    pub join: Option<OneOrMany<RoomRef>>,
    /// Rooms to leave.
    pub leave: Option<OneOrMany<RoomRef>>,
    /// What is sent on.
    pub relay: Option<OneOrMany<Relay>>,
    /// What the caller is sent.
    pub reply: Option<OneOrMany<ReplyRef>>,
    /// The hook that decides.
    pub call: Option<Call>,
    /// When the hook agreed.
    pub on_ok: Option<Outcome>,
    /// When anything failed; replaces the contract's error event.
    pub on_error: Option<Outcome>,
    /// The path of the user's new presence status, such as "payload.status".
    pub presence: Option<String>,
    /// The path of an object that is merged into the session's metadata, such as "payload.metadata".
    pub metadata: Option<String>,
    /// The ack of a success: a value with placeholders, or "*" for the event's own arguments. Default: { success = true },
    /// with the room where one was joined or left.
    pub ack: Option<Value>,
    /// How often a socket may send it, such as "10/s burst 20". Default: no limit.
    pub limit: Option<String>,
    /// Repetitions within this time are acknowledged and not relayed.
    pub throttle: Option<ClientThrottle>,
    /// The event that is implied when the socket leaves the room or disconnects.
    pub undo: Option<String>,
}

/// What a payload must be.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Payload {
    /// A bare value x is taken as { <shorthand>: x }.
    pub shorthand: Option<String>,
    /// The names of the arguments. Default: the first argument is the payload.
    pub args: Option<Vec<String>>,
    /// What stands in for a payload that is missing.
    pub default: Option<Value>,
    /// What the payload must satisfy.
    pub schema: Option<SchemaRef>,
}

/// A JSON Schema (2020-12).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SchemaRef {
    /// A path, relative to the contract file.
    File(String),
    /// The schema itself.
    Inline(Map<String, Value>),
}

/// Something sent on by a client event: to exactly one of room, to, shared, everyone.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    /// To a room.
    pub room: Option<RoomRef>,
    /// To a socket id or a user id found at this path.
    pub to: Option<String>,
    /// To everyone who shares a room with the user.
    pub shared: Option<bool>,
    /// To everyone in the namespace.
    pub everyone: Option<bool>,
    /// The event's name. Default: as it came.
    #[schemars(regex(pattern = "^[^{}*]+$"))]
    pub event: Option<String>,
    /// A value of the contract's own, or "*" for the event's arguments, unchanged. Default: "*".
    pub data: Option<Value>,
    /// The payload with these members added.
    pub add: Option<Value>,
    /// Not to the sender's own socket. Default: false.
    pub others: Option<bool>,
    /// The sender must be in the room. Default: false.
    pub member: Option<bool>,
    /// A CEL rule: only then.
    pub when: Option<String>,
}

/// An event for the caller alone: its name, or a table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ReplyRef {
    /// Its name; no payload.
    Event(String),
    /// Its name and payload.
    Table(Reply),
}

/// An event for one client.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// Its name.
    #[schemars(regex(pattern = "^[^{}*]+$"))]
    pub event: String,
    /// Its payload, or "*" for the event's arguments, unchanged. Default: none.
    #[serde(default)]
    pub data: Option<Value>,
}

/// What follows a hook's answer, or an error.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outcome {
    /// A server event of this contract, published with the data.
    pub publish: Option<String>,
    /// An event for the caller.
    pub reply: Option<String>,
    /// The payload of both.
    pub data: Option<Value>,
    /// Of on_error: the reply is sent even where an ack carries the error. Default: false.
    pub always: Option<bool>,
}

/// A call of an upstream hook: its name in the node's configuration, or a table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Call {
    /// Its name.
    Hook(String),
    /// Its name and more.
    Table(CallTable),
}

/// A call of an upstream hook.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallTable {
    /// The hook's name in the node's configuration (hooks.<name>).
    pub hook: String,
    /// Whether a failed call may be repeated. Default: false.
    #[serde(default)]
    pub idempotent: Option<bool>,
    /// How long an answer is waited for. Default: the hook's own.
    #[serde(default)]
    pub timeout: Option<String>,
}

/// A throttle of a client event: a time, or a table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ClientThrottle {
    /// At most one in this time.
    Every(String),
    /// The same, spelled out.
    Table(ClientThrottleTable),
}

/// A throttle of a client event.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientThrottleTable {
    /// At most one in this time.
    pub every: String,
    /// The first is relayed, the repetitions are not. Default, and the only choice: first.
    #[serde(default)]
    pub keep: Option<KeepFirst>,
}

/// Which of several events is kept.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeepFirst {
    /// The first.
    First,
}

/// Something a backend may publish.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where it goes, "*" for everyone in the namespace; a client in several rooms gets it once.
    pub rooms: OneOrMany<RoomRef>,
    /// What the payload must satisfy, after fill-ins.
    #[serde(default)]
    pub schema: Option<SchemaRef>,
    /// Members that are added where the backend left them out.
    #[serde(default)]
    pub fill: Option<Value>,
    /// Conflation: at most one in this time, and the newest always arrives.
    #[serde(default)]
    pub throttle: Option<ServerThrottle>,
    /// Sends what a throttle of its rooms holds back first. Default: false.
    #[serde(default)]
    pub flush: Option<bool>,
    /// Ends a room's story: flushes, and the room is forgotten after `linger`. Default: false.
    #[serde(default)]
    pub terminal: Option<bool>,
    /// Only for clients that take what they are sent at that moment. Default: false.
    #[serde(default)]
    pub volatile: Option<bool>,
    /// What becomes of it for a client whose queue is full. Default: drop.
    #[serde(default)]
    pub slow: Option<Slow>,
}

/// What becomes of an event for a client whose queue is full.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Slow {
    /// This client does not get it.
    Drop,
    /// The client's connection closes: it returns, and joins anew.
    Disconnect,
    /// It is kept until the client reads; of many, the oldest give way.
    DropOldest,
    /// Only the latest of the event and its rooms is kept until the client reads.
    KeepLatest,
}

/// Conflation of a server event: a time, or a table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ServerThrottle {
    /// At most one in this time for each set of rooms.
    Every(String),
    /// The same, spelled out.
    Table(ServerThrottleTable),
}

/// Conflation of a server event.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerThrottleTable {
    /// At most one in this time.
    pub every: String,
    /// For each of these. Default: room.
    #[serde(default)]
    pub per: Option<ThrottleKey>,
    /// The newest is sent when the time is over. Default, and the only choice: last.
    #[serde(default)]
    pub keep: Option<KeepLast>,
}

/// What a throttle counts by.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleKey {
    /// The set of rooms it goes to.
    Room,
    /// The event alone.
    Event,
}

/// Which of several events is kept.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeepLast {
    /// The newest.
    Last,
}
