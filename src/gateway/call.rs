//! Asks a backend about an event, a connection or a join, and performs what its answer asks for.

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::context::{EventContext, EventRoom};
use super::{Gateway, GatewayClient};
use crate::contract::model::{Contract, HookCall, HookJoins, Outcome};
use crate::contract::scope::Scope;
use crate::contract::template::Template;
use crate::error::{Code, Refusal};
use crate::event::Event;
use crate::hooks::{Caller, EncodedRequest, HookAnswer, HookPublish, HookRequest, MAX_NOTICE_BYTES};
use crate::protocol::is_reserved_room;
use crate::publish::plain::check_name;
use crate::publish::{ContractPublish, PlannedPublish, PublisherKind};
use crate::session::{MetadataSetter, RoomName};
use crate::telemetry::log_limit::log_seldom;

/// Everything that a backend's answer asks for, already checked and encoded.
#[derive(Default)]
pub(super) struct AnswerPlan {
    answer: HookAnswer,
    joins: Vec<RoomName>,
    replies: Vec<Event>,
    publishes: Vec<PlannedPublish>,
}

impl AnswerPlan {
    /// Removes and returns the arguments that the answer gives the acknowledgement.
    pub(super) fn take_ack(&mut self) -> HookAck {
        self.answer.ack.take()
    }
}

impl Gateway {
    /// Calls the event's hook. Nothing has been done for the event before this.
    pub(super) async fn call(
        &self,
        context: &EventContext<'_>,
        call: &HookCall,
        scope: &Scope<'_>,
    ) -> Result<HookAnswer, Refusal> {
        let _held = self.hold(context.event)?;
        let request = HookRequest::event(caller(context.client, &context.contract.name), context.event.name());
        let request = with_data(request, context, scope);
        Ok(self.parts.hooks.call(&call.hook, tuned(request, call)).await?)
    }

    /// Prepares the notice of an event for the backend that the contract tells of it.
    pub(super) fn plan_notice(&self, context: &EventContext<'_>, scope: &Scope<'_>) -> Result<EncodedRequest, Refusal> {
        let request = || HookRequest::notify(caller(context.client, &context.contract.name), context.event.name());
        // A larger event never fits, so it is not copied.
        let fits = context.event.size_bytes() <= MAX_NOTICE_BYTES;
        let notice = fits.then(|| self.parts.notices.seal(with_data(request(), context, scope))).flatten();
        notice.ok_or_else(|| {
            let text = format!("a backend is told of this event in at most {MAX_NOTICE_BYTES} bytes; send less");
            Refusal::new(Code::TooLarge, text)
        })
    }

    /// Asks a room's hook whether the client may join. Uses a cached answer of the hook where there is one.
    pub(super) async fn ask_join_hook(
        &self,
        client: &GatewayClient,
        place: &EventRoom,
        call: &HookCall,
    ) -> Result<HookAnswer, Refusal> {
        let request = HookRequest::join(caller(client, &place.def.contract), place.name.clone());
        Ok(self.parts.hooks.may_join(&call.hook, tuned(request, call)).await?)
    }

    /// Decides what a hook's answer will do besides permitting the event. An entry that cannot be performed is left
    /// out, logged and counted. The client gets no error, because the backend has permitted the event.
    pub(super) async fn plan_answer(
        &self,
        client: &GatewayClient,
        contract: &Arc<Contract>,
        mut answer: HookAnswer,
        scope: &Scope<'_>,
    ) -> AnswerPlan {
        let mut plan = AnswerPlan::default();
        for room in std::mem::take(&mut answer.join) {
            match self.check_hook_join(client, contract, &room, scope).await {
                Ok(()) => plan.joins.push(room.into()),
                Err(refusal) => self.log_bad_answer(contract, "join", &refusal),
            }
        }
        for reply in std::mem::take(&mut answer.reply) {
            let encoded = check_name(&reply.event).and_then(|()| {
                Event::encode(&reply.event, &reply.args)
                    .map_err(|error| Refusal::new(Code::InvalidPayload, error.to_string()))
            });
            match encoded {
                Ok(event) => plan.replies.push(event),
                Err(refusal) => self.log_bad_answer(contract, "reply", &refusal),
            }
        }
        for publish in std::mem::take(&mut answer.publish) {
            match self.plan_publish(contract, publish) {
                Ok(planned) => plan.publishes.push(planned),
                Err(refusal) => self.log_bad_answer(contract, "publish", &refusal),
            }
        }
        self.check_metadata(client, contract, &mut answer);
        plan.answer = answer;
        plan
    }

    /// Merges the metadata of a connect hook's answer, so that the greeting and the rooms of `connect.join` can use it.
    pub(super) fn merge_metadata(&self, client: &GatewayClient, contract: &Contract, answer: &mut HookAnswer) {
        self.check_metadata(client, contract, answer);
        let metadata = std::mem::take(&mut answer.metadata);
        self.parts.rooms.merge_metadata(&client.session, &metadata, MetadataSetter::Hook);
    }

