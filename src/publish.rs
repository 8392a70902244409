//! The one way out: every event that reaches a client in a room leaves through here.

mod conflate;
pub mod contract_event;
pub mod direct;
mod foreign;
pub mod plain;
mod record;
mod relay;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::ops::AddAssign;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::HistogramTimer;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::contract::model::{Contract, Namespace, RecoveryPolicy};
use crate::event::Event;
use crate::history::History;
use crate::order::Order;
use crate::session::{RoomName, Session};
use crate::telemetry::metrics::Metrics;
use crate::throttle::{ThrottleKey, Throttles};

pub use crate::event::Stamp;
pub use contract_event::{ContractPublish, PlannedPublish};
pub use plain::PlainEmit;

/// An event on its way to rooms: permitted, filled in, encoded.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The namespace's path.
    pub namespace: Arc<str>,
    /// Encoded once, for everybody.
    pub event: Event,
    /// Members of any of these get it once; empty: the whole namespace.
    pub rooms: Vec<RoomName>,
    /// Members of any of these do not.
    pub except: Vec<RoomName>,
    /// Not for clients that take nothing now; see [`Outgoing::passes_over`].
    pub volatile: bool,
    /// Its place in the history of those of its rooms that have one.
    pub stamps: Vec<Stamp>,
    /// Its place among conflated events; a carrier delivers it through an [`crate::order::OrderGuard`].
    pub order: Option<Order>,
}

impl Outgoing {
    /// Whether it is not sent to this client: it is volatile, the client takes nothing now, and no contract says that it is
    /// kept for such a client.
    pub fn passes_over(&self, session: &Session) -> bool {
        self.volatile && !self.event.slow().keeps() && !session.is_writable()
    }
}

/// What became of an event.
pub struct Carried {
    /// Clients of this node that it was queued for, or will be.
    pub local: usize,
    /// Clients of this node whose queue was full, or that took nothing while the event is volatile.
    pub dropped: usize,
    /// Where so many clients get it that it is queued for them in slices: what has become of it in the end.
    pub served: Option<oneshot::Receiver<Served>>,
    /// What became of it for the other nodes.
    pub remote: Remote,
}

/// What became of an event on this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Clients that it was queued for.
    pub queued: usize,
    /// Clients whose queue was full, or that took nothing while the event is volatile.
    pub dropped: usize,
}

impl AddAssign for Served {
    fn add_assign(&mut self, more: Self) {
        self.queued += more.queued;
        self.dropped += more.dropped;
    }
}

impl Carried {
    /// To these clients, and to no other node.
    pub const fn to(local: usize, dropped: usize) -> Self {
        Self { local, dropped, served: None, remote: Remote::Alone }
    }

    /// Waits until the event is queued for all clients of this node; at once where it is.
    pub async fn served(mut self) -> Self {
        if let Some(served) = self.served.take()
            && let Ok(Served { queued, dropped }) = served.await
        {
            (self.local, self.dropped) = (queued, dropped);
        }
        self
    }
}

/// What became of an event for the other nodes.
pub enum Remote {
    /// There are none: this node runs on the in-memory adapter.
    Alone,
    /// Handed to Redis; the receipt tells whether Redis took it.
    Handed(Receipt),
    /// Not handed to Redis, and counted.
    NotCarried(NotCarried),
}

/// Resolves when Redis has taken the event, or has not in time.
pub type Receipt = Pin<Box<dyn Future<Output = Result<(), NotCarried>> + Send>>;

/// Why an event did not reach the other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum NotCarried {
    /// Redis is away.
    #[error("Redis is away")]
    Away,
    /// The outgoing buffer is at its bound.
    #[error("the buffer towards Redis is full")]
    Full,
    /// Redis did not confirm in time; other nodes may or may not have it.
    #[error("Redis did not confirm in time")]
    Timeout,
    /// Redis refused it, or took it as a replica, which reaches only nodes that are still connected to it.
    #[error("Redis refused it")]
    Refused,
    /// Redis has taken it, but not every node that is known was listening.
    #[error("a node was not listening")]
    Unheard,
}

impl NotCarried {
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
pub enum Reach {
    /// The other nodes, and with `redis.wire = "socketio"` the servers of Node.js.
    Everyone,
    /// The other nodes alone: the event came from outside, and the servers of Node.js have had it from its sender.
    Nodes,
}

/// Brings events to local clients and to the other nodes. Engines implement it.
///
/// Synchronous, so that the order of calls is the order of deliveries: local clients first,
/// whatever Redis does. Where they are very many, the order is fixed at the call and the work is done in slices.
pub trait Carrier: Send + Sync {
    /// Delivers to local clients, then hands the event to the cluster.
    fn carry(&self, outgoing: &Outgoing) -> Carried;

    /// As [`Carrier::carry`], but no further than [`Reach::Nodes`].
    fn carry_to_nodes(&self, outgoing: &Outgoing) -> Carried {
        self.carry(outgoing)
    }

    /// Delivers to local clients only: every node has the event.
    fn deliver(&self, outgoing: &Outgoing) -> Carried {
        self.carry(outgoing)
    }
}

/// Who published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client's relay.
    Client,
    /// A backend over HTTP.
    Api,
    /// A hook's answer.
    Hook,
    /// A Socket.IO emitter, or a server of Node.js, over Redis.
    Emitter,
    /// The node itself: what a socket leaves behind, presence, a greeting.
    Node,
}

