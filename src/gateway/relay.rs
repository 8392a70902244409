//! Sends a client's event on to other clients.

use std::borrow::Cow;

use prometheus::IntCounter;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Gateway;
use super::context::{EventContext, EventRoom, with_room};
use super::membership::not_in;
use crate::contract::json_object::JsonObject;
use crate::contract::model::{Relay, SentArgs, Target};
use crate::contract::scope::Scope;
use crate::contract::template::Template;
use crate::error::{Code, Refusal};
use crate::event::{Args, Event};
use crate::protocol::{socket_room, user_room};
use crate::publish::Outgoing;
use crate::session::{LeaveEvent, RoomName};

/// Maximum length of a user or socket id that an event is addressed to, in bytes.
const MAX_ADDRESS_BYTES: usize = 256;

/// Maximum number of recipients of one relay.
const MAX_RECIPIENTS: usize = 256;

/// A relay whose recipients are known and to whom the client may send.
pub(super) struct PlannedRelay<'a> {
    relay: &'a Relay,
    name: Cow<'a, str>,
    published: &'a IntCounter,
    rooms: Option<Vec<RoomName>>,
    place: Option<EventRoom>,
}

impl Gateway {
    /// Finds the recipients of every relay that applies, and checks that the client may send to them.
    pub(super) async fn plan_relays<'a>(
        &self,
        context: &EventContext<'a>,
        scope: &Scope<'_>,
    ) -> Result<Vec<PlannedRelay<'a>>, Refusal> {
        let mut planned = Vec::with_capacity(context.def.relay.len());
        for (relay, published) in context.def.relay.iter().zip(&context.counters.relayed) {
            if relay.when.as_ref().is_none_or(|rule| rule.holds(scope)) {
                planned.extend(self.plan_relay(context, relay, published, scope).await?);
            }
        }
        Ok(planned)
    }

    async fn plan_relay<'a>(
        &self,
        context: &EventContext<'a>,
        relay: &'a Relay,
        published: &'a IntCounter,
        scope: &Scope<'_>,
    ) -> Result<Option<PlannedRelay<'a>>, Refusal> {
        let session = &context.client.session;
        let (rooms, place) = match &relay.to {
            Target::Room(of) => {
                let Some(place) = self.place(context.client, of, scope)? else { return Ok(None) };
                if relay.member && !session.is_in(&place.name) {
                    return Err(not_in(&place.name));
                }
                (Some(vec![place.name.clone()]), Some(place))
            }
            Target::Address(path) => (Some(rooms_of_recipients(path.find(scope).as_ref())?), None),
            Target::Shared => (Some(self.shared_rooms(context).await), None),
            Target::Everyone => (None, None),
        };
        let name = relay.event.render(scope).map_err(|problem| Refusal::new(Code::InvalidPayload, problem))?;
        Ok(Some(PlannedRelay { relay, name, published, rooms, place }))
    }

    /// Sends a planned relay.
    pub(super) async fn relay(&self, context: &EventContext<'_>, planned: PlannedRelay<'_>, scope: &Scope<'_>) {
        let session = &context.client.session;
        // The relay's event has no recipients. An empty list of rooms must not be published: it would mean the whole
        // namespace.
        if planned.rooms.as_ref().is_some_and(Vec::is_empty) {
            return;
        }
        if let Some(place) = &planned.place {
            if self.is_throttled(context, place) {
                self.count_received(&context.contract.name, &context.def.name, "throttled");
                return;
            }
            self.note_undo(context, &planned, place, scope);
        }
        let Some(event) = encode(&planned.name, &planned.relay.args, Some(context), scope) else { return };
        let except = if planned.relay.others { vec![socket_room(session.id())] } else { Vec::new() };
        let namespace = context.client.namespace.path.clone();
        let mut outgoing = Outgoing::new(namespace, event, planned.rooms.unwrap_or_default())
            .except(except)
            .volatile(planned.relay.volatile);
        self.parts.publisher.relay(planned.published, &mut outgoing).await;
    }

    fn is_throttled(&self, context: &EventContext<'_>, place: &EventRoom) -> bool {
        let now = std::time::SystemTime::now();
        context
            .def
            .throttle
            .is_some_and(|every| !context.client.session.pass_throttle(&context.def.name, &place.name, every, now))
    }

    /// Stores the undo event that is published if the client leaves without sending it. When this event is itself the
    /// undo event, removes the stored one.
    fn note_undo(&self, context: &EventContext<'_>, planned: &PlannedRelay<'_>, place: &EventRoom, scope: &Scope<'_>) {
        let session = &context.client.session;
        if let (Some(name), Some(undone)) = (&context.def.undo, context.contract.undone(context.def)) {
            let scope = with_room(scope, &place.name, &place.vars);
            if let Some(event) = relay_event(undone, context, &scope) {
                let undo = LeaveEvent { contract: context.contract.name.clone(), event, others: planned.relay.others };
                session.set_undo(name, &place.name, undo);
            }
            return;
        }
        session.clear_undo(&context.def.name, &place.name);
        for started in context.contract.client.values().filter(|def| def.undo.as_ref() == Some(&context.def.name)) {
            session.reset_throttle(&started.name, &place.name);
        }
    }
}

