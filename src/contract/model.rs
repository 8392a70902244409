//! A contract as the node uses it: compiled, checked, ready to be asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use super::namespace::Families;
use super::path::Path;
use super::room_name::RoomTemplate;
use super::rule::Rule;
use super::schema::Schema;
use super::template::Template;
use crate::error::Code;
pub use crate::event::Slow;
pub use crate::rate::Rate;

/// One application.
#[derive(Debug)]
pub struct Contract {
    /// Unique among the loaded contracts.
    pub name: Arc<str>,
    /// Starts with a slash.
    pub namespace: Arc<str>,
    /// One line for people.
    pub summary: String,
    /// The file, or `embedded:<name>`.
    pub source: String,
    /// The SHA-256 of the file's text, in hexadecimal.
    pub digest: String,
    /// Who may connect.
    pub auth: AuthPolicy,
    /// How errors look to clients.
    pub errors: ErrorShape,
    /// What is done for an event that nobody knows.
    pub unknown: UnknownEvent,
    /// What happens as a client connects.
    pub connect: Connect,
    /// The hook that is told of a disconnect.
    pub disconnect: Option<Call>,
    /// Limits on connections.
    pub limits: ConnectionLimits,
    /// Redis keys kept for other services.
    pub mirror: Option<Mirror>,
    /// Clients that come back soon get their session back.
    pub recovery: Option<RecoveryPolicy>,
    /// Rooms by their key in the file.
    pub rooms: IndexMap<String, Arc<RoomDef>>,
    /// What clients may send, by event name.
    pub client: IndexMap<String, Arc<ClientEvent>>,
    /// What backends may publish, by event name.
    pub server: IndexMap<String, Arc<ServerEvent>>,
}

impl Contract {
    /// The names of the hooks that it calls; one may come several times.
    pub fn hooks(&self) -> impl Iterator<Item = &str> {
        let events = self.client.values().filter_map(|event| event.call.as_ref());
        let rooms = self.rooms.values().filter_map(|room| room.call.as_ref());
        let calls = self.connect.call.iter().chain(&self.disconnect).chain(events).chain(rooms);
        calls.map(|call| call.hook.as_str())
    }
}

/// The contracts of one namespace, merged. They agree on authentication.
#[derive(Debug)]
pub struct Namespace {
    /// Starts with a slash.
    pub path: Arc<str>,
    /// In the order of the configuration.
    pub contracts: Vec<Arc<Contract>>,
    /// What clients may send, over all contracts.
    pub client: HashMap<String, (Arc<Contract>, Arc<ClientEvent>)>,
    /// Which family a room's name belongs to.
    pub(super) families: Families,
}

/// Clients that come back soon get their session back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryPolicy {
    /// How soon.
    pub window: Duration,
    /// How many events are kept for them of a room without a history of its own.
    pub events: u32,
}

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthPolicy {
    /// Whether a token is needed.
    pub mode: AuthMode,
    /// Where a token is looked for, in this order.
    pub tokens: Vec<TokenSource>,
    /// How a client learns that its token does not hold.
    pub reject: Reject,
    /// The claim that is the user's id.
    pub user: String,
    /// The claim that lists the user's roles.
    pub roles: String,
    /// What happens as a token ends.
    pub expiry: Expiry,
}

/// What happens as a token ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expiry {
    /// How long before, and by which event, a client is warned.
    pub warn: Option<(Duration, String)>,
    /// The client event that brings a newer token.
    pub refresh: Option<String>,
    /// How a client whose token has ended is disconnected.
    pub then: AtExpiry,
}

/// How a client whose token has ended is disconnected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AtExpiry {
    /// Out of the namespace: it does not return by itself.
    #[default]
    Disconnect,
    /// The connection closes: it returns.
    Reconnect,
}

/// Whether a token is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// No token: refused.
    Required,
    /// No token: an anonymous user. A bad token: refused.
    Optional,
    /// Tokens are not looked at.
    None,
}

/// Where a token is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A member of the handshake's `auth` object.
    Auth(String),
    /// `Authorization: Bearer …`.
    Header,
    /// A query parameter.
    Query(String),
    /// A cookie.
    Cookie(String),
}

/// How a client learns that it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// A Socket.IO CONNECT_ERROR, whose message starts with the code.
    ConnectError,
    /// It is connected, gets the contract's error event, and is disconnected.
    Event,
}

