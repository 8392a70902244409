//! The tables `[client]` and `[server]`, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{OneOrMany, RoomRefSpec};
use crate::contract::model::{SlowClientPolicy, ThrottleBy};

/// An event that a client may send.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientEventSpec {
    /// The shape of the payload.
    pub payload: PayloadSpec,
    /// A CEL rule that must be true.
    pub require: Option<String>,
    /// Rooms that the sender joins.
    pub join: Option<OneOrMany<RoomRefSpec>>,
    /// Rooms that the sender leaves.
    pub leave: Option<OneOrMany<RoomRefSpec>>,
    /// The room that the event is about, if it joins and leaves none. The sender must be in it.
    pub room: Option<RoomRefSpec>,
    /// Events that are sent to other clients.
    pub relay: Option<OneOrMany<RelaySpec>>,
    /// Events that are sent to the sender.
    pub reply: Option<OneOrMany<ReplyRefSpec>>,
    /// The hook that decides about the event.
    pub call: Option<CallSpec>,
    /// The hook that the node informs of the event, without waiting for an answer.
    pub notify: Option<String>,
    /// What happens when the hook has agreed.
    pub on_ok: Option<OutcomeSpec>,
    /// What happens when the event has failed. It replaces the contract's error event.
    pub on_error: Option<OutcomeSpec>,
    /// The path of the user's new presence status, such as "payload.status".
    pub presence: Option<String>,
    /// What the event adds to the session's metadata: a table of members, each a value with placeholders, or the path
    /// of an object, such as "payload.metadata".
    pub metadata: Option<MetadataSpec>,
    /// The acknowledgement of success: a value with placeholders, or "*" for the event's own arguments. Default: {
    /// success = true }, with the room if one was joined or left.
    pub ack: Option<Value>,
    /// The acknowledgement of success, if it has several arguments or none: a list of values with placeholders.
    pub ack_args: Option<Vec<Value>>,
    /// The rate limit per socket, such as "10/s burst 20". Default: no limit.
    pub limit: Option<String>,
    /// Repetitions within this time are acknowledged and not relayed.
    pub throttle: Option<ClientThrottleSpec>,
    /// The event that is published for the sender when the socket leaves the room or disconnects without having sent
    /// it.
    pub undo: Option<String>,
}

/// The shape of a payload.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PayloadSpec {
    /// If the payload is a bare value x, it is read as { <shorthand>: x }.
    pub shorthand: Option<String>,
    /// The names of the arguments. Default: the first argument is the payload.
    pub args: Option<Vec<String>>,
    /// The payload that is used if none was sent.
    pub default: Option<Value>,
    /// The JSON Schema of the payload.
    pub schema: Option<SchemaSpec>,
}

/// What an event adds to the session's metadata.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum MetadataSpec {
    /// The path of an object whose members are added.
    Path(String),
    /// The members by name.
    Members(Map<String, Value>),
}

/// A JSON Schema (2020-12).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SchemaSpec {
    /// The path of a file, relative to the contract file.
    File(String),
    /// The schema itself.
    Inline(Map<String, Value>),
}

/// An event that a client event sends to others: to exactly one of room, to, shared, everyone.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RelaySpec {
    /// A room.
    pub room: Option<RoomRefSpec>,
    /// The path, such as `payload.to`, where the event holds the id of the recipient: a socket id or a user id. A list
    /// of ids names several recipients.
    pub to: Option<String>,
    /// All clients that share a room with the user.
    pub shared: Option<bool>,
    /// All clients in the namespace.
    pub everyone: Option<bool>,
    /// The event's name, which may have placeholders. Default: the name of the client's event.
    #[schemars(regex(pattern = "^[^*]+$"))]
    pub event: Option<String>,
    /// The payload: a value with placeholders, or "*" for the event's own arguments, unchanged. Default: "*".
    pub data: Option<Value>,
    /// The arguments, if the event has several or none: a list of values with placeholders.
    pub args: Option<Vec<Value>>,
    /// Members that are added to the payload.
    pub add: Option<Value>,
    /// Whether the sender's own socket does not receive the event. Default: false.
    pub others: Option<bool>,
    /// Whether only clients that can be written to at once receive the event. Default: false.
    pub volatile: Option<bool>,
    /// Whether the sender must be in the room of the relay. Default: false.
    pub member: Option<bool>,
    /// A CEL rule. The event is sent only if it is true.
    pub when: Option<String>,
}

