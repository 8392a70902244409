//! Decides what a client's event will do, before anything is done.
//!
//! ```text
//! check     rooms, rules, status, metadata, publishes, and the hooks: the first that refuses is the answer
//! Plan      everything that was decided; only `check` makes one
//! perform   carries out the plan; it cannot refuse
//! ```

mod perform;

use serde_json::{Map, Value};

use super::Gateway;
use super::call::AnswerPlan;
use super::context::{EventContext, EventRoom, with_room};
use super::membership::JoinPermit;
use super::relay::PlannedRelay;
use crate::contract::model::{HookCall, MetadataChange};
use crate::contract::rule::Rule;
use crate::contract::scope::{MembersNeed, Scope};
use crate::error::{Code, Refusal};
use crate::hooks::EncodedRequest;
use crate::publish::PlannedPublish;
use crate::session::{MAX_METADATA_BYTES, MetadataSetter};

pub(super) use perform::PerformedPlan;

/// Everything that a permitted event will do.
pub(super) struct Plan<'a> {
    joins: Vec<JoinPermit>,
    leaves: Vec<EventRoom>,
    /// The room that the event is about, if the event joins and leaves no room.
    about: Option<Box<EventRoom>>,
    relays: Vec<PlannedRelay<'a>>,
    /// The parts that few events have. Boxed, because the future of every event contains a plan.
    more: Option<Box<RareParts>>,
}

/// The parts of a plan that few events have.
#[derive(Default)]
struct RareParts {
    metadata: Map<String, Value>,
    status: Option<Value>,
    /// The notice for the backend that the contract tells of the event.
    notice: Option<EncodedRequest>,
    /// The event that `on_ok.publish` publishes.
    follow: Option<PlannedPublish>,
    /// Whether the event's hook was asked.
    asked: bool,
    answer: AnswerPlan,
}

impl Gateway {
    /// Decides what an event will do. When this returns, the hooks have been asked, and nothing else has been done.
    ///
    /// # Errors
    /// Returns the first refusal. The futures that only some events wait for are boxed, so that they do not enlarge
    /// this one.
    pub(super) async fn check<'a>(&self, context: &EventContext<'a>, scope: &Scope<'_>) -> Result<Plan<'a>, Refusal> {
        let def = context.def;
        let joins = self.places(context, &def.join, scope)?;
        let leaves = self.places_to_leave(context, scope)?;
        self.check_rooms(context.client, &joins)?;
        let joins =
            if joins.is_empty() { Vec::new() } else { Box::pin(self.permit_joins(context, joins, scope)).await? };
        let about = match &def.room {
            Some(of) => self.place_of_member(context.client, of, scope)?.map(Box::new),
            None => None,
        };
        let mut plan = Plan { joins, leaves, about, relays: Vec::new(), more: None };
        if def.room_use.checks != MembersNeed::None {
            Box::pin(self.check_among_members(context, &mut plan, scope)).await?;
        } else {
            self.check_rest(context, &mut plan, scope).await?;
        }
        Ok(plan)
    }

