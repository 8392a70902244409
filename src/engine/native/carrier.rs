//! Brings events to the clients of this node, of both kinds, and to the other nodes.
//!
//! Local first, whatever Redis does. An event is framed once; each recipient's queue gets a reference to the bytes. What
//! nodes say to each other is the same as on the other engine, so nodes of both can share a cluster.

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

/// The carrier of a node whose clients are served by the native engine.
pub struct NativeCarrier {
    deliveries: Deliveries,
    lines: HashMap<Arc<str>, Arc<Line>>,
    metrics: Arc<Metrics>,
}

impl NativeCarrier {
    /// A carrier for every namespace of `rooms`. With `keys`, it begins to receive what other nodes send. Needs a Tokio
    /// runtime.
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
