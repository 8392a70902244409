//! Connects this node to the other nodes: events, requests between nodes, and the list of running nodes.
//!
//! Nodes share only Redis; `docs/redis.md` lists every key and channel. Each node sends a heartbeat on the control
//! channel once a second. Heartbeats are not stored, so a node that crashes leaves no entry in Redis that must be
//! removed.

pub mod event;
pub mod frame;
pub mod pubsub;
pub mod socketio;

mod actions;
mod adapter;
mod asked;
mod bridge;
mod canary;
mod conflicts;
mod emitter_lease;
mod gaps;
mod members;
mod numbers;
mod pauses;
mod questions;
mod revocations;
mod slowest;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant};

use prometheus::IntGaugeVec;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

pub use adapter::{AnswerFormat, ClusterAdapter, Inquiry, InquiryAnswer, LibraryCodec, LibraryRequest};
pub use conflicts::{Conflict, ConflictKind};
pub use members::{ClusterView, NodeTotals};
pub use pubsub::PubSub;
pub use revocations::{ClusterRevoker, EndSession};
pub use slowest::SlowestConnections;

use crate::config;
use crate::directory::SendOutcome;
use crate::drain::report::DrainReport;
use crate::forward::Peers;
use crate::publish::RemoteFailure;
use crate::redis::Redis;
use crate::room::Rooms;
use crate::session::{RoomName, Session};
use crate::telemetry::metrics::{Metrics, count};
use canary::Canaries;
use conflicts::Conflicts;
use frame::Frame;
use members::{ClusterMembers, Heartbeat};
use questions::OpenQuestions;

/// How often a node sends its heartbeat.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// How often a node that cannot receive messages from Redis checks whether Redis works again.
const LOOK: Duration = Duration::from_millis(50);

/// Maximum number of requests from other nodes that wait to be handled. Further ones are dropped and counted.
const CONTROL_BUFFER: usize = 4096;

/// Handles a message from another node. The handler must not block.
type MessageHandler = Arc<dyn Fn(&str, Value) + Send + Sync>;

/// Removes a session from a room and announces that the session left.
type Leaver = Arc<dyn Fn(&Arc<Session>, &RoomName) + Send + Sync>;

/// Returns this node's [`DrainReport`], which the node's heartbeats contain in addition to its totals.
type DrainReportOf = Arc<dyn Fn() -> DrainReport + Send + Sync>;

/// This node as a member of the cluster.
pub struct Cluster {
    node: Arc<str>,
    rooms: Arc<Rooms>,
    members: ClusterMembers,
    /// The addresses at which the other nodes accept forwarded requests for their sessions.
    peers: Arc<Peers>,
    handlers: RwLock<HashMap<&'static str, MessageHandler>>,
    leaver: OnceLock<Leaver>,
    standing: OnceLock<DrainReportOf>,
    pending: OpenQuestions,
    link: Option<RedisLink>,
}

/// The parts of a node that exist only if Redis is configured.
struct RedisLink {
    redis: Redis,
    pubsub: Arc<PubSub>,
    control: Arc<str>,
    canaries: Arc<Canaries>,
    wire: Arc<ClusterAdapter>,
    conflicts: Conflicts,
}

/// A message on the control channel.
#[derive(Serialize, Deserialize)]
struct Control<'a, T> {
    topic: &'a str,
    data: T,
}

// Topics that this module handles itself. Messages on all other topics go to the registered handlers.
const HELLO: &str = "hello";
const WHO: &str = "who";
const BYE: &str = "bye";

impl Cluster {
    /// Creates a node without Redis and so without other nodes: the in-memory mode.
    pub fn alone(node: &str, rooms: Arc<Rooms>) -> Arc<Self> {
        Arc::new(Self::new(node, rooms, Peers::none(), None))
    }

    /// Creates a node that shares a Redis with others. Redis need not be reachable yet. `contracts` is a digest of the
    /// node's contracts: all nodes must have the same ones.
    pub fn join(
        (node, contracts): (&str, &str),
        rooms: Arc<Rooms>,
        redis: Redis,
        peers: Arc<Peers>,
        metrics: Arc<Metrics>,
        config: &config::RedisSettings,
    ) -> Arc<Self> {
        let control: Arc<str> = redis.keys().control_channel().into();
        let pubsub = PubSub::start(redis.clone(), node, metrics.clone(), config.publish_buffer);
        let canaries = Canaries::start(&redis, &pubsub, metrics.clone(), config.canary_interval.get());
        let requests = pubsub.subscribe(&control, CONTROL_BUFFER);
        let wire = ClusterAdapter::new(pubsub.clone(), redis.clone(), rooms.clone(), metrics.clone(), config);
        tokio::spawn(pauses::watch(redis.clone(), metrics));
        let conflicts = Conflicts::new(pubsub.origin().clone(), contracts);
        let link = RedisLink { redis, pubsub, control, canaries, wire, conflicts };
        let cluster = Arc::new(Self::new(node, rooms, peers, Some(link)));
        tokio::spawn(cluster.clone().listen(requests));
        tokio::spawn(cluster.clone().say_hello());
        cluster
    }

