//! Changes to be written to Redis, as arguments of a script.

use std::sync::Arc;

use fred::types::Value;
use tokio::sync::oneshot;

use crate::contract::model::MemberUnit;
use crate::presence::Policies;
use crate::presence::local::is_kept;
use crate::presence::member::{script_user, user_id};
use crate::presence::users::TimedStatus;
use crate::session::{RoomName, Session};
use crate::time::unix_millis;

/// An entry in the queue of the writer.
pub(super) enum WriterItem {
    /// A change, with the position of its namespace in `spaces`.
    Change(usize, PresenceChange),
    /// A barrier, which is answered when every item before it is written.
    Barrier(oneshot::Sender<()>),
}

/// A change of one session or user. Applying it twice has no further effect.
pub(super) enum PresenceChange {
    /// A session was opened.
    Opened { id: Arc<str>, user: Arc<str>, transport: &'static str, at_ms: u64, metadata: String },
    /// A session joined a room.
    Joined { id: Arc<str>, user: Arc<str>, room: RoomName, at_ms: u64, listed: ListedBy },
    /// A session left a room.
    Left { id: Arc<str>, user: Arc<str>, room: RoomName, listed: ListedBy },
    /// A session was closed, and left these rooms.
    Closed { id: Arc<str>, user: Arc<str>, rooms: Vec<(RoomName, ListedBy)> },
    /// A session has new metadata. The change is announced in these rooms.
    Metadata { id: Arc<str>, metadata: String, rooms: Vec<RoomName> },
    /// A user has a new status.
    Status { user: Arc<str>, status: TimedStatus },
}

/// What counts as one member in the list of a room's members; `None` if the room has no such list.
type ListedBy = Option<MemberUnit>;

// === impl Change ===

impl PresenceChange {
    pub(super) fn opened(session: &Session) -> Self {
        Self::Opened {
            id: session.id().into(),
            user: user_text(session),
            transport: session.peer().transport,
            at_ms: unix_millis(session.connected_at()),
            metadata: metadata_text(session),
        }
    }

    pub(super) fn metadata(session: &Session, policies: &Policies) -> Self {
        let rooms = policies.rooms_showing(session);
        Self::Metadata { id: session.id().into(), metadata: metadata_text(session), rooms }
    }

    /// Creates the change. `None` if presence does not record the room, or the session has left it again.
    pub(super) fn joined(session: &Session, room: &RoomName, policies: &Policies) -> Option<Self> {
        let at_ms = unix_millis(session.joined_at(room).filter(|_| is_kept(room))?);
        let user = user_text(session);
        let listed = policies.each(session.namespace(), room);
        Some(Self::Joined { id: session.id().into(), user, room: room.clone(), at_ms, listed })
    }

    /// Creates the change. `None` if presence does not record the room.
    pub(super) fn left(session: &Session, room: &RoomName, policies: &Policies) -> Option<Self> {
        if !is_kept(room) {
            return None;
        }
        let user = user_text(session);
        let listed = policies.each(session.namespace(), room);
        Some(Self::Left { id: session.id().into(), user, room: room.clone(), listed })
    }

    pub(super) fn closed(session: &Session, rooms: &[RoomName], policies: &Policies) -> Self {
        let user = user_text(session);
        let rooms = rooms
            .iter()
            .filter(|room| is_kept(room))
            .map(|room| (room.clone(), policies.each(session.namespace(), room)))
            .collect();
        Self::Closed { id: session.id().into(), user, rooms }
    }

    /// All changes that describe a session as it is now. Empty if the session is closed.
    pub(super) fn all_of(session: &Session, policies: &Policies) -> Vec<Self> {
        if session.is_closed() {
            return Vec::new();
        }
        let rooms = session.rooms();
        let joins = rooms.iter().filter_map(|room| Self::joined(session, room, policies));
        std::iter::once(Self::opened(session)).chain(joins).collect()
    }

    /// The number of writes that the change causes.
    pub(super) fn weight(&self) -> u64 {
        if let Self::Closed { rooms, .. } = self { rooms.len() as u64 + 1 } else { 1 }
    }

    /// Appends the change to the arguments of the script.
    pub(super) fn write(&self, args: &mut Vec<Value>) {
        let unit = |listed: ListedBy| match listed {
            None => "0",
            Some(MemberUnit::User) => "u",
            Some(MemberUnit::Socket) => "s",
        };
        match self {
            Self::Opened { id, user, transport, at_ms, metadata } => {
                push(args, &["o", id, user, transport, &at_ms.to_string(), metadata]);
            }
            Self::Joined { id, user, room, at_ms, listed } => {
                push(args, &["j", id, user, room, &at_ms.to_string(), unit(*listed)]);
            }
            Self::Left { id, user, room, listed } => push(args, &["l", id, user, room, unit(*listed)]),
            Self::Closed { id, user, rooms } => {
                for (room, listed) in rooms {
                    push(args, &["l", id, user, room, unit(*listed)]);
                }
                push(args, &["c", id]);
            }
            Self::Metadata { id, metadata, rooms: _ } => push(args, &["m", id, metadata]),
            Self::Status { user, status } => {
                push(args, &["s", user, &status.at_ms.to_string(), &status.value.to_string()]);
            }
        }
    }
}

fn push(args: &mut Vec<Value>, parts: &[&str]) {
    args.extend(parts.iter().map(|part| Value::from(*part)));
}

/// The user's id, empty for anonymous users.
fn user_text(session: &Session) -> Arc<str> {
    script_user(user_id(session).unwrap_or_default())
}

fn metadata_text(session: &Session) -> String {
    serde_json::Value::Object(session.metadata()).to_string()
}