/// An event for the sender alone: its name, or a table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ReplyRefSpec {
    /// The event's name. It has no payload.
    Event(String),
    /// The event's name and payload, as a table.
    Table(ReplySpec),
}

/// An event for one client.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplySpec {
    /// The event's name.
    #[schemars(regex(pattern = "^[^*]+$"))]
    pub event: String,
    /// The event's payload, or "*" for the client event's own arguments, unchanged. Default: none.
    #[serde(default)]
    pub data: Option<Value>,
    /// The event's arguments, if it has several: a list of values with placeholders.
    #[serde(default)]
    pub args: Option<Vec<Value>>,
    /// A CEL rule. The event is sent only if it is true.
    #[serde(default)]
    pub when: Option<String>,
}

/// What happens after a hook's answer, or after an error.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutcomeSpec {
    /// A server event of this contract that is published with `data`.
    pub publish: Option<String>,
    /// An event that is sent to the sender with `data`.
    pub reply: Option<String>,
    /// The payload of both events.
    pub data: Option<Value>,
    /// The arguments of both events, if they have several: a list of values with placeholders.
    pub args: Option<Vec<Value>>,
    /// Only in on_error: the reply is sent even if an acknowledgement reports the error. Default: false.
    pub always: Option<bool>,
}

/// A call of a hook: the hook's name in the node's configuration, or a table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CallSpec {
    /// The hook's name.
    Hook(String),
    /// The hook's name with further settings, as a table.
    Table(CallTableSpec),
}

/// A call of a hook.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallTableSpec {
    /// The hook's name in the node's configuration (hooks.<name>).
    pub hook: String,
    /// Whether the call may be repeated if it fails. Default: false.
    #[serde(default)]
    pub idempotent: Option<bool>,
    /// How long the node waits for the hook's answer. Default: the hook's own timeout.
    #[serde(default)]
    pub timeout: Option<String>,
    /// Only in a client event: a CEL rule; the hook is called only if it is true. The hook is asked only if it is true.
    #[serde(default)]
    pub when: Option<String>,
}

/// A throttle of a client event: a time, or a table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ClientThrottleSpec {
    /// A time, in which at most one event is relayed.
    Every(String),
    /// A table with the time and further settings.
    Table(ClientThrottleTableSpec),
}

/// A throttle of a client event.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientThrottleTableSpec {
    /// The time in which at most one event is relayed.
    pub every: String,
    /// Which event is relayed: the first, and not its repetitions. Default, and the only choice: first.
    #[serde(default)]
    pub keep: Option<KeepFirst>,
}

/// Which of several throttled events is kept.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeepFirst {
    /// The first.
    First,
}

/// An event that a backend may publish.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerEventSpec {
    /// The rooms that receive the event, or "*" for all clients in the namespace. A client in several of the rooms gets
    /// one copy.
    pub rooms: OneOrMany<RoomRefSpec>,
    /// The JSON Schema of the payload, after `fill`.
    #[serde(default)]
    pub schema: Option<SchemaSpec>,
    /// Members that are added to the payload if the backend left them out.
    #[serde(default)]
    pub fill: Option<Value>,
    /// Conflation: sends at most one event in each interval. The newest event always arrives.
    #[serde(default)]
    pub throttle: Option<ServerThrottleSpec>,
    /// Whether events that a throttle of the same rooms holds back are sent first. Default: false.
    #[serde(default)]
    pub flush: Option<bool>,
    /// Whether the event is the last of its rooms: held events are sent first, and the history is deleted after
    /// `linger`. Default: false.
    #[serde(default)]
    pub terminal: Option<bool>,
    /// Whether only clients that can be written to at once receive the event. Default: false.
    #[serde(default)]
    pub volatile: Option<bool>,
    /// What happens to a client whose write queue is full. Default: drop.
    #[serde(default)]
    pub slow: Option<SlowClientPolicy>,
}

/// Conflation of a server event: a time, or a table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ServerThrottleSpec {
    /// A time, in which at most one event is sent for each set of rooms.
    Every(String),
    /// A table with the time and further settings.
    Table(ServerThrottleTableSpec),
}

/// Conflation of a server event.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerThrottleTableSpec {
    /// The time in which at most one event is sent.
    pub every: String,
    /// Whether the time applies for each set of rooms, or for the event alone. Default: room.
    #[serde(default)]
    pub per: Option<ThrottleBy>,
    /// Which event is sent when the time is over: the newest. Default, and the only choice: last.
    #[serde(default)]
    pub keep: Option<KeepLast>,
}

/// Which of several throttled events is kept.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeepLast {
    /// The newest.
    Last,
}