/// How errors look to the clients of a contract.
#[derive(Debug, Clone)]
pub struct ErrorShape {
    /// The event that carries an error where no ack was asked for. `None`: the error is only counted.
    pub event: Option<String>,
    /// The event's payload.
    pub payload: Template,
    /// What a failed event's ack carries.
    pub ack: Template,
    /// Other names for codes.
    pub codes: HashMap<Code, String>,
}

impl ErrorShape {
    /// The code as this contract's clients know it.
    pub fn code(&self, code: Code) -> &str {
        self.codes.get(&code).map_or(code.as_str(), String::as_str)
    }
}

/// What is done for an event that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownEvent {
    /// An error.
    Refuse,
    /// Nothing; it is counted.
    Ignore,
}

/// What happens as a client connects.
#[derive(Debug, Default)]
pub struct Connect {
    /// Rooms joined by everyone whom the room's rule permits.
    pub join: Vec<RoomRef>,
    /// The first event a client gets.
    pub greet: Option<Reply>,
    /// The hook that is asked before the client is let in.
    pub call: Option<Call>,
}

/// Limits on connections.
#[derive(Debug, Clone, Default)]
pub struct ConnectionLimits {
    /// New connections from one IP address.
    pub connections_per_ip: Option<Rate>,
}

/// Redis keys kept for an application's other services.
#[derive(Debug)]
pub struct Mirror {
    /// A HASH of connection metadata for each socket.
    pub client: Option<Template>,
    /// A SET of rooms for each socket.
    pub subscriptions: Option<Template>,
    /// How long they live after the last change.
    pub ttl: Duration,
}

/// A family of rooms.
#[derive(Debug)]
pub struct RoomDef {
    /// Its key in the file.
    pub key: String,
    /// The contract it belongs to.
    pub contract: Arc<str>,
    /// The room's name.
    pub name: RoomTemplate,
    /// Who may join; `None`: everyone who is connected.
    pub join: Option<Rule>,
    /// The hook that is asked whether a user may join.
    pub call: Option<Call>,
    /// What is kept for late joiners and readers.
    pub history: Option<HistoryPolicy>,
    /// Whether members are kept in the cluster's presence, and what is told of it.
    pub presence: Option<PresencePolicy>,
    /// A room without events for so long is forgotten with its history.
    pub idle: Option<Duration>,
    /// How long a room's history is kept after a terminal event.
    pub linger: Option<Duration>,
}

/// What is kept of a room's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPolicy {
    /// At most so many events.
    pub events: u32,
    /// For so long after the last one.
    pub ttl: Duration,
    /// What a joining client gets.
    pub replay: Replay,
    /// A LIST key that other services read (payloads as JSON, newest last).
    pub key: Option<RoomTemplate>,
    /// The event that tells a client that it was not shown everything.
    pub incomplete: Option<String>,
}

/// What a joining client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Nothing.
    None,
    /// The newest event.
    Last,
    /// Everything that is kept.
    All,
    /// Everything since the offset that the client names (`payload.since`), all without one.
    Since,
}

/// What is told of a room's members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresencePolicy {
    /// The event for the first socket of a user in a room.
    pub joined: Option<String>,
    /// The event for the last socket of a user leaving it.
    pub left: Option<String>,
}

/// A room of the contract as an event names it.
#[derive(Debug, Clone)]
pub struct RoomRef {
    /// The family.
    pub room: Arc<RoomDef>,
    /// Where the template's variables come from; a variable that is not named comes from the payload's member of its name.
    /// The first path that has a value counts.
    pub with: Vec<(String, Vec<Path>)>,
    /// Only then.
    pub when: Option<Rule>,
    /// A variable without a value means "not this room" instead of an error.
    pub optional: bool,
}

