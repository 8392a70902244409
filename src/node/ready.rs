//! Determines the node's state, for `/ready`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pulse::Pulse;
use crate::cluster::Cluster;
use crate::config::ReadyWithoutRedis;
use crate::drain::Drain;
use crate::http::{ClusterStatus, NodeState, ReadySource, RedisStatus};
use crate::redis::Redis;
use crate::room::Rooms;

/// Determines the node's state.
pub(super) struct NodeStatus {
    id: String,
    started: Instant,
    rooms: Arc<Rooms>,
    cluster: Arc<Cluster>,
    redis: Option<Redis>,
    when_away: ReadyWithoutRedis,
    drain: Arc<Drain>,
    pulse: Pulse,
}

impl NodeStatus {
    pub(super) fn new(
        id: &str,
        (rooms, cluster, drain): (Arc<Rooms>, Arc<Cluster>, Arc<Drain>),
        redis: Option<Redis>,
        when_away: ReadyWithoutRedis,
    ) -> Self {
        Self {
            id: id.to_owned(),
            started: Instant::now(),
            rooms,
            cluster,
            redis,
            when_away,
            drain,
            pulse: Pulse::start(),
        }
    }

    fn redis_status(&self) -> Option<RedisStatus> {
        let health = self.redis.as_ref()?.health();
        // A Redis that has never worked may have a wrong address or missing permissions. That is not an outage: the
        // node stays not ready, so that a roll-out stops here.
        let mistaken = health.cause.as_ref().is_some_and(|cause| cause.kind.is_a_mistake());
        let joined = health.worked || (health.round_trip.is_some() && !mistaken);
        let may_be_away = self.when_away == ReadyWithoutRedis::Degraded && joined;
        Some(RedisStatus {
            connected: health.hears(),
            writable: health.writes,
            cause: health.cause,
            latency: health.round_trip,
            may_be_away,
        })
    }
}

impl ReadySource for NodeStatus {
    fn since_turn(&self) -> Duration {
        self.pulse.since()
    }

    fn status(&self) -> NodeState {
        let count = |of: fn(&Rooms, &str) -> usize| -> u64 {
            self.rooms.namespaces().map(|namespace| of(&self.rooms, namespace) as u64).sum()
        };
        let view = self.cluster.view();
        let redis = self.redis_status();
        NodeState {
            node: self.id.clone(),
            connections: count(Rooms::session_count),
            rooms: count(Rooms::room_count),
            uptime: self.started.elapsed(),
            cluster: Some(ClusterStatus {
                nodes: view.nodes.len() as u64,
                connections: view.connections() as u64,
                rooms: view.nodes.iter().map(|node| node.rooms as u64).sum(),
                stale: redis.as_ref().is_some_and(|redis| !redis.connected),
            }),
            redis,
            draining: self.drain.is_leaving(),
            reasons: Vec::new(),
            warnings: self.cluster.conflicts().iter().map(ToString::to_string).collect(),
        }
    }
}
