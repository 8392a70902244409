//! Joining and leaving rooms, and checking who may join.

use std::sync::Arc;

use super::call::AnswerPlan;
use super::context::{EventContext, EventRoom, audit_record, with_room};
use super::replay::{ReplayOutcome, join_with_replay};
use super::{Gateway, GatewayClient};
use crate::contract::model::{Contract, RoomRef};
use crate::contract::room_name::RoomNameError;
use crate::contract::rule::Rule;
use crate::contract::scope::{MembersNeed, Scope};
use crate::error::{Code, Refusal};
use crate::history::HistoryStart;
use crate::protocol::is_reserved_room;
use crate::publish::contract_event::room_refusal;
use crate::session::{RoomName, Session};
use crate::telemetry::audit::{self, AuditEvent, AuditRecord};

/// Permission to join a room: the room's rule is true and its hook agreed. [`Gateway::join`] consumes the permit. Only
/// [`Gateway::permit_joins`] and [`Gateway::permit_join`] create permits.
pub(super) struct JoinPermit {
    place: EventRoom,
    /// Everything that the hook's answer asks for besides the join.
    answer: Option<Box<AnswerPlan>>,
}

impl JoinPermit {
    /// The room.
    pub(super) fn place(&self) -> &EventRoom {
        &self.place
    }
}

impl Gateway {
    /// Resolves room references to the rooms that they name for this event. References that do not apply are left out.
    pub(super) fn places(
        &self,
        context: &EventContext<'_>,
        refs: &[RoomRef],
        scope: &Scope<'_>,
    ) -> Result<Vec<EventRoom>, Refusal> {
        refs.iter().filter_map(|of| self.place(context.client, of, scope).transpose()).collect()
    }

    /// Resolves the room references of `leave` to rooms. A reference with `all` stands for each room of the family that
    /// the client is in.
    pub(super) fn places_to_leave(
        &self,
        context: &EventContext<'_>,
        scope: &Scope<'_>,
    ) -> Result<Vec<EventRoom>, Refusal> {
        let refs = &context.def.leave;
        if !refs.iter().any(|of| of.all) {
            return self.places(context, refs, scope);
        }
        let mut places = Vec::new();
        for of in refs {
            if !of.all {
                places.extend(self.place(context.client, of, scope)?);
            } else if of.when.as_ref().is_none_or(|rule| rule.holds(scope)) {
                places.extend(rooms_of_family(context.client, of));
            }
        }
        Ok(places)
    }

    /// Resolves a room reference to a room. Returns `None` when the reference does not apply.
    pub(super) fn place(
        &self,
        client: &GatewayClient,
        of: &RoomRef,
        scope: &Scope<'_>,
    ) -> Result<Option<EventRoom>, Refusal> {
        if of.when.as_ref().is_some_and(|rule| !rule.holds(scope)) {
            return Ok(None);
        }
        let (name, vars) = match of.room.name.render(&of.with, scope) {
            Ok(rendered) => rendered,
            Err(RoomNameError::Missing(_)) if of.optional => return Ok(None),
            Err(error) => return Err(room_refusal(&of.room.key, &error)),
        };
        let longest = self.parts.limits.shape().max_room_name;
        if name.len() > longest {
            let error = RoomNameError::TooLong("the room's name".to_owned(), longest);
            return Err(room_refusal(&of.room.key, &error));
        }
        client.namespace.check_taken(&of.room, &name).map_err(|error| room_refusal(&of.room.key, &error))?;
        Ok(Some(EventRoom { def: of.room.clone(), name: name.into(), vars }))
    }

    /// Resolves the room that an event is about. Refuses a client that is not in the room.
    pub(super) fn place_of_member(
        &self,
        client: &GatewayClient,
        of: &RoomRef,
        scope: &Scope<'_>,
    ) -> Result<Option<EventRoom>, Refusal> {
        let place = self.place(client, of, scope)?;
        match &place {
            Some(place) if !client.session.is_in(&place.name) => Err(not_in(&place.name)),
            _ => Ok(place),
        }
    }

    /// Checks that the client's number of rooms stays within its limit after these joins.
    pub(super) fn check_rooms(&self, client: &GatewayClient, joins: &[EventRoom]) -> Result<(), Refusal> {
        let session = &client.session;
        let more = joins.iter().filter(|place| !session.is_in(&place.name)).count();
        self.parts.limits.shape().check_rooms(session.joined_rooms(), more)
    }

    /// Permits all joins of an event, or none. A refusal is recorded in the audit log.
    pub(super) async fn permit_joins(
        &self,
        context: &EventContext<'_>,
        places: Vec<EventRoom>,
        scope: &Scope<'_>,
    ) -> Result<Vec<JoinPermit>, Refusal> {
        let asks = places.iter().any(|place| place.def.call.is_some());
        let _held = if asks { Some(self.hold(context.event)?) } else { None };
        let mut permits = Vec::with_capacity(places.len());
        for place in places {
            let name = place.name.clone();
            let permit =
                self.permit_join(context.client, context.contract, place, scope).await.inspect_err(|refusal| {
                    let (session, reason) = (&context.client.session, Some(refusal.code.as_str()));
                    let user = session.user();
                    let about = AuditRecord {
                        room: Some(&name),
                        name: Some(&context.def.name),
                        reason,
                        ..audit_record(session, &user)
                    };
                    audit::record(AuditEvent::JoinRefused, about);
                })?;
            permits.push(permit);
        }
        Ok(permits)
    }

