//! The rooms that a session is in. The index of rooms is the only one that changes them.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::{RoomName, Session};

/// Prefix of the rooms that belong to one socket or one user.
const OWN_ROOMS: char = '$';

impl Session {
    /// The names of all rooms that the session is in, its own and its user's included, sorted.
    pub fn rooms(&self) -> Vec<RoomName> {
        self.with(|state| state.rooms.names())
    }

    /// The number of rooms that the session has joined, not counting its own room and its user's.
    pub fn joined_rooms(&self) -> usize {
        self.with(|state| state.rooms.keys().filter(|room| !room.starts_with(OWN_ROOMS)).count())
    }

    /// When the session joined the room; `None` when it is not a member.
    pub fn joined_at(&self, room: &str) -> Option<SystemTime> {
        self.with(|state| state.rooms.get(room))
    }

    /// Whether the session is a member of the room.
    pub fn is_in(&self, room: &str) -> bool {
        self.with(|state| state.rooms.get(room).is_some())
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.with(|state| state.closed)
    }

    // Only the room index calls these methods, so that its own lists and the session's list stay equal.

    pub(crate) fn note_joined(&self, room: &RoomName, then: SystemTime) -> bool {
        let new = self.with(|state| !state.closed && state.rooms.insert(room, then));
        if new && let Some(offsets) = &self.offsets {
            offsets.enter(room);
        }
        new
    }

    pub(crate) fn note_left(&self, room: &RoomName) -> bool {
        let was = self.with(|state| state.rooms.remove(room));
        if was {
            if self.replays_used.load(Ordering::Acquire) {
                self.with_replays(|replays| replays.left(room));
            }
            if let Some(offsets) = &self.offsets {
                offsets.leave(room);
            }
        }
        was
    }

    pub(crate) fn note_closed(&self) -> Vec<RoomName> {
        self.with(|state| {
            state.closed = true;
            state.rooms.take()
        })
    }
}
