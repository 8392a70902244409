//! A compiled and checked contract, as the node uses it.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::event_name::EventName;
use super::handshake::HandshakePart;
use super::namespace::Families;
use super::path::Path;
use super::room_name::RoomTemplate;
use super::rule::Rule;
use super::schema::Schema;
use super::scope::MembersNeed;
use super::scope::ShownError;
use super::template::Template;
use crate::error::{Code, Refusal};
pub use crate::event::SlowClientPolicy;
pub use crate::rate::Rate;

/// A contract: one application.
#[derive(Debug)]
pub struct Contract {
    /// The contract's name, unique among the loaded contracts.
    pub name: Arc<str>,
    /// The path of the namespace. Starts with a slash.
    pub namespace: Arc<str>,
    /// A description for people, in one line.
    pub summary: String,
    /// The path of the file, or `embedded:<name>`.
    pub source: String,
    /// SHA-256 of the file's text, in hexadecimal.
    pub digest: String,
    /// The authentication of clients.
    pub auth: AuthPolicy,
    /// How errors are sent to clients.
    pub errors: ErrorShape,
    /// The reaction to an event that no contract defines.
    pub unknown: UnknownEvent,
    /// The rooms that a hook's answer may let a client join.
    pub hook_joins: HookJoins,
    /// The parts of the handshake that templates use.
    pub handshake: Vec<HandshakePart>,
    /// The members of the metadata that rules may use although clients set them.
    pub client_metadata: BTreeSet<String>,
    /// The steps when a client connects.
    pub connect: ConnectPolicy,
    /// The hook that is notified of a disconnect.
    pub disconnect: Option<HookCall>,
    /// Limits on connections.
    pub limits: ConnectionPolicy,
    /// Redis keys kept for other services.
    pub mirror: Option<MirrorPolicy>,
    /// Whether and how disconnected clients recover their sessions.
    pub recovery: Option<RecoveryPolicy>,
    /// The families of rooms, by their key in the file.
    pub rooms: IndexMap<String, Arc<RoomDef>>,
    /// The events that clients may send, by name.
    pub client: IndexMap<String, Arc<ClientEvent>>,
    /// The events that backends may publish, by name.
    pub server: IndexMap<String, Arc<ServerEvent>>,
}

impl Contract {
    /// The relay that is sent for a client that leaves the room or disconnects after it has sent this event: the first
    /// relay of the event that `undo` names.
    pub fn undone(&self, event: &ClientEvent) -> Option<&Relay> {
        self.client.get(event.undo.as_ref()?)?.relay.first()
    }

    /// The names of the hooks that the contract calls. A name may occur several times.
    pub fn hooks(&self) -> impl Iterator<Item = &str> {
        let events = self.client.values().filter_map(|event| event.call.as_ref());
        let rooms = self.rooms.values().filter_map(|room| room.call.as_ref());
        let calls = self.connect.call.iter().chain(&self.disconnect).chain(events).chain(rooms);
        let told = self.client.values().filter_map(|event| event.notify.as_ref()).chain(&self.connect.notify);
        calls.map(|call| call.hook.as_str()).chain(told.map(String::as_str))
    }
}

/// The contracts of one namespace, merged. They all have the same authentication settings.
#[derive(Debug)]
pub struct Namespace {
    /// The path of the namespace. Starts with a slash.
    pub path: Arc<str>,
    /// The contracts, in the order of the configuration.
    pub contracts: Vec<Arc<Contract>>,
    /// The events that clients may send, from all contracts.
    pub client: HashMap<String, (Arc<Contract>, Arc<ClientEvent>)>,
    /// Finds the family that a room's name belongs to.
    pub(super) families: Families,
}

/// How clients that disconnected recover their sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryPolicy {
    /// How long after a disconnect a session can be recovered.
    pub window: Duration,
    /// Number of events kept for recovery, for each room without a history of its own.
    pub events: u32,
}

/// The rules of authentication: which tokens are needed, and where they are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthPolicy {
    /// Whether clients need a token.
    pub mode: AuthMode,
    /// The places where tokens are looked for, in this order.
    pub tokens: Vec<TokenSource>,
    /// How a client is told that its token is not valid.
    pub reject: RejectPolicy,
    /// The claim that is the user's id.
    pub user: String,
    /// The claim that lists the user's roles.
    pub roles: String,
    /// The handling of tokens that end while the client is connected.
    pub expiry: ExpiryPolicy,
}

/// The handling of tokens that end while the client is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpiryPolicy {
    /// How long before its token ends a client is warned, and by which event.
    pub warn: Option<(Duration, String)>,
    /// The client event that carries a newer token.
    pub refresh: Option<String>,
    /// How a client whose token has ended is disconnected.
    pub then: AtExpiry,
}

