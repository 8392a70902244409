//! The publish pipeline: every event that reaches a client in a room is sent by this module.

mod conflate;
pub mod contract_event;
mod counters;
mod foreign;
mod members;
mod membership;
pub mod plain;
mod record;
mod relay;
#[cfg(test)]
pub mod room_delivery;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::ops::AddAssign;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::{Histogram, HistogramTimer, IntCounter};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::contract::model::{Contract, Namespace, RecoveryPolicy, ServerEvent};
use crate::event::Event;
use crate::history::History;
use crate::order::ConflationOrder;
use crate::presence::Presence;
use crate::session::{RoomName, Session};
use crate::telemetry::metrics::Metrics;
use crate::throttle::{ThrottleKey, Throttles};

pub use crate::event::Stamp;
pub use contract_event::{ContractPublish, PlannedPublish};
pub use members::ListedRoom;
pub use plain::PlainEmit;

use counters::{ByPublisherKind, Publishes};

/// An event that is ready to be sent to rooms: permitted, complete and encoded.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The namespace's path.
    pub namespace: Arc<str>,
    /// The event, encoded once for all recipients.
    pub event: Event,
    /// The rooms that the event is sent to; if empty, the whole namespace. A client in several of these rooms gets the
    /// event once.
    pub rooms: Vec<RoomName>,
    /// The rooms whose members do not get the event.
    pub except: Vec<RoomName>,
    /// Whether to skip clients that cannot be written to now; see [`Outgoing::passes_over`].
    pub volatile: bool,
    /// The event's offset in the history of each of its rooms that has one.
    pub stamps: Vec<Stamp>,
    /// The event's number among conflated events. A [`Delivery`] delivers a numbered event through an
    /// [`crate::order::OrderGuard`].
    pub order: Option<ConflationOrder>,
}

impl Outgoing {
    /// An event for all members of these rooms; for the whole namespace if `rooms` is empty.
    pub const fn new(namespace: Arc<str>, event: Event, rooms: Vec<RoomName>) -> Self {
        Self { namespace, event, rooms, except: Vec::new(), volatile: false, stamps: Vec::new(), order: None }
    }

    /// The same event, but the members of these rooms do not get it.
    #[must_use]
    pub fn except(self, except: Vec<RoomName>) -> Self {
        Self { except, ..self }
    }

    /// The same event, volatile or not; see [`Outgoing::volatile`].
    #[must_use]
    pub fn volatile(self, volatile: bool) -> Self {
        Self { volatile, ..self }
    }

    /// Whether this client is skipped: the event is volatile, the client cannot be written to now, and no contract
    /// asks to keep the event for such a client.
    pub fn passes_over(&self, session: &Session) -> bool {
        self.volatile && !self.event.slow().keeps() && !session.is_writable()
    }
}

/// The result of sending an event.
pub struct DeliveryResult {
    /// The number of clients of this node for which the event was queued, or will be queued.
    pub local: usize,
    /// The number of clients of this node that did not get the event: their write queue was full, or the event is
    /// volatile and the clients could not be written to.
    pub dropped: usize,
    /// The final numbers. Set when the event goes to so many clients that they are served in slices.
    pub served: Option<oneshot::Receiver<SliceCounts>>,
    /// The result of sending the event to the other nodes.
    pub remote: RemoteDelivery,
}

/// How many clients of this node got an event, and how many did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SliceCounts {
    /// The number of clients for which the event was queued.
    pub queued: usize,
    /// The number of clients that did not get the event: their write queue was full, or the event is volatile and the
    /// clients could not be written to.
    pub dropped: usize,
}

impl AddAssign for SliceCounts {
    fn add_assign(&mut self, more: Self) {
        self.queued += more.queued;
        self.dropped += more.dropped;
    }
}

impl DeliveryResult {
    /// The result for an event that stays on this node.
    pub const fn to(local: usize, dropped: usize) -> Self {
        Self { local, dropped, served: None, remote: RemoteDelivery::Alone }
    }

