//! `/live` and `/ready`: whether the runtime works, and whether the node can take new sockets now.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::answer::ApiResponse;
use crate::redis::Cause;
use crate::time::{iso8601, millis};

/// How long the runtime may run no timer task before it counts as stuck, so that the process should be restarted. It is
/// long enough for a starved machine.
pub const STUCK: Duration = Duration::from_secs(15);

/// Reports the node's status without waiting. `node` implements it.
pub trait ReadySource: Send + Sync {
    /// The time since the runtime last ran a task that waited for its timer.
    fn since_turn(&self) -> Duration;

    /// The status at this moment. Numbers of other nodes are those of the last heartbeat.
    fn status(&self) -> NodeState;
}

/// The status of the node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeState {
    /// The node's id.
    pub node: String,
    /// Clients of this node, over all namespaces.
    pub connections: u64,
    /// Rooms with members on this node, over all namespaces.
    pub rooms: u64,
    /// Time since the node started.
    pub uptime: Duration,
    /// The status of Redis. `None`: the node runs without Redis.
    pub redis: Option<RedisStatus>,
    /// The status of all nodes. `None`: not known.
    pub cluster: Option<ClusterStatus>,
    /// The node is draining.
    pub draining: bool,
    /// Reasons other than a drain why the node takes no new sockets.
    pub reasons: Vec<String>,
    /// Problems that do not keep the node from taking new sockets.
    pub warnings: Vec<String>,
}

/// The status of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisStatus {
    /// Redis returned the node's own message and answers commands.
    pub connected: bool,
    /// Redis accepts writes.
    pub writable: bool,
    /// The cause of Redis' failure, if there is one.
    pub cause: Option<Cause>,
    /// The round-trip time of the last message that the node sent itself.
    pub latency: Option<Duration>,
    /// Whether the node is ready even while Redis is away.
    pub may_be_away: bool,
}

/// The status of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Number of live nodes, including this node.
    pub nodes: u64,
    /// Number of clients on these nodes.
    pub connections: u64,
    /// Number of rooms on these nodes.
    pub rooms: u64,
    /// Whether the numbers are older than two heartbeats.
    pub stale: bool,
}

/// The answer of `/ready`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Ready")]
pub struct ReadyResponse {
    /// The node's readiness, as a word.
    status: Readiness,
    /// This node's sockets.
    websocket: Websocket,
    /// This node.
    node: NodeReport,
    /// The totals of all nodes; null if they are not known.
    cluster: Option<ClusterReport>,
    /// The reasons why the node is not `ready`; empty when it is ready.
    reasons: Vec<String>,
}

/// Whether a node can take new sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ReadyWord")]
pub enum Readiness {
    /// The node takes new sockets.
    Ready,
    /// The node takes new sockets, but something does not work; `reasons` says what.
    Degraded,
    /// The node takes no new sockets; `reasons` says why.
    NotReady,
    /// The node is draining.
    Draining,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct Websocket {
    status: Readiness,
    /// Clients of this node.
    connections: u64,
    /// Rooms with members on this node.
    rooms: u64,
    /// Milliseconds since the node started.
    uptime: u64,
    redis: RedisReport,
    /// The current time: ISO 8601 in UTC, with milliseconds.
    timestamp: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct RedisReport {
    /// Whether Redis answers and delivers the nodes' messages. False on a node without Redis, which needs none.
    connected: bool,
    /// Whether Redis accepts writes. If false, what nodes keep there (histories, presence, owners, sessions for
    /// recovery) is not kept, and answers about it are incomplete; events still reach the other nodes.
    writable: bool,
    /// The cause of the failure, as a word that `docs/redis.md` explains; null while everything works.
    cause: Option<&'static str>,
    /// Milliseconds of the last round trip of a message to the node itself through pub/sub; null if there was none.
    latency: Option<f64>,
    mode: RedisMode,
}

/// How the nodes are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedisMode {
    /// The nodes are not connected: there is one node.
    Memory,
    /// Through Redis.
    Redis,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct NodeReport {
    id: String,
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct ClusterReport {
    /// Number of live nodes, including this node.
    nodes: u64,
    /// Number of clients on these nodes.
    connections: u64,
    /// Number of rooms on these nodes. A room with members on several nodes may count once for each.
    rooms: u64,
    /// Whether the numbers are older than two heartbeats.
    stale: bool,
}

/// Answers `/live`: 200, or 503 if the runtime is stuck for [`STUCK`].
pub async fn live(State(source): State<Arc<dyn ReadySource>>) -> Response {
    let since = source.since_turn();
    let (status, word) =
        if since < STUCK { (StatusCode::OK, "live") } else { (StatusCode::SERVICE_UNAVAILABLE, "stuck") };
    json_response(status, &json!({ "status": word, "turned_ms_ago": since.as_millis() }))
}

/// Answers `/ready`: 200, or 503 with reasons.
pub async fn ready(State(source): State<Arc<dyn ReadySource>>) -> Response {
    let (status, report) = report(source.status(), SystemTime::now());
    json_response(status, &report)
}

fn json_response<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let mut response = match ApiResponse::json(status, value) {
        Ok(answer) => answer.into_response(),
        Err(error) => error.into_response(),
    };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(1));
    }
    response
}

