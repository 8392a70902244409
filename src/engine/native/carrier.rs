//! Brings events to the clients of this node, of both kinds, and to the other nodes.
//!
//! Local first, whatever Redis does. An event is framed once; each recipient's queue gets a reference to the bytes. What
//! nodes say to each other is the same as on the other engine, so nodes of both can share a cluster.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use prometheus::IntCounter;

use crate::cluster::{Cluster, Wire};
use crate::engine::socketioxide::SocketioxideCarrier;
use crate::order::OrderGuard;
use crate::publish::{Carried, Carrier, Outgoing, Remote};
use crate::redis::Keys;
use crate::room::Rooms;
use crate::session::{Delivery, SendError, Session};
use crate::telemetry::metrics::Metrics;

/// The carrier of a node whose WebSockets are served by the native engine.
pub struct NativeCarrier {
    rooms: Arc<Rooms>,
    guard: OrderGuard,
    spaces: HashMap<Arc<str>, Space>,
    wire: Option<Arc<Wire>>,
    metrics: Arc<Metrics>,
    /// Knows the library's sockets; carries nothing.
    polling: Arc<SocketioxideCarrier>,
}

/// A namespace.
struct Space {
    delivered: IntCounter,
    full: IntCounter,
    volatile: IntCounter,
    closed: IntCounter,
    replaced: IntCounter,
    overtaken: IntCounter,
}

/// What became of an event on this node.
#[derive(Default)]
struct Tally {
    queued: usize,
    full: usize,
    /// Not sent, because it is volatile and the client takes nothing now.
    volatile: usize,
    closed: usize,
    replaced: usize,
    /// For which something is kept from now on.
    laggards: Vec<Weak<Session>>,
}

impl NativeCarrier {
    /// A carrier for every namespace of `rooms`. With `keys`, it begins to receive what other nodes send. Needs a Tokio
    /// runtime.
    pub fn new(rooms: Arc<Rooms>, cluster: &Cluster, keys: Option<Keys>, metrics: Arc<Metrics>) -> Arc<Self> {
        let polling = SocketioxideCarrier::new(rooms.clone(), cluster, None, metrics.clone());
        let spaces = rooms.namespaces().map(|path| (path.clone(), Space::new(path, &metrics))).collect();
        let wire = cluster.wire().filter(|_| keys.is_some()).cloned();
        let carrier = Arc::new(Self { rooms, guard: OrderGuard::default(), spaces, wire, metrics, polling });
        if let Some(wire) = &carrier.wire {
            let receiving = carrier.clone();
            wire.receive(move |outgoing| {
                if let Some(space) = receiving.spaces.get(&outgoing.namespace) {
                    receiving.deliver(space, outgoing);
                }
            });
        }
        carrier
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.spaces.keys()
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(super) fn polling(&self) -> &Arc<SocketioxideCarrier> {
        &self.polling
    }

    /// Delivers to the clients of this node, unless something newer has overtaken the event.
    fn deliver(&self, space: &Space, outgoing: &Outgoing) -> Tally {
        let minded = self.rooms.minded(&outgoing.namespace, &outgoing.event, &outgoing.rooms);
        let minded = minded.map(|event| Outgoing { event, ..outgoing.clone() });
        let outgoing = minded.as_ref().unwrap_or(outgoing);
        let work = || {
            let (rooms, except) = (&outgoing.rooms, &outgoing.except);
            let tally = self.rooms.visit(&outgoing.namespace, rooms, except, |sessions| Tally::of(sessions, outgoing));
            tally.unwrap_or_default()
        };
        let Some(mut tally) = self.guard.deliver(outgoing.order.as_ref(), outgoing.event.name(), work) else {
            space.overtaken.inc();
            return Tally::default();
        };
        space.count(&tally);
        self.rooms.note_laggards(std::mem::take(&mut tally.laggards));
        tally
    }
}

impl Carrier for NativeCarrier {
    fn carry(&self, outgoing: &Outgoing) -> Carried {
        let Some(space) = self.spaces.get(&outgoing.namespace) else {
            return Carried { local: 0, dropped: 0, remote: Remote::Alone };
        };
        let tally = self.deliver(space, outgoing);
        let remote = self.wire.as_ref().map_or(Remote::Alone, |wire| wire.publish(outgoing));
        Carried { local: tally.queued, dropped: tally.full + tally.volatile, remote }
    }

    fn deliver(&self, outgoing: &Outgoing) -> Carried {
        let tally = self.spaces.get(&outgoing.namespace).map(|space| self.deliver(space, outgoing)).unwrap_or_default();
        Carried { local: tally.queued, dropped: tally.full + tally.volatile, remote: Remote::Alone }
    }
}

// === impl Space ===

impl Space {
    fn new(path: &Arc<str>, metrics: &Metrics) -> Self {
        let dropped = |reason| metrics.deliveries_dropped_total.with_label_values(&[&**path, reason]);
        Self {
            delivered: metrics.deliveries_total.with_label_values(&[path]),
            full: dropped("queue_full"),
            volatile: dropped("volatile"),
            closed: dropped("closed"),
            replaced: dropped("slow_replaced"),
            overtaken: dropped("overtaken"),
        }
    }

    fn count(&self, tally: &Tally) {
        self.delivered.inc_by(tally.queued as u64);
        self.full.inc_by(tally.full as u64);
        self.volatile.inc_by(tally.volatile as u64);
        self.closed.inc_by(tally.closed as u64);
        self.replaced.inc_by(tally.replaced as u64);
    }
}

// === impl Tally ===

impl Tally {
    fn of(sessions: &mut dyn Iterator<Item = &Arc<Session>>, outgoing: &Outgoing) -> Self {
        let mut tally = Self::default();
        for session in sessions {
            if outgoing.passes_over(session) {
                tally.volatile += 1;
                continue;
            }
            let held = session.holds();
            match session.deliver(&outgoing.event, &outgoing.rooms, &outgoing.stamps) {
                Ok(Delivery::Sent) => tally.queued += 1,
                Ok(kept @ (Delivery::Held | Delivery::Replaced)) => {
                    tally.queued += 1;
                    tally.replaced += usize::from(kept == Delivery::Replaced);
                    if !held && session.holds() {
                        tally.laggards.push(Arc::downgrade(session));
                    }
                }
                Ok(Delivery::Replayed) => {}
                Err(SendError::Full) => tally.full += 1,
                Err(SendError::Closed) => tally.closed += 1,
            }
        }
        tally
    }
}
