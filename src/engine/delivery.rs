//! Delivers events to the clients of this node, and publishes them to the other nodes.
//!
//! An event goes to the node's own clients first, which do not wait for Redis. Each recipient's session gets the event,
//! whichever engine serves it. The messages between nodes do not depend on the engine, so a cluster may use both.

use std::collections::HashMap;
use std::sync::Arc;

use super::local_delivery::{DeliveryCounts, DeliveryMode};
use super::slices::{DeliveryProgress, DeliveryQueue};
use super::slow_clients::SlowClients;
use crate::cluster::{Cluster, ClusterAdapter};
use crate::contract::model::Contract;
use crate::order::OrderGuard;
use crate::publish::{Delivery, DeliveryResult, DeliveryScope, Outgoing, RemoteDelivery, SliceCounts};
use crate::room::Rooms;
use crate::telemetry::metrics::Metrics;

/// Delivers events to the clients of this node and to the other nodes. The publish path sends everything through it.
pub struct Broadcaster {
    slow: Arc<SlowClients>,
    guard: OrderGuard,
    lines: HashMap<Arc<str>, Arc<DeliveryQueue>>,
    wire: Option<Arc<ClusterAdapter>>,
}

impl Broadcaster {
    /// Creates a broadcaster for every namespace of `rooms`. `contracts` say which events are kept for slow clients.
    /// Must be called within a Tokio runtime.
    pub fn new(rooms: &Arc<Rooms>, cluster: &Cluster, contracts: &[Arc<Contract>], metrics: &Metrics) -> Arc<Self> {
        let slow = SlowClients::start(contracts);
        let queue = |path: &Arc<str>| (path.clone(), DeliveryQueue::new(rooms, &slow, path, metrics));
        let lines = rooms.namespaces().map(queue).collect();
        Arc::new(Self { slow, guard: OrderGuard::default(), lines, wire: cluster.wire().cloned() })
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
        let marked = self.slow.marked(&outgoing.namespace, &outgoing.event, &outgoing.rooms);
        let marked = marked.map(|event| Outgoing { event, ..outgoing.clone() });
        let outgoing = marked.as_ref().unwrap_or(outgoing);
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

#[cfg(test)]
mod tests;