    /// Checks the rest of an event whose rules use the members of its room.
    async fn check_among_members<'a>(
        &self,
        context: &EventContext<'a>,
        plan: &mut Plan<'a>,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let members = match plan.place() {
            Some(place) => self.members(context.client, place, context.def.room_use.checks).await,
            None => None,
        };
        let scope = Scope { members: members.as_ref(), ..scope.clone() };
        self.check_rest(context, plan, &scope).await
    }

    async fn check_rest<'a>(
        &self,
        context: &EventContext<'a>,
        plan: &mut Plan<'a>,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let def = context.def;
        plan.relays = self.plan_relays(context, scope).await?;
        check_names(context, scope)?;
        if let Some(rule) = &def.require {
            self.require(context, rule, plan.place(), scope).await?;
        }
        if def.presence.is_some() || def.metadata.is_some() || def.call.is_some() || def.notify.is_some() {
            plan.more = Some(Box::pin(self.check_more(context, plan, scope)).await?);
        }
        Ok(())
    }

    async fn check_more(
        &self,
        context: &EventContext<'_>,
        plan: &Plan<'_>,
        scope: &Scope<'_>,
    ) -> Result<Box<RareParts>, Refusal> {
        let mut more = Box::<RareParts>::default();
        more.status = self.check_status(context, scope)?;
        more.metadata = check_metadata(context, plan.place(), scope)?;
        if context.def.notify.is_some() {
            more.notice = Some(self.plan_notice(context, scope)?);
        }
        let asks = |call: &&HookCall| call.when.as_ref().is_none_or(|rule| rule.holds(scope));
        let Some(call) = context.def.call.as_ref().filter(asks) else { return Ok(more) };
        more.asked = true;
        // The publish is checked before the hook is asked, because a backend may act on the call: so a backend is never
        // called for an event that this check refuses.
        if let Some((event, data)) = context.def.on_ok.as_ref().and_then(|outcome| outcome.publish.as_ref()) {
            let rooms = plan.room_names();
            let scope = Scope { room: rooms.first().map(String::as_str), rooms: &rooms, ..scope.clone() };
            more.follow = Some(self.plan_follow(context.contract, event, data, &scope)?);
        }
        let answer = self.call(context, call, scope).await?;
        more.answer = self.plan_answer(context.client, context.contract, answer, scope).await;
        Ok(more)
    }

    async fn require(
        &self,
        context: &EventContext<'_>,
        rule: &Rule,
        place: Option<&EventRoom>,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let holds = match place {
            Some(place) => Box::pin(self.ask(context.client, rule, place, scope)).await?,
            None => rule.holds(scope),
        };
        let denied = || Refusal::new(Code::AuthorizationFailed, "the contract does not permit this event to you");
        holds.then_some(()).ok_or_else(denied)
    }
}

impl Plan<'_> {
    /// The names of the rooms that the event joins and leaves, in the contract's order.
    fn room_names(&self) -> Vec<String> {
        let joined = self.joins.iter().map(JoinPermit::place);
        joined.chain(&self.leaves).map(|place| place.name.to_string()).collect()
    }

    /// The room that the event is about: the first room that it joins, else the first room that it leaves, else the
    /// room that the contract names.
    fn place(&self) -> Option<&EventRoom> {
        self.joins.first().map(JoinPermit::place).or(self.leaves.first()).or(self.about.as_deref())
    }
}

/// Checks that the names of the replies and of the undo event can be made, because nothing is refused after this check.
fn check_names(context: &EventContext<'_>, scope: &Scope<'_>) -> Result<(), Refusal> {
    let follow = context.def.on_ok.as_ref().and_then(|outcome| outcome.reply.as_ref());
    let replies = context.def.reply.iter().chain(follow).map(|reply| &reply.event);
    let undone = context.contract.undone(context.def).map(|relay| &relay.event);
    for name in replies.chain(undone).filter(|name| name.fixed().is_none()) {
        name.render(scope).map_err(|problem| Refusal::new(Code::InvalidPayload, problem))?;
    }
    Ok(())
}

/// Returns the members that the event merges into the session's metadata.
fn check_metadata(
    context: &EventContext<'_>,
    place: Option<&EventRoom>,
    scope: &Scope<'_>,
) -> Result<Map<String, Value>, Refusal> {
    let members = match &context.def.metadata {
        None => return Ok(Map::new()),
        Some(MetadataChange::At(path)) => match path.find(scope) {
            Some(Value::Object(members)) => members,
            _ => return Ok(Map::new()),
        },
        Some(MetadataChange::Members(template)) => {
            let scope = place.map_or_else(|| scope.clone(), |place| with_room(scope, &place.name, &place.vars));
            let rendered = template.members(&scope).into_iter();
            rendered.filter_map(|(name, text)| Some((name.to_owned(), crate::json::read(text.get()).ok()?))).collect()
        }
    };
    if context.client.session.fits_metadata(&members, MetadataSetter::Event) {
        return Ok(members);
    }
    let text = format!("the metadata of a socket has at most {MAX_METADATA_BYTES} bytes as JSON; send less");
    Err(Refusal::new(Code::TooLarge, text))
}
