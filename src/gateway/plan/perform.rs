//! Performs a plan.

use super::super::Gateway;
use super::super::call::HookAck;
use super::super::event::Turn;
use super::super::replay::ReplayOutcome;
use super::{More, Plan};
use crate::contract::scope::Scope;
use crate::publish::Origin;

/// The effects of a performed plan, for the acknowledgement.
#[derive(Default)]
pub(in crate::gateway) struct Done {
    /// The rooms joined or left, in the contract's order.
    pub(in crate::gateway) rooms: Vec<String>,
    /// Which part of the history of each joined room was shown.
    pub(in crate::gateway) replays: Vec<ReplayOutcome>,
    /// The acknowledgement that a hook's answer asks for.
    pub(in crate::gateway) ack: HookAck,
}

impl Gateway {
    /// Performs a plan's steps, in the order that `docs/contracts.md` states.
    pub(in crate::gateway) async fn perform(&self, turn: &Turn<'_>, scope: &Scope<'_>, plan: Plan<'_>) -> Done {
        let mut done = Done { rooms: plan.room_names(), ..Done::default() };
        let Plan { joins, leaves, relays, mut more } = plan;
        if let Some(more) = &more {
            // The metadata still fits: the client's lane handles one event at a time, so nothing has changed since the
            // check.
            self.parts.rooms.merge_metadata(&turn.client.session, &more.metadata);
        }
        for permit in joins {
            done.replays.extend(Box::pin(self.join(turn.client, permit, scope)).await);
        }
        for place in &leaves {
            self.leave(turn.client, place);
        }
        if !leaves.is_empty() {
            Box::pin(self.settle_trail(turn.client)).await;
        }
        for relay in relays {
            self.relay(turn, relay, scope).await;
        }
        if let Some(more) = more.take() {
            done.ack = Box::pin(self.perform_more(turn, *more)).await;
        }
        done
    }

    async fn perform_more(&self, turn: &Turn<'_>, more: More) -> HookAck {
        let More { follow, status, mut answer, metadata: _ } = more;
        if let Some(follow) = follow {
            self.parts.publisher.publish(follow, Origin::Hook).await;
        }
        if let Some(status) = status {
            self.parts.presence.set_status(&turn.client.session, &status);
        }
        let ack = answer.take_ack();
        self.obey(turn.client, answer).await;
        ack
    }
}
