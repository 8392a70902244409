//! Answers a client: acknowledgements, replies and errors.

use std::sync::Arc;

use serde_json::{Value, json};

use super::connect::scope_of_session;
use super::event::Turn;
use super::plan::Done;
use super::relay::encode;
use super::replay::ReplayOutcome;
use super::{Asked, Client, Gateway};
use crate::contract::model::{Ack, Contract, Reply};
use crate::contract::scope::Scope;
use crate::error::Refusal;
use crate::event::{Args, Event};
use crate::session::{AckId, Session};

impl Gateway {
    /// Sends the replies of an event that succeeded, then the acknowledgement.
    pub(super) fn succeed(&self, turn: &Turn<'_>, scope: &Scope<'_>, done: &Done) {
        let session = &turn.client.session;
        let mut scope = scope.clone();
        scope.room = done.rooms.first().map(String::as_str);
        scope.rooms = &done.rooms;
        turn.counters.received.inc();
        let follows = turn.def.on_ok.as_ref().and_then(|outcome| outcome.reply.as_ref());
        for reply in turn.def.reply.iter().chain(follows) {
            if let Some(event) = self.reply_event(reply, &scope, Some(turn)) {
                self.send(session, &event);
            }
        }
        let Some(id) = turn.ack else { return };
        let args = match &turn.def.ack {
            _ if done.ack.is_some() => Args::encode(done.ack.as_slice()).ok(),
            Some(Ack::Args) => Some(Args::of(turn.event)),
            Some(Ack::Value(template)) => Args::encode(&[template.render(&scope)]).ok(),
            None => Args::encode(&[default_ack(done)]).ok(),
        };
        if let Some(args) = args {
            self.ack(turn.client, Asked { counters: Some(turn.counters), ..turn.asked(id, "ok") }, &args);
        }
    }

    /// Sends the client the error: in the acknowledgement if the client asked for one, else by the error event of the
    /// event or of the contract.
    pub(super) async fn fail(&self, turn: &Turn<'_>, scope: &Scope<'_>, refusal: &Refusal) {
        self.count_received(&turn.contract.name, &turn.def.name, refusal.code.as_str());
        let session = &turn.client.session;
        let mut scope = scope.clone();
        scope.error = Some((shown(turn.contract, refusal), refusal));
        if let Some(id) = turn.ack {
            self.ack_error(turn.client, turn.contract, turn.asked(id, "error"), &scope, refusal);
        }
        let outcome = turn.def.on_error.as_ref();
        match outcome.and_then(|outcome| outcome.reply.as_ref().map(|reply| (outcome.always, reply))) {
            Some((always, reply)) if always || turn.ack.is_none() => {
                if let Some(event) = self.reply_event(reply, &scope, Some(turn)) {
                    self.send(session, &event);
                }
            }
            None if turn.ack.is_none() => self.send_error_event(session, turn.contract, scope.payload, refusal),
            _ => {}
        }
        if let Some(outcome) = outcome {
            self.follow_refusal(turn, outcome, &scope).await;
        }
    }

    pub(super) fn ack_error(
        &self,
        client: &Client,
        contract: &Contract,
        of: Asked<'_>,
        scope: &Scope<'_>,
        refusal: &Refusal,
    ) {
        let mut scope = scope.clone();
        scope.error = Some((shown(contract, refusal), refusal));
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
        scope.error = Some((shown(contract, refusal), refusal));
        if let Ok(event) = Event::encode(name, &[contract.errors.payload.render(&scope)]) {
            self.send(session, &event);
        }
    }

    pub(super) fn reply_event(&self, reply: &Reply, scope: &Scope<'_>, turn: Option<&Turn<'_>>) -> Option<Event> {
        match &reply.data {
            Some(data) => encode(&reply.event, data, turn, scope),
            None => Event::encode::<Value>(&reply.event, &[]).ok(),
        }
    }
}

impl<'a> Turn<'a> {
    fn asked(&self, id: AckId, result: &'static str) -> Asked<'a> {
        Asked { id, came: self.came, contract: &self.contract.name, event: &self.def.name, result, counters: None }
    }
}

/// The error code as the contract names it for clients. A code that a backend chose is shown unchanged.
fn shown<'a>(contract: &'a Contract, refusal: &'a Refusal) -> &'a str {
    refusal.alias.as_deref().unwrap_or_else(|| contract.errors.code(refusal.code))
}

/// The acknowledgement of a success when the contract declares none: `{ success: true }`, with the rooms joined or
/// left, and which part of their histories was shown.
fn default_ack(done: &Done) -> Value {
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
