//! The members of one room, stored so that small rooms take little memory, because most rooms have one client only.

use std::sync::Arc;

use super::session_set::{Block, ByAddress, SessionSet};
use crate::session::Session;

/// Maximum number of members that are stored in a list, which is searched linearly.
const FEW: usize = 16;

/// The members of a room: one pointer for a single member, a list for a few members, a table for more. Joining and
/// leaving are O(1).
#[derive(Default)]
pub(super) enum RoomMembers {
    #[default]
    Empty,
    One(Arc<Session>),
    #[expect(clippy::box_collection, reason = "most rooms have one member, and are to be small")]
    Few(Box<Vec<Arc<Session>>>),
    Many(Box<SessionSet<ByAddress>>),
}

impl RoomMembers {
    /// Adds a session. Returns false when the session is a member already.
    pub(super) fn insert(&mut self, session: &Arc<Session>) -> bool {
        let grown = match self {
            Self::Many(all) => return all.insert(session),
            _ if self.contains(session) => return false,
            Self::Few(few) if few.len() < FEW => {
                few.push(session.clone());
                return true;
            }
            Self::Empty => Self::One(session.clone()),
            Self::One(one) => Self::Few(Box::new(vec![one.clone(), session.clone()])),
            Self::Few(few) => {
                let mut all = SessionSet::default();
                for member in few.iter().chain([session]) {
                    all.insert(member);
                }
                Self::Many(Box::new(all))
            }
        };
        *self = grown;
        true
    }

    /// Removes a session. Returns false when the session was not a member.
    pub(super) fn remove(&mut self, session: &Session) -> bool {
        let (was, shrunk) = match self {
            Self::Empty => (false, None),
            Self::One(one) if std::ptr::eq(&**one, session) => (true, Some(Self::Empty)),
            Self::One(_) => (false, None),
            Self::Few(few) => {
                let found = few.iter().position(|member| std::ptr::eq(&**member, session));
                found.map(|place| few.swap_remove(place));
                let last = if let [last] = &few[..] { Some(Self::One(last.clone())) } else { None };
                (found.is_some(), last)
            }
            Self::Many(all) => {
                let was = all.remove(session);
                // The table becomes a list at half the size at which the list became a table, so that the members are
                // not moved between the two with every join and leave.
                let few = all.len() <= FEW / 2;
                (was, few.then(|| Self::Few(Box::new(all.values().cloned().collect()))))
            }
        };
        if let Some(shrunk) = shrunk {
            *self = shrunk;
        }
        was
    }

    pub(super) fn contains(&self, session: &Session) -> bool {
        match self {
            Self::Many(all) => all.contains(session),
            _ => self.values().any(|member| std::ptr::eq(&**member, session)),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Few(few) => few.len(),
            Self::Many(all) => all.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Session>> {
        let (few, blocks) = match self {
            Self::Empty => (&[][..], &[][..]),
            Self::One(one) => (std::slice::from_ref(one), &[][..]),
            Self::Few(few) => (&few[..], &[][..]),
            Self::Many(all) => (&[][..], all.blocks()),
        };
        few.iter().chain(blocks.iter().flat_map(|block| block.iter()))
    }

    /// A snapshot of the members, for a caller that visits them slowly.
    pub(super) fn blocks(&self) -> Vec<Block> {
        match self {
            Self::Empty => Vec::new(),
            Self::Many(all) => all.blocks().to_vec(),
            _ => vec![Arc::new(self.values().cloned().collect())],
        }
    }

    /// Whether the block with this number is unchanged since the caller took it from [`RoomMembers::blocks`]. Always
    /// false while the members are not stored in a table, because only a table keeps its blocks.
    pub(super) fn still_has(&self, number: usize, block: &Block) -> bool {
        matches!(self, Self::Many(all) if all.still_has(number, block))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::session::recorder::Recorder;
    use crate::user::User;

    fn session(id: usize) -> Arc<Session> {
        Recorder::default().session("/", &id.to_string(), User::anonymous())
    }

    fn ids<'a>(sessions: impl Iterator<Item = &'a Arc<Session>>) -> Vec<usize> {
        let mut ids: Vec<usize> = sessions.map(|session| session.id().parse().unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    proptest! {
        #[test]
        fn roster_is_a_set_and_who_took_its_blocks_keeps_them(
            first in 0usize..300,
            steps in proptest::collection::vec((any::<bool>(), 0usize..300), 0..200),
        ) {
            let sessions: Vec<_> = (0..300).map(session).collect();
            let (mut members, mut wanted) = (RoomMembers::default(), BTreeSet::new());
            for (who, session) in sessions[..first].iter().enumerate() {
                prop_assert_eq!(members.insert(session), wanted.insert(who));
            }
            let taken = members.blocks();
            for (comes, who) in steps {
                if comes {
                    prop_assert_eq!(members.insert(&sessions[who]), wanted.insert(who));
                } else {
                    prop_assert_eq!(members.remove(&sessions[who]), wanted.remove(&who));
                }
                prop_assert_eq!(ids(members.values()), wanted.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!((members.len(), members.is_empty()), (wanted.len(), wanted.is_empty()));
                prop_assert_eq!(members.contains(&sessions[who]), wanted.contains(&who));
            }
            prop_assert_eq!(ids(taken.iter().flat_map(|block| block.iter())), (0..first).collect::<Vec<_>>());
            for (number, block) in taken.iter().enumerate().filter(|(number, block)| members.still_has(*number, block)) {
                prop_assert!(block.iter().all(|session| members.contains(session)), "block {}", number);
            }
        }
    }

    #[test]
    fn a_room_of_one_is_a_word() {
        assert!(size_of::<RoomMembers>() <= 16);
    }
}
