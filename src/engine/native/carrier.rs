//! Delivers events to the clients of this node, on both transports, and publishes them to the other nodes.
//!
//! Local clients are served first, and do not wait for Redis. An event is framed once, and each client's queue gets a
//! reference to the bytes. The messages between nodes are the same for both engines, so a cluster may use both.

use std::collections::HashMap;
use std::sync::Arc;

use super::slices::Line;
use crate::cluster::Cluster;
use crate::engine::delivery::{Books, Deliveries, Handed, How, Tally};
use crate::engine::socketioxide::LibraryRequests;
use crate::publish::{Carried, Carrier, Outgoing, Reach};
use crate::redis::Keys;
use crate::room::Rooms;
use crate::telemetry::metrics::Metrics;

/// The carrier of a node whose clients use the native engine.
pub struct NativeCarrier {
    deliveries: Deliveries,
    lines: HashMap<Arc<str>, Arc<Line>>,
    metrics: Arc<Metrics>,
}

impl NativeCarrier {
    /// Builds a carrier for every namespace of `rooms`. With `keys`, it also begins to receive events from other
    /// nodes. Must be called within a Tokio runtime.
    pub fn new(rooms: Arc<Rooms>, cluster: &Cluster, keys: Option<Keys>, metrics: Arc<Metrics>) -> Arc<Self> {
        let deliveries = Deliveries::new(rooms.clone(), cluster, keys.is_some(), &metrics);
        if keys.is_some() {
            LibraryRequests::start(cluster);
        }
        let line = |(path, books): (&Arc<str>, &Arc<Books>)| (path.clone(), Line::new(&rooms, path, books, &metrics));
        let lines = deliveries.books().map(line).collect();
        let carrier = Arc::new(Self { deliveries, lines, metrics });
        carrier.deliveries.receive(&carrier);
        carrier
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.deliveries.namespaces()
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn hand_out(&self, outgoing: &Outgoing, how: How) -> Handed {
        match self.lines.get(&outgoing.namespace) {
            Some(line) => line.hand_out(outgoing, how),
            None => Handed::Now(Tally::default()),
        }
    }
}

impl Carrier for NativeCarrier {
    fn carry(&self, outgoing: &Outgoing) -> Carried {
        self.deliveries.carry(outgoing, Reach::Everyone, |outgoing, how| self.hand_out(outgoing, how))
    }

    fn carry_to_nodes(&self, outgoing: &Outgoing) -> Carried {
        self.deliveries.carry(outgoing, Reach::Nodes, |outgoing, how| self.hand_out(outgoing, how))
    }

    fn deliver(&self, outgoing: &Outgoing) -> Carried {
        self.deliveries.deliver(outgoing, |outgoing, how| self.hand_out(outgoing, how))
    }
}

#[cfg(test)]
mod tests;
