//! Which sessions and users are in which room, over the whole cluster, without asking every node.
//!
//! The index of rooms reports every change of a session or membership ([`Watcher`]) and never waits for presence. On a
//! node without Redis, presence answers questions from the index itself. With Redis, each node writes its own sessions
//! there under a lease: see `docs/presence.md`.

mod announce;
mod local;
mod member;
mod memory;
mod page;
mod policy;
mod redis;
mod roster;
mod users;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

pub use announce::RoomChanges;
pub use member::{MemberKey, RoomMember};
pub use memory::in_memory;
pub use policy::{MemberChange, Policies, RoomChange};
pub use redis::in_redis;
pub use roster::Roster;

use crate::directory::{Directory, DirectoryFuture};
use crate::room::Rooms;
use crate::session::{RoomName, Session, Watcher};

/// Maximum size of a status, as JSON, in bytes.
pub const MAX_STATUS_BYTES: usize = 1024;

/// Maximum size of the metadata that one list of a room's members shows, as JSON, in bytes.
const MAX_ROSTER_BYTES: usize = 1024 * 1024;

/// Maximum number of rooms in the answer of [`Presence::shared_rooms`].
pub const MAX_SHARED_ROOMS: usize = 10_000;

/// Presence before the index of rooms exists. The index is created with the [`PresenceRecorder::watcher`], and presence
/// is created from the index: [`PresenceRecorder::start`]. [`in_memory`] creates a recorder for a single node,
/// [`in_redis`] for a node that shares a Redis with others.
#[must_use]
pub struct PresenceRecorder {
    watcher: Arc<dyn Watcher>,
    start: Box<Start>,
}

type Start = dyn FnOnce(Arc<Rooms>) -> (Arc<dyn Presence>, RoomChanges) + Send;

impl PresenceRecorder {
    /// The half of presence to which the index of rooms reports every change.
    pub fn watcher(&self) -> Arc<dyn Watcher> {
        self.watcher.clone()
    }

    /// Creates presence from the index that reports to this recorder. Also returns the changes of rooms whose contracts
    /// ask for announcements: each join or leave at most once, and in order for each room and member. Must be called
    /// within a Tokio runtime.
    pub fn start(self, rooms: Arc<Rooms>) -> (Arc<dyn Presence>, RoomChanges) {
        (self.start)(rooms)
    }
}

/// Answers questions about sessions, rooms and users, and keeps the statuses of users.
pub trait Presence: Directory {
    /// Sets the status of the session's user. Returns false if that user may not have it ([`may_have_status`]) or has
    /// disconnected.
    ///
    /// The status takes effect on this node at once, and in the cluster with the next write. Of two statuses of a user
    /// the newer one counts, by the clocks of the nodes that set them.
    fn set_status(&self, session: &Session, status: &Value) -> bool;

    /// Returns a user's status, which is kept for `presence.status_ttl` after the user's last socket has disconnected.
    ///
    /// # Errors
    /// Returns `Unavailable` while Redis is unavailable, unless the user has a socket on this node and has set a status
    /// here.
    fn status<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> DirectoryFuture<'a, UserStatus>;

    /// Returns the rooms of all sockets of a user. Another user who is in one of these rooms shares a room with this
    /// user.
    fn shared_rooms<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> BoxFuture<'a, SharedRooms>;

    /// Returns the members of a room that lists its members, at most `most` of them, the member that joined first as
    /// the first. While Redis is unavailable, the answer has the members of this node only.
    fn roster<'a>(&'a self, namespace: &'a str, room: &'a str, most: usize) -> BoxFuture<'a, Roster>;

    /// Waits until all changes before this call are written and announced. Returns false if they could not be written.
    fn settle(&self) -> BoxFuture<'_, bool>;

    /// Removes this node's sessions from the cluster's presence, and stops.
    fn stop(&self) -> BoxFuture<'_, ()>;
}

/// Whether the user of a session may have this status. Anonymous users may have no status, and a status has at most
/// [`MAX_STATUS_BYTES`].
pub fn may_have_status(session: &Session, status: &Value) -> bool {
    !session.user().anonymous && status.to_string().len() <= MAX_STATUS_BYTES
}

/// A user's status and sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserStatus {
    /// The status that a client has set. `None` if no client has set a status, or the last one has expired.
    pub status: Option<Value>,
    /// How many sockets the user has.
    pub sockets: u64,
}

/// The rooms of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedRooms {
    /// The rooms, sorted, without the rooms that belong to a single client.
    pub rooms: Vec<RoomName>,
    /// Whether rooms may be missing, for example those of sockets on other nodes.
    pub partial: bool,
}

/// Returns a status as lists show it: a string unchanged, any other value as JSON.
fn shown(status: &Value) -> String {
    status.as_str().map_or_else(|| status.to_string(), str::to_owned)
}
