//! Receives events of Socket.IO's emitters and servers, and passes these events to this node's publisher.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::emitter_lease::EmitterLease;
use crate::publish::{Outgoing, Publisher};
use crate::redis::{Budget, MAX_RECEIVE_BYTES, ReservedBytes};
use crate::telemetry::log_limit::log_seldom;
use crate::telemetry::metrics::Metrics;

/// Maximum number of events in the queue of one namespace, from which this node publishes.
const WAITING: usize = 16_384;

/// Ensures that only one node publishes an emitter's event that every node receives.
pub(super) struct Bridge {
    publisher: Arc<Publisher>,
    /// `None` if no contract has a rule or a history for events of emitters: then no node publishes them.
    publishing: Option<Publishing>,
    metrics: Arc<Metrics>,
}

/// The events that this node publishes for all nodes while it holds the lease.
struct Publishing {
    emitter_lease: Arc<EmitterLease>,
    queues: HashMap<Arc<str>, mpsc::Sender<(Outgoing, ReservedBytes)>>,
    /// Limits the bytes of the events in the queues of all namespaces together.
    budget: Budget,
}

impl Bridge {
    /// Starts to publish events. `emitter_lease` asks for the lease to publish them, if one node has to publish events
    /// for all nodes. Needs a Tokio runtime.
    pub(super) fn start<'a>(
        publisher: Arc<Publisher>,
        namespaces: impl Iterator<Item = &'a Arc<str>>,
        emitter_lease: Option<Arc<EmitterLease>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let publishing = emitter_lease.map(|emitter_lease| {
            let queue = |namespace: &Arc<str>| {
                let (queue, waiting) = mpsc::channel(WAITING);
                tokio::spawn(publish(publisher.clone(), emitter_lease.clone(), metrics.clone(), waiting));
                (namespace.clone(), queue)
            };
            let queues = namespaces.map(queue).collect();
            Publishing { emitter_lease, queues, budget: Budget::new(MAX_RECEIVE_BYTES) }
        });
        Self { publisher, publishing, metrics }
    }

    /// Delivers an emitter's event to the clients of this node. Does not deliver an event that one node has to publish
    /// for all nodes: see [`Bridge::publish`].
    pub(super) async fn take(&self, outgoing: &Outgoing) {
        if self.publisher.is_for_one(outgoing) {
            return self.count("left");
        }
        if self.publisher.deliver_foreign(outgoing).served().await.local == 0 {
            self.count("nobody");
        }
    }

    /// Whether this node holds the lease in Redis to publish emitters' events for all nodes.
    pub(super) fn is_the_one(&self) -> bool {
        self.publishing.as_ref().is_some_and(|publishing| publishing.emitter_lease.number().is_some())
    }

    /// Queues an event to be published to all nodes, if only one node may publish the event and this node holds the
    /// lease in Redis to do that.
    pub(super) fn publish(&self, mut everywhere: Outgoing) {
        let Some((publishing, number)) =
            self.publishing.as_ref().and_then(|publishing| Some((publishing, publishing.emitter_lease.number()?)))
        else {
            return;
        };
        everywhere.event = everywhere.event.with_fence(Some(number));
        if !self.publisher.is_for_one(&everywhere) {
            return;
        }
        let queue = publishing.queues.get(&everywhere.namespace);
        let taken = publishing.budget.take(everywhere.event.size_bytes());
        if queue.zip(taken).is_none_or(|(queue, taken)| queue.try_send((everywhere, taken)).is_err()) {
            self.count("full");
        }
    }

    /// Gives up the lease to publish emitters' events, so that another node can get the lease.
    pub(super) async fn resign(&self) {
        if let Some(publishing) = &self.publishing {
            publishing.emitter_lease.resign().await;
        }
    }

    fn count(&self, reason: &str) {
        self.metrics.socketio_dropped_total.with_label_values(&[reason]).inc();
    }
}

/// Publishes events in order. If this node has lost the lease since it received an event, the event is dropped, because
/// the event would arrive after events that the lease's next holder has published.
async fn publish(
    publisher: Arc<Publisher>,
    emitter_lease: Arc<EmitterLease>,
    metrics: Arc<Metrics>,
    mut waiting: mpsc::Receiver<(Outgoing, ReservedBytes)>,
) {
    while let Some((outgoing, _taken)) = waiting.recv().await {
        if emitter_lease.number() != outgoing.event.fence() {
            metrics.socketio_dropped_total.with_label_values(&["fenced"]).inc();
            continue;
        }
        let (namespace, event) = (outgoing.namespace.clone(), outgoing.event.name().to_owned());
        if let Err(refusal) = publisher.foreign_event(outgoing).await {
            metrics.socketio_dropped_total.with_label_values(&["refused"]).inc();
            log_seldom!(warn, %namespace, event, %refusal, "an emitter's event was refused");
        }
    }
}
