//! Asking the backend: for an event, a connection, a room.

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::event::Turn;
use super::membership::Place;
use super::{Client, Gateway};
use crate::contract::model::{Call, Contract, Outcome};
use crate::contract::scope::Scope;
use crate::error::Refusal;
use crate::event::Event;
use crate::hooks::{Caller, HookAnswer, HookPublish, HookRequest};
use crate::publish::{ContractPublish, Origin};
use crate::room::RESERVED_PREFIX;
use crate::telemetry::log_gate::log_seldom;

impl Gateway {
    /// Asks the hook of an event. Nothing has been done for the event yet.
    pub(super) async fn call(&self, turn: &Turn<'_>, call: &Call, scope: &Scope<'_>) -> Result<HookAnswer, Refusal> {
        let payload = if turn.def.reads_payload {
            to_raw_value(scope.payload).ok()
        } else {
            turn.event.args().ok().and_then(|args| args.first().map(|arg| (*arg).to_owned()))
        };
        let request = HookRequest::event(caller(turn.client, &turn.contract.name), turn.def.name.as_str())
            .payload(payload)
            .attachments(turn.event.attachments().to_vec());
        Ok(self.parts.hooks.call(&call.hook, tuned(request, call)).await?)
    }

    /// Asks a room's hook whether the client may join; a remembered answer is used.
    pub(super) async fn ask_join_hook(&self, turn: &Turn<'_>, place: &Place, call: &Call) -> Result<(), Refusal> {
        let request = HookRequest::join(caller(turn.client, &place.def.contract), place.name.clone());
        let answer = self.parts.hooks.may_join(&call.hook, tuned(request, call)).await?;
        self.obey(turn.client, turn.contract, answer).await;
        Ok(())
    }

    /// Does what an answer asks for, besides its acknowledgement.
    pub(super) async fn obey(&self, client: &Arc<Client>, contract: &Arc<Contract>, answer: HookAnswer) {
        self.parts.rooms.merge_metadata(&client.session, &answer.metadata);
        for room in answer.join.iter().filter(|room| !room.starts_with(RESERVED_PREFIX)) {
            self.join_by_name(client, room).await;
        }
        for room in &answer.leave {
            self.leave_by_name(client, room);
        }
        for reply in answer.reply {
            let args = reply.data.as_slice();
            if let Ok(event) = Event::encode(&reply.event, args) {
                self.send(&client.session, &event);
            }
        }
        for publish in answer.publish {
            self.publish_for_hook(contract, publish).await;
        }
    }

    /// What the contract says is to follow.
    pub(super) async fn follow(&self, turn: &Turn<'_>, outcome: &Outcome, scope: &Scope<'_>) {
        if let Some((event, template)) = &outcome.publish {
            let data = to_raw_value(&template.render(scope)).ok();
            self.publish_for_hook(turn.contract, HookPublish { event: event.clone(), data, params: None }).await;
        }
    }

    async fn publish_for_hook(&self, contract: &Arc<Contract>, publish: HookPublish) {
        let event = publish.event.clone();
        let publish = ContractPublish {
            contract: contract.name.to_string(),
            event: publish.event,
            data: publish.data,
            params: publish.params.unwrap_or(Value::Null),
        };
        if let Err(refusal) = self.parts.publisher.contract_event(publish, Origin::Hook).await {
            self.count_received(&contract.name, "hook answer", refusal.code.as_str());
            log_seldom!(warn, contract = %contract.name, event, %refusal, "a hook's answer could not be published");
        }
    }
}

/// The hook's request with the contract's wishes.
pub(super) fn tuned(request: HookRequest, call: &Call) -> HookRequest {
    request.idempotent(call.idempotent).timeout(call.timeout)
}

/// The client as backends see it.
pub(super) fn caller(client: &Client, contract: &Arc<str>) -> Caller {
    let session = &client.session;
    Caller {
        contract: contract.clone(),
        namespace: session.namespace().clone(),
        user: session.user(),
        socket_id: session.id().to_owned(),
        ip: session.peer().ip,
        connected_at: session.connected_at(),
        rooms: session.rooms().into_iter().filter(|room| !room.starts_with(RESERVED_PREFIX)).collect(),
        metadata: session.metadata(),
    }
}

/// An answer's acknowledgement, undecoded.
pub(super) type HookAck = Option<Box<RawValue>>;
