//! The events that clients of a namespace may send, each with the counters that the event increments.
//!
//! The counters are looked up by their labels once, when the gateway is built, because one event increments several of
//! them.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::{Histogram, IntCounter};

use crate::contract::model::{ANY_EVENT, ClientEvent, Contract, Namespace, Relay};
use crate::contract::sent::SentNames;
use crate::publish::{Publisher, PublisherKind};
use crate::telemetry::metrics::Metrics;

/// An event that clients may send.
pub(super) struct EventHandler {
    pub(super) contract: Arc<Contract>,
    pub(super) def: Arc<ClientEvent>,
    pub(super) counters: HandlerCounters,
}

/// The counters of an event that succeeds.
pub(super) struct HandlerCounters {
    pub(super) received: IntCounter,
    pub(super) acked: IntCounter,
    pub(super) seconds: Histogram,
    pub(super) ack_seconds: Histogram,
    /// The counters of the events that the event's relays publish, in the contract's order.
    pub(super) relayed: Vec<IntCounter>,
}

/// The handlers of a namespace.
pub(super) struct Handlers {
    by_name: HashMap<String, EventHandler>,
    /// The handler of the events that no table names, and the names that it does not take.
    any: Option<Box<(EventHandler, SentNames)>>,
    /// Events and acknowledgements that were queued for single clients.
    pub(super) delivered: IntCounter,
}

impl Handlers {
    pub(super) fn new(namespace: &Namespace, publisher: &Publisher, metrics: &Metrics) -> Self {
        let handler = |(name, (contract, def)): (&String, &(Arc<Contract>, Arc<ClientEvent>))| {
            let counters = HandlerCounters::new(contract, def, publisher, metrics);
            (name.clone(), EventHandler { contract: contract.clone(), def: def.clone(), counters })
        };
        let mut by_name: HashMap<_, _> = namespace.client.iter().map(handler).collect();
        let any = by_name.remove(ANY_EVENT).map(|any| Box::new((any, SentNames::of(namespace))));
        Self { by_name, any, delivered: metrics.deliveries_total.with_label_values(&[&namespace.path]) }
    }

    /// Returns the handler of an event; `None` if no contract declares the event.
    pub(super) fn get(&self, event: &str) -> Option<&EventHandler> {
        self.by_name.get(event).or_else(|| self.any(event))
    }

    /// Returns the handler of an event that no table names. An event with a name that the node itself sends has no
    /// handler.
    fn any(&self, event: &str) -> Option<&EventHandler> {
        let (handler, sent) = &**self.any.as_ref()?;
        (!sent.contains(event)).then_some(handler)
    }
}

impl HandlerCounters {
    fn new(contract: &Contract, def: &ClientEvent, publisher: &Publisher, metrics: &Metrics) -> Self {
        let labels = [&*contract.name, &*def.name];
        let succeeded = [labels[0], labels[1], "ok"];
        // A name with values of the payload is not a label, because clients choose the values.
        let name = |relay: &Relay| relay.event.fixed().unwrap_or(&def.name).to_owned();
        let relayed =
            def.relay.iter().map(|relay| publisher.counter(&contract.name, &name(relay), PublisherKind::Client));
        Self {
            received: metrics.events_received_total.with_label_values(&succeeded),
            acked: metrics.acks_total.with_label_values(&succeeded),
            seconds: metrics.event_seconds.with_label_values(&labels),
            ack_seconds: metrics.ack_seconds.with_label_values(&[labels[0]]),
            relayed: relayed.collect(),
        }
    }
}
