//! Publishes events that a contract describes, for backends and hooks.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use serde_json::value::RawValue;

use super::record::RecordOutcome;
use super::{DeliveryResult, DescribedEvent, Outgoing, Published, Publisher, PublisherKind, settle};
use crate::contract::model::{Contract, Namespace, RoomRef, ServerEvent};
use crate::contract::payload::Accepted;
use crate::contract::room_name::RoomNameError;
use crate::contract::scope::Scope;
use crate::error::{Code, Refusal};
use crate::event::Event;
use crate::session::RoomName;
use crate::user::User;

/// A request to publish an event of a contract. The contract and the event are given by name.
#[derive(Debug)]
pub struct ContractPublish {
    /// The contract's name.
    pub contract: String,
    /// The name of one of the contract's server events.
    pub event: String,
    /// The arguments, not decoded. The first is the payload that the contract checks and completes.
    pub args: Vec<Box<RawValue>>,
    /// Routing data that clients never see.
    pub params: Value,
}

/// A publish that its contract has accepted: complete, encoded, with its rooms. Only [`Publisher::plan`] creates such a
/// value.
#[derive(Debug)]
pub struct PlannedPublish {
    described: Arc<DescribedEvent>,
    outgoing: Outgoing,
}

impl Publisher {
    /// Validates and routes an event of a contract, fills in the members that the contract adds, publishes the event,
    /// and waits for Redis to accept it.
    ///
    /// When this returns, the event is queued for local clients. Other nodes get it at most once.
    ///
    /// # Errors
    /// [`Code::NotFound`] and [`Code::UnknownEvent`] for names that no contract has, [`Code::InvalidPayload`] and
    /// [`Code::InvalidRoom`] for data that the contract refuses. After an error, nothing was sent.
    pub async fn contract_event(
        self: &Arc<Self>,
        publish: ContractPublish,
        origin: PublisherKind,
    ) -> Result<Published, Refusal> {
        Ok(self.publish(self.plan(&publish)?, origin).await)
    }

    /// Validates and routes an event of a contract, and fills in the members that the contract adds. Sends nothing yet.
    ///
    /// # Errors
    /// As [`Publisher::contract_event`].
    pub fn plan(&self, publish: &ContractPublish) -> Result<PlannedPublish, Refusal> {
        let loaded = self.contracts.get(&publish.contract).ok_or_else(|| {
            Refusal::new(Code::NotFound, format!("no contract {:?} is loaded on this node", publish.contract))
        })?;
        let described = loaded.events.get(&publish.event).ok_or_else(|| {
            let text = format!("contract {:?} has no server event {:?}", publish.contract, publish.event);
            Refusal::new(Code::UnknownEvent, text)
        })?;
        let outgoing = prepare(&loaded.namespace, &described.contract, &described.def, publish)?;
        Ok(PlannedPublish { described: described.clone(), outgoing })
    }

    /// Publishes a planned event, and waits for Redis to accept it.
    pub async fn publish(self: &Arc<Self>, planned: PlannedPublish, origin: PublisherKind) -> Published {
        let PlannedPublish { described, mut outgoing } = planned;
        let name = &described.def.name;
        match self.send_described(&described, &mut outgoing, origin).await {
            Some(delivery_result) => settle(name, outgoing.rooms, delivery_result).await,
            None => Published::held(name, outgoing.rooms),
        }
    }

    /// Sends an event that its contract has accepted, by the contract's rules for order, rate and history. Returns
    /// `None` for an event that a throttle holds back.
    pub(super) async fn send_described(
        self: &Arc<Self>,
        described: &DescribedEvent,
        outgoing: &mut Outgoing,
        origin: PublisherKind,
    ) -> Option<DeliveryResult> {
        let DescribedEvent { contract, def, published } = described;
        // An event with `except` is not throttled: it must not replace an event that other clients get.
        if let Some(throttle) = def.throttle.as_ref().filter(|_| outgoing.except.is_empty()) {
            return self.conflate(described, throttle, outgoing, origin).await;
        }
        if def.flush || def.terminal {
            self.flush(contract, outgoing).await;
        }
        let story = if def.terminal { RecordOutcome::Ends } else { RecordOutcome::Goes };
        Some(self.deliver(published.of(origin), outgoing, origin, story).await)
    }
}

/// Checks and routes a publish. Parses the payload only if one of the contract's rules reads it, and encodes the
/// payload again only if something was filled in.
fn prepare(
    namespace: &Namespace,
    contract: &Contract,
    def: &ServerEvent,
    publish: &ContractPublish,
) -> Result<Outgoing, Refusal> {
    let user = User::anonymous();
    let now = SystemTime::now();
    let data = publish.args.first().map(|data| &**data);
    let mut accepted = Accepted::default();
    if def.reads_payload() {
        let given = data.map_or(Ok(Value::Null), |data| crate::json::read(data.get()));
        let given = given.map_err(|_| Refusal::new(Code::InvalidPayload, "data is not JSON"))?;
        let mut scope = Scope::new(&user, &Value::Null, now);
        (scope.params, scope.text) = (&publish.params, data);
        accepted = def.accept(given, &scope)?;
    }
    let text = accepted.text.as_deref().or(data);
    let further = publish.args.iter().skip(1).map(|arg| &**arg);
    let event = Event::encode(&publish.event, text.into_iter().chain(further))
        .map_err(|error| Refusal::new(Code::InvalidPayload, error.to_string()))?;
    let mut scope = Scope::new(&user, &accepted.payload, now);
    (scope.params, scope.text) = (&publish.params, text);
    let rooms = rooms_of(namespace, contract, &def.rooms, &scope)?;
    Ok(Outgoing::new(namespace.path.clone(), event, rooms).volatile(def.volatile))
}

/// The names of an event's rooms, each once. Empty when the contract sends the event to the whole namespace. When the
/// contract names rooms and every one of them was left out, the publish is refused, so that the event never reaches the
/// whole namespace by mistake.
fn rooms_of(
    namespace: &Namespace,
    contract: &Contract,
    refs: &[RoomRef],
    scope: &Scope<'_>,
) -> Result<Vec<RoomName>, Refusal> {
    if refs.is_empty() {
        return Ok(Vec::new());
    }
    let mut rooms: Vec<RoomName> = Vec::with_capacity(refs.len());
    for of in refs.iter().filter(|of| of.when.as_ref().is_none_or(|rule| rule.holds(scope))) {
        let name = match of.room.name.render(&of.with, scope) {
            Ok((name, _)) => name,
            Err(RoomNameError::Missing(_)) if of.optional => continue,
            Err(error) => return Err(room_refusal(&of.room.key, &error)),
        };
        namespace.check_taken(&of.room, &name).map_err(|error| room_refusal(&of.room.key, &error))?;
        let name: RoomName = name.into();
        if !rooms.contains(&name) {
            rooms.push(name);
        }
    }
    if rooms.is_empty() {
        let text = format!("the event goes to no room of contract {:?} with this data", contract.name);
        return Err(Refusal::new(Code::InvalidRoom, text));
    }
    Ok(rooms)
}

/// The refusal that a client or backend gets when a room's name cannot be built.
pub fn room_refusal(key: &str, error: &RoomNameError) -> Refusal {
    Refusal::new(Code::InvalidRoom, format!("the name of the room {key:?} cannot be made: {error}"))
}
