//! Brings events to the clients of this node and to the other nodes.
//!
//! Local first, whatever Redis does. An event is encoded once for all clients of the node; only a client to which a room's
//! history was replayed lately is asked one by one (see [`Session::deliver`]).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};

use bytestring::ByteString;
use prometheus::IntCounter;
use socketioxide_core::adapter::errors::SocketError;
use socketioxide_core::{Str, Value};

use super::adapter::{AdapterState, Port};
use crate::cluster::{Cluster, PubSub, Wire};
use crate::event::Event;
use crate::order::OrderGuard;
use crate::publish::{Carried, Carrier, Outgoing, Remote};
use crate::redis::Keys;
use crate::room::{Rooms, socket_room};
use crate::session::{Delivery, RoomName, SendError, Session};
use crate::telemetry::metrics::Metrics;

/// A room of the library's tables that every client of the namespace is in, once it has been let in.
pub(super) const EVERYONE: &str = "$all";

/// The carrier of a node whose clients are served by socketioxide.
pub struct SocketioxideCarrier {
    rooms: Arc<Rooms>,
    ports: Arc<Ports>,
    spaces: HashMap<Arc<str>, Space>,
    wire: Option<Arc<Wire>>,
    /// For the library's own adapter.
    pubsub: Option<(Arc<PubSub>, Keys)>,
    guard: OrderGuard,
    pub(super) metrics: Arc<Metrics>,
}

/// A namespace.
struct Space {
    everyone: [RoomName; 1],
    delivered: IntCounter,
    full: IntCounter,
    volatile: IntCounter,
    closed: IntCounter,
    replaced: IntCounter,
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

/// The namespaces' ports, once the library has made them.
#[derive(Default)]
pub(super) struct Ports {
    ports: HashMap<Arc<str>, OnceLock<Weak<dyn Port>>>,
}

impl Ports {
    pub(super) fn announce(&self, namespace: &str, port: Arc<dyn Port>) {
        if let Some(place) = self.ports.get(namespace) {
            let _ = place.set(Arc::downgrade(&port));
        }
    }

