//! Events that a Socket.IO emitter or a Node.js server sent through Redis: every node of the cluster receives them.
//!
//! If no rule of a contract concerns an event, every node delivers it to its own clients. If a contract has rules for
//! the event, exactly one node publishes it, as if a backend had sent it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::record::RecordOutcome;
use super::{DeliveryResult, DescribedEvent, Outgoing, PublishedContract, Publisher, PublisherKind};
use crate::contract::model::ServerEvent;
use crate::contract::scope::Scope;
use crate::error::{Code, Refusal};
use crate::event::Event;
use crate::user::User;

/// Events that contracts have rules for, by namespace and name.
pub(super) struct ContractEvents(HashMap<Arc<str>, HashMap<String, Vec<Arc<DescribedEvent>>>>);

impl ContractEvents {
    pub(super) fn new(contracts: &[PublishedContract]) -> Self {
        let mut ruled: HashMap<Arc<str>, HashMap<String, Vec<Arc<DescribedEvent>>>> = HashMap::new();
        for PublishedContract { namespace, events, .. } in contracts {
            for (name, described) in events.iter().filter(|(_, described)| has_rules(&described.def)) {
                let of_namespace = ruled.entry(namespace.path.clone()).or_default();
                of_namespace.entry(name.clone()).or_default().push(described.clone());
            }
        }
        Self(ruled)
    }
}

/// Whether a contract has rules for an event that concern an emitter's events too.
pub(super) fn has_rules(def: &ServerEvent) -> bool {
    def.schema.is_some() || def.fill.is_some() || def.throttle.is_some() || def.flush || def.terminal
}

impl Publisher {
    /// Whether some foreign event could need exactly one node to publish it.
    pub fn has_rules(&self) -> bool {
        !self.recorded.is_empty() || !self.ruled.0.is_empty()
    }

    /// Whether exactly one node must publish this event, because a contract has rules for it or one of its rooms keeps
    /// a history.
    pub fn is_for_one(&self, outgoing: &Outgoing) -> bool {
        let recovery = self.recovering.get(&outgoing.namespace).copied();
        self.rule_of(outgoing).is_some() || !self.kept(outgoing, RecordOutcome::Goes, recovery).is_empty()
    }

    /// Delivers an event that another node has published to the clients of this node.
    pub fn deliver_published(&self, outgoing: &Outgoing) -> DeliveryResult {
        self.parts.delivery.deliver(outgoing)
    }

    /// Delivers an emitter's event that every node has received to the clients of this node.
    pub fn deliver_foreign(&self, outgoing: &Outgoing) -> DeliveryResult {
        self.plain.of(PublisherKind::Emitter).inc();
        self.parts.delivery.deliver(outgoing)
    }

    /// Publishes an event to the rooms that its sender named, and applies everything that the contract says of the
    /// event.
    ///
    /// # Errors
    /// [`Code::InvalidPayload`] when the contract refuses the payload. Nothing was sent then.
    pub async fn foreign_event(self: &Arc<Self>, mut outgoing: Outgoing) -> Result<(), Refusal> {
        let origin = PublisherKind::Emitter;
        let Some(described) = self.rule_of(&outgoing).cloned() else {
            self.deliver(self.plain.of(origin), &mut outgoing, origin, RecordOutcome::Goes).await;
            return Ok(());
        };
        let fence = outgoing.event.fence();
        outgoing.event = accept(&described.def, outgoing.event)?.with_fence(fence);
        outgoing.volatile |= described.def.volatile;
        self.send_described(&described, &mut outgoing, origin).await;
        Ok(())
    }

    /// The server event whose rules apply: an event of this name, whose contract has one of the event's rooms. For an
    /// event to the whole namespace, a server event that its contract sends to the whole namespace.
    fn rule_of(&self, outgoing: &Outgoing) -> Option<&Arc<DescribedEvent>> {
        let rules = self.ruled.0.get(&outgoing.namespace)?.get(outgoing.event.name())?;
        let namespace = self.namespaces.get(&outgoing.namespace)?;
        rules.iter().find(|described| {
            let DescribedEvent { contract, def, .. } = &***described;
            if outgoing.rooms.is_empty() {
                return def.to_everyone();
            }
            let mut families = outgoing.rooms.iter().filter_map(|room| namespace.room_of(room));
            families.any(|(family, _)| family.contract == contract.name)
        })
    }
}

/// Fills in and checks the first argument, which is the payload. The other arguments are not changed.
fn accept(def: &ServerEvent, event: Event) -> Result<Event, Refusal> {
    if def.schema.is_none() && def.fill.is_none() {
        return Ok(event);
    }
    let refuse = |error: String| Refusal::new(Code::InvalidPayload, error);
    let args = event.args().map_err(|error| refuse(error.to_string()))?;
    let given: Value = args.first().map_or(Ok(Value::Null), |arg| {
        crate::json::read(arg.get()).map_err(|_| refuse("the payload is nested too deeply".to_owned()))
    })?;
    let user = User::anonymous();
    let mut scope = Scope::new(&user, &Value::Null, std::time::SystemTime::now());
    scope.text = args.first().copied();
    let Some(payload) = def.accept(given, &scope)?.text else { return Ok(event) };
    let all: Vec<&RawValue> = std::iter::once(&*payload).chain(args.into_iter().skip(1)).collect();
    let filled = Event::encode(event.name(), &all).map_err(|error| refuse(error.to_string()))?;
    Ok(filled.with_attachments(event.attachments().to_vec()))
}
