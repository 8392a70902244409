//! Who is in which room, over the cluster, without asking every node.
//!
//! The index of rooms tells of every session and membership as it changes ([`Watcher`]); nothing here makes it wait. In
//! memory the index itself is the answer. With Redis, each node writes what it has under a lease: `docs/presence.md`.

mod local;
mod memory;
mod page;
mod policy;
mod redis;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

pub use memory::Memory;
pub use policy::{Policies, RoomChange, RoomMember, Tell, What};
pub use redis::Cluster;

use crate::directory::{Answer, Directory};
use crate::room::Rooms;
use crate::session::{RoomName, Session, Watcher};

/// A status is not longer, as JSON in bytes.
pub const MAX_STATUS_BYTES: usize = 1024;

/// At most so many rooms are answered by [`Presence::shared_rooms`].
pub const MAX_SHARED_ROOMS: usize = 10_000;

/// Who is where. [`Memory`] for a node alone, [`Cluster`] for nodes that share a Redis.
///
/// Make it before the index of rooms, let it watch that index ([`Rooms::watched_by`]), then start it.
pub trait Presence: Directory + Watcher {
    /// Begins: `tell` gets the joins and leaves of members of rooms whose contracts want them, in order for each room
    /// and member, at most once each. It is called on a task of this part and must not wait.
    fn start(&self, rooms: &Arc<Rooms>, tell: Tell);

    /// Sets the status of the session's user. False when the session's user may not have it ([`may_have_status`]), or is
    /// gone.
    ///
    /// Known on this node at once, in the cluster with the next write. The newer of two statuses counts, by the clocks
    /// of their nodes.
    fn set_status(&self, session: &Session, status: &Value) -> bool;

    /// A user's status, kept for `presence.status_ttl` after the last socket is gone.
    ///
    /// # Errors
    /// `Unavailable` while Redis is away, unless the user has a socket on this node that set one.
    fn status<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> Answer<'a, UserStatus>;

    /// The rooms of all sockets of a user: whoever is in any of them shares a room with the user.
    fn shared_rooms<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> BoxFuture<'a, SharedRooms>;

    /// Waits until what has happened before is written; false when it is not for some reason.
    fn settle(&self) -> BoxFuture<'_, bool>;

    /// Takes this node's sessions out of the cluster, and ends.
    fn stop(&self) -> BoxFuture<'_, ()>;
}

/// Whether the user of a session may have this status: an anonymous user has none, and no status is larger than
/// [`MAX_STATUS_BYTES`].
pub fn may_have_status(session: &Session, status: &Value) -> bool {
    !session.user().anonymous && status.to_string().len() <= MAX_STATUS_BYTES
}

/// What is known of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserStatus {
    /// As a client has set it; `None`: never, or too long ago.
    pub status: Option<Value>,
    /// How many sockets the user has.
    pub sockets: u64,
}

/// The rooms of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedRooms {
    /// Without the clients' own, sorted.
    pub rooms: Vec<RoomName>,
    /// Rooms of sockets on other nodes may be missing.
    pub partial: bool,
}

/// Unix time in ms.
fn millis(at: std::time::SystemTime) -> u64 {
    at.duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The way back; what a clock cannot say becomes 1970.
fn from_millis(ms: u64) -> std::time::SystemTime {
    std::time::SystemTime::UNIX_EPOCH
        .checked_add(std::time::Duration::from_millis(ms))
        .unwrap_or(std::time::SystemTime::UNIX_EPOCH)
}

/// A status as lists show it: a string as it is, anything else as JSON.
fn shown(status: &Value) -> String {
    status.as_str().map_or_else(|| status.to_string(), str::to_owned)
}
