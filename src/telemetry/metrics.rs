//! Every metric of the node, declared once. The doc comment of a field is its HELP text.

use std::sync::Mutex;

use super::audit::{self, AuditEvent};

use prometheus::{CounterVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// Declares the struct, and registers each metric under `roomcast_<field>`, or the name after `=`. `from` lists the
/// values of the last label, and `each` those of the label before it. Their series are 0 from the start, so that a rate
/// sees the first increase. Where the label before is `nsp` or `hook`, [`Metrics::begin`] gives its values.
macro_rules! metrics {
    ($( #[doc = $help:literal] $name:ident: $kind:ident [$($label:literal),*] $(= $full:literal)?
        $(each [$($each:literal),*])? $(from [$($value:literal),*])? $(buckets $buckets:expr)?; )*) => {
        /// All metrics of a node. Labels come from contracts and enumerations, never from clients.
        pub struct Metrics {
            registry: Registry,
            measures: Mutex<Vec<Measure>>,
            $( #[doc = $help] pub $name: metrics!(@type $kind), )*
        }

        impl Metrics {
            /// Registers every metric.
            pub fn new() -> Self {
                let registry = Registry::new();
                $(
                    let name = metrics!(@name $name $($full)?);
                    let labels: &[&str] = &[$($label),*];
                    let $name = metrics!(@make $kind name, $help.trim(), labels $(, $buckets)?);
                    if labels.is_empty() {
                        let _ = $name.with_label_values::<&str>(&[]);
                    }
                    let (each, from): (&[&str], &[&str]) = (&[$($($each),*)?], &[$($($value),*)?]);
                    series(labels, each, from, |values| drop($name.with_label_values(values)));
                    registry.register(Box::new($name.clone())).expect("names are unique");
                )*
                Self { registry, measures: Mutex::default(), $( $name, )* }
            }

            /// Starts the series of a label whose values the configuration gives (`nsp`, `hook`), with every declared
            /// value of the label after it.
            pub fn begin(&self, label: &str, each: &[&str]) {
                $(
                    let labels: &[&str] = &[$($label),*];
                    if labels.len() == 2 && labels[0] == label {
                        series(labels, each, &[$($($value),*)?], |values| drop(self.$name.with_label_values(values)));
                    }
                )*
            }

            /// The labels whose values are not all declared, by metric.
            #[cfg(test)]
            const UNDECLARED: &'static [(&'static str, Option<&'static str>)] = &[$( (
                stringify!($name),
                undeclared(&[$($label),*], &[$($($value),*)?]),
            ), )*];

            /// Name, kind, labels and help of every metric, for `docs/metrics.md`.
            #[cfg(test)]
            pub(super) const CATALOGUE: &'static [(&'static str, &'static str, &'static [&'static str], &'static str)] =
                &[$( (metrics!(@name $name $($full)?), metrics!(@kind $kind), &[$($label),*], $help), )*];
        }
    };
    (@name $name:ident) => { concat!("roomcast_", stringify!($name)) };
    (@name $name:ident $full:literal) => { $full };
    (@kind seconds) => { "counter" };
    (@kind $kind:ident) => { stringify!($kind) };
    (@type counter) => { IntCounterVec };
    (@type seconds) => { CounterVec };
    (@type gauge) => { IntGaugeVec };
    (@type histogram) => { HistogramVec };
    (@make counter $name:expr, $help:expr, $labels:expr) => {
        IntCounterVec::new(Opts::new($name, $help), $labels).expect("the declaration is valid")
    };
    (@make seconds $name:expr, $help:expr, $labels:expr) => {
        CounterVec::new(Opts::new($name, $help), $labels).expect("the declaration is valid")
    };
    (@make gauge $name:expr, $help:expr, $labels:expr) => {
        IntGaugeVec::new(Opts::new($name, $help), $labels).expect("the declaration is valid")
    };
    (@make histogram $name:expr, $help:expr, $labels:expr, $buckets:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), $labels).expect("the declaration is valid")
    };
}

/// Calls `begin` with the label values of each series, for a metric of one or two labels.
fn series(labels: &[&str], each: &[&str], from: &[&str], begin: impl Fn(&[&str])) {
    match labels.len() {
        1 => from.iter().for_each(|value| begin(&[value])),
        2 => each.iter().for_each(|first| from.iter().for_each(|value| begin(&[first, value]))),
        _ => {}
    }
}