    /// Waits until the event is queued for all clients of this node. Returns at once if that has happened already.
    pub async fn served(mut self) -> Self {
        if let Some(served) = self.served.take()
            && let Ok(SliceCounts { queued, dropped }) = served.await
        {
            (self.local, self.dropped) = (queued, dropped);
        }
        self
    }
}

/// The result of sending an event to the other nodes.
pub enum RemoteDelivery {
    /// The event was not sent to other nodes: there are no other nodes, or it was meant for clients of this node only.
    Alone,
    /// The event was handed to the Redis client. The receipt resolves to whether Redis accepted it.
    Handed(Receipt),
    /// The event was not handed to the Redis client. The failure has been counted.
    NotCarried(RemoteFailure),
}

/// Resolves when Redis has accepted the event, or when the wait for that has timed out.
pub type Receipt = Pin<Box<dyn Future<Output = Result<(), RemoteFailure>> + Send>>;

/// Why an event may not have reached every other node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum RemoteFailure {
    /// Redis is unavailable.
    #[error("Redis is away")]
    Away,
    /// The buffer of messages that wait to be sent to Redis is full.
    #[error("the buffer towards Redis is full")]
    Full,
    /// Redis did not confirm the event within the time limit; other nodes may or may not have received it.
    #[error("Redis did not confirm in time")]
    Timeout,
    /// Redis refused the event, or accepted it as a replica. A replica reaches only the nodes that are still connected
    /// to that replica.
    #[error("Redis refused it")]
    Refused,
    /// Redis has accepted the event, but at least one known node was not subscribed.
    #[error("a node of the cluster was not subscribed to the channel")]
    Unheard,
}

impl RemoteFailure {
    /// The label in metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Full => "full",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Unheard => "unheard",
        }
    }
}

/// Which other processes get an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryScope {
    /// The other nodes, and with `redis.wire = "socketio"` also the Node.js servers.
    Everyone,
    /// The other nodes only. The event came from a Socket.IO emitter or a Node.js server, which has already sent it to
    /// the Node.js servers.
    Nodes,
}

/// Delivers events to local clients and to the other nodes. Engines implement it.
///
/// The methods are synchronous, so that events are delivered in the order of the calls: to local clients first, and
/// without waiting for Redis. When an event has very many recipients, the call fixes the order, and the event is queued
/// for the clients in slices.
pub trait Delivery: Send + Sync {
    /// Delivers the event to local clients, then hands it to the cluster.
    fn broadcast(&self, outgoing: &Outgoing) -> DeliveryResult;

    /// Like [`Delivery::broadcast`], but only to the processes that [`DeliveryScope::Nodes`] names.
    fn broadcast_to_nodes(&self, outgoing: &Outgoing) -> DeliveryResult {
        self.broadcast(outgoing)
    }

    /// Delivers the event to local clients only, because every other node already has it.
    fn deliver(&self, outgoing: &Outgoing) -> DeliveryResult {
        self.broadcast(outgoing)
    }
}

/// The kind of publisher that sent an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublisherKind {
    /// A client's relay.
    Client,
    /// A backend over HTTP.
    Api,
    /// A hook's answer.
    Hook,
    /// A Socket.IO emitter, or a server of Node.js, over Redis.
    Emitter,
    /// The node itself: undo events of a client that left, presence events, a greeting.
    Node,
}

impl PublisherKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Client, Self::Api, Self::Hook, Self::Emitter, Self::Node];

    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Api => "api",
            Self::Hook => "hook",
            Self::Emitter => "emitter",
            Self::Node => "node",
        }
    }
}