impl Origin {
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

/// What happened to a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The event's name.
    pub event: String,
    /// The rooms it went to; empty: the whole namespace.
    pub rooms: Vec<RoomName>,
    /// Clients of this node that it was queued for.
    pub local: usize,
    /// Clients of this node whose queue was full.
    pub dropped: usize,
    /// What became of it for the other nodes.
    pub remote: RemoteOutcome,
    /// A throttle holds it back; it is sent, or replaced by a newer one, within the throttle's time.
    pub held: bool,
}

/// What became of a publish for the other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteOutcome {
    /// There are none.
    Alone,
    /// Redis took it.
    Carried,
    /// It did not reach them, and was counted.
    NotCarried(NotCarried),
}

/// At most so long is a backend's publish kept waiting for Redis to confirm it.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// What the publisher is made of.
pub struct Parts {
    /// The contracts, by namespace.
    pub namespaces: Vec<Arc<Namespace>>,
    /// Brings events to clients and nodes.
    pub carrier: Arc<dyn Carrier>,
    /// Conflation.
    pub throttles: Throttles,
    /// What late joiners and readers get.
    pub history: Arc<History>,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
}

impl Parts {
    /// For a node without Redis.
    pub fn alone(namespaces: &[Arc<Namespace>], carrier: Arc<dyn Carrier>, metrics: Arc<Metrics>) -> Self {
        let throttles = Throttles::new(None, metrics.clone());
        let history = Arc::new(History::in_memory(metrics.clone()));
        Self { namespaces: namespaces.to_vec(), carrier, throttles, history, metrics }
    }
}

/// The one way out. Shared by the gateway, the HTTP API and the hooks.
pub struct Publisher {
    parts: Parts,
    contracts: HashMap<String, (Arc<Namespace>, Arc<Contract>)>,
    namespaces: HashMap<Arc<str>, Arc<Namespace>>,
    /// Namespaces in which some room keeps a history.
    recorded: HashSet<Arc<str>>,
    /// Namespaces whose clients may come back to what they missed.
    recovering: HashMap<Arc<str>, RecoveryPolicy>,
    /// What contracts say of events that others publish by name only.
    ruled: foreign::Ruled,
    timers: Mutex<HashSet<ThrottleKey>>,
}

impl Publisher {
    /// A publisher of these parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let contracts = parts
            .namespaces
            .iter()
            .flat_map(|namespace| namespace.contracts.iter().map(move |contract| (namespace, contract)))
            .map(|(namespace, contract)| (contract.name.to_string(), (namespace.clone(), contract.clone())))
            .collect();
        let namespaces = parts.namespaces.iter().map(|namespace| (namespace.path.clone(), namespace.clone())).collect();
        let keeps = |namespace: &&Arc<Namespace>| {
            let mut rooms = namespace.contracts.iter().flat_map(|contract| contract.rooms.values());
            namespace.recovery().is_some() || rooms.any(|room| room.history.is_some())
        };
        let recorded = parts.namespaces.iter().filter(keeps).map(|namespace| namespace.path.clone()).collect();
        let policies =
            parts.namespaces.iter().filter_map(|namespace| Some((namespace.path.clone(), namespace.recovery()?)));
        let recovering = policies.collect();
        let ruled = foreign::Ruled::new(&parts.namespaces);
        Arc::new(Self { parts, contracts, namespaces, recorded, recovering, ruled, timers: Mutex::default() })
    }

    /// The loaded contracts, for documents and answers.
    pub fn contracts(&self) -> impl Iterator<Item = (&Arc<Namespace>, &Arc<Contract>)> {
        self.contracts.values().map(|(namespace, contract)| (namespace, contract))
    }

    /// Carries an event and counts it. Synchronous: calls from one thread keep their order. The timer runs until the event
    /// is queued.
    fn emit(&self, outgoing: &Outgoing, contract: &str, origin: Origin) -> (Carried, HistogramTimer) {
        let metrics = &self.parts.metrics;
        let timer = metrics.publish_seconds.with_label_values(&[origin.as_str()]).start_timer();
        let carried = match origin {
            Origin::Emitter => self.parts.carrier.carry_to_nodes(outgoing),
            _ => self.parts.carrier.carry(outgoing),
        };
        metrics.events_published_total.with_label_values(&[contract, label(outgoing, contract), origin.as_str()]).inc();
        (carried, timer)
    }
}

/// Plain emits have names that anybody can choose: they are one label.
fn label<'a>(outgoing: &'a Outgoing, contract: &str) -> &'a str {
    if contract == PLAIN { PLAIN } else { outgoing.event.name() }
}

/// The contract label of what no contract describes.
const PLAIN: &str = "plain";

/// Waits until the other nodes' part is known, for publishers that want to hear of it.
async fn settle(event: &str, rooms: Vec<RoomName>, carried: Carried) -> Published {
    let remote = match carried.remote {
        Remote::Alone => RemoteOutcome::Alone,
        Remote::NotCarried(reason) => RemoteOutcome::NotCarried(reason),
        Remote::Handed(receipt) => match tokio::time::timeout(CONFIRM_TIMEOUT, receipt).await {
            Ok(Ok(())) => RemoteOutcome::Carried,
            Ok(Err(reason)) => RemoteOutcome::NotCarried(reason),
            Err(_) => RemoteOutcome::NotCarried(NotCarried::Timeout),
        },
    };
    Published { event: event.to_owned(), rooms, local: carried.local, dropped: carried.dropped, remote, held: false }
}
