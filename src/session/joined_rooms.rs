//! The rooms of one session, as a sorted list: most sessions are in few rooms.

use std::time::SystemTime;

use super::RoomName;

/// Initial capacity of the list: the session's own room, its user's room, and one more.
const FIRST: usize = 3;

#[derive(Default)]
pub(super) struct JoinedRooms(Vec<(RoomName, SystemTime)>);

impl JoinedRooms {
    /// Adds a room with the time of the join. Returns false when the session is already in it.
    pub(super) fn insert(&mut self, room: &RoomName, then: SystemTime) -> bool {
        let Err(at) = self.find(room) else { return false };
        if self.0.capacity() == 0 {
            self.0.reserve_exact(FIRST);
        }
        self.0.insert(at, (room.clone(), then));
        debug_assert!(self.0.is_sorted_by(|(one, _), (other, _)| one < other), "the rooms are not sorted");
        true
    }

    /// Removes a room. Returns false when the session was not in it.
    pub(super) fn remove(&mut self, room: &str) -> bool {
        let found = self.find(room).map(|at| self.0.remove(at)).is_ok();
        if self.0.capacity() > FIRST && self.0.capacity() > self.0.len() * 4 {
            self.0.shrink_to(self.0.len() * 2);
        }
        found
    }

    /// When the room was joined.
    pub(super) fn get(&self, room: &str) -> Option<SystemTime> {
        self.find(room).ok().map(|at| self.0[at].1)
    }

    /// Iterates over the rooms in the order of their names.
    pub(super) fn keys(&self) -> impl Iterator<Item = &RoomName> {
        self.0.iter().map(|(room, _)| room)
    }

    /// The names of all rooms, sorted.
    pub(super) fn names(&self) -> Vec<RoomName> {
        self.0.iter().map(|(room, _)| room.clone()).collect()
    }

    /// Removes and returns all rooms.
    pub(super) fn take(&mut self) -> Vec<RoomName> {
        std::mem::take(&mut self.0).into_iter().map(|(room, _)| room).collect()
    }

    fn find(&self, room: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(room))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn list_is_a_set(steps in proptest::collection::vec((0u8..3, 0u8..9), 0..60)) {
            let (mut joined, mut wanted) = (JoinedRooms::default(), BTreeSet::new());
            for (step, room) in steps {
                let room: RoomName = room.to_string().into();
                match step {
                    0 => prop_assert_eq!(joined.remove(&room), wanted.remove(&room)),
                    _ => prop_assert_eq!(joined.insert(&room, SystemTime::now()), wanted.insert(room.clone())),
                }
                prop_assert_eq!(joined.get(&room).is_some(), wanted.contains(&room));
                prop_assert_eq!(joined.names(), wanted.iter().cloned().collect::<Vec<_>>());
            }
            prop_assert_eq!(joined.take().len(), wanted.len());
            prop_assert!(joined.names().is_empty());
        }
    }
}