/// The result of a publish. Its serialized form is kept in Redis, for publishes that repeat an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The event's name.
    #[serde(skip)]
    pub event: String,
    /// The rooms that the event was sent to; if empty, the whole namespace.
    pub rooms: Vec<RoomName>,
    /// The number of clients of this node for which the event was queued.
    pub local: usize,
    /// The number of clients of this node that did not get the event; see [`DeliveryResult::dropped`].
    pub dropped: usize,
    /// The result of sending the event to the other nodes.
    pub remote: RemoteOutcome,
    /// Whether a throttle holds the event back. Within the throttle's time the event is sent, or a newer one replaces
    /// it.
    pub held: bool,
}

impl Published {
    /// The result of a publish that a throttle holds back.
    fn held(event: &str, rooms: Vec<RoomName>) -> Self {
        Self { event: event.to_owned(), rooms, local: 0, dropped: 0, remote: RemoteOutcome::Alone, held: true }
    }
}

/// The result of a publish for the other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemoteOutcome {
    /// The event was not sent to other nodes: there are no other nodes, or it was meant for clients of this node only.
    Alone,
    /// Redis accepted the event.
    Carried,
    /// The event may not have reached every other node. The failure has been counted.
    NotCarried(RemoteFailure),
    /// Nothing was sent now: the event was published before, and the result of that publish is not available.
    Unknown,
}

/// How long a backend's publish waits for Redis to confirm it, at most.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// The parts that a publisher is built from.
pub struct PublisherParts {
    /// The contracts, grouped by namespace.
    pub namespaces: Vec<Arc<Namespace>>,
    /// Delivers events to clients and nodes.
    pub delivery: Arc<dyn Delivery>,
    /// Conflates throttled events.
    pub throttles: Throttles,
    /// The histories of rooms.
    pub history: Arc<History>,
    /// The members of rooms, over the whole cluster.
    pub presence: Arc<dyn Presence>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
}

#[cfg(test)]
impl PublisherParts {
    /// The parts of a publisher for a node without Redis and without presence.
    pub fn alone(namespaces: &[Arc<Namespace>], delivery: Arc<dyn Delivery>, metrics: Arc<Metrics>) -> Self {
        let throttles = Throttles::in_memory(metrics.clone());
        let history = Arc::new(History::in_memory(metrics.clone()));
        let (presence, _) = crate::presence::in_memory("alone", Default::default(), Duration::ZERO, metrics.clone())
            .start(Arc::default());
        Self { namespaces: namespaces.to_vec(), delivery, throttles, history, presence, metrics }
    }
}

/// Publishes events. Shared by the gateway, the HTTP API and the hooks.
pub struct Publisher {
    parts: PublisherParts,
    contracts: HashMap<String, PublishedContract>,
    namespaces: HashMap<Arc<str>, Arc<Namespace>>,
    /// Namespaces in which at least one room keeps a history, or whose clients may recover their sessions.
    recorded: HashSet<Arc<str>>,
    /// Namespaces whose clients may recover their sessions.
    recovering: HashMap<Arc<str>, RecoveryPolicy>,
    /// Namespaces in which at least one room announces the list of its members.
    listing: HashSet<Arc<str>>,
    /// Events that contracts have rules for, found by name because Socket.IO emitters and Node.js servers name no
    /// contract.
    ruled: foreign::ContractEvents,
    timers: Mutex<HashSet<ThrottleKey>>,
    /// The counters of events that no contract describes.
    plain: Publishes,
    seconds: ByPublisherKind<Histogram>,
}

/// A contract as the publisher stores it, with its events.
struct PublishedContract {
    namespace: Arc<Namespace>,
    contract: Arc<Contract>,
    events: HashMap<String, Arc<DescribedEvent>>,
}

/// An event that a contract describes, with the counters of its publishes.
pub(crate) struct DescribedEvent {
    contract: Arc<Contract>,
    def: Arc<ServerEvent>,
    published: Publishes,
}

