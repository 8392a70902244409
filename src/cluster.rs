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
mod control;
mod emitter_lease;
mod gaps;
mod heartbeat;
mod link;
mod members;
mod numbers;
mod pauses;
mod questions;
mod revocations;
mod slowest;

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntGaugeVec;
use serde::Serialize;

pub use actions::ClusterActions;
pub use adapter::{AnswerFormat, ClusterAdapter, Inbound, Inquiry, InquiryAnswer, LibraryCodec, LibraryRequest};
pub use conflicts::{Conflict, ConflictKind};
pub use control::MessageHandlers;
pub use link::{ClusterInbox, RedisLink};
pub use members::{ClusterView, HEARTBEAT, NodeTotals};
pub use pubsub::PubSub;
pub use revocations::{ClusterRevoker, EndSession};
pub use slowest::SlowestConnections;

use crate::directory::SendOutcome;
use crate::drain::report::DrainReport;
use crate::forward::Peers;
use crate::publish::RemoteFailure;
use crate::room::Rooms;
use crate::telemetry::metrics::{Metrics, count};
use control::Control;
use heartbeat::BYE;
use members::ClusterMembers;

/// How often a node that cannot receive messages from Redis checks whether Redis works again.
const LOOK: Duration = Duration::from_millis(50);

/// Maximum number of requests from other nodes that wait to be handled. Further ones are dropped and counted.
const CONTROL_BUFFER: usize = 4096;

/// This node as a member of the cluster.
pub struct Cluster {
    node: Arc<str>,
    rooms: Arc<Rooms>,
    members: ClusterMembers,
    /// The addresses at which the other nodes accept forwarded requests for their sessions.
    peers: Arc<Peers>,
    link: Option<RedisLink>,
}

impl Cluster {
    /// Creates a node without Redis and so without other nodes: the in-memory mode.
    pub fn alone(node: &str, rooms: Arc<Rooms>) -> Arc<Self> {
        Arc::new(Self {
            node: node.into(),
            rooms,
            members: ClusterMembers::default(),
            peers: Peers::none(),
            link: None,
        })
    }

    /// Creates a node that shares a Redis with others.
    pub fn join(link: RedisLink, rooms: Arc<Rooms>, peers: Arc<Peers>) -> Arc<Self> {
        let node = link.pubsub.origin().node.clone();
        Arc::new(Self { node, rooms, members: ClusterMembers::default(), peers, link: Some(link) })
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
            // The node uses no Redis, so no gauge may report that Redis is down. An error means that the gauge was
            // removed before.
            let _ = metrics.redis_up.remove_label_values::<&str>(&[]);
            return;
        };
        let (towards, from) = link.pubsub.waiting();
        set(&metrics.cluster_publish_queue, towards);
        set(&metrics.cluster_receive_queue, from + link.wire.waiting());
        set(&metrics.redis_up, usize::from(link.redis.health().is_good()));
    }

    /// The standings that the other nodes sent with their last heartbeats.
    pub fn drain_reports(&self) -> Vec<DrainReport> {
        self.members.drain_reports()
    }

    /// The ids of the other nodes whose heartbeats this node receives.
    fn others(&self) -> impl Iterator<Item = Arc<str>> {
        self.view().nodes.into_iter().skip(1).map(|member| member.node.into())
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
            // One of the subscribers that Redis counts is this node itself.
            Ok(heard) => (SendOutcome::Carried, heard.saturating_sub(1)),
            Err(why) => (SendOutcome::NotCarried(why.as_str()), 0),
        }
    }

    /// Tells the other nodes that this node leaves.
    pub async fn leave(&self) {
        self.tell(BYE, &()).await;
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("node", &self.node).field("alone", &self.link.is_none()).finish_non_exhaustive()
    }
}