/// How a client is disconnected when its token has expired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtExpiry {
    /// The client leaves the namespace. The official client does not reconnect by itself.
    #[default]
    Disconnect,
    /// The whole connection closes. The official client reconnects, and then needs a newer token.
    Reconnect,
}

/// Whether a client needs a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// A client without a token is refused.
    #[default]
    Required,
    /// A client without a token is an anonymous user. A client with an invalid token is refused.
    Optional,
    /// Tokens are ignored. Every client is an anonymous user.
    None,
}

/// Where a token is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A member of the handshake's `auth` object, with this name.
    Auth(String),
    /// The header `Authorization: Bearer …`.
    Header,
    /// A query parameter with this name.
    Query(String),
    /// A cookie with this name.
    Cookie(String),
}

/// How a client learns that it was refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RejectPolicy {
    /// A Socket.IO CONNECT_ERROR, whose message starts with the code.
    #[default]
    ConnectError,
    /// The client is connected, receives the contract's error event, and is disconnected.
    Event,
}

/// How errors are sent to the clients of a contract.
#[derive(Debug, Clone)]
pub struct ErrorShape {
    /// The event that carries an error when the client asked for no acknowledgement. `None`: the error is only
    /// counted.
    pub event: Option<String>,
    /// The payload of the error event.
    pub payload: Template,
    /// The acknowledgement of a failed event.
    pub ack: Template,
    /// The contract's own names for error codes.
    pub codes: HashMap<Code, String>,
    /// The contract's own messages for errors.
    pub messages: HashMap<Code, String>,
}

impl ErrorShape {
    /// The code that this contract's clients get for an error: the contract's own name for the code, if the contract
    /// has one.
    pub fn code(&self, code: Code) -> &str {
        self.codes.get(&code).map_or(code.as_str(), String::as_str)
    }

    /// An error as this contract's clients see it. A code that a backend chose is shown with the backend's message.
    pub fn shown<'a>(&'a self, refusal: &'a Refusal) -> ShownError<'a> {
        let (code, message) = match &refusal.alias {
            Some(alias) => (alias.as_str(), None),
            None => (self.code(refusal.code), self.messages.get(&refusal.code)),
        };
        ShownError { code, message: message.unwrap_or(&refusal.message), retry_after: refusal.retry_after }
    }
}

/// What happens with an event that no contract of the namespace declares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownEvent {
    /// The client gets an error.
    #[default]
    Refuse,
    /// Nothing happens. The event is counted.
    Ignore,
}

/// Which rooms a hook's answer may let a client join.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookJoins {
    /// Any room, also one that no contract declares. No rule is evaluated.
    #[default]
    Any,
    /// Rooms that a contract of the namespace declares. No rule is evaluated.
    Declared,
    /// Rooms that a contract of the namespace declares, if the room's rule `join` is true for the client.
    Permitted,
}

/// The steps when a client connects.
#[derive(Debug, Default)]
pub struct ConnectPolicy {
    /// Rooms that each client joins, if the room's rule permits it.
    pub join: Vec<RoomRef>,
    /// The first event that a client gets.
    pub greet: Vec<Reply>,
    /// The hook that is asked before the client is connected.
    pub call: Option<HookCall>,
    /// The name of the hook that the node informs that a client has connected.
    pub notify: Option<String>,
}

/// Limits on connections.
#[derive(Debug, Clone, Default)]
pub struct ConnectionPolicy {
    /// The rate of new connections from one IP address.
    pub connections_per_ip: Option<Rate>,
}

/// Redis keys kept for an application's other services.
#[derive(Debug)]
pub struct MirrorPolicy {
    /// A HASH of connection metadata for each socket.
    pub client: Option<Template>,
    /// A SET of rooms for each socket.
    pub subscriptions: Option<Template>,
    /// How long the Redis keys live after the last change.
    pub ttl: Duration,
}

/// A family of rooms, whose names one template makes.
#[derive(Debug)]
pub struct RoomDef {
    /// The family's key in the file.
    pub key: String,
    /// The name of the contract that declares the family.
    pub contract: Arc<str>,
    /// The template of the rooms' names.
    pub name: RoomTemplate,
    /// The rule for joining a room; `None`: every connected client may join.
    pub join: Option<Rule>,
    /// The hook that is asked whether a user may join.
    pub call: Option<HookCall>,
    /// Which events a history keeps, and which of them a joining client gets.
    pub history: Option<HistoryPolicy>,
    /// Whether the room's members are tracked in the cluster's presence, and which events announce them to clients.
    pub presence: Option<PresencePolicy>,
    /// The time without events after which a room is forgotten, with its history.
    pub idle: Option<Duration>,
    /// How long a room's history is kept after a terminal event.
    pub linger: Option<Duration>,
}

