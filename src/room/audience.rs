//! Those who get an event, when they are so many that they are served in slices.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashSet;

use super::crowd::Block;
use super::{Rooms, Table};
use crate::session::{RoomName, Session};

/// Those who were members when it was taken, block by block.
pub struct Audience {
    blocks: VecDeque<Part>,
    /// Where those are whom it has come to; `None`: nobody can be met twice.
    met: Option<HashSet<usize>>,
}

struct Part {
    /// `None`: the whole namespace.
    room: Option<RoomName>,
    number: usize,
    block: Block,
}

impl Rooms {
    /// Works on those who would get an event (see [`Rooms::recipients`]) while nobody can join or leave, if they are at most
    /// so many; else says how many they are, one who is in several of the rooms counted in each. `None`: no such
    /// namespace.
    ///
    /// `work` must not come back to the index.
    pub fn visit_few<T>(
        &self,
        namespace: &str,
        rooms: &[RoomName],
        except: &[RoomName],
        most: usize,
        work: impl FnOnce(&mut dyn Iterator<Item = &Arc<Session>>) -> T,
    ) -> Option<Result<T, usize>> {
        self.read(namespace, |table| match table.size(rooms) {
            size if size <= most => Ok(work(&mut table.select(rooms, except))),
            size => Err(size),
        })
    }

    /// The members of `rooms` (of the namespace, when empty) as they are now, for [`Rooms::visit_next`].
    pub fn audience(&self, namespace: &str, rooms: &[RoomName]) -> Audience {
        let mut met = None;
        let blocks = self.read(namespace, |table| {
            let parts = |room: Option<&RoomName>, blocks: Vec<Block>| -> Vec<Part> {
                let numbered = blocks.into_iter().enumerate();
                numbered.map(|(number, block)| Part { room: room.cloned(), number, block }).collect()
            };
            if rooms.is_empty() {
                return parts(None, table.sessions.blocks().to_vec()).into();
            }
            // At once as large as it can become, so that it never moves.
            met = (rooms.len() > 1).then(|| HashSet::with_capacity(table.size(rooms)));
            let members = rooms.iter().filter_map(|room| Some((room, table.rooms.get(room)?.sessions.blocks())));
            members.flat_map(|(room, blocks)| parts(Some(room), blocks)).collect()
        });
        Audience { blocks: blocks.unwrap_or_default(), met }
    }

    /// Works on the next block of an audience, without those who have left since, who are in a room of `except`, or whom
    /// it has come to already, while nobody can join or leave. `None`: everybody was served.
    ///
    /// `work` must not come back to the index.
    pub fn visit_next<T>(
        &self,
        namespace: &str,
        except: &[RoomName],
        audience: &mut Audience,
        work: impl FnOnce(&mut dyn Iterator<Item = &Arc<Session>>) -> T,
    ) -> Option<T> {
        let part = audience.blocks.pop_front()?;
        let met = &mut audience.met;
        self.read(namespace, |table| {
            let welcome = table.welcome(except);
            let is_complete = part.is_complete(table);
            let mut sessions = part
                .block
                .iter()
                .filter(|session| is_complete || part.has(table, session))
                .filter(welcome)
                .filter(|session| met.as_mut().is_none_or(|met| met.insert(Arc::as_ptr(session).addr())));
            work(&mut sessions)
        })
    }
}

impl Part {
    /// Whether all of the block are still members.
    fn is_complete(&self, table: &Table) -> bool {
        match &self.room {
            None => table.sessions.still_has(self.number, &self.block),
            Some(room) => table.rooms.get(room).is_some_and(|room| room.sessions.still_has(self.number, &self.block)),
        }
    }

    /// Whether one of the block still is.
    fn has(&self, table: &Table, session: &Session) -> bool {
        match &self.room {
            None => table.sessions.contains(session),
            Some(room) => table.rooms.get(room).is_some_and(|room| room.sessions.contains(session)),
        }
    }
}

#[cfg(test)]
mod tests;