impl Publisher {
    /// Builds a publisher from these parts.
    pub fn new(parts: PublisherParts) -> Arc<Self> {
        let loaded = parts.namespaces.iter().flat_map(|namespace| {
            namespace.contracts.iter().map(|contract| PublishedContract::new(namespace, contract, &parts.metrics))
        });
        let loaded: Vec<PublishedContract> = loaded.collect();
        let ruled = foreign::ContractEvents::new(&loaded);
        let contracts = loaded.into_iter().map(|loaded| (loaded.contract.name.to_string(), loaded)).collect();
        let namespaces = parts.namespaces.iter().map(|namespace| (namespace.path.clone(), namespace.clone())).collect();
        let keeps = |namespace: &&Arc<Namespace>| {
            let mut rooms = namespace.contracts.iter().flat_map(|contract| contract.rooms.values());
            namespace.recovery().is_some() || rooms.any(|room| room.history.is_some())
        };
        let recorded = parts.namespaces.iter().filter(keeps).map(|namespace| namespace.path.clone()).collect();
        let policies =
            parts.namespaces.iter().filter_map(|namespace| Some((namespace.path.clone(), namespace.recovery()?)));
        let recovering = policies.collect();
        let listing = parts.namespaces.iter().filter(|namespace| members::has_lists(namespace));
        let listing = listing.map(|namespace| namespace.path.clone()).collect();
        let (plain, seconds) = (Publishes::plain(&parts.metrics), counters::seconds(&parts.metrics));
        let timers = Mutex::default();
        Arc::new(Self { parts, contracts, namespaces, recorded, recovering, listing, ruled, timers, plain, seconds })
    }

    /// The counter of a contract's event for one kind of publisher.
    pub fn counter(&self, contract: &str, event: &str, origin: PublisherKind) -> IntCounter {
        counters::one(&self.parts.metrics, contract, event, origin)
    }

    /// Sends an event and counts it. Synchronous, so that calls from one thread keep their order. The returned timer
    /// measures the time until the event is queued.
    fn emit(
        &self,
        outgoing: &Outgoing,
        published: &IntCounter,
        origin: PublisherKind,
    ) -> (DeliveryResult, HistogramTimer) {
        let timer = self.seconds.of(origin).start_timer();
        let delivery_result = match origin {
            PublisherKind::Emitter => self.parts.delivery.broadcast_to_nodes(outgoing),
            _ => self.parts.delivery.broadcast(outgoing),
        };
        published.inc();
        (delivery_result, timer)
    }
}

impl PublishedContract {
    fn new(namespace: &Arc<Namespace>, contract: &Arc<Contract>, metrics: &Metrics) -> Self {
        let describe = |(name, def): (&String, &Arc<ServerEvent>)| {
            let published = Publishes::described(metrics, &contract.name, name, foreign::has_rules(def));
            (name.clone(), Arc::new(DescribedEvent { contract: contract.clone(), def: def.clone(), published }))
        };
        let events = contract.server.iter().map(describe).collect();
        Self { namespace: namespace.clone(), contract: contract.clone(), events }
    }
}

impl std::fmt::Debug for DescribedEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Described").field(&self.contract.name).field(&self.def.name).finish()
    }
}

/// Waits until it is known whether Redis accepted the event for the other nodes.
async fn settle(event: &str, rooms: Vec<RoomName>, delivery_result: DeliveryResult) -> Published {
    let remote = match delivery_result.remote {
        RemoteDelivery::Alone => RemoteOutcome::Alone,
        RemoteDelivery::NotCarried(reason) => RemoteOutcome::NotCarried(reason),
        RemoteDelivery::Handed(receipt) => match tokio::time::timeout(CONFIRM_TIMEOUT, receipt).await {
            Ok(Ok(())) => RemoteOutcome::Carried,
            Ok(Err(reason)) => RemoteOutcome::NotCarried(reason),
            Err(_) => RemoteOutcome::NotCarried(RemoteFailure::Timeout),
        },
    };
    Published {
        event: event.to_owned(),
        rooms,
        local: delivery_result.local,
        dropped: delivery_result.dropped,
        remote,
        held: false,
    }
}
