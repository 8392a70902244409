//! Performs a plan.

use super::super::Gateway;
use super::super::call::HookAck;
use super::super::context::EventContext;
use super::super::relay::PlannedRelay;
use super::super::replay::ReplayOutcome;
use super::{Plan, RareParts};
use crate::contract::model::RoomUse;
use crate::contract::room_name::Variables;
use crate::contract::scope::{MembersNeed, RoomMembersScope, Scope};
use crate::publish::PublisherKind;
use crate::session::{MetadataSetter, RoomName};

/// The effects of a performed plan, for the acknowledgement.
#[derive(Default)]
pub(in crate::gateway) struct PerformedPlan {
    /// The rooms that the event has joined or left, in the contract's order.
    pub(in crate::gateway) rooms: Vec<String>,
    /// The room that the event is about, if the event has joined and left no room.
    about: Option<RoomName>,
    /// The variables of the name of the event's first room. Only for a contract that uses them.
    vars: Variables,
    /// The members of the event's first room, after its joins and leaves. Only for a contract that uses them.
    members: Option<Box<RoomMembersScope>>,
    /// Which part of the history of each joined room was shown.
    pub(in crate::gateway) replays: Vec<ReplayOutcome>,
    /// Whether the event's hook was asked, and agreed.
    pub(in crate::gateway) agreed: bool,
    /// The acknowledgement that a hook's answer asks for.
    pub(in crate::gateway) ack: HookAck,
}

impl PerformedPlan {
    /// The scope of everything that is sent after the event's joins and leaves.
    pub(in crate::gateway) fn scope<'a>(&'a self, scope: &Scope<'a>) -> Scope<'a> {
        let room = self.rooms.first().map(String::as_str).or(self.about.as_deref());
        Scope { room, rooms: &self.rooms, vars: &self.vars, members: self.members.as_deref(), ..scope.clone() }
    }
}

impl Gateway {
    /// Performs a plan's steps, in the order that `docs/contracts.md` states.
    pub(in crate::gateway) async fn perform(
        &self,
        context: &EventContext<'_>,
        scope: &Scope<'_>,
        plan: Plan<'_>,
    ) -> PerformedPlan {
        let RoomUse { sends, vars, .. } = context.def.room_use;
        let place = plan.place().filter(|_| sends != MembersNeed::None || vars).cloned();
        let mut done = PerformedPlan { rooms: plan.room_names(), ..PerformedPlan::default() };
        let Plan { joins, leaves, about, relays, mut more } = plan;
        done.about = about.map(|place| place.name);
        if let Some(more) = &more {
            // The metadata still fits: the client's queue handles one event at a time, so nothing has changed since the
            // check.
            self.parts.rooms.merge_metadata(&context.client.session, &more.metadata, MetadataSetter::Event);
        }
        for permit in joins {
            done.replays.extend(Box::pin(self.join(context.client, permit, scope)).await);
        }
        for place in &leaves {
            self.leave(context.client, place);
        }
        if !leaves.is_empty() {
            Box::pin(self.settle_trail(context.client)).await;
        }
        if let Some(place) = place {
            if sends != MembersNeed::None {
                done.members = Box::pin(self.members(context.client, &place, sends)).await.map(Box::new);
            }
            done.vars = place.vars;
        }
        if done.rooms.is_empty() && done.about.is_none() {
            for relay in relays {
                self.relay(context, relay, scope).await;
            }
        } else if !relays.is_empty() {
            Box::pin(self.relay_about_room(context, relays, &done.scope(scope))).await;
        }
        if let Some(more) = more.take() {
            done.agreed = more.asked;
            done.ack = Box::pin(self.perform_more(context, *more)).await;
        }
        done
    }

    /// Sends the relays of an event that has a room.
    async fn relay_about_room(&self, context: &EventContext<'_>, relays: Vec<PlannedRelay<'_>>, scope: &Scope<'_>) {
        for relay in relays {
            self.relay(context, relay, scope).await;
        }
    }

    async fn perform_more(&self, context: &EventContext<'_>, more: RareParts) -> HookAck {
        let RareParts { follow, status, mut answer, notice, asked: _, metadata: _ } = more;
        if let (Some(hook), Some(notice)) = (&context.def.notify, notice) {
            self.parts.notices.put(hook, notice);
        }
        if let Some(follow) = follow {
            self.parts.publisher.publish(follow, PublisherKind::Hook).await;
        }
        if let Some(status) = status {
            self.parts.presence.set_status(&context.client.session, &status);
        }
        let ack = answer.take_ack();
        self.perform_answer(context.client, answer).await;
        ack
    }
}