/// The history of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPolicy {
    /// Maximum number of events kept.
    pub events: u32,
    /// How long the history is kept after its last event.
    pub ttl: Duration,
    /// Which events of the history a joining client gets.
    pub replay: ReplayPolicy,
    /// The key of a Redis LIST for other services (payloads as JSON, newest last).
    pub key: Option<RoomTemplate>,
    /// The event that tells a client that it did not get all events that it can expect.
    pub incomplete: Option<String>,
}

/// The events that a joining client receives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayPolicy {
    /// None.
    #[default]
    None,
    /// The newest event.
    Last,
    /// All events of the history.
    All,
    /// All events after the offset in the payload's member `since`; without this member, all events.
    Since,
}

/// The members of a room: what a member is, which events announce members, and what a list of members shows.
#[derive(Debug, Clone, PartialEq)]
pub struct PresencePolicy {
    /// Whether the node keeps a list of the room's members. False for `presence = true`: then the members are only
    /// recorded for the HTTP API.
    pub listed: bool,
    /// What counts as one member.
    pub each: MemberUnit,
    /// The event when a member joins the room: with its first socket.
    pub joined: Option<Reply>,
    /// The event when a member leaves the room: with its last socket.
    pub left: Option<Reply>,
    /// The event that is sent when the list of members changes.
    pub changed: Option<Reply>,
    /// Whether the member itself does not get the event `joined`.
    pub others: bool,
    /// The minimum time between two `changed` events of a room.
    pub every: Duration,
    /// What lists show of a member.
    pub show: Template,
    /// Maximum number of members that a list shows.
    pub most: usize,
}

/// What counts as one member of a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberUnit {
    /// All sockets of a user together. Each socket of an anonymous user counts separately.
    #[default]
    User,
    /// Each socket separately.
    Socket,
}

/// A reference of an event to a room of the contract.
#[derive(Debug, Clone)]
pub struct RoomRef {
    /// The family of the room.
    pub room: Arc<RoomDef>,
    /// Where the values of the template's variables come from. The first path that has a value counts. A variable that
    /// is not listed comes from the payload's member with its name.
    pub with: Vec<(String, Vec<Path>)>,
    /// The reference applies only if this rule is true.
    pub when: Option<Rule>,
    /// If a variable has no value, the reference is skipped instead of causing an error.
    pub optional: bool,
    /// In `leave`, the reference stands for all rooms of the family that the client is in.
    pub all: bool,
}

/// The key in `[client]` of the events that no table names.
pub const ANY_EVENT: &str = "*";

/// An event that clients may send.
#[derive(Debug)]
pub struct ClientEvent {
    /// The event's name, or [`ANY_EVENT`].
    pub name: String,
    /// The form that the event's payload must have.
    pub payload: PayloadShape,
    /// A rule that must be true; otherwise the event is refused with AUTHORIZATION_FAILED.
    pub require: Option<Rule>,
    /// Rooms that the client joins.
    pub join: Vec<RoomRef>,
    /// Rooms that the client leaves.
    pub leave: Vec<RoomRef>,
    /// The room that the event is about. The client must be in it.
    pub room: Option<RoomRef>,
    /// Events that are sent on to other clients.
    pub relay: Vec<Relay>,
    /// Events that the sender gets.
    pub reply: Vec<Reply>,
    /// The hook that decides about the event.
    pub call: Option<HookCall>,
    /// The name of the hook that the node informs of the event.
    pub notify: Option<String>,
    /// What happens when the hook has agreed.
    pub on_ok: Option<Outcome>,
    /// What happens when the event has failed. Replaces the contract's error event.
    pub on_error: Option<Outcome>,
    /// The path of the user's new presence status.
    pub presence: Option<Path>,
    /// The members that are merged into the session's metadata.
    pub metadata: Option<MetadataChange>,
    /// The acknowledgement of success. `None`: `{ success: true }`, with `room` if one was joined or left.
    pub ack: Option<SentArgs>,
    /// How often a socket may send the event.
    pub limit: Option<Rate>,
    /// Repetitions of the event within this time are acknowledged but not relayed.
    pub throttle: Option<Duration>,
    /// The event that is sent on the client's behalf when the client leaves the room or disconnects.
    pub undo: Option<String>,
    /// Whether any part of the event's handling reads the payload.
    pub reads_payload: bool,
    /// What the event's handling uses of the room that the event is about.
    pub room_use: RoomUse,
}

