//! Plain Socket.IO emits: events that no contract describes.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::record::RecordOutcome;
use super::{Outgoing, Published, Publisher, PublisherKind, settle};
use crate::error::{Code, Refusal};
use crate::event::Event;
use crate::protocol::{RESERVED_EVENTS, is_reserved_room, socket_room, user_room};

/// Maximum number of rooms, users, sockets and exceptions together in one emit.
pub const MAX_TARGETS: usize = 4000;

/// An emit to rooms, users and sockets of a namespace. Without any of them, the emit goes to the whole namespace.
#[derive(Debug)]
pub struct PlainEmit {
    /// The namespace's path.
    pub namespace: String,
    /// The names of the rooms whose members get the event.
    pub rooms: Vec<String>,
    /// The ids of the users whose sockets get the event.
    pub users: Vec<String>,
    /// The ids of the sockets that get the event.
    pub sockets: Vec<String>,
    /// The rooms and socket ids that do not get the event.
    pub except: Vec<String>,
    /// The event's name.
    pub event: String,
    /// The event's arguments, not decoded.
    pub args: Vec<Box<RawValue>>,
    /// Whether to skip clients that cannot be written to now.
    pub volatile: bool,
}

impl Publisher {
    /// Publishes a plain emit, and waits for Redis to accept it. A client that the emit names several times gets one
    /// copy.
    ///
    /// # Errors
    /// [`Code::NotFound`] for a namespace that this node does not serve, [`Code::InvalidRoom`] for reserved or too many
    /// names, [`Code::InvalidPayload`] for an event name that clients reserve for themselves.
    pub async fn plain(&self, emit: PlainEmit, origin: PublisherKind) -> Result<Published, Refusal> {
        let mut outgoing = self.prepare_plain(&emit)?;
        let delivery_result = self.deliver(self.plain.of(origin), &mut outgoing, origin, RecordOutcome::Goes).await;
        Ok(settle(&emit.event, outgoing.rooms, delivery_result).await)
    }

    fn prepare_plain(&self, emit: &PlainEmit) -> Result<Outgoing, Refusal> {
        let (namespace, _) = self.namespaces.get_key_value(emit.namespace.as_str()).ok_or_else(|| {
            Refusal::new(Code::NotFound, format!("no namespace {:?} is served by this node", emit.namespace))
        })?;
        check(emit)?;
        let rooms = emit.rooms.iter().map(|room| Arc::from(room.as_str()));
        let users = emit.users.iter().map(|user| user_room(user));
        let sockets = emit.sockets.iter().map(|socket| socket_room(socket));
        let except = emit.except.iter().flat_map(|name| [Arc::from(name.as_str()), socket_room(name)]);
        let mut seen = HashSet::new();
        let event = Event::encode(&emit.event, &emit.args)
            .map_err(|error| Refusal::new(Code::InvalidPayload, error.to_string()))?;
        let rooms = rooms.chain(users).chain(sockets).filter(|room| seen.insert(room.clone())).collect();
        Ok(Outgoing::new(namespace.clone(), event, rooms).except(except.collect()).volatile(emit.volatile))
    }
}

/// Whether an event may have this name.
///
/// # Errors
/// [`Code::InvalidPayload`] for a name that Socket.IO reserves.
pub fn check_name(event: &str) -> Result<(), Refusal> {
    if event.is_empty() || RESERVED_EVENTS.contains(&event) {
        let text = format!("the event name {event:?} is reserved by Socket.IO; choose another");
        return Err(Refusal::new(Code::InvalidPayload, text));
    }
    Ok(())
}

fn check(emit: &PlainEmit) -> Result<(), Refusal> {
    check_name(&emit.event)?;
    let targets = emit.rooms.len() + emit.users.len() + emit.sockets.len() + emit.except.len();
    if targets > MAX_TARGETS {
        let text = format!("{targets} rooms, users and sockets are more than {MAX_TARGETS} in one emit; split it");
        return Err(Refusal::new(Code::InvalidRoom, text));
    }
    match emit.rooms.iter().chain(&emit.except).find(|room| is_reserved_room(room)) {
        Some(room) => {
            let text = format!("the room {room:?} is reserved; name users and sockets by `users` and `sockets`");
            Err(Refusal::new(Code::InvalidRoom, text))
        }
        None => Ok(()),
    }
}
