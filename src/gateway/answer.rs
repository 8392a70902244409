//! Answers a client: acknowledgements, replies and errors.

use std::sync::Arc;

use serde_json::{Value, json};

use super::context::{EventContext, scope_of_session};
use super::plan::PerformedPlan;
use super::relay::{encode, encode_ack};
use super::replay::ReplayOutcome;
use super::{Gateway, GatewayClient, RequestedAck};
use crate::contract::model::{Contract, Reply};
use crate::contract::scope::Scope;
use crate::error::Refusal;
use crate::event::{Args, Event};
use crate::session::{AckId, Session};

impl Gateway {
    /// Sends the replies of an event that succeeded, then the acknowledgement.
    pub(super) fn succeed(&self, context: &EventContext<'_>, scope: &Scope<'_>, done: &PerformedPlan) {
        let session = &context.client.session;
        let scope = done.scope(scope);
        context.counters.received.inc();
        let follows = context.def.on_ok.as_ref().filter(|_| done.agreed).and_then(|outcome| outcome.reply.as_ref());
        let holds = |reply: &&Reply| reply.when.as_ref().is_none_or(|rule| rule.holds(&scope));
        for reply in context.def.reply.iter().chain(follows).filter(holds) {
            if let Some(event) = self.reply_event(reply, &scope, Some(context)) {
                self.send(session, &event);
            }
        }
        let Some(id) = context.ack else { return };
        let args = match (&done.ack, &context.def.ack) {
            (Some(args), _) => Args::encode(args).ok(),
            (None, Some(args)) => encode_ack(args, context, &scope),
            (None, None) => Args::encode(&[default_ack(done)]).ok(),
        };
        if let Some(args) = args {
            self.ack(
                context.client,
                RequestedAck { counters: Some(context.counters), ..context.asked(id, "ok") },
                &args,
            );
        }
    }

    /// Sends the client the error: in the acknowledgement if the client asked for one, else by the error event of the
    /// event or of the contract.
    pub(super) async fn fail(&self, context: &EventContext<'_>, scope: &Scope<'_>, refusal: &Refusal) {
        self.count_received(&context.contract.name, &context.def.name, refusal.code.as_str());
        let session = &context.client.session;
        let mut scope = scope.clone();
        scope.error = Some(context.contract.errors.shown(refusal));
        if let Some(id) = context.ack {
            self.ack_error(context.client, context.contract, context.asked(id, "error"), &scope, refusal);
        }
        let outcome = context.def.on_error.as_ref();
        match outcome.and_then(|outcome| outcome.reply.as_ref().map(|reply| (outcome.always, reply))) {
            Some((always, reply)) if always || context.ack.is_none() => {
                if let Some(event) = self.reply_event(reply, &scope, Some(context)) {
                    self.send(session, &event);
                }
            }
            None if context.ack.is_none() => self.send_error_event(session, context.contract, scope.payload, refusal),
            _ => {}
        }
        if let Some(outcome) = outcome {
            self.follow_refusal(context, outcome, &scope).await;
        }
    }

    pub(super) fn ack_error(
        &self,
        client: &GatewayClient,
        contract: &Contract,
        of: RequestedAck<'_>,
        scope: &Scope<'_>,
        refusal: &Refusal,
    ) {
        let mut scope = scope.clone();
        scope.error = Some(contract.errors.shown(refusal));
        if let Ok(args) = Args::encode(&[contract.errors.ack.render(&scope)]) {
            self.ack(client, of, &args);
        }
    }

    /// Sends the contract's error event. Does nothing when the contract declares none.
    pub(super) fn send_error_event(
        &self,
        session: &Session,
        contract: &Arc<Contract>,
        payload: &Value,
        refusal: &Refusal,
    ) {
        let Some(name) = &contract.errors.event else { return };
        let user = session.user();
        let mut scope = scope_of_session(session, &user, payload);
        scope.error = Some(contract.errors.shown(refusal));
        if let Ok(event) = Event::encode(name, &[contract.errors.payload.render(&scope)]) {
            self.send(session, &event);
        }
    }

    pub(super) fn reply_event(
        &self,
        reply: &Reply,
        scope: &Scope<'_>,
        context: Option<&EventContext<'_>>,
    ) -> Option<Event> {
        encode(&reply.event.render(scope).ok()?, &reply.args, context, scope)
    }
}

impl<'a> EventContext<'a> {
    fn asked(&self, id: AckId, result: &'static str) -> RequestedAck<'a> {
        RequestedAck {
            id,
            received_at: self.received_at,
            contract: &self.contract.name,
            event: &self.def.name,
            result,
            counters: None,
        }
    }
}

/// The acknowledgement of a success when the contract declares none: `{ success: true }`, with the rooms joined or
/// left, and which part of their histories was shown.
fn default_ack(done: &PerformedPlan) -> Value {
    let mut ack = serde_json::Map::new();
    ack.insert("success".into(), true.into());
    if let Some(room) = done.rooms.first() {
        ack.insert("room".into(), room.as_str().into());
    }
    if done.rooms.len() > 1 {
        ack.insert("rooms".into(), json!(done.rooms));
    }
    match done.replays.as_slice() {
        [] => {}
        [one] => {
            ack.insert("history".into(), one.to_json());
        }
        several => {
            ack.insert("history".into(), several.iter().map(ReplayOutcome::to_json).collect());
        }
    }
    Value::Object(ack)
}