    /// Permits a join if the room's rule is true and the room's hook agrees, where the room has a rule or a hook.
    pub(super) async fn permit_join(
        &self,
        client: &Arc<GatewayClient>,
        contract: &Arc<Contract>,
        place: EventRoom,
        scope: &Scope<'_>,
    ) -> Result<JoinPermit, Refusal> {
        if let Some(rule) = &place.def.join
            && !self.ask(client, rule, &place, scope).await?
        {
            return Err(Refusal::new(Code::AuthorizationFailed, format!("you may not join {:?}", place.name)));
        }
        let answer = match &place.def.call {
            Some(call) => {
                let answer = Box::pin(self.ask_join_hook(client, &place, call)).await?;
                Some(Box::new(Box::pin(self.plan_answer(client, contract, answer, scope)).await))
            }
            None => None,
        };
        Ok(JoinPermit { place, answer })
    }

    /// Evaluates a rule about a room. Looks the room's owner up first if the rule asks for it.
    ///
    /// When the owner cannot be looked up, the rule is evaluated without an owner, because it may be true for another
    /// reason. If the rule is false then, the answer is "unavailable" instead of "no".
    pub(super) async fn ask(
        &self,
        client: &GatewayClient,
        rule: &Rule,
        place: &EventRoom,
        scope: &Scope<'_>,
    ) -> Result<bool, Refusal> {
        let mut scope = with_room(scope, &place.name, &place.vars);
        let members = match scope.members {
            None if rule.members_need() != MembersNeed::None => {
                Box::pin(self.members(client, place, rule.members_need())).await
            }
            _ => None,
        };
        scope.members = scope.members.or(members.as_ref());
        if !rule.needs_owner() {
            return Ok(rule.holds(&scope));
        }
        let found = self.parts.owners.get(&client.namespace.path, &place.name).await;
        let owner = found.as_ref().ok().and_then(Option::as_deref);
        scope.owner = owner;
        let holds = rule.holds(&scope);
        match found {
            Err(error) if !holds => Err(Refusal::new(Code::Unavailable, error.to_string())),
            _ => Ok(holds),
        }
    }

    /// Joins a room, and sends the client the history that the contract promises before any newer event. Before the
    /// join, performs what the answer of the room's hook asks for.
    pub(super) async fn join(
        &self,
        client: &Arc<GatewayClient>,
        permit: JoinPermit,
        scope: &Scope<'_>,
    ) -> Option<ReplayOutcome> {
        let JoinPermit { place, answer } = permit;
        if let Some(answer) = answer {
            Box::pin(self.perform_answer(client, *answer)).await;
        }
        let since = scope.payload.get("since").and_then(HistoryStart::from_json);
        let (rooms, history) = (self.rooms(), &self.parts.history);
        let joined = join_with_replay(rooms, history, &client.session, &place.name, &place.def, since).await;
        self.settle_trail(client).await;
        joined.replay
    }

    /// Joins a room that a backend named. The room's rule is not evaluated.
    pub(super) async fn join_by_name(&self, client: &GatewayClient, room: &RoomName) {
        match client.namespace.room_of(room) {
            Some((def, _)) => {
                join_with_replay(self.rooms(), &self.parts.history, &client.session, room, def, None).await;
            }
            None => {
                self.rooms().join(&client.session, room);
                self.rooms().settled(client.session.namespace(), room).await;
            }
        }
        self.settle_trail(client).await;
    }

    pub(super) fn leave(&self, client: &Arc<GatewayClient>, place: &EventRoom) {
        self.leave_by_name(client, &place.name);
    }

    /// Leaves a room. Before that, publishes the undo events that are stored for the client and this room.
    pub(super) fn leave_by_name(&self, client: &Arc<GatewayClient>, room: &str) {
        self.take_out(&client.session, &room.into());
    }

    /// Removes a session from a room; see [`Publisher::take_out`](crate::publish::Publisher::take_out).
    pub(super) fn take_out(&self, session: &Session, room: &RoomName) {
        self.parts.publisher.take_out(self.rooms(), session, room);
    }
}

/// Returns the rooms of a family that the client is in.
fn rooms_of_family(client: &GatewayClient, of: &RoomRef) -> Vec<EventRoom> {
    let names = client.session.rooms().into_iter().filter(|name| !is_reserved_room(name));
    let place = |name: RoomName| {
        let (def, vars) = client.namespace.room_of(&name)?;
        let is_own = def.name.shape() == of.room.name.shape();
        is_own.then(|| EventRoom { def: of.room.clone(), name, vars })
    };
    names.filter_map(place).collect()
}

/// Returns the refusal for a client that is not in a room.
pub(super) fn not_in(room: &str) -> Refusal {
    Refusal::new(Code::AuthorizationFailed, format!("you are not in {room:?}; join it first"))
}
