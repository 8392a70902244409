//! Performs a plan.

use super::super::Gateway;
use super::super::call::HookAck;
use super::super::context::EventContext;
use super::super::replay::ReplayOutcome;
use super::{Plan, RareParts};
use crate::contract::scope::Scope;
use crate::publish::PublisherKind;

/// The effects of a performed plan, for the acknowledgement.
#[derive(Default)]
pub(in crate::gateway) struct PerformedPlan {
    /// The rooms joined or left, in the contract's order.
    pub(in crate::gateway) rooms: Vec<String>,
    /// Which part of the history of each joined room was shown.
    pub(in crate::gateway) replays: Vec<ReplayOutcome>,
    /// The acknowledgement that a hook's answer asks for.
    pub(in crate::gateway) ack: HookAck,
}

impl Gateway {
    /// Performs a plan's steps, in the order that `docs/contracts.md` states.
    pub(in crate::gateway) async fn perform(
        &self,
        context: &EventContext<'_>,
        scope: &Scope<'_>,
        plan: Plan<'_>,
    ) -> PerformedPlan {
        let mut done = PerformedPlan { rooms: plan.room_names(), ..PerformedPlan::default() };
        let Plan { joins, leaves, relays, mut more } = plan;
        if let Some(more) = &more {
            // The metadata still fits: the client's lane handles one event at a time, so nothing has changed since the
            // check.
            self.parts.rooms.merge_metadata(&context.client.session, &more.metadata);
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
        for relay in relays {
            self.relay(context, relay, scope).await;
        }
        if let Some(more) = more.take() {
            done.ack = Box::pin(self.perform_more(context, *more)).await;
        }
        done
    }

    async fn perform_more(&self, context: &EventContext<'_>, more: RareParts) -> HookAck {
        let RareParts { follow, status, mut answer, metadata: _ } = more;
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