    /// Leaves out the metadata of an answer if it does not fit.
    fn check_metadata(&self, client: &GatewayClient, contract: &Contract, answer: &mut HookAnswer) {
        if !client.session.fits_metadata(&answer.metadata, MetadataSetter::Hook) {
            answer.metadata.clear();
            let refusal = Refusal::new(Code::TooLarge, "the socket's metadata is too large");
            self.log_bad_answer(contract, "metadata", &refusal);
        }
    }

    /// Checks that a hook's answer may let the client join a room. The room's own hook is not asked.
    async fn check_hook_join(
        &self,
        client: &GatewayClient,
        contract: &Contract,
        room: &str,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        if is_reserved_room(room) {
            let text = format!("the room {room:?} is reserved; name a room of a contract");
            return Err(Refusal::new(Code::InvalidRoom, text));
        }
        if contract.hook_joins == HookJoins::Any {
            return Ok(());
        }
        let Some((def, vars)) = client.namespace.room_of(room) else {
            let text =
                format!("no contract of the namespace declares the room {room:?}, and `hook_joins` is not \"any\"");
            return Err(Refusal::new(Code::InvalidRoom, text));
        };
        let Some(rule) = def.join.as_ref().filter(|_| contract.hook_joins == HookJoins::Permitted) else {
            return Ok(());
        };
        let place = EventRoom { def: def.clone(), name: room.into(), vars };
        if self.ask(client, rule, &place, scope).await? {
            return Ok(());
        }
        Err(Refusal::new(Code::AuthorizationFailed, format!("the client may not join {room:?}")))
    }

    /// Performs everything that an answer asks for, except the acknowledgement.
    pub(super) async fn perform_answer(&self, client: &Arc<GatewayClient>, plan: AnswerPlan) {
        let AnswerPlan { mut answer, joins, replies, publishes } = plan;
        self.parts.hooks.remember(&mut answer);
        self.parts.rooms.merge_metadata(&client.session, &answer.metadata, MetadataSetter::Hook);
        for room in joins {
            self.join_by_name(client, &room).await;
        }
        for room in &answer.leave {
            self.leave_by_name(client, room);
        }
        for reply in &replies {
            self.send(&client.session, reply);
        }
        for publish in publishes {
            self.parts.publisher.publish(publish, PublisherKind::Hook).await;
        }
    }

    /// Prepares the event that `on_ok` or `on_error` publishes.
    pub(super) fn plan_follow(
        &self,
        contract: &Contract,
        event: &str,
        args: &[Template],
        scope: &Scope<'_>,
    ) -> Result<PlannedPublish, Refusal> {
        let args = args.iter().filter_map(|template| to_raw_value(&template.render(scope)).ok()).collect();
        self.plan_publish(contract, HookPublish { event: event.to_owned(), args, params: None })
    }

    /// Publishes the event that `on_error` names after a refusal.
    pub(super) async fn follow_refusal(&self, context: &EventContext<'_>, outcome: &Outcome, scope: &Scope<'_>) {
        let Some((event, args)) = &outcome.publish else { return };
        match self.plan_follow(context.contract, event, args, scope) {
            Ok(planned) => drop(self.parts.publisher.publish(planned, PublisherKind::Hook).await),
            Err(refusal) => self.log_bad_answer(context.contract, "on_error", &refusal),
        }
    }

    fn plan_publish(&self, contract: &Contract, publish: HookPublish) -> Result<PlannedPublish, Refusal> {
        self.parts.publisher.plan(&ContractPublish {
            contract: contract.name.to_string(),
            event: publish.event,
            args: publish.args,
            params: publish.params.unwrap_or(Value::Null),
        })
    }

    /// Counts and logs an entry of an answer that could not be performed.
    fn log_bad_answer(&self, contract: &Contract, member: &str, refusal: &Refusal) {
        self.count_received(&contract.name, "hook answer", refusal.code.as_str());
        log_seldom!(warn, contract = %contract.name, member, %refusal, "a part of a hook's answer could not be performed");
    }
}

/// Adds the event's payload, further arguments and attachments to a hook request.
fn with_data(request: HookRequest, context: &EventContext<'_>, scope: &Scope<'_>) -> HookRequest {
    let args = context.event.args().unwrap_or_default();
    let request = request
        .payload(context.def.payload.raw(&args, scope.payload))
        .attachments(context.event.attachments().to_vec());
    if args.len() > 1 { request.args(args.into_iter().map(ToOwned::to_owned).collect()) } else { request }
}

/// Adds the contract's settings (idempotent, time-out) to a hook request.
pub(super) fn tuned(request: HookRequest, call: &HookCall) -> HookRequest {
    request.idempotent(call.idempotent).timeout(call.timeout)
}

/// The description of a client that backends get.
pub(super) fn caller(client: &GatewayClient, contract: &Arc<str>) -> Caller {
    let session = &client.session;
    Caller {
        contract: contract.clone(),
        namespace: session.namespace().clone(),
        user: session.user(),
        socket_id: session.id().to_owned(),
        ip: session.peer().ip,
        connected_at: session.connected_at(),
        rooms: session.rooms().into_iter().filter(|room| !is_reserved_room(room)).collect(),
        metadata: session.metadata(),
    }
}

/// The arguments of the acknowledgement that a backend's answer carries, as undecoded JSON.
pub(super) type HookAck = Option<Vec<Box<RawValue>>>;