    fn new(node: &str, rooms: Arc<Rooms>, peers: Arc<Peers>, link: Option<RedisLink>) -> Self {
        Self {
            node: node.into(),
            rooms,
            members: ClusterMembers::default(),
            peers,
            handlers: RwLock::default(),
            leaver: OnceLock::new(),
            standing: OnceLock::new(),
            pending: OpenQuestions::default(),
            link,
        }
    }

    /// This node's id.
    pub fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// Publishes messages to the other nodes and receives their messages; `None` on a node without Redis.
    pub fn pubsub(&self) -> Option<&Arc<PubSub>> {
        self.link.as_ref().map(|link| &link.pubsub)
    }

    /// Sends events to the other nodes and receives their events; `None` on a node without Redis.
    pub fn wire(&self) -> Option<&Arc<ClusterAdapter>> {
        self.link.as_ref().map(|link| &link.wire)
    }

    /// The nodes of the cluster with their totals; this node is the first.
    pub fn view(&self) -> ClusterView {
        self.members.view(self.own_member())
    }

    /// The conflicts that this node sees: two nodes with one id, or nodes with different contracts.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.link.as_ref().map(|link| link.conflicts.now(Instant::now())).unwrap_or_default()
    }

    /// Sets the cluster's gauges to their current values.
    pub fn measure(&self, metrics: &Metrics) {
        let set = |gauge: &IntGaugeVec, number| gauge.with_label_values::<&str>(&[]).set(count(number));
        set(&metrics.cluster_nodes, self.view().nodes.len());
        let conflicts = self.conflicts();
        for kind in ConflictKind::ALL {
            let number = conflicts.iter().filter(|conflict| conflict.kind == kind).count();
            metrics.cluster_conflicts.with_label_values(&[kind.as_str()]).set(count(number));
        }
        let Some(link) = &self.link else {
            // This node uses no Redis, so no gauge may report that Redis is down. An error means that the gauge was
            // removed before.
            let _ = metrics.redis_up.remove_label_values::<&str>(&[]);
            return;
        };
        let (towards, from) = link.pubsub.waiting();
        set(&metrics.cluster_publish_queue, towards);
        set(&metrics.cluster_receive_queue, from + link.wire.waiting());
        set(&metrics.redis_up, usize::from(link.redis.health().is_good()));
    }

    /// Sets the function that returns this node's standing for each heartbeat. To be called once.
    pub fn stand(&self, standing: impl Fn() -> DrainReport + Send + Sync + 'static) {
        let _ = self.standing.set(Arc::new(standing));
    }

    /// The standings that the other nodes sent with their last heartbeats.
    pub fn drain_reports(&self) -> Vec<DrainReport> {
        self.members.drain_reports()
    }

    /// Sends a heartbeat now, without waiting for the next heartbeat to be due.
    pub async fn tell_now(&self) {
        self.say_once().await;
    }

    /// Registers the handler of messages that other nodes send on a topic. A node does not handle its own messages.
    pub fn on(&self, topic: &'static str, handler: impl Fn(&str, Value) + Send + Sync + 'static) {
        self.handlers.write().expect("no panic while held").insert(topic, Arc::new(handler));
    }

    /// Sends a message to all other nodes, at most once. Returns as soon as Redis has answered, and reports whether
    /// Redis accepted the message.
    pub async fn tell(&self, topic: &str, data: &impl Serialize) -> SendOutcome {
        self.tell_counted(topic, data).await.0
    }

    /// Like [`Cluster::tell`]. Also returns how many other nodes received the message, unknown nodes included.
    async fn tell_counted(&self, topic: &str, data: &impl Serialize) -> (SendOutcome, usize) {
        let Some(link) = &self.link else { return (SendOutcome::Alone, 0) };
        let Ok(body) = serde_json::to_vec(&Control { topic, data }) else {
            return (SendOutcome::NotCarried(RemoteFailure::Refused.as_str()), 0);
        };
        match link.pubsub.tell_counted(&link.control, &body).await {
            // One of the receivers is this node itself, which is subscribed to the channel as well.
            Ok(heard) => (SendOutcome::Carried, heard.saturating_sub(1)),
            Err(why) => (SendOutcome::NotCarried(why.as_str()), 0),
        }
    }

    /// Stops answering other servers, and tells the other nodes that this node leaves.
    pub async fn leave(&self) {
        if let Some(wire) = self.wire() {
            wire.leave().await;
        }
        self.tell(BYE, &()).await;
    }

    fn own_member(&self) -> NodeTotals {
        let namespaces = self.rooms.namespaces();
        let (mut connections, mut rooms) = (0, 0);
        for namespace in namespaces {
            connections += self.rooms.session_count(namespace);
            rooms += self.rooms.room_count(namespace);
        }
        NodeTotals { node: self.node.to_string(), connections, rooms }
    }

    async fn listen(self: Arc<Self>, mut requests: mpsc::Receiver<pubsub::Incoming>) {
        while let Some(request) = requests.recv().await {
            match serde_json::from_slice::<Control<'_, Value>>(&request.frame.body) {
                Ok(control) => self.handle(&request.frame, control.topic, control.data).await,
                Err(error) => tracing::debug!(%error, "ignored an unreadable message of another node"),
            }
        }
    }

    async fn handle(&self, frame: &Frame, topic: &str, data: Value) {
        let node = &frame.origin.node;
        match topic {
            HELLO => {
                let Ok(hello) = serde_json::from_value::<Heartbeat>(data) else { return };
                if let Some(link) = &self.link {
                    link.pubsub.note_heads(frame, &hello.heads, hello.runs);
                    for conflict in link.conflicts.note(&frame.origin, &hello.contracts, Instant::now()) {
                        tracing::warn!(node = %conflict.node, "{conflict}");
                    }
                }
                self.peers.note(node, hello.forward.clone(), Instant::now());
                if self.members.note(node, hello, Instant::now()) {
                    tracing::info!(node = %node, "a node has joined the cluster");
                    self.expect_listeners();
                }
            }
            WHO => self.say_once().await,
            BYE => {
                self.peers.forget(node);
                if let Some(link) = &self.link {
                    link.canaries.forget(node);
                }
                if self.members.forget(node) {
                    tracing::info!(node = %node, "a node has left the cluster");
                    self.expect_listeners();
                }
            }
            _ => {
                let handler = self.handlers.read().expect("no panic while held").get(topic).cloned();
                match handler {
                    Some(handler) => handler(node, data),
                    None => tracing::debug!(topic, "ignored a message of another node: its topic is unknown"),
                }
            }
        }
    }

    async fn say_hello(self: Arc<Self>) {
        let mut asked = false;
        while let Some(link) = self.link.as_ref().filter(|link| !link.redis.is_closed()) {
            let health = link.redis.health();
            // A node that cannot receive messages must neither treat silent nodes as gone, nor announce in a heartbeat
            // that it listens.
            if !health.hears() || !link.redis.subscriber().is_complete() {
                asked = false;
                tokio::time::sleep(LOOK).await;
                continue;
            }
            if !std::mem::replace(&mut asked, true) {
                self.tell(WHO, &()).await;
            }
            self.say_once().await;
            for silent in self.members.expire(health.since, Instant::now()) {
                tracing::warn!(node = %silent, "a node of the cluster has stopped sending heartbeats and counts as gone");
            }
            self.expect_listeners();
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    async fn say_once(&self) {
        let Some(link) = &self.link else { return };
        let own = self.own_member();
        let (heads, runs) = link.pubsub.heads();
        let hello = Heartbeat {
            connections: own.connections,
            rooms: own.rooms,
            listens: link.pubsub.listens(),
            heads,
            runs,
            contracts: link.conflicts.contracts().to_owned(),
            forward: self.peers.own().cloned(),
            standing: self.standing.get().map_or_else(DrainReport::default, |standing| standing()),
        };
        self.tell(HELLO, &hello).await;
    }

    fn expect_listeners(&self) {
        let Some(link) = &self.link else { return };
        let mut listeners = self.members.listeners();
        for channel in link.pubsub.listens() {
            *listeners.entry(channel).or_default() += 1;
        }
        link.pubsub.expect_listeners(listeners);
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("node", &self.node).field("alone", &self.link.is_none()).finish_non_exhaustive()
    }
}
