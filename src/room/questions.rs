//! What the index knows about sessions, rooms and users.

use std::sync::Arc;

use super::Rooms;
use super::table::{NamespaceIndex, RoomSnapshot};
use crate::protocol::{is_reserved_room, user_of};
use crate::session::{RoomName, Session};

/// Counts of the sessions, rooms and users in one namespace of this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NamespaceCounts {
    /// The number of sessions.
    pub sessions: usize,
    /// The number of rooms with members. Rooms that belong to one socket or user are not counted.
    pub rooms: usize,
    /// The sum of the members of the rooms that `rooms` counts.
    pub memberships: usize,
    /// The number of authenticated users with at least one session.
    pub users: usize,
}

impl Rooms {
    /// Finds a session by its id.
    pub fn session(&self, namespace: &str, id: &str) -> Option<Arc<Session>> {
        self.read(namespace, |table| table.sessions.get(id).cloned()).flatten()
    }

    /// All sessions of the namespace on this node.
    pub fn sessions(&self, namespace: &str) -> Vec<Arc<Session>> {
        self.read(namespace, |table| table.sessions.values().cloned().collect()).unwrap_or_default()
    }

    /// The recipients of an event: the members of `rooms` (of the whole namespace, when empty) that are in no room of
    /// `except`. Each session appears once.
    pub fn recipients(&self, namespace: &str, rooms: &[RoomName], except: &[RoomName]) -> Vec<Arc<Session>> {
        self.read(namespace, |table| table.select(rooms, except).cloned().collect()).unwrap_or_default()
    }

    /// The number of recipients of an event; see [`Rooms::recipients`].
    pub fn count(&self, namespace: &str, rooms: &[RoomName], except: &[RoomName]) -> usize {
        self.read(namespace, |table| match (rooms, except) {
            ([] | [_], []) => table.size(rooms),
            _ => table.select(rooms, except).count(),
        })
        .unwrap_or(0)
    }

    /// The number of sessions that the namespace has on this node.
    pub fn session_count(&self, namespace: &str) -> usize {
        self.read(namespace, |table| table.sessions.len()).unwrap_or(0)
    }

    /// The rooms of the namespace on this node, without the rooms that belong to one socket or user.
    pub fn rooms(&self, namespace: &str) -> Vec<RoomSnapshot> {
        self.read(namespace, |table| {
            table
                .rooms
                .iter()
                .filter(|(name, _)| !is_reserved_room(name))
                .map(|(name, members)| members.info(name))
                .collect()
        })
        .unwrap_or_default()
    }

    /// The number of rooms that the namespace has on this node, without the rooms that belong to one socket or user.
    pub fn room_count(&self, namespace: &str) -> usize {
        self.read(namespace, |table| table.rooms.keys().filter(|name| !is_reserved_room(name)).count()).unwrap_or(0)
    }

    /// Finds a room by its name.
    pub fn room(&self, namespace: &str, name: &str) -> Option<RoomSnapshot> {
        self.read(namespace, |table| table.rooms.get_key_value(name).map(|(name, members)| members.info(name)))
            .flatten()
    }

    /// Counts the sessions, rooms and users of a namespace. The call visits every room, so call it seldom.
    pub fn namespace_counts(&self, namespace: &str) -> NamespaceCounts {
        let count = |table: &NamespaceIndex| {
            let mut namespace_counts = NamespaceCounts { sessions: table.sessions.len(), ..NamespaceCounts::default() };
            for (name, members) in &table.rooms {
                if !is_reserved_room(name) {
                    namespace_counts.rooms += 1;
                    namespace_counts.memberships += members.sessions.len();
                } else if user_of(name).is_some() {
                    namespace_counts.users += 1;
                }
            }
            namespace_counts
        };
        self.read(namespace, count).unwrap_or_default()
    }

    /// Whether a room has members on this node.
    pub fn has_members(&self, namespace: &str, room: &str) -> bool {
        self.read(namespace, |table| table.rooms.contains_key(room)).unwrap_or(false)
    }
}