/// Makes the answer of `/ready` for a status.
pub fn report(status: NodeState, now: SystemTime) -> (StatusCode, ReadyResponse) {
    let mut reasons = status.reasons;
    let failed = status.redis.as_ref().filter(|redis| !redis.connected || !redis.writable || redis.cause.is_some());
    let word = match failed {
        _ if status.draining => Readiness::Draining,
        _ if !reasons.is_empty() => Readiness::NotReady,
        Some(redis) if redis.may_be_away => Readiness::Degraded,
        Some(_) => Readiness::NotReady,
        None if !status.warnings.is_empty() => Readiness::Degraded,
        None => Readiness::Ready,
    };
    reasons.extend(status.warnings);
    if let Some(redis) = failed {
        reasons.insert(0, reason(redis));
    }
    if status.draining {
        reasons.insert(0, "the node is draining".into());
    }
    let redis = match status.redis {
        Some(redis) => RedisReport {
            connected: redis.connected,
            writable: redis.writable,
            cause: redis.cause.map(|cause| cause.kind.as_str()),
            latency: redis.latency.filter(|_| redis.connected).map(milliseconds),
            mode: RedisMode::Redis,
        },
        None => RedisReport { connected: false, writable: false, cause: None, latency: None, mode: RedisMode::Memory },
    };
    let websocket = Websocket {
        status: word,
        connections: status.connections,
        rooms: status.rooms,
        uptime: millis(status.uptime),
        redis,
        timestamp: iso8601(now),
    };
    let cluster = status.cluster.map(|cluster| ClusterReport {
        nodes: cluster.nodes,
        connections: cluster.connections,
        rooms: cluster.rooms,
        stale: cluster.stale,
    });
    let node = NodeReport { id: status.node, version: env!("CARGO_PKG_VERSION") };
    let takes_clients = matches!(word, Readiness::Ready | Readiness::Degraded);
    let code = if takes_clients { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, ReadyResponse { status: word, websocket, node, cluster, reasons })
}

/// The sentence that says why a node is not ready because of its Redis.
fn reason(redis: &RedisStatus) -> String {
    let effect = match (redis.connected, redis.writable) {
        (false, _) => "Redis is away: events do not reach the other nodes",
        (true, false) => "Redis refuses writes: histories, presence and answers about them are incomplete",
        (true, true) => "Redis refuses a subscription: events of the other nodes are missed",
    };
    match &redis.cause {
        Some(cause) => format!("{effect}; {}: {cause}", cause.kind.as_str()),
        None => effect.to_owned(),
    }
}

