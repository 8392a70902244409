//! The recipients of an event that has too many to queue it for all at once: they are visited block by block.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashSet;

use super::Rooms;
use super::session_set::Block;
use super::table::NamespaceIndex;
use crate::session::{RoomName, Session};

/// A snapshot of the recipients, in blocks.
pub struct Recipients {
    blocks: VecDeque<RecipientBlocks>,
    /// The addresses of the sessions visited so far; `None` when no session can occur twice.
    met: Option<HashSet<usize>>,
}

struct RecipientBlocks {
    /// The room; `None` for the whole namespace.
    room: Option<RoomName>,
    number: usize,
    block: Block,
}

impl Rooms {
    /// Runs `work` on the recipients of an event (see [`Rooms::recipients`]) if the rooms have at most `most` members.
    /// While `work` runs, no session can join or leave. Returns `Err` with the number of members when there are more
    /// than `most`; a session in several of the rooms counts in each. Returns `None` when the namespace does not exist.
    ///
    /// `work` must not call the index.
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

    /// Takes a snapshot of the members of `rooms` (of the namespace, when `rooms` is empty) for [`Rooms::visit_next`].
    pub fn recipient_blocks(&self, namespace: &str, rooms: &[RoomName]) -> Recipients {
        let mut met = None;
        let blocks = self.read(namespace, |table| {
            let parts = |room: Option<&RoomName>, blocks: Vec<Block>| -> Vec<RecipientBlocks> {
                let numbered = blocks.into_iter().enumerate();
                numbered.map(|(number, block)| RecipientBlocks { room: room.cloned(), number, block }).collect()
            };
            if rooms.is_empty() {
                return parts(None, table.sessions.blocks().to_vec()).into();
            }
            // Allocated at its largest possible size, so that the set never has to grow.
            met = (rooms.len() > 1).then(|| HashSet::with_capacity(table.size(rooms)));
            let members = rooms.iter().filter_map(|room| Some((room, table.rooms.get(room)?.sessions.blocks())));
            members.flat_map(|(room, blocks)| parts(Some(room), blocks)).collect()
        });
        Recipients { blocks: blocks.unwrap_or_default(), met }
    }

    /// Runs `work` on the next block of a snapshot. Leaves out sessions that have left since the snapshot, that are in
    /// a room of `except`, or that were visited before. While `work` runs, no session can join or leave. Returns `None`
    /// when all blocks were visited.
    ///
    /// `work` must not call the index.
    pub fn visit_next<T>(
        &self,
        namespace: &str,
        except: &[RoomName],
        recipient_blocks: &mut Recipients,
        work: impl FnOnce(&mut dyn Iterator<Item = &Arc<Session>>) -> T,
    ) -> Option<T> {
        let part = recipient_blocks.blocks.pop_front()?;
        let met = &mut recipient_blocks.met;
        self.read(namespace, |table| {
            let not_in = table.not_in(except);
            let is_complete = part.is_complete(table);
            let mut sessions = part
                .block
                .iter()
                .filter(|session| is_complete || part.has(table, session))
                .filter(not_in)
                .filter(|session| met.as_mut().is_none_or(|met| met.insert(Arc::as_ptr(session).addr())));
            work(&mut sessions)
        })
    }
}

impl RecipientBlocks {
    /// Whether all sessions of the block are known to be members still. False when the block has changed, or when the
    /// room is too small to be stored in blocks.
    fn is_complete(&self, table: &NamespaceIndex) -> bool {
        match &self.room {
            None => table.sessions.still_has(self.number, &self.block),
            Some(room) => table.rooms.get(room).is_some_and(|room| room.sessions.still_has(self.number, &self.block)),
        }
    }

    /// Whether one session of the block is still a member.
    fn has(&self, table: &NamespaceIndex, session: &Session) -> bool {
        match &self.room {
            None => table.sessions.contains(session),
            Some(room) => table.rooms.get(room).is_some_and(|room| room.sessions.contains(session)),
        }
    }
}

#[cfg(test)]
mod tests;
