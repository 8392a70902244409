//! A node's connections with the other nodes, which exist before the node has an index of rooms.

use std::sync::Arc;

use super::adapter::{ClusterAdapter, EventInbox, Inbound, LibraryCodec};
use super::canary::Canaries;
use super::conflicts::Conflicts;
use super::control::{ControlInbox, MessageHandlers};
use super::{CONTROL_BUFFER, Cluster, PubSub, pauses};
use crate::config;
use crate::drain::Drain;
use crate::publish::Publisher;
use crate::redis::Redis;
use crate::telemetry::metrics::Metrics;

/// The parts of a node that exist only if Redis is configured.
pub struct RedisLink {
    pub(super) redis: Redis,
    pub(super) pubsub: Arc<PubSub>,
    pub(super) control: Arc<str>,
    pub(super) canaries: Arc<Canaries>,
    pub(super) wire: Arc<ClusterAdapter>,
    pub(super) conflicts: Conflicts,
    /// Reports how far this node drains. Heartbeats contain the report in addition to the node's totals.
    pub(super) drain: Arc<Drain>,
}

/// The messages of other nodes that wait until this node is complete.
#[must_use]
pub struct ClusterInbox {
    /// Events, and requests of other servers.
    events: EventInbox,
    /// Heartbeats, and requests between nodes.
    control: ControlInbox,
}

impl ClusterInbox {
    /// Begins to deliver the events of other nodes to the clients of this node, to act for other nodes, and to send
    /// heartbeats. Needs a Tokio runtime.
    pub fn start(
        self,
        cluster: &Arc<Cluster>,
        publisher: Arc<Publisher>,
        library: Arc<dyn LibraryCodec>,
        handlers: MessageHandlers,
    ) -> Arc<Inbound> {
        // The channels must be known before the first heartbeat, because heartbeats tell which channels the node
        // listens to.
        let inbound = self.events.start(cluster.rooms.clone(), publisher, library);
        self.control.start(cluster, handlers);
        inbound
    }
}

impl RedisLink {
    /// Begins to send and to receive messages. Redis need not be reachable yet. `contracts` is a digest of the node's
    /// contracts: all nodes must have the same ones. Needs a Tokio runtime.
    pub fn new(
        (node, contracts): (&str, &str),
        namespaces: impl IntoIterator<Item = Arc<str>>,
        redis: Redis,
        drain: Arc<Drain>,
        metrics: Arc<Metrics>,
        config: &config::RedisSettings,
    ) -> (Self, ClusterInbox) {
        let control: Arc<str> = redis.keys().control_channel().into();
        let pubsub = PubSub::start(redis.clone(), node, metrics.clone(), config.publish_buffer);
        let canaries = Canaries::start(&redis, &pubsub, metrics.clone(), config.canary_interval.get());
        let requests = pubsub.subscribe(&control, CONTROL_BUFFER);
        let (wire, events) = ClusterAdapter::new(pubsub.clone(), redis.clone(), namespaces, metrics.clone(), config);
        let unreadable = metrics.cluster_dropped_total.with_label_values(&["unreadable"]);
        tokio::spawn(pauses::watch(redis.clone(), metrics));
        let conflicts = Conflicts::new(pubsub.origin().clone(), contracts);
        let inbox = ClusterInbox { events, control: ControlInbox { requests, unreadable } };
        (Self { redis, pubsub, control, canaries, wire, conflicts, drain }, inbox)
    }

    /// Sends events to the other nodes, and subscribes to the channels of rooms.
    pub fn wire(&self) -> &Arc<ClusterAdapter> {
        &self.wire
    }
}
