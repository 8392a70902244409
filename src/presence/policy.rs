//! Which rooms' joins and leaves are told, and as what.

use std::collections::HashMap;
use std::sync::Arc;

use crate::contract::model::{Contract, RoomDef};
use crate::presence::local::user_id;
use crate::session::{RoomName, Session};

/// What takes joins and leaves.
pub type Tell = Arc<dyn Fn(RoomChange) + Send + Sync>;

/// Who came into a room, or left it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RoomMember {
    /// A user, by id, with any number of sockets.
    User(Arc<str>),
    /// A socket of an anonymous user, by id: each counts as itself.
    Socket(Arc<str>),
}

/// How the key of an anonymous socket begins. No user id begins so ([`script_user`]).
const SOCKET_KEY: char = '\u{1}';

impl RoomMember {
    /// The member that a session is.
    pub(super) fn of(session: &Session) -> Self {
        match user_id(session) {
            Some(user) => Self::User(user),
            None => Self::Socket(session.id().into()),
        }
    }

    /// The member of a key that the scripts give: a user's id, or the character U+0001 and a socket's.
    pub(super) fn of_key(key: &str) -> Self {
        key.strip_prefix(SOCKET_KEY).map_or_else(|| Self::User(key.into()), |id| Self::Socket(id.into()))
    }
}

/// A user's id as the scripts know it: they part fields with NUL, and keys of anonymous sockets begin with U+0001.
pub(super) fn script_user(id: Arc<str>) -> Arc<str> {
    if id.contains('\0') || id.starts_with(SOCKET_KEY) { id.replace(['\0', SOCKET_KEY], "\u{fffd}").into() } else { id }
}

/// The first socket of a member came into a room, or the last one left it, over the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomChange {
    /// The namespace's path.
    pub namespace: Arc<str>,
    /// The contract that wants to know.
    pub contract: Arc<str>,
    /// The room.
    pub room: RoomName,
    /// Who.
    pub member: RoomMember,
    /// Which of both.
    pub what: What,
    /// The name of the event to be sent.
    pub event: Arc<str>,
}

/// Which of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The first socket of the member.
    Joined,
    /// The last socket of the member.
    Left,
}

/// The rooms of all contracts whose joins or leaves are told.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    namespaces: HashMap<Arc<str>, Vec<Arc<RoomDef>>>,
}

impl Policies {
    /// Those of these contracts.
    pub fn new(contracts: &[Arc<Contract>]) -> Self {
        let rooms = contracts
            .iter()
            .flat_map(|contract| contract.rooms.values().map(|room| (contract.namespace.clone(), room.clone())));
        Self::of_rooms(rooms)
    }

    /// Those of these rooms, by namespace.
    pub fn of_rooms(rooms: impl IntoIterator<Item = (Arc<str>, Arc<RoomDef>)>) -> Self {
        let mut namespaces: HashMap<_, Vec<_>> = HashMap::new();
        for (namespace, room) in rooms {
            if room.presence.as_ref().is_some_and(|policy| policy.joined.is_some() || policy.left.is_some()) {
                namespaces.entry(namespace).or_default().push(room);
            }
        }
        Self { namespaces }
    }

    /// Whether joins or leaves of the room are told.
    pub(super) fn has(&self, namespace: &str, room: &str) -> bool {
        self.find(namespace, room).is_some()
    }

    /// What is told of a join or leave, if anything.
    pub(super) fn told(&self, namespace: &Arc<str>, room: &str, member: RoomMember, what: What) -> Option<RoomChange> {
        let def = self.find(namespace, room)?;
        let policy = def.presence.as_ref()?;
        let event = match what {
            What::Joined => policy.joined.as_deref()?,
            What::Left => policy.left.as_deref()?,
        };
        Some(RoomChange {
            namespace: namespace.clone(),
            contract: def.contract.clone(),
            room: room.into(),
            member,
            what,
            event: event.into(),
        })
    }

    fn find(&self, namespace: &str, room: &str) -> Option<&Arc<RoomDef>> {
        self.namespaces.get(namespace)?.iter().find(|def| def.name.matches(room).is_some())
    }
}
