//! The lists of the members of rooms.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde_json::Value;

use super::member::{MemberKey, RoomMember};
use crate::contract::model::{MemberUnit, PresencePolicy};
use crate::contract::scope::{RoomMembersScope, Scope};
use crate::session::{RoomName, Session};
use crate::time::unix_millis;
use crate::user::User;

/// The members of a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// The number of members.
    pub count: u64,
    /// The members that joined first, in the order in which they joined. The list ends at the requested number, and
    /// where the metadata of its members would have more than 1 MiB.
    pub members: Vec<RoomMember>,
    /// True if members may be missing, for example those on other nodes.
    pub partial: bool,
}

impl Roster {
    /// The members as the contract shows them to clients. `own` is the session of the client that asks.
    pub fn shown(
        &self,
        policy: &PresencePolicy,
        room: &str,
        vars: &[(String, String)],
        own: Option<&Session>,
    ) -> RoomMembersScope {
        let user = User::nobody();
        let mut scope = Scope::new(&user, &Value::Null, SystemTime::now());
        (scope.room, scope.vars) = (Some(room), vars);
        let show = |member: &RoomMember| {
            let member = member.to_json();
            let scope = Scope { member: Some(&member), ..scope.clone() };
            serde_json::to_value(policy.show.render(&scope)).unwrap_or_default()
        };
        let own = own.map(|session| MemberKey::of(session, policy.each));
        RoomMembersScope {
            count: self.count,
            shown: self.members.iter().map(show).collect(),
            own: own.and_then(|own| self.members.iter().position(|member| member.key == own)),
        }
    }
}

/// The lists of the rooms on this node. The index of rooms reports each join and leave.
#[derive(Default)]
pub(super) struct LocalRosters(Mutex<HashMap<(Arc<str>, RoomName), RoomRoster>>);

#[derive(Default)]
struct RoomRoster {
    members: HashMap<MemberKey, LocalMember>,
    /// The members in the order in which they joined.
    order: BTreeMap<u64, MemberKey>,
    next: u64,
}

struct LocalMember {
    number: u64,
    joined_at_ms: u64,
    sockets: Vec<Arc<str>>,
}

/// A member of a room on this node.
pub(super) struct ListedMember {
    pub(super) each: MemberUnit,
    pub(super) joined_at_ms: u64,
    /// One of the member's sockets.
    pub(super) socket: Arc<str>,
}

impl LocalRosters {
    /// Notes that a session has joined a room. Returns when the member joined if this is the member's first socket.
    pub(super) fn joined(&self, session: &Session, room: &RoomName, each: MemberUnit) -> Option<u64> {
        let now = unix_millis(session.joined_at(room).unwrap_or_else(SystemTime::now));
        let mut rooms = self.0.lock().expect("no thread panics while it holds this lock");
        let roster = rooms.entry((session.namespace().clone(), room.clone())).or_default();
        let key = MemberKey::of(session, each);
        if let Some(member) = roster.members.get_mut(&key) {
            member.sockets.push(session.id().into());
            return None;
        }
        let number = roster.next;
        roster.next += 1;
        roster.order.insert(number, key.clone());
        let member = LocalMember { number, joined_at_ms: now, sockets: vec![session.id().into()] };
        roster.members.insert(key, member);
        Some(now)
    }

    /// Notes that a session has left a room. Returns when the member had joined if this was the member's last socket.
    pub(super) fn left(&self, session: &Session, room: &RoomName, each: MemberUnit) -> Option<u64> {
        let mut rooms = self.0.lock().expect("no thread panics while it holds this lock");
        let place = (session.namespace().clone(), room.clone());
        let roster = rooms.get_mut(&place)?;
        let key = MemberKey::of(session, each);
        let member = roster.members.get_mut(&key)?;
        member.sockets.retain(|socket| **socket != *session.id());
        if !member.sockets.is_empty() {
            return None;
        }
        let LocalMember { number, joined_at_ms, .. } = roster.members.remove(&key)?;
        roster.order.remove(&number);
        if roster.members.is_empty() {
            rooms.remove(&place);
        }
        Some(joined_at_ms)
    }

    /// The number of members of a room, and the first `most` of them.
    pub(super) fn list(&self, namespace: &str, room: &str, most: usize) -> (u64, Vec<ListedMember>) {
        let rooms = self.0.lock().expect("no thread panics while it holds this lock");
        let Some(roster) = rooms.get(&(namespace.into(), room.into())) else { return (0, Vec::new()) };
        let members = roster.order.values().take(most).filter_map(|key| {
            let &LocalMember { joined_at_ms, ref sockets, .. } = roster.members.get(key)?;
            let each = if matches!(key, MemberKey::User(_)) { MemberUnit::User } else { MemberUnit::Socket };
            Some(ListedMember { each, joined_at_ms, socket: sockets.first()?.clone() })
        });
        (roster.members.len() as u64, members.collect())
    }
}
