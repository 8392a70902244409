//! Delivers events to the clients of this node, and publishes them to the other nodes.
//!
//! Local clients are served first, and do not wait for Redis. An event is encoded once for all of them. Only a client
//! that needs a decision of its own gets the event separately, for example while a room's history is replayed to it
//! (see [`Session::deliver`]).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};

use bytestring::ByteString;
use socketioxide_core::adapter::errors::SocketError;
use socketioxide_core::{Str, Value};

use super::adapter::{AdapterState, Port};
use super::driver::PubSubDriver;
use super::requests::LibraryRequests;
use crate::cluster::Cluster;
use crate::engine::delivery::{Deliveries, Handed, How, Tally};
use crate::event::Event;
use crate::protocol::socket_room;
use crate::publish::{Carried, Carrier, Outgoing, Reach};
use crate::redis::Keys;
use crate::room::Rooms;
use crate::session::{RoomName, Session};
use crate::telemetry::metrics::Metrics;

/// A room in the library's tables that contains every client of the namespace, once the client has been let in.
pub(super) const EVERYONE: &str = "$all";

/// The carrier of a node whose clients use socketioxide.
pub struct SocketioxideCarrier {
    rooms: Arc<Rooms>,
    ports: Arc<Ports>,
    deliveries: Deliveries,
    everyone: [RoomName; 1],
    /// The driver and the channel prefix of the library's Redis adapter.
    redis: Option<(PubSubDriver, String)>,
    pub(super) metrics: Arc<Metrics>,
}

/// The port of each namespace, which is set when the library has created its adapter.
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
    /// Builds a carrier for every namespace of `rooms`. With `keys`, it also begins to receive events from other
    /// nodes. Must be called within a Tokio runtime.
    pub fn new(rooms: Arc<Rooms>, cluster: &Cluster, keys: Option<Keys>, metrics: Arc<Metrics>) -> Arc<Self> {
        let namespaces: Vec<_> = rooms.namespaces().cloned().collect();
        let ports = Ports { ports: namespaces.iter().map(|path| (path.clone(), OnceLock::new())).collect() };
        let deliveries = Deliveries::new(rooms.clone(), cluster, keys.is_some(), &metrics);
        let redis = keys.as_ref().and_then(|keys| driver(cluster, keys));
        let everyone = [EVERYONE.into()];
        let carrier = Arc::new(Self { rooms, ports: Arc::new(ports), deliveries, everyone, redis, metrics });
        carrier.deliveries.receive(&carrier);
        carrier
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.deliveries.namespaces()
    }

    pub(super) fn adapter_state(&self) -> AdapterState {
        AdapterState::new(self.ports.clone(), self.redis.clone())
    }

    pub(super) fn port(&self, namespace: &str) -> Option<Arc<dyn Port>> {
        self.ports.get(namespace)
    }

    /// Broadcasts an event to most clients at once, and delivers it separately to the others.
    fn hand_out(&self, outgoing: &Outgoing, how: How) -> Handed {
        let Some(port) = self.ports.get(&outgoing.namespace) else { return Handed::Now(Tally::default()) };
        // The visit keeps clients from joining while this decides how each of them gets the event. A replay begins
        // before its client joins, so it is seen here.
        let tally = self.rooms.visit(&outgoing.namespace, &outgoing.rooms, &outgoing.except, |sessions| {
            if how == How::Overtaken {
                return Tally::of(sessions, outgoing, how);
            }
            let bytes = outgoing.event.size_bytes();
            let together =
                |session: &&Arc<Session>| how == How::Alike && !outgoing.passes_over(session) && session.shares(bytes);
            let (shared, singles): (Vec<_>, Vec<_>) = sessions.partition(together);
            let mut tally = Tally::of_queued(shared.len());
            if !shared.is_empty() {
                fail(&mut tally, &broadcast(&*port, &self.everyone, outgoing, &singles));
                if tally.full > 0 {
                    shared.iter().for_each(|session| session.unshare(bytes));
                }
            }
            singles.iter().for_each(|session| tally.hand(session, outgoing));
            tally
        });
        Handed::Now(tally.unwrap_or_default())
    }
}

impl Carrier for SocketioxideCarrier {
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

/// The Redis driver of the library's adapter, and the prefix of its channels.
fn driver(cluster: &Cluster, keys: &Keys) -> Option<(PubSubDriver, String)> {
    let (pubsub, wire) = (cluster.pubsub()?.clone(), cluster.wire()?.clone());
    let prefix = wire.library_prefix().map_or_else(|| keys.socketio().key().to_owned(), str::to_owned);
    Some((PubSubDriver::new(pubsub, wire, LibraryRequests::start(cluster)?), prefix))
}

fn fail(tally: &mut Tally, errors: &[SocketError]) {
    let full = errors.iter().filter(|error| matches!(error, SocketError::InternalChannelFull)).count();
    tally.full += full;
    tally.closed += errors.len() - full;
    tally.queued = tally.queued.saturating_sub(errors.len());
}

/// Encodes an event once, and queues it for all recipients except `singles`.
fn broadcast(
    port: &dyn Port,
    everyone: &[RoomName],
    outgoing: &Outgoing,
    singles: &[&Arc<Session>],
) -> Vec<SocketError> {
    let rooms = if outgoing.rooms.is_empty() { everyone } else { &outgoing.rooms };
    if singles.is_empty() {
        return port.broadcast(value(&outgoing.event), rooms, &outgoing.except);
    }
    let own_rooms = singles.iter().map(|session| socket_room(session.id()));
    let except: Vec<_> = outgoing.except.iter().cloned().chain(own_rooms).collect();
    port.broadcast(value(&outgoing.event), rooms, &except)
}

/// Converts an event to the library's type. The bytes are shared, not copied.
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
