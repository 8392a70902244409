//! What a permitted event does.

use serde_json::Value;

use super::Gateway;
use super::call::HookAck;
use super::event::Turn;
use super::membership::Place;
use super::replay::ReplayOutcome;
use crate::contract::scope::Scope;
use crate::error::{Code, Refusal};
use crate::room::Rooms;

/// What was done, for the ack.
#[derive(Default)]
pub(super) struct Done {
    /// The rooms joined or left, in the contract's order.
    pub(super) rooms: Vec<String>,
    /// What was shown of the histories of the rooms joined.
    pub(super) replays: Vec<ReplayOutcome>,
    /// What a hook wants the ack to carry.
    pub(super) ack: HookAck,
}

impl Gateway {
    /// Checks everything first, so that a refused event has done nothing; then acts.
    ///
    /// What only some events wait for is boxed: its place would be in the future of every event, and written with it.
    pub(super) async fn act(&self, turn: &Turn<'_>, scope: &Scope<'_>) -> Result<Done, Refusal> {
        let def = turn.def;
        let joins = self.places(turn, &def.join, scope)?;
        let leaves = self.places(turn, &def.leave, scope)?;
        self.check_rooms(turn.client, &joins)?;
        for place in &joins {
            Box::pin(self.permit_join(turn, place, scope)).await?;
        }
        let relays = self.plan_relays(turn, scope).await?;
        if let Some(rule) = &def.require {
            self.require(turn, rule, joins.first().or(leaves.first()), scope).await?;
        }
        self.set_status(turn, scope)?;
        let answer = match &def.call {
            Some(call) => Some(Box::pin(self.call(turn, call, scope)).await?),
            None => None,
        };
        if let Some(path) = &def.metadata
            && let Some(Value::Object(members)) = path.find(scope)
        {
            self.parts.rooms.merge_metadata(&turn.client.session, &members);
        }
        let mut done = Done::default();
        for place in &joins {
            done.replays.extend(Box::pin(self.join(turn.client, place, scope)).await);
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
        if let Some(outcome) = &def.on_ok {
            Box::pin(self.follow(turn, outcome, scope)).await;
        }
        if let Some(mut answer) = answer {
            done.ack = answer.ack.take();
            Box::pin(self.obey(turn.client, turn.contract, answer)).await;
        }
        done.rooms = joins.into_iter().chain(leaves).map(|place| place.name.to_string()).collect();
        Ok(done)
    }

    async fn require(
        &self,
        turn: &Turn<'_>,
        rule: &crate::contract::rule::Rule,
        place: Option<&Place>,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let denied = || Refusal::new(Code::AuthorizationFailed, "the contract does not permit this event to you");
        match place {
            Some(place) => Box::pin(self.ask(turn.client, rule, place, scope)).await?.then_some(()).ok_or_else(denied),
            None => rule.holds(scope).then_some(()).ok_or_else(denied),
        }
    }

    /// The index of rooms and members.
    pub(super) fn rooms(&self) -> &Rooms {
        &self.parts.rooms
    }
}
