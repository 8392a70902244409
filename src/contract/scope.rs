//! What templates and rules see.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use serde_json::Value;

use crate::error::Refusal;
use crate::user::User;

/// Answers whether a one-room capability token grants a room. `auth` implements it.
pub trait Capabilities: Send + Sync {
    /// True when the token is valid now and names this room (and this user, if it names one).
    fn grants(&self, token: &str, room: &str, user_id: &str) -> bool;
}

/// The socket as rules and templates see it.
#[derive(Debug, Clone, Copy)]
pub struct SocketScope<'a> {
    /// The socket's id.
    pub id: &'a str,
    /// When it connected.
    pub connected_at: SystemTime,
}

/// What templates and rules see while one event is handled.
#[derive(Clone)]
pub struct Scope<'a> {
    /// Who sent it; the anonymous user for backends.
    pub user: &'a User,
    /// The payload, `Null` when there is none.
    pub payload: &'a Value,
    /// Routing data of a backend, `Null` for clients.
    pub params: &'a Value,
    /// The socket, where there is one.
    pub socket: Option<SocketScope<'a>>,
    /// One instant for the whole event.
    pub now: SystemTime,
    /// The room in question, where there is one.
    pub room: Option<&'a str>,
    /// The variables of the room's template.
    pub vars: &'a [(String, String)],
    /// All rooms joined, left or sent to.
    pub rooms: &'a [String],
    /// Who the backend said owns the room; looked up before the rule is asked.
    pub owner: Option<&'a str>,
    /// What went wrong, where something did: the code as the contract's clients know it.
    pub error: Option<(&'a str, &'a Refusal)>,
    /// Capability tokens.
    pub capabilities: Option<&'a dyn Capabilities>,
    /// `{event.id}`, made at the first use; clones share it.
    pub event_id: Arc<OnceLock<String>>,
}

impl<'a> Scope<'a> {
    /// A scope with a user and a payload, and nothing else.
    pub fn new(user: &'a User, payload: &'a Value, now: SystemTime) -> Self {
        Self {
            user,
            payload,
            params: &Value::Null,
            socket: None,
            now,
            room: None,
            vars: &[],
            rooms: &[],
            owner: None,
            error: None,
            capabilities: None,
            event_id: Arc::default(),
        }
    }

    /// The event's id: a UUID of version 7, the same wherever this scope is asked.
    pub fn event_id(&self) -> &str {
        self.event_id.get_or_init(|| uuid::Uuid::now_v7().to_string())
    }
}
