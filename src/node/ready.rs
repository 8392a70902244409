//! How the node is, for `/ready`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::cluster::Cluster;
use crate::http::{ClusterStatus, ReadySource, RedisStatus, Status};
use crate::redis::Redis;
use crate::room::Rooms;

/// Knows how the node is.
pub(super) struct NodeStatus {
    id: String,
    started: Instant,
    rooms: Arc<Rooms>,
    cluster: Arc<Cluster>,
    redis: Option<Redis>,
    leaving: AtomicBool,
}

impl NodeStatus {
    pub(super) fn new(id: &str, rooms: Arc<Rooms>, cluster: Arc<Cluster>, redis: Option<Redis>) -> Self {
        Self { id: id.to_owned(), started: Instant::now(), rooms, cluster, redis, leaving: AtomicBool::new(false) }
    }

    /// From now on the node is not ready.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }
}

impl ReadySource for NodeStatus {
    fn status(&self) -> Status {
        let health = self.redis.as_ref().map(Redis::health);
        let count = |of: fn(&Rooms, &str) -> usize| -> u64 {
            self.rooms.namespaces().map(|namespace| of(&self.rooms, namespace) as u64).sum()
        };
        let view = self.cluster.view();
        let redis =
            health.as_ref().map(|health| RedisStatus { connected: health.is_good(), latency: health.round_trip });
        Status {
            node: self.id.clone(),
            connections: count(Rooms::session_count),
            rooms: count(Rooms::room_count),
            uptime: self.started.elapsed(),
            cluster: Some(ClusterStatus {
                nodes: view.nodes.len() as u64,
                connections: view.connections() as u64,
                rooms: view.nodes.iter().map(|node| node.rooms as u64).sum(),
                stale: redis.is_some_and(|redis| !redis.connected),
            }),
            redis,
            draining: self.leaving.load(Ordering::Relaxed),
            reasons: Vec::new(),
        }
    }
}
