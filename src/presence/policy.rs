//! Which rooms' joins and leaves are announced, and with which events.

use std::collections::HashMap;
use std::sync::Arc;

use crate::contract::model::{Contract, RoomDef};
use crate::presence::local::user_id;
use crate::session::{RoomName, Session};

/// A function that receives joins and leaves.
pub(super) type RoomChangeListener = Box<dyn Fn(RoomChange) + Send + Sync>;

/// A member of a room: it joins with its first socket and leaves with its last one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RoomMember {
    /// A user, by id. A user may have any number of sockets.
    User(Arc<str>),
    /// A socket of an anonymous user, by socket id. Each such socket is a separate member.
    Socket(Arc<str>),
}

/// The first character in the key of an anonymous socket. No user id begins with it ([`script_user`]).
const SOCKET_KEY: char = '\u{1}';

impl RoomMember {
    /// The member that a session counts as.
    pub(super) fn of(session: &Session) -> Self {
        match user_id(session) {
            Some(user) => Self::User(user),
            None => Self::Socket(session.id().into()),
        }
    }

    /// Reads a key from the scripts: a user's id, or U+0001 followed by a socket's id.
    pub(super) fn of_key(key: &str) -> Self {
        key.strip_prefix(SOCKET_KEY).map_or_else(|| Self::User(key.into()), |id| Self::Socket(id.into()))
    }
}

/// A user's id as it is passed to the scripts. U+0001 and NUL are replaced where the scripts would misread them:
/// scripts separate fields by NUL, and keys of anonymous sockets begin with U+0001.
pub(super) fn script_user(id: Arc<str>) -> Arc<str> {
    if id.contains('\0') || id.starts_with(SOCKET_KEY) { id.replace(['\0', SOCKET_KEY], "\u{fffd}").into() } else { id }
}

/// The first socket of a member has joined a room, or the last one has left it, in the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomChange {
    /// The namespace's path.
    pub namespace: Arc<str>,
    /// The contract that asks for the announcement.
    pub contract: Arc<str>,
    /// The room.
    pub room: RoomName,
    /// The member that joined or left.
    pub member: RoomMember,
    /// Whether the member joined or left.
    pub what: MemberChange,
    /// The name of the event to be sent.
    pub event: Arc<str>,
}

/// Whether a member joined or left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// The first socket of the member joined.
    Joined,
    /// The last socket of the member left.
    Left,
}

/// The rooms of all contracts whose joins or leaves are announced.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    namespaces: HashMap<Arc<str>, Vec<Arc<RoomDef>>>,
}

impl Policies {
    /// Collects the policies of all rooms of these contracts.
    pub fn new(contracts: &[Arc<Contract>]) -> Self {
        let rooms = contracts
            .iter()
            .flat_map(|contract| contract.rooms.values().map(|room| (contract.namespace.clone(), room.clone())));
        Self::of_rooms(rooms)
    }

    /// Collects the policies of these rooms, each with its namespace.
    pub fn of_rooms(rooms: impl IntoIterator<Item = (Arc<str>, Arc<RoomDef>)>) -> Self {
        let mut namespaces: HashMap<_, Vec<_>> = HashMap::new();
        for (namespace, room) in rooms {
            if room.presence.as_ref().is_some_and(|policy| policy.joined.is_some() || policy.left.is_some()) {
                namespaces.entry(namespace).or_default().push(room);
            }
        }
        Self { namespaces }
    }

    /// Whether joins or leaves of the room are announced.
    pub(super) fn has(&self, namespace: &str, room: &str) -> bool {
        self.find(namespace, room).is_some()
    }

    /// The change to be announced when a member joins or leaves. `None` if the contract does not ask for the
    /// announcement.
    pub(super) fn told(
        &self,
        namespace: &Arc<str>,
        room: &str,
        member: RoomMember,
        what: MemberChange,
    ) -> Option<RoomChange> {
        let def = self.find(namespace, room)?;
        let policy = def.presence.as_ref()?;
        let event = match what {
            MemberChange::Joined => policy.joined.as_deref()?,
            MemberChange::Left => policy.left.as_deref()?,
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