    pub(super) fn get(&self, namespace: &str) -> Option<Arc<dyn Port>> {
        self.ports.get(namespace)?.get()?.upgrade()
    }
}

impl SocketioxideCarrier {
    /// A carrier for every namespace of `rooms`. With `keys`, it begins to receive what other nodes send. Needs a Tokio
    /// runtime.
    pub fn new(rooms: Arc<Rooms>, cluster: &Cluster, keys: Option<Keys>, metrics: Arc<Metrics>) -> Arc<Self> {
        let namespaces: Vec<_> = rooms.namespaces().cloned().collect();
        let ports = Ports { ports: namespaces.iter().map(|path| (path.clone(), OnceLock::new())).collect() };
        let spaces = namespaces.iter().map(|path| (path.clone(), Space::new(path, &metrics))).collect();
        let wire = cluster.wire().filter(|_| keys.is_some()).cloned();
        let pubsub = cluster.pubsub().cloned().zip(keys);
        let guard = OrderGuard::default();
        let carrier = Arc::new(Self { rooms, ports: Arc::new(ports), spaces, wire, pubsub, guard, metrics });
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

    pub(super) fn adapter_state(&self) -> AdapterState {
        let redis = self.pubsub.as_ref().map(|(pubsub, keys)| (pubsub.clone(), keys.namespace_prefix()));
        AdapterState::new(self.ports.clone(), redis)
    }

    pub(super) fn port(&self, namespace: &str) -> Option<Arc<dyn Port>> {
        self.ports.get(namespace)
    }

    /// Delivers to the clients of this node, unless something that ends the event's story has overtaken it.
    fn deliver(&self, space: &Space, outgoing: &Outgoing) -> Tally {
        let order = outgoing.order.as_ref();
        let tally = self.guard.deliver(order, outgoing.event.name(), || self.deliver_now(space, outgoing));
        tally.unwrap_or_else(|| {
            let labels = [&*outgoing.namespace, "overtaken"];
            self.metrics.deliveries_dropped_total.with_label_values(&labels).inc();
            Tally::default()
        })
    }

    fn deliver_now(&self, space: &Space, outgoing: &Outgoing) -> Tally {
        let Some(port) = self.ports.get(&outgoing.namespace) else { return Tally::default() };
        let minded = self.rooms.minded(&outgoing.namespace, &outgoing.event, &outgoing.rooms);
        let is_minded = minded.is_some();
        let minded = minded.map(|event| Outgoing { event, ..outgoing.clone() });
        let outgoing = minded.as_ref().unwrap_or(outgoing);
        // Nobody may join while it is decided who gets the event how: a replay begins before its join.
        let tally = self.rooms.visit(&outgoing.namespace, &outgoing.rooms, &outgoing.except, |sessions| {
            let bytes = outgoing.event.size_bytes();
            let together =
                |session: &&Arc<Session>| !is_minded && !outgoing.passes_over(session) && session.shares(bytes);
            let (shared, singles): (Vec<_>, Vec<_>) = sessions.partition(together);
            let mut tally = Tally { queued: shared.len(), ..Tally::default() };
            if !shared.is_empty() {
                tally.fail(&broadcast(&*port, space, outgoing, &singles));
                if tally.full > 0 {
                    shared.iter().for_each(|session| session.unshare(bytes));
                }
            }
            singles.iter().for_each(|session| tally.single(session, outgoing));
            tally
        });
        let mut tally = tally.unwrap_or_default();
        space.count(&tally);
        self.rooms.note_laggards(std::mem::take(&mut tally.laggards));
        tally
    }
}

impl Carrier for SocketioxideCarrier {
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

/// Encodes once, and queues for everybody but those who are asked one by one.
fn broadcast(port: &dyn Port, space: &Space, outgoing: &Outgoing, singles: &[&Arc<Session>]) -> Vec<SocketError> {
    let rooms = if outgoing.rooms.is_empty() { &space.everyone[..] } else { &outgoing.rooms };
    if singles.is_empty() {
        return port.broadcast(value(&outgoing.event), rooms, &outgoing.except);
    }
    let own_rooms = singles.iter().map(|session| socket_room(session.id()));
    let except: Vec<_> = outgoing.except.iter().cloned().chain(own_rooms).collect();
    port.broadcast(value(&outgoing.event), rooms, &except)
}

/// The event as the library has it; the bytes are shared.
pub(super) fn value(event: &Event) -> Value {
    Value::Str(text(event.text()), attachments(event.attachments()))
}

#[expect(unsafe_code, reason = "the type has no other constructor that shares bytes")]
pub(super) fn text(text: &ByteString) -> Str {
    // SAFETY: a ByteString is UTF-8.
    unsafe { Str::from_bytes_unchecked(text.clone().into_bytes()) }
}

pub(super) fn attachments(attachments: &[bytes::Bytes]) -> Option<VecDeque<bytes::Bytes>> {
    (!attachments.is_empty()).then(|| attachments.iter().cloned().collect())
}

// === impl Space ===

impl Space {
    fn new(path: &Arc<str>, metrics: &Metrics) -> Self {
        let dropped = |reason| metrics.deliveries_dropped_total.with_label_values(&[&**path, reason]);
        Self {
            everyone: [EVERYONE.into()],
            delivered: metrics.deliveries_total.with_label_values(&[path]),
            full: dropped("queue_full"),
            volatile: dropped("volatile"),
            closed: dropped("closed"),
            replaced: dropped("slow_replaced"),
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
    fn fail(&mut self, errors: &[SocketError]) {
        let full = errors.iter().filter(|error| matches!(error, SocketError::InternalChannelFull)).count();
        self.full += full;
        self.closed += errors.len() - full;
        self.queued = self.queued.saturating_sub(errors.len());
    }

    fn single(&mut self, session: &Arc<Session>, outgoing: &Outgoing) {
        if outgoing.passes_over(session) {
            self.volatile += 1;
            return;
        }
        let held = session.holds();
        match session.deliver(&outgoing.event, &outgoing.rooms, &outgoing.stamps) {
            Ok(Delivery::Sent) => self.queued += 1,
            Ok(kept @ (Delivery::Held | Delivery::Replaced)) => {
                self.queued += 1;
                self.replaced += usize::from(kept == Delivery::Replaced);
                if !held && session.holds() {
                    self.laggards.push(Arc::downgrade(session));
                }
            }
            Ok(Delivery::Replayed) => {}
            Err(SendError::Full) => self.full += 1,
            Err(SendError::Closed) => self.closed += 1,
        }
    }
}
