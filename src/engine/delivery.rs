//! Delivers events to the clients of this node, and publishes them to the other nodes.
//!
//! Local clients are served first, and do not wait for Redis. Each recipient's session gets the event, whichever
//! engine serves it. The messages between nodes do not depend on the engine, so a cluster may use both.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use super::local_delivery::{DeliveryCounts, DeliveryMode};
use super::slices::DeliveryQueue;
use super::socketioxide::LibraryRequests;
use crate::cluster::{Cluster, ClusterAdapter};
use crate::order::OrderGuard;
use crate::publish::{Delivery, DeliveryResult, DeliveryScope, Outgoing, RemoteDelivery, SliceCounts};
use crate::room::Rooms;
use crate::telemetry::metrics::Metrics;

/// How often the node tries again to send the events that it keeps for slow clients.
const LOOK: Duration = Duration::from_millis(50);

/// Delivers events to the clients of this node and to the other nodes. The publish path sends everything through it.
pub struct Broadcaster {
    rooms: Arc<Rooms>,
    guard: OrderGuard,
    lines: HashMap<Arc<str>, Arc<DeliveryQueue>>,
    wire: Option<Arc<ClusterAdapter>>,
}

/// Whether an event has been delivered yet.
pub(super) enum DeliveryProgress {
    /// The event has been delivered.
    Now(DeliveryCounts),
    /// Another task delivers the event later.
    Later {
        /// The maximum number of clients that will get the event.
        local: usize,
        /// Receives the result when the event has been delivered.
        served: oneshot::Receiver<SliceCounts>,
    },
}

impl Broadcaster {
    /// Creates a broadcaster for every namespace of `rooms`. In a cluster, the broadcaster also begins to receive
    /// events from other nodes, servers and emitters. Must be called within a Tokio runtime.
    pub fn new(rooms: Arc<Rooms>, cluster: &Cluster, metrics: &Metrics) -> Arc<Self> {
        tokio::spawn(release_laggards(Arc::downgrade(&rooms)));
        let queue = |path: &Arc<str>| (path.clone(), DeliveryQueue::new(&rooms, path, metrics));
        let lines = rooms.namespaces().map(queue).collect();
        let wire = cluster.wire().cloned();
        let broadcaster = Arc::new(Self { rooms, guard: OrderGuard::default(), lines, wire });
        if let Some(wire) = &broadcaster.wire {
            wire.read_requests_by(Arc::new(LibraryRequests::default()));
            let receiver = broadcaster.clone();
            wire.receive(move |outgoing| receiver.deliver(outgoing));
        }
        broadcaster
    }

    /// Delivers an event to the clients of this node, and then publishes the event to other processes.
    fn broadcast_to(&self, outgoing: &Outgoing, reach: DeliveryScope) -> DeliveryResult {
        let delivery_result = self.deliver(outgoing);
        let wire = self.wire.as_ref().filter(|_| self.lines.contains_key(&outgoing.namespace));
        DeliveryResult {
            remote: wire.map_or(RemoteDelivery::Alone, |wire| wire.publish(outgoing, reach)),
            ..delivery_result
        }
    }
}

impl Delivery for Broadcaster {
    fn broadcast(&self, outgoing: &Outgoing) -> DeliveryResult {
        self.broadcast_to(outgoing, DeliveryScope::Everyone)
    }

    fn broadcast_to_nodes(&self, outgoing: &Outgoing) -> DeliveryResult {
        self.broadcast_to(outgoing, DeliveryScope::Nodes)
    }

    fn deliver(&self, outgoing: &Outgoing) -> DeliveryResult {
        let Some(queue) = self.lines.get(&outgoing.namespace) else { return DeliveryResult::to(0, 0) };
        let minded = self.rooms.minded(&outgoing.namespace, &outgoing.event, &outgoing.rooms);
        let minded = minded.map(|event| Outgoing { event, ..outgoing.clone() });
        let outgoing = minded.as_ref().unwrap_or(outgoing);
        let work = || queue.queue_for_all(outgoing, DeliveryMode::Queued);
        let handed = self.guard.deliver(outgoing.order.as_ref(), outgoing.event.name(), work).unwrap_or_else(|| {
            queue.recorder().count_overtaken();
            if outgoing.stamps.is_empty() {
                DeliveryProgress::Now(DeliveryCounts::default())
            } else {
                queue.queue_for_all(outgoing, DeliveryMode::Overtaken)
            }
        });
        match handed {
            DeliveryProgress::Now(counts) => {
                let SliceCounts { queued, dropped } = queue.recorder().enter(counts);
                DeliveryResult::to(queued, dropped)
            }
            DeliveryProgress::Later { local, served } => {
                DeliveryResult { served: Some(served), ..DeliveryResult::to(local, 0) }
            }
        }
    }
}

/// Sends the events that are kept for slow clients as soon as those clients read again. Ends when `rooms` is dropped.
async fn release_laggards(rooms: Weak<Rooms>) {
    loop {
        tokio::time::sleep(LOOK).await;
        match rooms.upgrade() {
            Some(rooms) => rooms.release_laggards(),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests;