/// Something a client may send.
#[derive(Debug)]
pub struct ClientEvent {
    /// Its name on the wire.
    pub name: String,
    /// What the payload must be.
    pub payload: PayloadShape,
    /// A rule that must hold, else AUTHORIZATION_FAILED.
    pub require: Option<Rule>,
    /// Rooms to join.
    pub join: Vec<RoomRef>,
    /// Rooms to leave.
    pub leave: Vec<RoomRef>,
    /// What is sent on.
    pub relay: Vec<Relay>,
    /// What the caller is sent.
    pub reply: Vec<Reply>,
    /// The hook that decides.
    pub call: Option<Call>,
    /// When the hook agreed.
    pub on_ok: Option<Outcome>,
    /// When anything failed; replaces the contract's error event.
    pub on_error: Option<Outcome>,
    /// Where the user's new presence status is.
    pub presence: Option<Path>,
    /// Where an object is that is merged into the session's metadata.
    pub metadata: Option<Path>,
    /// The ack of a success; `None`: `{ success: true }`, with `room` where one was joined or left.
    pub ack: Option<Ack>,
    /// How often a socket may send it.
    pub limit: Option<Rate>,
    /// Repetitions within this time are acknowledged and not relayed.
    pub throttle: Option<Duration>,
    /// The event that is implied when the socket leaves the room or disconnects.
    pub undo: Option<String>,
    /// Whether anything above looks into the payload.
    pub reads_payload: bool,
}

/// The ack of a success.
#[derive(Debug)]
pub enum Ack {
    /// The event's own arguments, unchanged.
    Args,
    /// A value.
    Value(Template),
}

/// What a payload must be.
#[derive(Debug, Default)]
pub struct PayloadShape {
    /// A bare value `x` is taken as `{ <shorthand>: x }`.
    pub shorthand: Option<String>,
    /// The names of the arguments; empty: the first argument is the payload.
    pub args: Vec<String>,
    /// What stands in for a payload that is missing.
    pub default: Option<serde_json::Value>,
    /// What the payload must satisfy.
    pub schema: Option<Schema>,
}

/// Something sent on by a client event.
#[derive(Debug)]
pub struct Relay {
    /// Whom it goes to.
    pub to: Target,
    /// The event's name; the same as it came with unless the contract says.
    pub event: String,
    /// What is sent.
    pub data: RelayData,
    /// Not to the sender's own socket.
    pub others: bool,
    /// The sender must be in the room.
    pub member: bool,
    /// Only then.
    pub when: Option<Rule>,
}

/// Whom a relay goes to.
#[derive(Debug)]
pub enum Target {
    /// A room.
    Room(RoomRef),
    /// A socket id or a user id found in the payload.
    Address(Path),
    /// Everyone who shares a room with the user.
    Shared,
    /// Everyone in the namespace.
    Everyone,
}

/// What a relay sends.
#[derive(Debug)]
pub enum RelayData {
    /// The event's own arguments, unchanged: the bytes pass through.
    Args,
    /// The payload with members added.
    Payload(Template),
    /// A value of the contract's own.
    Value(Template),
}

/// An event for the caller alone.
#[derive(Debug)]
pub struct Reply {
    /// Its name.
    pub event: String,
    /// Its payload; `None`: no argument. `Args`: all arguments of the event, unchanged.
    pub data: Option<RelayData>,
}

/// What follows a hook's answer, or an error.
#[derive(Debug)]
pub struct Outcome {
    /// A server event of this contract, published with this payload.
    pub publish: Option<(String, Template)>,
    /// An event for the caller.
    pub reply: Option<Reply>,
    /// Of an error: the reply is sent even where an ack carries the error.
    pub always: bool,
}

/// A call of an upstream hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The hook's name in the node's configuration (`hooks.<name>`).
    pub hook: String,
    /// Whether a failed call may be repeated.
    pub idempotent: bool,
    /// How long an answer is waited for; `None`: the hook's own.
    pub timeout: Option<Duration>,
}

/// Something a backend may publish.
#[derive(Debug)]
pub struct ServerEvent {
    /// Its name on the wire.
    pub name: String,
    /// Where it goes; a client in several rooms gets it once.
    pub rooms: Vec<RoomRef>,
    /// What the payload must satisfy, after fill-ins.
    pub schema: Option<Schema>,
    /// Members that are added where the backend left them out.
    pub fill: Option<Template>,
    /// Conflation.
    pub throttle: Option<Throttle>,
    /// Sends what a throttle of its rooms holds back first.
    pub flush: bool,
    /// Ends a room's story: flushes, and the room is forgotten after `linger`.
    pub terminal: bool,
    /// Not for clients that take nothing now.
    pub volatile: bool,
    /// What becomes of it for a client whose queue is full.
    pub slow: Slow,
}

/// Conflation of a server event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// At most one in this time …
    pub every: Duration,
    /// … for each of these.
    pub per: ThrottleKey,
}

/// What a throttle counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleKey {
    /// The set of rooms it goes to.
    Room,
    /// The event alone.
    Event,
}