/// Returns the rooms of one recipient, or of a list of recipients. Each is the id of a user or of a socket.
fn rooms_of_recipients(found: Option<&Value>) -> Result<Vec<RoomName>, Refusal> {
    let recipients = match found {
        Some(Value::Array(recipients)) if recipients.len() > MAX_RECIPIENTS => {
            let text = format!("there are more than {MAX_RECIPIENTS} recipients; send to fewer at a time");
            return Err(Refusal::new(Code::InvalidPayload, text));
        }
        Some(Value::Array(recipients)) => recipients.as_slice(),
        Some(recipient) => std::slice::from_ref(recipient),
        None => &[Value::Null],
    };
    let mut rooms = Vec::with_capacity(2 * recipients.len());
    for recipient in recipients {
        match recipient {
            Value::String(id) if id.len() <= MAX_ADDRESS_BYTES => rooms.extend([socket_room(id), user_room(id)]),
            _ => return Err(Refusal::new(Code::InvalidPayload, "the recipient is not a user id or socket id")),
        }
    }
    Ok(rooms)
}

/// Makes the event that a relay sends. `None` if its name or its arguments cannot be made from these values.
fn relay_event(relay: &Relay, context: &EventContext<'_>, scope: &Scope<'_>) -> Option<Event> {
    encode(&relay.event.render(scope).ok()?, &relay.args, Some(context), scope)
}

/// Encodes an event with the arguments that the contract asks for. Attachments are kept if a placeholder in the
/// arguments refers to them.
pub(super) fn encode(
    name: &str,
    args: &SentArgs,
    context: Option<&EventContext<'_>>,
    scope: &Scope<'_>,
) -> Option<Event> {
    let event = context.map(|context| context.event);
    let encoded = match args {
        SentArgs::Unchanged => return Some(event?.renamed(name)),
        SentArgs::Payload(add) => Event::encode(name, &[with_members(context?, add, scope)?]),
        SentArgs::Values(templates) => Event::encode(name, templates.iter().map(|template| template.render(scope))),
    };
    let encoded = encoded.ok()?;
    match event {
        Some(event) if refers_to_attachments(event, encoded.text()) => {
            Some(encoded.with_attachments(event.attachments().to_vec()))
        }
        _ => Some(encoded),
    }
}

/// Encodes the arguments of an acknowledgement as an event's arguments are encoded.
pub(super) fn encode_ack(args: &SentArgs, context: &EventContext<'_>, scope: &Scope<'_>) -> Option<Args> {
    let event = context.event;
    let encoded = match args {
        SentArgs::Unchanged => return Some(Args::of(event)),
        SentArgs::Payload(add) => Args::encode(&[with_members(context, add, scope)?]),
        SentArgs::Values(templates) => Args::encode(templates.iter().map(|template| template.render(scope))),
    };
    let encoded = encoded.ok()?;
    if refers_to_attachments(event, encoded.text()) {
        return Some(Args::from_wire(encoded.text().clone(), event.attachments().to_vec()));
    }
    Some(encoded)
}

fn refers_to_attachments(event: &Event, encoded: &str) -> bool {
    !event.attachments().is_empty() && encoded.contains("\"_placeholder\"")
}

/// Returns the payload with the contract's members added. The client's own members are copied as text.
fn with_members(context: &EventContext<'_>, add: &Template, scope: &Scope<'_>) -> Option<Box<RawValue>> {
    let payload = match scope.text {
        Some(text) => Cow::Borrowed(text),
        None => Cow::Owned(context.def.payload.raw(&context.event.args().ok()?, scope.payload)?),
    };
    let Some(mut members) = JsonObject::read(&payload, scope.payload) else { return Some(payload.into_owned()) };
    let add = add.members(scope);
    add.iter().for_each(|(name, value)| members.set_raw(name, value));
    members.to_raw()
}