/// Writes milliseconds with three decimal places.
fn milliseconds(latency: Duration) -> f64 {
    (latency.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::CauseKind;

    fn well() -> RedisStatus {
        let latency = Some(Duration::from_millis(2));
        RedisStatus { connected: true, writable: true, cause: None, latency, may_be_away: true }
    }

    fn status() -> NodeState {
        NodeState {
            node: "n".into(),
            connections: 3,
            rooms: 2,
            uptime: Duration::from_millis(1500),
            redis: None,
            cluster: Some(ClusterStatus { nodes: 1, connections: 3, rooms: 2, stale: false }),
            draining: false,
            reasons: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn told(status: NodeState) -> (u16, serde_json::Value) {
        let (code, ready) = report(status, SystemTime::UNIX_EPOCH);
        (code.as_u16(), serde_json::to_value(ready).unwrap())
    }

    #[test]
    fn a_node_in_memory_is_ready_and_does_not_pretend_to_have_redis() {
        let expected = json!({
            "status": "ready",
            "websocket": {
                "status": "ready", "connections": 3, "rooms": 2, "uptime": 1500,
                "redis": { "connected": false, "writable": false, "cause": null, "latency": null, "mode": "memory" },
                "timestamp": "1970-01-01T00:00:00.000Z"
            },
            "node": { "id": "n", "version": env!("CARGO_PKG_VERSION") },
            "cluster": { "nodes": 1, "connections": 3, "rooms": 2, "stale": false },
            "reasons": []
        });
        assert_eq!(told(status()), (200, expected));
    }

    #[test]
    fn a_node_whose_redis_is_away_says_so() {
        for (may_be_away, code, word) in [(true, 200, "degraded"), (false, 503, "not_ready")] {
            let redis = RedisStatus { connected: false, may_be_away, ..well() };
            let (answered, told) = told(NodeState { redis: Some(redis), ..status() });
            assert_eq!((answered, &told["status"]), (code, &json!(word)));
            assert_eq!(
                (&told["websocket"]["redis"]["connected"], &told["websocket"]["redis"]["latency"]),
                (&json!(false), &json!(null))
            );
            assert_eq!(told["reasons"].as_array().unwrap().len(), 1);
        }
    }

    #[test]
    fn a_redis_that_refuses_writes_is_no_better_and_its_cause_is_told() {
        let cause = Cause { kind: CauseKind::OutOfMemory, detail: "OOM command not allowed".into() };
        for (may_be_away, code, word) in [(true, 200, "degraded"), (false, 503, "not_ready")] {
            let redis = RedisStatus { writable: false, cause: Some(cause.clone()), may_be_away, ..well() };
            let (answered, told) = told(NodeState { redis: Some(redis), ..status() });
            assert_eq!((answered, &told["status"]), (code, &json!(word)));
            let redis = &told["websocket"]["redis"];
            assert_eq!((&redis["connected"], &redis["writable"]), (&json!(true), &json!(false)));
            assert_eq!(redis["cause"], "out_of_memory");
            let reason = told["reasons"][0].as_str().unwrap();
            assert!(reason.contains("refuses writes") && reason.contains("OOM command not allowed"), "{reason}");
        }
    }

    #[test]
    fn a_warning_is_told_and_keeps_nobody_out() {
        let (code, told) = told(NodeState { warnings: vec!["two nodes have one id".into()], ..status() });
        assert_eq!(
            (code, &told["status"], &told["reasons"][0]),
            (200, &json!("degraded"), &json!("two nodes have one id"))
        );
    }

    #[test]
    fn what_else_is_missing_is_not_forgiven_because_redis_is() {
        let redis = RedisStatus { connected: false, ..well() };
        let (code, told) = told(NodeState { redis: Some(redis), reasons: vec!["full".into()], ..status() });
        assert_eq!((code, told["reasons"].as_array().unwrap().len()), (503, 2));
    }

    struct Turned(Duration);
    impl ReadySource for Turned {
        fn since_turn(&self) -> Duration {
            self.0
        }

        fn status(&self) -> NodeState {
            status()
        }
    }

    #[tokio::test]
    async fn a_node_whose_runtime_does_not_turn_is_not_live() {
        for (since, code) in [(Duration::from_secs(1), 200), (STUCK, 503)] {
            assert_eq!(live(State(Arc::new(Turned(since)))).await.status().as_u16(), code);
        }
    }

    #[test]
    fn a_draining_node_is_not_ready() {
        let redis = RedisStatus { latency: Some(Duration::from_micros(1234)), ..well() };
        let (code, told) = told(NodeState { redis: Some(redis), draining: true, ..status() });
        assert_eq!((code, &told["websocket"]["status"]), (503, &json!("draining")));
        assert_eq!(told["websocket"]["redis"]["latency"], json!(1.234));
    }
}