/// What an event's handling uses of the room that the event is about, besides the room's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomUse {
    /// What the rules of relays need of the room's members. They are evaluated before anything is done.
    pub checks: MembersNeed,
    /// What the events and acknowledgements need of the room's members that are sent when the event has joined and left
    /// its rooms.
    pub sends: MembersNeed,
    /// Whether the event sends variables of the room's name.
    pub vars: bool,
}

/// The members that an event merges into the session's metadata.
#[derive(Debug)]
pub enum MetadataChange {
    /// The members of the object at this path of the payload.
    At(Path),
    /// Members that the contract names.
    Members(Template),
}

/// The form of a payload.
#[derive(Debug, Default)]
pub struct PayloadShape {
    /// If set, a bare value `x` is read as `{ <shorthand>: x }`.
    pub shorthand: Option<String>,
    /// The names of the arguments. Empty: the first argument is the payload.
    pub args: Vec<String>,
    /// The payload that is used if the client sends none.
    pub default: Option<serde_json::Value>,
    /// The JSON Schema that the payload must match.
    pub schema: Option<Schema>,
}

/// An event that is sent on to others because of a client event.
#[derive(Debug)]
pub struct Relay {
    /// The recipients.
    pub to: Target,
    /// The name of the event that is sent: the client event's own name if the contract gives no other.
    pub event: EventName,
    /// The arguments of the event that is sent.
    pub args: SentArgs,
    /// Whether the sender's own socket does not receive the event.
    pub others: bool,
    /// Whether clients whose connection cannot be written to at once are skipped. No history keeps the event.
    pub volatile: bool,
    /// Whether the sender must be in the room.
    pub member: bool,
    /// The relay applies only if this rule is true.
    pub when: Option<Rule>,
}

/// The recipients of a relay.
#[derive(Debug)]
pub enum Target {
    /// The members of a room.
    Room(RoomRef),
    /// The socket or user whose id is at this path of the payload.
    Address(Path),
    /// All clients in a room that the user is in.
    Shared,
    /// All clients in the namespace.
    Everyone,
}

/// The arguments of an event or of an acknowledgement that the node sends.
#[derive(Debug, Clone, PartialEq)]
pub enum SentArgs {
    /// The client event's own arguments. Their bytes are passed on unchanged.
    Unchanged,
    /// The client event's payload with these members added.
    Payload(Template),
    /// Values that the contract defines, one for each argument. A template without a value becomes `null`.
    Values(Vec<Template>),
}

/// An event for the sender alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The event's name.
    pub event: EventName,
    /// The event's arguments.
    pub args: SentArgs,
    /// The event is sent only if this rule is true.
    pub when: Option<Rule>,
}

/// The reaction to a hook's answer or to an error.
#[derive(Debug)]
pub struct Outcome {
    /// A server event of this contract to publish, with its arguments.
    pub publish: Option<(String, Vec<Template>)>,
    /// An event for the sender.
    pub reply: Option<Reply>,
    /// Whether, after an error, the reply is sent even if the acknowledgement carries the error.
    pub always: bool,
}

/// A call to a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookCall {
    /// The hook's name in the node's configuration (`hooks.<name>`).
    pub hook: String,
    /// Whether a failed call may be repeated.
    pub idempotent: bool,
    /// How long to wait for the hook's answer. `None`: the hook's own time-out.
    pub timeout: Option<Duration>,
    /// The hook is called only if this rule is true. Only events have such a rule.
    pub when: Option<Rule>,
}

/// An event that backends may publish.
#[derive(Debug)]
pub struct ServerEvent {
    /// The event's name.
    pub name: String,
    /// The rooms that receive the event. A client in several of these rooms gets the event once. Empty: everyone in the
    /// namespace.
    pub rooms: Vec<RoomRef>,
    /// The JSON Schema that the payload must match after fill-ins.
    pub schema: Option<Schema>,
    /// Members that are added if the backend left them out.
    pub fill: Option<Template>,
    /// Limits how often the event is sent, by conflation: a newer event replaces one that waits.
    pub throttle: Option<ThrottlePolicy>,
    /// Before this event, throttled events that wait for its rooms are sent.
    pub flush: bool,
    /// Whether the event ends the histories of its rooms: waiting events are sent, and `linger` later the rooms are
    /// forgotten.
    pub terminal: bool,
    /// Whether clients are skipped whose connection cannot be written to at once.
    pub volatile: bool,
    /// The treatment of a client whose write queue is full.
    pub slow: SlowClientPolicy,
}

/// How a server event is conflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottlePolicy {
    /// The minimum time between two events with the same key.
    pub every: Duration,
    /// The key that says which events count as the same.
    pub per: ThrottleBy,
}

/// What counts as the same event for a throttle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleBy {
    /// Events with the same name and the same set of rooms.
    #[default]
    Room,
    /// Events with the same name.
    Event,
}
