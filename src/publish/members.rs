//! Events that announce the members of a room.
//!
//! `joined` and `left` announce one member, and are sent for each of them. `changed` announces the whole list, and is
//! conflated: a change that comes too soon leaves a note with the throttles, and the list is read when the note is due.
//! The list is read after its event has got its number among the conflated events, so the event with the highest number
//! has the newest list, and no older list is delivered after it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::stream::{self, StreamExt as _};
use serde_json::Value;

use super::conflate::HeldEvent;
use super::{Outgoing, Publisher};
use crate::contract::model::{Namespace, PresencePolicy, Reply, RoomDef, SentArgs};
use crate::contract::room_name::Variables;
use crate::contract::scope::{MembersNeed, RoomMembersScope, Scope};
use crate::event::Event;
use crate::order::ConflationOrder;
use crate::presence::{MemberChange, MemberKey, RoomChange, RoomMember};
use crate::protocol::{socket_room, user_room};
use crate::session::{RoomName, Session};
use crate::throttle::{ThrottleDecision, ThrottleKey};
use crate::user::User;

/// How many lists are announced at the same time. Each asks Redis whether it may be sent now.
const LISTS_AT_ONCE: usize = 16;

/// A room that lists its members.
pub struct ListedRoom<'a> {
    namespace: &'a Arc<str>,
    def: &'a RoomDef,
    policy: &'a PresencePolicy,
    room: &'a RoomName,
    vars: &'a Variables,
}

impl<'a> ListedRoom<'a> {
    /// Describes a room. `None` if its contract lists no members.
    pub fn new(namespace: &'a Arc<str>, def: &'a RoomDef, room: &'a RoomName, vars: &'a Variables) -> Option<Self> {
        let policy = def.presence.as_ref().filter(|policy| policy.listed)?;
        Some(Self { namespace, def, policy, room, vars })
    }
}

impl Publisher {
    /// The members of a room as its contract shows them. `own` is the session of the client that asks.
    pub async fn members_of(&self, of: &ListedRoom<'_>, need: MembersNeed, own: Option<&Session>) -> RoomMembersScope {
        let most = if need == MembersNeed::List { of.policy.most } else { 0 };
        let roster = self.parts.presence.roster(of.namespace, of.room, most).await;
        roster.shown(of.policy, of.room, of.vars, own)
    }

    /// Sends rooms the events that announce changes of their members: each join and leave in order, then the list of
    /// each room once.
    pub async fn announce(self: Arc<Self>, changes: Vec<RoomChange>) {
        let mut lists = HashMap::new();
        for change in &changes {
            let RoomChange { namespace, def, vars, room, what } = change;
            let Some(of) = ListedRoom::new(namespace, def, room, vars) else { continue };
            match what {
                MemberChange::Joined(member) => self.announce_member(&of, of.policy.joined.as_ref(), member).await,
                MemberChange::Left(member) => self.announce_member(&of, of.policy.left.as_ref(), member).await,
                MemberChange::Metadata => {}
            }
            if let Some(changed) = &of.policy.changed {
                lists.insert((namespace, room), (of, changed));
            }
        }
        let publisher = &self;
        let announce = |(of, changed)| async move { publisher.announce_list(&of, changed).await };
        stream::iter(lists.into_values()).for_each_concurrent(LISTS_AT_ONCE, announce).await;
    }

    async fn announce_member(&self, of: &ListedRoom<'_>, reply: Option<&Reply>, member: &RoomMember) {
        let Some(reply) = reply else { return };
        let members = self.members_for(reply, of).await;
        let shown = member.to_json();
        let Some(event) = encode(reply, of, members.as_ref(), Some(&shown)) else { return };
        let own = match &member.key {
            MemberKey::User(id) => user_room(id),
            MemberKey::Socket(id) => socket_room(id),
        };
        let except = if of.policy.others { vec![own] } else { Vec::new() };
        let outgoing = Outgoing::new(of.namespace.clone(), event, vec![of.room.clone()]).except(except);
        self.notice(&of.def.contract, &outgoing);
    }

    /// Sends the list of members now, or when the minimum time since the last list has passed.
    async fn announce_list(self: &Arc<Self>, of: &ListedRoom<'_>, reply: &Reply) {
        let key = ThrottleKey::new(of.namespace, of.room, reply.event.fixed().unwrap_or_default());
        let Some(note) =
            HeldEvent::note(&of.def.contract, of.namespace, of.room, reply.event.fixed().unwrap_or_default())
        else {
            return;
        };
        match self.parts.throttles.offer(&key, of.policy.every, &note).await {
            ThrottleDecision::Pass(number) => {
                self.send_list(of, reply, ConflationOrder { scope: key.scope, number, closes: false }).await;
            }
            ThrottleDecision::Held(wait) => self.schedule(key, of.policy.every, wait),
        }
    }

    /// Sends the list of members for which a note was held. Returns false if the held event is not such a note.
    pub(super) async fn send_due_list(&self, contract: &str, outgoing: &Outgoing) -> bool {
        if !self.listing.contains(&outgoing.namespace) {
            return false;
        }
        let ([room], Some(order), Some(namespace)) =
            (&outgoing.rooms[..], &outgoing.order, self.namespaces.get(&outgoing.namespace))
        else {
            return false;
        };
        let Some((def, vars)) = namespace.room_of(room).filter(|(def, _)| *def.contract == *contract) else {
            return false;
        };
        let Some(of) = ListedRoom::new(&outgoing.namespace, def, room, &vars) else { return false };
        let Some(changed) =
            of.policy.changed.as_ref().filter(|changed| changed.event.fixed() == Some(outgoing.event.name()))
        else {
            return false;
        };
        self.send_list(&of, changed, order.clone()).await;
        true
    }

    async fn send_list(&self, of: &ListedRoom<'_>, reply: &Reply, order: ConflationOrder) {
        let members = self.members_for(reply, of).await;
        let Some(event) = encode(reply, of, members.as_ref(), None) else { return };
        let outgoing = Outgoing::new(of.namespace.clone(), event, vec![of.room.clone()]);
        self.notice(&of.def.contract, &Outgoing { order: Some(order), ..outgoing });
    }

    async fn members_for(&self, reply: &Reply, of: &ListedRoom<'_>) -> Option<RoomMembersScope> {
        match reply.members_need() {
            MembersNeed::None => None,
            need => Some(self.members_of(of, need, None).await),
        }
    }
}

/// Whether a room of the namespace announces the list of its members.
pub(super) fn has_lists(namespace: &Namespace) -> bool {
    let mut rooms = namespace.contracts.iter().flat_map(|contract| contract.rooms.values());
    rooms.any(|room| room.presence.as_ref().is_some_and(|policy| policy.changed.is_some()))
}

/// Encodes an event of presence. `None` if its rule is false.
fn encode(
    reply: &Reply,
    of: &ListedRoom<'_>,
    members: Option<&RoomMembersScope>,
    member: Option<&Value>,
) -> Option<Event> {
    let user = User::nobody();
    let rooms = [of.room.to_string()];
    let mut scope = Scope::new(&user, &Value::Null, SystemTime::now());
    (scope.room, scope.rooms, scope.vars) = (Some(&**of.room), &rooms, of.vars);
    (scope.members, scope.member) = (members, member);
    if reply.when.as_ref().is_some_and(|rule| !rule.holds(&scope)) {
        return None;
    }
    let SentArgs::Values(args) = &reply.args else { return None };
    Event::encode(&reply.event.render(&scope).ok()?, args.iter().map(|arg| arg.render(&scope))).ok()
}
