//! Heartbeats: each node tells the others once a second that it runs, what it listens to, and how many clients it has.

use std::sync::Arc;
use std::time::Instant;

use super::frame::Frame;
use super::members::{HEARTBEAT, Heartbeat};
use super::{Cluster, LOOK, NodeTotals};

/// The topic of heartbeats.
pub(super) const HELLO: &str = "hello";

/// The topic of requests for the heartbeats of all nodes.
pub(super) const WHO: &str = "who";

/// The topic of the message that a node leaves.
pub(super) const BYE: &str = "bye";

impl Cluster {
    /// Sends a heartbeat once a second, until the connections to Redis are closed.
    pub(super) async fn send_heartbeats(self: Arc<Self>) {
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
            self.tell_now().await;
            for silent in self.members.expire(health.since, Instant::now()) {
                tracing::warn!(node = %silent, "a node of the cluster has stopped sending heartbeats and counts as gone");
            }
            self.expect_listeners();
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    /// Sends a heartbeat now, without waiting for the next heartbeat to be due.
    pub async fn tell_now(&self) {
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
            standing: link.drain.drain_report(),
        };
        self.tell(HELLO, &hello).await;
    }

    /// Takes the heartbeat of another node.
    pub(super) fn note_hello(&self, frame: &Frame, hello: Heartbeat, now: Instant) {
        let node = &frame.origin.node;
        if let Some(link) = &self.link {
            link.pubsub.note_heads(frame, &hello.heads, hello.runs);
            for conflict in link.conflicts.note(&frame.origin, &hello.contracts, now) {
                tracing::warn!(node = %conflict.node, "{conflict}");
            }
        }
        self.peers.note(node, hello.forward.clone(), now);
        if self.members.note(node, hello, now) {
            tracing::info!(node = %node, "a node has joined the cluster");
            self.expect_listeners();
        }
    }

    /// Forgets a node that has announced that it leaves.
    pub(super) fn note_bye(&self, node: &Arc<str>) {
        self.peers.forget(node);
        if let Some(link) = &self.link {
            link.canaries.forget(node);
        }
        if self.members.forget(node) {
            tracing::info!(node = %node, "a node has left the cluster");
            self.expect_listeners();
        }
    }

    /// This node with its totals.
    pub(super) fn own_member(&self) -> NodeTotals {
        let (mut connections, mut rooms) = (0, 0);
        for namespace in self.rooms.namespaces() {
            connections += self.rooms.session_count(namespace);
            rooms += self.rooms.room_count(namespace);
        }
        NodeTotals { node: self.node.to_string(), connections, rooms }
    }

    /// Updates how many nodes listen to each channel.
    fn expect_listeners(&self) {
        let Some(link) = &self.link else { return };
        let mut listeners = self.members.listeners();
        for channel in link.pubsub.listens() {
            *listeners.entry(channel).or_default() += 1;
        }
        link.pubsub.expect_listeners(listeners);
    }
}
