//! The sessions and rooms of one namespace.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use super::members::RoomMembers;
use super::session_set::{ById, SessionSet};
use crate::session::{RoomName, Session};

/// The sessions and rooms of one namespace.
#[derive(Default)]
pub(super) struct NamespaceIndex {
    pub(super) sessions: SessionSet<ById>,
    pub(super) rooms: HashMap<RoomName, IndexedRoom>,
}

/// The members of one room.
pub(super) struct IndexedRoom {
    pub(super) sessions: RoomMembers,
    pub(super) created_at: SystemTime,
}

/// A snapshot of one room.
#[derive(Debug, Clone)]
pub struct RoomSnapshot {
    /// The room's name.
    pub name: RoomName,
    /// The number of members on this node.
    pub members: usize,
    /// When the first member joined on this node, counted from the time when the room last had no member here.
    pub created_at: SystemTime,
}

impl NamespaceIndex {
    /// Removes a member. Returns true when the room is empty and was removed.
    pub(super) fn leave(&mut self, session: &Session, room: &RoomName) -> bool {
        let Some(members) = self.rooms.get_mut(room) else { return false };
        members.sessions.remove(session);
        let empty = members.sessions.is_empty();
        if empty {
            self.rooms.remove(room);
        }
        empty
    }

    pub(super) fn select<'a>(
        &'a self,
        rooms: &'a [RoomName],
        except: &'a [RoomName],
    ) -> Box<dyn Iterator<Item = &'a Arc<Session>> + 'a> {
        let not_in = self.not_in(except);
        match rooms {
            [] => Box::new(self.sessions.values().filter(not_in)),
            [room] => Box::new(self.members(room).filter(not_in)),
            _ => {
                let mut met = HashSet::new();
                let new = move |session: &&Arc<Session>| met.insert(Arc::as_ptr(session));
                Box::new(rooms.iter().flat_map(|room| self.members(room)).filter(new).filter(not_in))
            }
        }
    }

    /// Returns a filter for the sessions that are in none of these rooms.
    pub(super) fn not_in<'a>(&'a self, except: &'a [RoomName]) -> impl Fn(&&Arc<Session>) -> bool + 'a {
        let unwelcome: Vec<&IndexedRoom> = except.iter().filter_map(|room| self.rooms.get(room)).collect();
        move |session| !unwelcome.iter().any(|room| room.sessions.contains(session))
    }

    /// The sum of the members of these rooms (of the namespace, when `rooms` is empty). A session in several of the
    /// rooms counts in each.
    pub(super) fn size(&self, rooms: &[RoomName]) -> usize {
        match rooms {
            [] => self.sessions.len(),
            _ => rooms.iter().filter_map(|room| self.rooms.get(room)).map(|members| members.sessions.len()).sum(),
        }
    }

    fn members(&self, room: &RoomName) -> impl Iterator<Item = &Arc<Session>> {
        self.rooms.get(room).into_iter().flat_map(|members| members.sessions.values())
    }
}

impl IndexedRoom {
    pub(super) fn info(&self, name: &RoomName) -> RoomSnapshot {
        RoomSnapshot { name: name.clone(), members: self.sessions.len(), created_at: self.created_at }
    }
}
