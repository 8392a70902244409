//! Lists of sessions that cost little: most rooms are one client's own.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use indexmap::IndexSet;

use crate::session::Session;

/// The members of a room: a word for one, a table for more. Joining and leaving are O(1).
#[derive(Default)]
pub(super) enum Roster {
    #[default]
    Empty,
    One(Arc<Session>),
    Many(Box<IndexSet<ByPlace>>),
}

impl Roster {
    /// Adds a session. False when it was there.
    pub(super) fn insert(&mut self, session: &Arc<Session>) -> bool {
        let one = match self {
            Self::Many(all) => return all.insert(ByPlace(session.clone())),
            Self::Empty => None,
            Self::One(one) if Arc::ptr_eq(one, session) => return false,
            Self::One(one) => Some(one.clone()),
        };
        *self = match one {
            None => Self::One(session.clone()),
            Some(one) => Self::Many(Box::new([one, session.clone()].map(ByPlace).into())),
        };
        true
    }

    /// Removes a session. False when it was not there.
    pub(super) fn remove(&mut self, session: &Session) -> bool {
        match self {
            Self::Empty => false,
            Self::One(one) => {
                let was = std::ptr::eq(&**one, session);
                if was {
                    *self = Self::Empty;
                }
                was
            }
            Self::Many(all) => {
                let was = all.swap_remove(&Place::of(session));
                if let (1, Some(ByPlace(last))) = (all.len(), all.first()) {
                    *self = Self::One(last.clone());
                }
                was
            }
        }
    }

    pub(super) fn contains(&self, session: &Session) -> bool {
        match self {
            Self::Empty => false,
            Self::One(one) => std::ptr::eq(&**one, session),
            Self::Many(all) => all.contains(&Place::of(session)),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Many(all) => all.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Session>> {
        let (one, many) = match self {
            Self::Empty => (None, None),
            Self::One(one) => (Some(one), None),
            Self::Many(all) => (None, Some(all)),
        };
        one.into_iter().chain(many.into_iter().flat_map(|all| all.iter().map(|ByPlace(session)| session)))
    }
}

/// Where a session is: nobody else is there as long as it is in a list.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Place(usize);

impl Place {
    fn of(session: &Session) -> Self {
        Self(std::ptr::from_ref(session).addr())
    }
}

/// A session, found by where it is.
pub(super) struct ByPlace(Arc<Session>);

impl indexmap::Equivalent<ByPlace> for Place {
    fn equivalent(&self, other: &ByPlace) -> bool {
        *self == Self::of(&other.0)
    }
}

impl Hash for ByPlace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Place::of(&self.0).hash(state);
    }
}

impl PartialEq for ByPlace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ByPlace {}

/// A session, found by its id.
pub(super) struct ById(pub(super) Arc<Session>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        self.0.id()
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for ById {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::event::{Args, Event};
    use crate::session::{AckId, Close, Link, Peer, RoomName, SendError};
    use crate::user::User;

    struct Nowhere;

    impl Link for Nowhere {
        fn send(&self, _: &Event) -> Result<(), SendError> {
            Ok(())
        }
        fn ack(&self, _: AckId, _: &Args) -> Result<(), SendError> {
            Ok(())
        }
        fn joined(&self, _: &RoomName) {}
        fn left(&self, _: &RoomName) {}
        fn close(&self, _: Close) {}
    }

    fn session(id: usize) -> Arc<Session> {
        let peer = Peer { ip: [127, 0, 0, 1].into(), transport: "websocket", user_agent: None };
        Session::new(id.to_string(), "/".into(), Arc::new(User::anonymous()), peer, Box::new(Nowhere))
    }

    proptest! {
        #[test]
        fn roster_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0usize..6), 0..60)) {
            let sessions: Vec<_> = (0..6).map(session).collect();
            let (mut roster, mut wanted) = (Roster::default(), BTreeSet::new());
            for (comes, who) in steps {
                if comes {
                    prop_assert_eq!(roster.insert(&sessions[who]), wanted.insert(who));
                } else {
                    prop_assert_eq!(roster.remove(&sessions[who]), wanted.remove(&who));
                }
                let mut found: Vec<usize> = roster.values().map(|session| session.id().parse().unwrap()).collect();
                found.sort_unstable();
                prop_assert_eq!(found, wanted.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!((roster.len(), roster.is_empty()), (wanted.len(), wanted.is_empty()));
                prop_assert!((0..6).all(|who| roster.contains(&sessions[who]) == wanted.contains(&who)));
            }
        }
    }

    #[test]
    fn a_room_of_one_is_a_word() {
        assert!(size_of::<Roster>() <= 16);
    }
}
