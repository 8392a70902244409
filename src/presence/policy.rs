//! Which rooms list their members, and what is announced of them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::contract::model::{MemberUnit, Namespace, PresencePolicy, RoomDef};
use crate::contract::room_name::Variables;
use crate::presence::member::RoomMember;
use crate::protocol::is_reserved_room;
use crate::session::{RoomName, Session};

/// A change of a room's members, in the whole cluster, to be announced.
#[derive(Debug, Clone)]
pub struct RoomChange {
    /// The namespace's path.
    pub namespace: Arc<str>,
    /// The family of the room, whose contract asks for announcements.
    pub def: Arc<RoomDef>,
    /// The variables of the room's name.
    pub vars: Variables,
    /// The room.
    pub room: RoomName,
    /// The change.
    pub what: MemberChange,
}

/// The way in which a room's members changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// The first socket of the member joined.
    Joined(RoomMember),
    /// The last socket of the member left.
    Left(RoomMember),
    /// The metadata of a member changed.
    Metadata,
}

/// The namespaces in which rooms list their members.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    namespaces: HashMap<Arc<str>, Arc<Namespace>>,
}

impl Policies {
    /// Collects the policies of all rooms of these namespaces.
    pub fn new(namespaces: &[Arc<Namespace>]) -> Self {
        let lists = |namespace: &&Arc<Namespace>| {
            let mut rooms = namespace.contracts.iter().flat_map(|contract| contract.rooms.values());
            rooms.any(|room| policy(room).is_some())
        };
        let listing = namespaces.iter().filter(lists);
        Self { namespaces: listing.map(|namespace| (namespace.path.clone(), namespace.clone())).collect() }
    }

    /// What counts as one member of the room; `None` if the room does not list its members.
    pub(super) fn each(&self, namespace: &str, room: &str) -> Option<MemberUnit> {
        self.find(namespace, room).and_then(|(def, _)| Some(policy(def)?.each))
    }

    /// The change to be announced. `None` if the contract asks for no announcement of it.
    pub(super) fn change(&self, namespace: &Arc<str>, room: &str, what: MemberChange) -> Option<RoomChange> {
        let (def, vars) = self.find(namespace, room)?;
        let PresencePolicy { joined, left, changed, .. } = policy(def)?;
        let own = match &what {
            MemberChange::Joined(_) => joined.is_some(),
            MemberChange::Left(_) => left.is_some(),
            MemberChange::Metadata => false,
        };
        let asked = own || changed.is_some();
        asked.then(|| RoomChange { namespace: namespace.clone(), def: def.clone(), vars, room: room.into(), what })
    }

    /// The rooms of a session in which a change of its metadata is announced.
    pub(super) fn rooms_showing(&self, session: &Session) -> Vec<RoomName> {
        if !self.namespaces.contains_key(session.namespace()) {
            return Vec::new();
        }
        let shows = |room: &RoomName| {
            let found = self.find(session.namespace(), room);
            found.and_then(|(def, _)| policy(def)).is_some_and(|policy| policy.changed.is_some())
        };
        session.rooms().into_iter().filter(shows).collect()
    }

    fn find(&self, namespace: &str, room: &str) -> Option<(&Arc<RoomDef>, Variables)> {
        self.namespaces.get(namespace)?.room_of(room).filter(|_| !is_reserved_room(room))
    }
}

fn policy(def: &RoomDef) -> Option<&PresencePolicy> {
    def.presence.as_ref().filter(|policy| policy.listed)
}
