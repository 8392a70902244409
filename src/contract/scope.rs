//! The data that templates and rules can read.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::user::User;

/// Answers whether a one-room capability token grants a room. `auth` implements it.
pub trait Capabilities: Send + Sync {
    /// Returns true if the token is valid now and names this room. If the token names a user, that user's id must be
    /// `user_id`.
    fn grants(&self, token: &str, room: &str, user_id: &str) -> bool;
}

/// The parts of a socket's state that rules and templates read only if a contract names them. Sessions implement it.
pub trait SocketState: Send + Sync {
    /// The value of a member of the socket's metadata.
    fn metadata_member(&self, name: &str) -> Option<Value>;
    /// The socket's metadata.
    fn metadata(&self) -> Map<String, Value>;
    /// The parts of the handshake that the contracts use: an object with `query`, `headers` and `auth`.
    fn handshake(&self) -> Option<&Value>;
    /// The rooms that the socket is in, without the node's own rooms.
    fn rooms(&self) -> Vec<String>;
}

/// The socket, as rules and templates see it.
#[derive(Clone, Copy)]
pub struct SocketScope<'a> {
    /// The socket's id.
    pub id: &'a str,
    /// When the socket connected.
    pub connected_at: SystemTime,
    /// The rest of the socket's state; `None` where a scope has no session.
    pub state: Option<&'a dyn SocketState>,
}

// The debug output does not show metadata, because metadata may be private.
impl std::fmt::Debug for SocketScope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketScope").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How much of the members of a room a part of a contract needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MembersNeed {
    /// Nothing.
    #[default]
    None,
    /// The number of members.
    Count,
    /// The number and the list of members.
    List,
}

/// The members of a room, as rules and templates see them.
#[derive(Debug, Clone, PartialEq)]
pub struct RoomMembersScope {
    /// The number of members.
    pub count: u64,
    /// The members as the contract shows them: an array. It may be shorter than `count`, and is empty if only the
    /// number was needed.
    pub shown: Value,
    /// The index in `shown` of the client that sent the event, if the array has that client.
    pub own: Option<usize>,
}

impl RoomMembersScope {
    /// The members without the client that sent the event.
    pub fn others(&self) -> Value {
        let mut others = self.shown.clone();
        if let (Value::Array(others), Some(own)) = (&mut others, self.own) {
            others.remove(own);
        }
        others
    }
}

/// An error as the contract's clients see it.
#[derive(Debug, Clone, Copy)]
pub struct ShownError<'a> {
    /// The code.
    pub code: &'a str,
    /// The message.
    pub message: &'a str,
    /// How long to wait before trying again, if the time is known.
    pub retry_after: Option<Duration>,
}

/// The data that templates and rules can read while one event is handled.
#[derive(Clone)]
pub struct Scope<'a> {
    /// The user who sent the event; the anonymous user for events of backends.
    pub user: &'a User,
    /// The payload; `Null` when there is none.
    pub payload: &'a Value,
    /// The payload's JSON text. It may be left out when [`is_exact`](super::digits::is_exact) holds for the payload;
    /// then, the payload has all digits of its numbers itself.
    pub text: Option<&'a RawValue>,
    /// The routing data of a backend; `Null` for events of clients.
    pub params: &'a Value,
    /// The client's socket, if there is one.
    pub socket: Option<SocketScope<'a>>,
    /// The time. It is the same for the whole event.
    pub now: SystemTime,
    /// The room that the rule or template is about, if there is one.
    pub room: Option<&'a str>,
    /// The variables of the room's template.
    pub vars: &'a [(String, String)],
    /// All rooms that the event joins, leaves or is sent to.
    pub rooms: &'a [String],
    /// The members of the room. Read only where the contract uses them.
    pub members: Option<&'a RoomMembersScope>,
    /// The member that an event of presence is about.
    pub member: Option<&'a Value>,
    /// The room's owner, as a backend recorded it. Looked up before the rule is evaluated.
    pub owner: Option<&'a str>,
    /// The error, if there is one.
    pub error: Option<ShownError<'a>>,
    /// Checks capability tokens.
    pub capabilities: Option<&'a dyn Capabilities>,
    /// The name of the client's event, if there is one.
    pub event_name: Option<&'a str>,
    /// The value of `{event.id}`. Created at the first use; clones of the scope share it.
    pub event_id: Arc<OnceLock<String>>,
}

impl<'a> Scope<'a> {
    /// Creates a scope with a user, a payload and a time only.
    pub fn new(user: &'a User, payload: &'a Value, now: SystemTime) -> Self {
        Self {
            user,
            payload,
            text: None,
            params: &Value::Null,
            socket: None,
            now,
            room: None,
            vars: &[],
            rooms: &[],
            members: None,
            member: None,
            owner: None,
            error: None,
            capabilities: None,
            event_name: None,
            event_id: Arc::default(),
        }
    }

    /// The event's id: a UUID of version 7. All clones of this scope return the same id.
    pub fn event_id(&self) -> &str {
        self.event_id.get_or_init(|| uuid::Uuid::now_v7().to_string())
    }
}