/// The last label, unless its values are declared.
#[cfg(test)]
const fn undeclared(labels: &[&'static str], from: &[&str]) -> Option<&'static str> {
    match labels {
        [.., last] if from.is_empty() => Some(last),
        _ => None,
    }
}

/// Sets gauges to their current values.
type Measure = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Buckets from 50 µs to 10 s.
const LATENCY: &[f64] =
    &[0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Fewer buckets over the same range, for metrics with many series.
const COARSE: &[f64] = &[0.0005, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0];

metrics! {
    /// 1, with the node's version, engine and id as labels.
    build_info: gauge ["version", "engine", "node"];
    /// 1 while the node accepts new clients, else 0; /ready gives the reason.
    ready: gauge [];
    /// Connections of clients now, by transport. A client counts once, whatever the number of its namespaces. A refused client counts until its connection ends.
    transports: gauge ["transport"] from ["websocket", "polling"];
    /// Connections of clients now, by the version of Engine.IO that they speak: 4, or 3 (such as clients of Socket.IO 2, which may connect only with server.allow_eio3).
    protocols: gauge ["protocol"] from ["4", "3"];
    /// WebSockets of the native engine that use compression now.
    websockets_compressed: gauge [];
    /// Clients that moved from polling to WebSocket. Upgrades that fail are not counted.
    transport_upgrades_total: counter [];
    /// Requests of clients that were refused before a session was opened or found, by reason: origin (not permitted), leaving (the node drains), crowded (server.max_connections), ip_connections (limits.max_connections_per_ip), ip_rate (limits.connections_per_ip), malformed (an unknown transport, another version of the protocol, a repeated parameter), unknown_session (ended, or another client's), overlap (a body arrived before the previous body was complete), slow_body (not within ping_interval and ping_timeout), too_large (a body for another node is larger than server.max_payload); and connections that were closed before they had a session: silent (server.handshake_timeout), pending (limits.max_pending_connections), files (the process has almost reached its limit of open files).
    handshakes_refused_total: counter ["reason"] from ["origin", "leaving", "crowded", "ip_connections", "ip_rate", "malformed", "unknown_session", "overlap", "slow_body", "too_large", "silent", "pending", "files"];
    /// Attempts of clients that the node cannot serve, by reason: protocol (a version of Engine.IO other than 4, such as that of socket.io-client 1 and 2 without server.allow_eio3), parser (one that the engine does not have: the native engine has JSON and socket.io-msgpack-parser).
    incompatible_clients_total: counter ["reason"] from ["protocol", "parser"];
    /// Bytes on connections to the public listener, by direction: received, sent. Counted below TLS and above TCP.
    network_bytes_total: counter ["direction"] from ["received", "sent"];
    /// Packets that wait to be written to clients now, over all clients of the native engine. The socketioxide engine does not report them.
    queue_packets: gauge [];
    /// Packets in the longest write queue of a client now (at most server.queue), over all WebSockets of the native engine.
    queue_longest_packets: gauge [];
    /// Bytes that wait to be written to clients now, over all clients of both engines.
    queue_bytes: gauge [];
    /// Bytes in the largest write queue of a client now (at most server.queue_bytes, or one packet), over all clients of both engines.
    queue_longest_bytes: gauge [];
    /// Namespaces that the node serves.
    namespaces: gauge [];
    /// Clients connected to a namespace of this node now.
    connections: gauge ["nsp"];
    /// Clients that connected to a namespace since the node started.
    connections_opened_total: counter ["nsp", "transport"] from ["websocket", "polling"];
    /// Clients that left a namespace since the node started, by reason.
    connections_closed_total: counter ["nsp", "reason"] from ["transport close", "server transport close", "ping timeout", "transport error", "parse error", "client namespace disconnect", "server namespace disconnect", "server shutting down", "parallel polling"];
    /// Clients that were refused when they connected to a namespace, by error code.
    connections_refused_total: counter ["nsp", "code"] from ["AUTHENTICATION_FAILED", "AUTHORIZATION_FAILED", "RATE_LIMIT_EXCEEDED", "TOO_MANY_CONNECTIONS", "INVALID_ROOM", "INVALID_PAYLOAD", "UNKNOWN_EVENT", "TOO_LARGE", "OVERLOADED", "UNAVAILABLE", "CALL_FAILED", "NOT_FOUND", "INTERNAL_ERROR"];
    /// Joins by the API, hooks and emitters that were refused, by reason: max_rooms (the socket is in the maximum number of rooms). Refused joins of clients are counted as events with the result TOO_LARGE.
    joins_refused_total: counter ["reason"] from ["max_rooms"];
    /// Entries that the limits count now: addresses (limits.max_connections_per_ip), users (limits.max_sockets_per_user), pending (TCP connections without a session, limits.max_pending_connections).
    limits_present: gauge ["what"] from ["addresses", "users", "pending"];
    /// Rooms with members on this node now.
    rooms: gauge ["nsp"];
    /// Memberships of clients in rooms on this node now.
    memberships: gauge ["nsp"];
    /// Users with a client on this node now. Anonymous users are not counted.
    users: gauge ["nsp"];
    /// Events from clients, by result: ok, or the code of the error. Events that no contract declares are named "unknown".
    events_received_total: counter ["contract", "event", "result"];
    /// Events from clients that were refused with OVERLOADED because they would have had to wait, by the limit that was reached: client_events (limits.max_pending_events), client_bytes (limits.max_pending_bytes), node_bytes (limits.max_pending_bytes_per_node).
    events_not_queued_total: counter ["reason"] from ["client_events", "client_bytes", "node_bytes"];
    /// Bytes of clients' events that wait now for an earlier event of the same client, or for a hook's answer (at most limits.max_pending_bytes_per_node).
    events_pending_bytes: gauge [];
    /// Seconds from the arrival of a client's event until it is handled: the wait for the client's earlier events, checks, hooks, joins, relays and the answer.
    event_seconds: histogram ["contract", "event"] buckets COARSE;
    /// Acknowledgements that clients asked for, by result: ok, error (the acknowledgement reports an error), lost (the client's write queue was full, or the client is gone).
    acks_total: counter ["contract", "event", "result"];
    /// Seconds from the arrival of a client's event until its acknowledgement is in the client's write queue.
    ack_seconds: histogram ["contract"] buckets COARSE;
    /// Events published, by origin: client, api (backends), hook, emitter, node. Events that no contract declares count for the contract "plain".
    events_published_total: counter ["contract", "event", "origin"];
    /// Copies of events that were put into write queues of this node's clients.
    deliveries_total: counter ["nsp"];
    /// Copies of events that were not put into a client's write queue, by reason: queue_full (the client does not read), volatile (the event could not be written at once), slow_replaced (a newer event replaced it, as the contract's `slow` says), closed (the client is gone), overtaken (a later event made it obsolete), publish_queue_full (too many events waited for the delivery to a large room).
    deliveries_dropped_total: counter ["nsp", "reason"] from ["queue_full", "volatile", "slow_replaced", "closed", "overtaken", "publish_queue_full"];
    /// Seconds to put a published event into the write queues of all its clients on this node and to hand it to the cluster.
    publish_seconds: histogram ["origin"] buckets LATENCY;
    /// Clients from which a backend asked an acknowledgement, by result: answered, unanswered (not in time), too_large (the answers of one node together), not_asked (too many clients, the client is gone, or its write queue is full).
    clients_asked_total: counter ["nsp", "result"] from ["answered", "unanswered", "too_large", "not_asked"];
    /// Events that wait for delivery because an event for a large room is being delivered now.
    publish_waiting: gauge ["nsp"];
    /// Seconds that a task held its thread while it wrote to clients or delivered an event to a large room. It yields after half a millisecond.
    delivery_turn_seconds: histogram [] buckets LATENCY;
    /// Events that Redis accepted for the other nodes.
    cluster_carried_total: counter [];
    /// Events that a throttle handled, by result: passed at once, or held as the newest of their room.
    throttled_total: counter ["event", "result"];
    /// Events that did not reach the other nodes, by reason.
    cluster_not_carried_total: counter ["reason"] from ["away", "full", "timeout", "refused", "unheard"];
    /// Seconds from the time a message enters the queue to Redis until Redis answers.
    cluster_publish_seconds: histogram [] buckets LATENCY;
    /// Messages that wait to be written to Redis now (at most redis.publish_buffer).
    cluster_publish_queue: gauge [];
    /// Messages from other nodes that wait to be handled now (events: at most redis.receive_buffer per namespace).
    cluster_receive_queue: gauge [];
    /// Live nodes that this node knows, including itself.
    cluster_nodes: gauge [];
    /// Conflicts between this node and other nodes now, by kind: same_id (two nodes have the same node.id), other_contracts (nodes with one redis.prefix have different contract files).
    cluster_conflicts: gauge ["kind"] from ["same_id", "other_contracts"];
    /// Requests that this node forwarded because another node has the session, by kind (poll, post, upgrade) and result: answered (by that node, whatever the answer), gone (the node is not known), unreachable, cut (the connection broke), timeout, silent (the node sends no heartbeat and answers no probe), refused (the secrets differ), busy (cluster.max_forwarded), too_large, slow_body, overlap (a body arrived before the previous body was complete).
    forwarded_total: counter ["kind", "result"] each ["poll", "post", "upgrade"] from ["answered", "gone", "unreachable", "cut", "timeout", "silent", "refused", "busy", "too_large", "slow_body", "overlap"];
    /// Seconds from the forwarding of a request to the head of its answer, by kind. A poll waits for an event or a ping.
    forward_seconds: histogram ["kind"] from ["poll", "post", "upgrade"] buckets COARSE;
    /// Forwarded requests (request) and WebSockets (tunnel) that are open to other nodes now (together at most cluster.max_forwarded).
    forward_in_flight: gauge ["what"] from ["request", "tunnel"];
    /// Requests that arrived at cluster.listen, by result: served (passed to the session), malformed, signature (invalid: the secrets differ, or the sender is not a node), stale (its time differs by more than 30 s), replayed, body (not the signed one, or not in time), busy (cluster.max_forwarded); and connections that were closed before they sent a request: silent (server.handshake_timeout), pending (cluster.max_forwarded), files (the process has almost reached its limit of open files).
    forward_received_total: counter ["result"] from ["served", "malformed", "signature", "stale", "replayed", "body", "busy", "silent", "pending", "files"];
    /// Bytes on connections to cluster.listen, by direction: received, sent.
    forward_bytes_total: counter ["direction"] from ["received", "sent"];
    /// Canaries that this node has sent to the other nodes. Each of them receives a canary or counts it as lost.
    canaries_sent_total: counter [];
    /// Canaries that this node could not give to Redis, by reason. The other nodes count them as lost.
    canaries_not_carried_total: counter ["reason"] from ["away", "full", "timeout", "refused"];
    /// Canaries of other nodes that arrived here, by the sender's id.
    canaries_received_total: counter ["from"];
    /// Canaries of other nodes that did not arrive here in time, by the sender's id.
    canaries_lost_total: counter ["from"];
    /// Seconds that canaries of other nodes took to arrive here, by the sender's id. The nodes' clocks must agree.
    canary_delay_seconds: histogram ["from"] buckets COARSE;
    /// Events received from other nodes.
    cluster_received_total: counter ["nsp"];
    /// Events of other nodes that this node has missed, found by gaps in their numbers.
    cluster_missed_total: counter [];
    /// Messages of other nodes that arrived and were dropped, by reason: lagged, full, unreadable, late (a newer message from the same node and channel had arrived; also counted as missed).
    cluster_dropped_total: counter ["reason"] from ["lagged", "full", "unreadable", "late"];
    /// Events of other nodes that were for no client of this node.
    cluster_unneeded_total: counter ["nsp"];
    /// Joins that were answered before Redis confirmed the subscription to the room, because the confirmation did not come in time.
    cluster_unconfirmed_joins_total: counter [];
    /// Messages from Socket.IO emitters and servers, by kind: broadcast, act, question, server_side_emit.
    socketio_received_total: counter ["nsp", "kind"] from ["broadcast", "act", "question", "server_side_emit"];
    /// Messages from Socket.IO emitters and servers that were dropped, by reason: malformed, too_large, reserved_event, unknown_type, namespace, nobody (no client here), reserved_room, refused, full, left (another node publishes them), fenced (another node has taken the lease).
    socketio_dropped_total: counter ["reason"] from ["malformed", "too_large", "reserved_event", "unknown_type", "namespace", "nobody", "reserved_room", "refused", "full", "left", "fenced"];
    /// Seconds from a publish on another node to its delivery here. The nodes' clocks must agree.
    cluster_delay_seconds: histogram [] buckets LATENCY;
    /// 1 when Redis is connected, returns the node's own messages and accepts writes, else 0. A node without Redis does not show it.
    redis_up: gauge [];
    /// 1 for the cause of a present failure of Redis, or of a part that the node needs, else 0; docs/redis.md lists the causes. All are 0 while everything works.
    redis_failure: gauge ["cause"];
    /// Commands that Redis refused, by cause, including the writes of the probe.
    redis_refused_total: counter ["cause"] from ["no_right", "read_only", "out_of_memory", "misconf", "no_replicas", "loading"];
    /// Seconds until a message that the node sent itself through Redis pub/sub came back.
    redis_round_trip_seconds: histogram [] buckets LATENCY;
    /// Seconds that Redis took to answer the publish of a message that the node sent itself.
    redis_command_seconds: histogram [] buckets LATENCY;
    /// Messages that the node sent itself, by result: back, lost (Redis accepted the message), unsent (not connected, or not subscribed yet).
    redis_probes_total: counter ["result"] from ["back", "lost", "unsent"];
    /// Reconnections to Redis.
    redis_reconnects_total: counter [];
    /// Events appended to histories.
    history_appends_total: counter ["nsp"];
    /// Failed operations on histories, by operation (append, copy, read) and reason. The events were delivered, unless the reason is full or fenced.
    history_errors_total: counter ["op", "reason"] each ["append", "copy", "read"] from ["unavailable", "timeout", "refused", "fenced", "full"];
    /// Rooms whose history was dropped early, because the memory for histories is limited.
    history_evicted_total: counter [];
    /// Rooms whose history is in this node's memory now. 0 with Redis, which then holds the histories.
    history_rooms: gauge [];
    /// Bytes of events in the histories in this node's memory now.
    history_bytes: gauge [];
    /// Events replayed to clients that joined a room.
    history_replayed_total: counter ["nsp"];
    /// Joins whose replay could not be proven complete, by reason: unavailable, gone (another epoch, or trimmed), slow (the client's write queue stayed full).
    history_incomplete_total: counter ["reason"] from ["unavailable", "gone", "slow"];
    /// Clients that asked for recovery, by result: recovered; a new session because the old one is unknown, expired, incomplete (a history cannot prove which events were missed), too_much (too many events were missed), refused (another user, or other claims), unavailable (Redis); failed (recovered, then disconnected because the last missed events could not be sent).
    recoveries_total: counter ["nsp", "result"] from ["recovered", "unknown", "expired", "incomplete", "too_much", "refused", "unavailable", "failed"];
    /// Missed events that were sent to recovered clients.
    recovery_events_total: counter ["nsp"];
    /// Sessions that this node keeps in memory for clients that left and may return.
    recovery_sessions: gauge [];
    /// Sessions kept in memory that were dropped early, because their number is limited.
    recovery_evicted_total: counter [];
    /// Writes for recovery that Redis did not take, by operation: save (a session's rooms; the node tries again), end (the end of a session), node (the report that the node is alive; the node tries again), forbid (too many ended sessions wait to be removed from Redis; the client of such a session could recover it without its last joins and leaves).
    recovery_errors_total: counter ["op"] from ["save", "end", "node", "forbid"];
    /// Publishes whose id had been used for the same publish before. They were not sent again.
    idempotent_duplicates_total: counter ["contract"];
    /// Ids of publishes that could not be claimed, completed or released, by operation. The publishes were sent, but a repetition may be sent again.
    idempotent_errors_total: counter ["op"] from ["claim", "complete", "release"];
    /// Changes of mirrored keys that were not written, by reason: full (the queue), away (Redis), failed.
    mirror_dropped_total: counter ["reason"] from ["full", "away", "failed"];
    /// Joins, leaves and statuses written to the presence in Redis.
    presence_writes_total: counter [];
    /// Joins, leaves and statuses that were not written one by one, by reason: away, full, failed, events. For all but events, the node then writes all of its presence again.
    presence_queue_dropped_total: counter ["reason"] from ["away", "full", "failed", "events"];
    /// Times that the node wrote all of its presence again, by reason: start, gone (the lease had ended, or Redis was emptied), failed, full.
    presence_resyncs_total: counter ["reason"] from ["start", "gone", "failed", "full"];
    /// Connections and events that exceeded a rate limit, by scope: ip, event, socket, user, node.
    rate_limited_total: counter ["scope"] from ["ip", "event", "socket", "user", "node"];
    /// Token buckets in memory now, by kind: address, user.
    rate_buckets: gauge ["kind"] from ["address", "user"];
    /// Calls of hooks, by result: ok, refused, timeout, unreachable, status, bad_answer, overloaded, open.
    hook_requests_total: counter ["hook", "result"] from ["ok", "refused", "timeout", "unreachable", "status", "bad_answer", "overloaded", "open"];
    /// Seconds from a call of a hook to its answer, including waiting and retries.
    hook_seconds: histogram ["hook"] buckets LATENCY;
    /// Repeated attempts of calls that had failed.
    hook_retries_total: counter ["hook"];
    /// Calls that wait for a free slot now.
    hook_queue: gauge ["hook"];
    /// 1 while a hook's circuit breaker is open or half-open, else 0.
    hook_breaker_open: gauge ["hook"];
    /// Join decisions, by source: hit (cached answer) or miss (the hook was called).
    hook_cache_total: counter ["hook", "result"] from ["hit", "miss"];
    /// Notices to hooks, by result: delivered, refused, dropped (the queue was full), retried, stored.
    hook_notices_total: counter ["hook", "result"] from ["delivered", "refused", "dropped", "retried", "stored"];
    /// Notices that wait in this node's memory now.
    hook_notices_waiting: gauge ["hook"];
    /// Handshakes, by the result for their token: ok, anonymous, or the reason why it is invalid.
    authentications_total: counter ["result"] from ["ok", "anonymous", "token_missing", "token_malformed", "token_too_long", "token_expired", "token_not_yet_valid", "signature_invalid", "issuer", "audience", "key_unknown", "algorithm", "claim", "wrong_use", "revoked"];
    /// One-room capabilities, by result: ok, or the reason why they are invalid.
    capabilities_total: counter ["result"] from ["ok", "other_room", "other_user", "token_missing", "token_malformed", "token_too_long", "token_expired", "token_not_yet_valid", "signature_invalid", "issuer", "audience", "key_unknown", "algorithm", "claim", "wrong_use", "revoked"];
    /// Records of the audit log that were not written, because they exceeded the rate limit of their kind.
    audit_suppressed_total: counter ["event"];
    /// Log records that were lost, because standard error was not read or writing to it failed.
    log_lost_total: counter [];
    /// Revocations that apply now.
    revocations: gauge [];
    /// Revocations that this node dropped, by reason: full (this node or Redis keeps the maximum number), unsaved (the maximum number waits for Redis, so Redis and later nodes do not learn of the revocation).
    revocations_dropped_total: counter ["reason"] from ["full", "unsaved"];
    /// Sockets that the node disconnected because their token is no longer valid, by reason: expired, revoked.
    sessions_ended_total: counter ["nsp", "reason"] from ["expired", "revoked"];
    /// Tokens with which clients replaced an expiring token, by result: ok, or the reason why they were refused.
    refreshes_total: counter ["result"] from ["ok", "AUTHENTICATION_FAILED", "AUTHORIZATION_FAILED", "RATE_LIMIT_EXCEEDED", "TOO_MANY_CONNECTIONS", "INVALID_ROOM", "INVALID_PAYLOAD", "UNKNOWN_EVENT", "TOO_LARGE", "OVERLOADED", "UNAVAILABLE", "CALL_FAILED", "NOT_FOUND", "INTERNAL_ERROR"];
    /// Fetches of the published key set, by result: ok, failed.
    jwks_refreshes_total: counter ["result"] from ["ok", "failed"];
    /// Keys of the published key set that are in use.
    jwks_keys: gauge [];
    /// Connections to the API's listener that were closed before they had sent the head of a request, by reason: silent (not within 10 s), pending (1024 others wait).
    api_connections_refused_total: counter ["reason"] from ["silent", "pending"];
    /// Requests to the API, by route and status.
    api_requests_total: counter ["route", "status"];
    /// Seconds from the head of an API request to its answer.
    api_request_seconds: histogram ["route"] buckets LATENCY;
    /// 1 for the present state of the node: serving, leaving, closing (it closes sockets in waves), drained; else 0.
    drain_state: gauge ["state"] from ["serving", "leaving", "closing", "drained"];
    /// Clients that are still connected to a draining node; 0 while it serves.
    drain_sockets_left: gauge [];
    /// Sockets that the waves of a drain closed.
    drain_closed_total: counter [];
    /// Waves of a drain that closed at least one socket.
    drain_waves_total: counter [];
    /// Sockets per second that the last wave closed; 0 unless sockets are being closed.
    drain_pace: gauge [];
    /// New connections per second that the other nodes offer to take from this node.
    drain_offered: gauge [];
    /// New connections per second that this node offers to take.
    drain_accepts: gauge [];
    /// Look-ups of a room's owner, by result: found, none, unavailable.
    owner_lookups_total: counter ["result"] from ["found", "none", "unavailable"];
    /// Worker threads that run the node's tasks.
    runtime_workers: gauge [];
    /// Seconds that the worker threads were busy, summed. Its rate divided by roomcast_runtime_workers is the busy share.
    runtime_busy_seconds_total: seconds [];
    /// Tasks that exist now.
    runtime_tasks: gauge [];
    /// Tasks that are ready and wait in the shared queue of the workers now.
    runtime_queue: gauge [];
    /// Seconds of CPU time that the process used, user and system.
    process_cpu: seconds [] = "process_cpu_seconds_total";
    /// Bytes of resident memory of the process.
    process_resident: gauge [] = "process_resident_memory_bytes";
    /// Bytes of address space of the process.
    process_virtual: gauge [] = "process_virtual_memory_bytes";
    /// Open file descriptors of the process.
    process_open_fds: gauge [] = "process_open_fds";
    /// Maximum number of open file descriptors of the process (the soft limit).
    process_max_fds: gauge [] = "process_max_fds";
    /// Threads of the process.
    process_threads: gauge [] = "process_threads";
    /// Unix time at which the process started, in seconds.
    process_start: gauge [] = "process_start_time_seconds";
}

impl Metrics {
    /// Calls `measure` at every scrape, before the metrics are encoded, so that gauges have their current values.
    /// `measure` lives as long as the metrics: give it weak references.
    pub fn measure(&self, measure: impl Fn(&Self) + Send + Sync + 'static) {
        self.measures.lock().expect("no thread panics while it holds this lock").push(Box::new(measure));
    }

    /// Encodes all metrics in Prometheus' text format.
    ///
    /// # Errors
    /// A metric cannot be encoded, which would be a bug of the node.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        // Held to the end, so that two scrapes at once do not add the same measurement twice.
        let measures = self.measures.lock().expect("no thread panics while it holds this lock");
        measures.iter().for_each(|measure| measure(self));
        for kind in AuditEvent::ALL {
            let counter = self.audit_suppressed_total.with_label_values(&[kind.as_str()]);
            counter.inc_by(audit::suppressed(*kind).saturating_sub(counter.get()));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Converts a count to the type of a gauge.
pub fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Raises a counter to a sum that is kept elsewhere.
pub fn raise(counter: &CounterVec, sum: f64) {
    let counter = counter.with_label_values::<&str>(&[]);
    counter.inc_by((sum - counter.get()).max(0.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_help_text_and_a_conventional_name() {
        for (name, kind, _, help) in Metrics::CATALOGUE {
            assert!(help.trim().ends_with('.'), "{name}");
            assert_eq!(*kind == "counter", name.ends_with("_total"), "{name}");
            assert!(*kind != "histogram" || name.ends_with("_seconds"), "{name}");
        }
        assert!(Metrics::new().encode().is_ok());
    }

    #[test]
    fn counters_of_a_reason_begin_at_0() {
        // The values of these labels are not declared: that would create a series for each pair of an event and a code,
        // and an API request may have any HTTP status.
        let left = ["events_received_total", "acks_total", "throttled_total", "api_requests_total"];
        let enumerated = ["reason", "result", "code", "op", "kind", "scope", "transport", "direction", "state"];
        let missing = Metrics::UNDECLARED
            .iter()
            .filter(|(name, label)| label.is_some_and(|label| enumerated.contains(&label)) && !left.contains(name));
        assert_eq!(missing.collect::<Vec<_>>(), Vec::<&(&str, Option<&str>)>::new());
        let metrics = Metrics::new();
        metrics.begin("nsp", &["/"]);
        metrics.begin("hook", &["pay"]);
        let text = metrics.encode().unwrap();
        for code in crate::error::Code::ALL {
            for series in [
                format!(r#"roomcast_connections_refused_total{{code="{code}",nsp="/"}} 0"#),
                format!(r#"roomcast_refreshes_total{{result="{code}"}} 0"#),
            ] {
                assert!(text.contains(&series), "{series}");
            }
        }
        for series in [
            r#"roomcast_hook_requests_total{hook="pay",result="timeout"} 0"#,
            r#"roomcast_history_errors_total{op="copy",reason="refused"} 0"#,
            r#"roomcast_audit_suppressed_total{event="limit_hit"} 0"#,
        ] {
            assert!(text.contains(series), "{series}");
        }
    }
}
