//! Every metric of the node, declared once. The doc comment of a field is its HELP text.

use std::sync::Mutex;

use super::audit::{self, Kind};

use prometheus::{CounterVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// Declares the struct, and registers each metric under `roomcast_<field>`, or the name after `=`. `from` lists the values
/// of the last label, and `each` those of the one before it: their series are 0 from the start, so that the first of its
/// kind is seen to have come. Where the label before is `nsp` or `hook`, [`Metrics::begin`] gives its values.
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

            /// Begins the series of a label that the configuration knows (`nsp`, `hook`), with every value of the label
            /// after it, where the declaration lists those.
            pub fn begin(&self, label: &str, each: &[&str]) {
                $(
                    let labels: &[&str] = &[$($label),*];
                    if labels.len() == 2 && labels[0] == label {
                        series(labels, each, &[$($($value),*)?], |values| drop(self.$name.with_label_values(values)));
                    }
                )*
            }

            /// The labels of which not every value is declared, by metric.
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

/// Calls `begin` with the values of each series of a metric of one or two labels.
fn series(labels: &[&str], each: &[&str], from: &[&str], begin: impl Fn(&[&str])) {
    match labels.len() {
        1 => from.iter().for_each(|value| begin(&[value])),
        2 => each.iter().for_each(|first| from.iter().for_each(|value| begin(&[first, value]))),
        _ => {}
    }
}

/// The last label, if none of its values is declared.
#[cfg(test)]
const fn undeclared(labels: &[&'static str], from: &[&str]) -> Option<&'static str> {
    match labels {
        [.., last] if from.is_empty() => Some(last),
        _ => None,
    }
}

/// Sets gauges to the truth of the moment.
type Measure = Box<dyn Fn(&Metrics) + Send + Sync>;

/// From 50 µs to 10 s.
const LATENCY: &[f64] =
    &[0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The same in fewer steps, for what there is much of.
const COARSE: &[f64] = &[0.0005, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0];

metrics! {
    /// 1, with the node's version, engine and id.
    build_info: gauge ["version", "engine", "node"];
    /// 1 while the node takes new clients, else 0; /ready says why.
    ready: gauge [];
    /// Connections of clients now, by the transport that they are on. A client is one, in however many namespaces it is; one that was refused is one until its connection ends.
    transports: gauge ["transport"] from ["websocket", "polling"];
    /// WebSockets with whose clients compression was agreed on, of the native engine, now.
    websockets_compressed: gauge [];
    /// Clients that moved from polling to WebSocket. An upgrade that fails is not counted.
    transport_upgrades_total: counter [];
    /// Requests of clients that were turned away at the door, by reason: origin (not permitted), leaving (the node goes), crowded (server.max_connections), ip_connections (limits.max_connections_per_ip), ip_rate (limits.connections_per_ip), malformed (an unknown transport, another version of the protocol, a parameter twice), unknown_session (ended, or somebody else's), overlap (a body before the one before it has come), slow_body (not within ping_interval and ping_timeout), too_large (a body for another node beyond server.max_payload); and connections that were closed before they had a session: silent (server.handshake_timeout), pending (limits.max_pending_connections), files (the process has nearly as many files open as it may have).
    handshakes_refused_total: counter ["reason"] from ["origin", "leaving", "crowded", "ip_connections", "ip_rate", "malformed", "unknown_session", "overlap", "slow_body", "too_large", "silent", "pending", "files"];
    /// Clients that the node cannot serve, each time that they try, by reason: protocol (Engine.IO 3, of socket.io-client 1 and 2), parser (one that the engine does not have: the native engine has JSON and socket.io-msgpack-parser).
    incompatible_clients_total: counter ["reason"] from ["protocol", "parser"];
    /// Bytes of the public listener's connections, by direction: received, sent. Below TLS and above TCP.
    network_bytes_total: counter ["direction"] from ["received", "sent"];
    /// Packets that wait to be written to clients now, over all clients of the native engine; the library does not tell how many of its own wait.
    queue_packets: gauge [];
    /// Packets that wait in the longest queue of a client now (at most server.queue), over all WebSockets of the native engine.
    queue_longest_packets: gauge [];
    /// Bytes that wait to be written to clients now, over all clients of both engines.
    queue_bytes: gauge [];
    /// Bytes that wait for the client that has the most waiting now (at most server.queue_bytes, or one packet), over all clients of both engines.
    queue_longest_bytes: gauge [];
    /// Namespaces that the node serves.
    namespaces: gauge [];
    /// Clients connected to a namespace of this node now.
    connections: gauge ["nsp"];
    /// Clients that connected to a namespace since the node started.
    connections_opened_total: counter ["nsp", "transport"] from ["websocket", "polling"];
    /// Clients that left a namespace since the node started, by reason.
    connections_closed_total: counter ["nsp", "reason"] from ["transport close", "server transport close", "ping timeout", "transport error", "parse error", "client namespace disconnect", "server namespace disconnect", "server shutting down", "parallel polling"];
    /// Clients that were refused, by code.
    connections_refused_total: counter ["nsp", "code"] from ["AUTHENTICATION_FAILED", "AUTHORIZATION_FAILED", "RATE_LIMIT_EXCEEDED", "TOO_MANY_CONNECTIONS", "INVALID_ROOM", "INVALID_PAYLOAD", "UNKNOWN_EVENT", "TOO_LARGE", "OVERLOADED", "UNAVAILABLE", "CALL_FAILED", "NOT_FOUND", "INTERNAL_ERROR"];
    /// Joins by the API, hooks and emitters that were not done, by reason: max_rooms (the socket is in as many rooms as it may be in). Clients are told of theirs: events that end with TOO_LARGE.
    joins_refused_total: counter ["reason"] from ["max_rooms"];
    /// Addresses and users that are connected now, where limits.max_connections_per_ip or limits.max_sockets_per_user counts them; pending: TCP connections without a session (limits.max_pending_connections).
    limits_present: gauge ["what"] from ["addresses", "users", "pending"];
    /// Rooms with members on this node now.
    rooms: gauge ["nsp"];
    /// Memberships of clients in rooms on this node now.
    memberships: gauge ["nsp"];
    /// Users with a client on this node now; anonymous ones are not counted.
    users: gauge ["nsp"];
    /// Events from clients, by what became of them: ok, or the code of the error. Events that no contract knows are named "unknown".
    events_received_total: counter ["contract", "event", "result"];
    /// Events from clients that were refused with OVERLOADED because they would have had to wait, by the bound that was reached: client_events (limits.max_pending_events), client_bytes (limits.max_pending_bytes), node_bytes (limits.max_pending_bytes_per_node).
    events_not_queued_total: counter ["reason"] from ["client_events", "client_bytes", "node_bytes"];
    /// Bytes of clients' events that wait now for an earlier event of their client, or for the answer of a hook (at most limits.max_pending_bytes_per_node).
    events_pending_bytes: gauge [];
    /// Seconds from a client event's arrival to its last effect: checks, hooks, joins, relays and answer, and the wait behind the client's earlier events.
    event_seconds: histogram ["contract", "event"] buckets COARSE;
    /// Acknowledgements that clients asked for: ok, error (it says what went wrong), lost (the client's queue was full, or it is gone).
    acks_total: counter ["contract", "event", "result"];
    /// Seconds from the arrival of an event whose client asked for an acknowledgement to that in its queue.
    ack_seconds: histogram ["contract"] buckets COARSE;
    /// Events published, from clients, backends and hooks. Plain emits are of the contract "plain".
    events_published_total: counter ["contract", "event", "origin"];
    /// Copies of events queued for clients of this node.
    deliveries_total: counter ["nsp"];
    /// Copies of events that were not queued for a client, by reason: queue_full (the client does not read), volatile (it could not be written at once), slow_replaced (a newer one took its place, as the contract's `slow` says), closed (the client is gone), overtaken (by the event that ends their story), publish_queue_full (too many events waited to be queued for very many clients).
    deliveries_dropped_total: counter ["nsp", "reason"] from ["queue_full", "volatile", "slow_replaced", "closed", "overtaken", "publish_queue_full"];
    /// Seconds that it took to queue a published event for all its clients of this node and to hand it to the cluster.
    publish_seconds: histogram ["origin"] buckets LATENCY;
    /// Clients that a backend wanted to ask, by result: answered, unanswered (in time), too_large (the answers of a node together), not_asked (too many, gone, or a full queue).
    clients_asked_total: counter ["nsp", "result"] from ["answered", "unanswered", "too_large", "not_asked"];
    /// Events that wait to be queued for their clients, because one for very many clients is under way.
    publish_waiting: gauge ["nsp"];
    /// Seconds for which a writer of the native engine, or who queues an event for very many clients, held its thread before others could run; it gives it back after half a millisecond.
    delivery_turn_seconds: histogram [] buckets LATENCY;
    /// Events that Redis has taken for the other nodes.
    cluster_carried_total: counter [];
    /// Events that a throttle let pass, or held as the newest of their room.
    throttled_total: counter ["event", "result"];
    /// Events that did not reach the other nodes, by reason.
    cluster_not_carried_total: counter ["reason"] from ["away", "full", "timeout", "refused", "unheard"];
    /// Seconds from a message's place in the queue towards Redis to Redis' answer.
    cluster_publish_seconds: histogram [] buckets LATENCY;
    /// Messages that wait to be written to Redis now (at most redis.publish_buffer).
    cluster_publish_queue: gauge [];
    /// Messages of other nodes that wait to be handled now (events: at most redis.receive_buffer a namespace).
    cluster_receive_queue: gauge [];
    /// Nodes that this node knows to live, itself included.
    cluster_nodes: gauge [];
    /// Nodes that cannot be in one cluster with others, as this node hears them now, by what is wrong: same_id (two have one node.id), other_contracts (other contract files on one redis.prefix).
    cluster_conflicts: gauge ["kind"] from ["same_id", "other_contracts"];
    /// Requests of clients whose session is on another node, by what they are (poll, post, upgrade) and by result: answered (by that node, whatever it says), or not: gone (the node is not known), unreachable, cut (the connection broke), timeout, silent (the node sends no heartbeat and answers no probe), refused (the secrets differ), busy (cluster.max_forwarded), too_large, slow_body, overlap (a body before the one before it has come).
    forwarded_total: counter ["kind", "result"] each ["poll", "post", "upgrade"] from ["answered", "gone", "unreachable", "cut", "timeout", "silent", "refused", "busy", "too_large", "slow_body", "overlap"];
    /// Seconds from the sending of a request to another node to the head of its answer, by what it is; a poll waits for an event or a ping.
    forward_seconds: histogram ["kind"] from ["poll", "post", "upgrade"] buckets COARSE;
    /// Requests (request) and WebSockets (tunnel) of clients that are on their way to other nodes now (together at most cluster.max_forwarded).
    forward_in_flight: gauge ["what"] from ["request", "tunnel"];
    /// Requests that came to cluster.listen, by result: served (given to the session's edge), malformed, signature (it does not hold: the secrets differ, or it is no node), stale (more than 30 s old or new), replayed, body (not the one that was signed, or not in time), busy (cluster.max_forwarded); and connections that were closed before they brought a request: silent (server.handshake_timeout), pending (cluster.max_forwarded), files (the process has nearly as many files open as it may have).
    forward_received_total: counter ["result"] from ["served", "malformed", "signature", "stale", "replayed", "body", "busy", "silent", "pending", "files"];
    /// Bytes of connections to cluster.listen, by direction: received, sent.
    forward_bytes_total: counter ["direction"] from ["received", "sent"];
    /// Canaries that this node has numbered for the other nodes; each of those receives it, or counts it lost.
    canaries_sent_total: counter [];
    /// Canaries that this node could not hand to Redis, by reason. The others count them lost.
    canaries_not_carried_total: counter ["reason"] from ["away", "full", "timeout", "refused"];
    /// Canaries of another node that arrived here, by that node's id.
    canaries_received_total: counter ["from"];
    /// Canaries of another node that did not arrive here in time, by that node's id.
    canaries_lost_total: counter ["from"];
    /// Seconds that canaries of another node took to arrive here, by that node's id; clocks of the nodes must agree.
    canary_delay_seconds: histogram ["from"] buckets COARSE;
    /// Events received from other nodes.
    cluster_received_total: counter ["nsp"];
    /// Events of other nodes that this node knows it has missed, by gaps in their numbers.
    cluster_missed_total: counter [];
    /// Messages of other nodes that arrived and were not used, by reason: lagged, full, unreadable, late (behind a newer one of its node and channel; missed, too).
    cluster_dropped_total: counter ["reason"] from ["lagged", "full", "unreadable", "late"];
    /// Events of other nodes that concerned no client of this node.
    cluster_unneeded_total: counter ["nsp"];
    /// Joins that were answered although Redis had not confirmed in time that the room's events arrive here.
    cluster_unconfirmed_joins_total: counter [];
    /// Messages of Socket.IO emitters and servers, by what they are: broadcast, act, question, server_side_emit.
    socketio_received_total: counter ["nsp", "kind"] from ["broadcast", "act", "question", "server_side_emit"];
    /// Messages of Socket.IO emitters and servers that were not used, by reason: malformed, too_large, reserved_event, unknown_type, namespace, nobody, reserved_room, refused, full, left (to the one node that publishes them), fenced (another node has the lease by now).
    socketio_dropped_total: counter ["reason"] from ["malformed", "too_large", "reserved_event", "unknown_type", "namespace", "nobody", "reserved_room", "refused", "full", "left", "fenced"];
    /// Seconds from a publish on another node to its delivery here; clocks of the nodes must agree.
    cluster_delay_seconds: histogram [] buckets LATENCY;
    /// 1 when Redis is connected, a message to ourselves came back and writes are accepted, else 0; not shown by a node without Redis.
    redis_up: gauge [];
    /// 1 for the cause for which Redis, or a part of what the node needs of it, does not work now, else 0; docs/redis.md lists the causes. All are 0 while everything works.
    redis_failure: gauge ["cause"];
    /// Commands that Redis refused, by cause, the writes of the probe among them.
    redis_refused_total: counter ["cause"] from ["no_right", "read_only", "out_of_memory", "misconf", "no_replicas", "loading"];
    /// Seconds from a message to ourselves through Redis pub/sub until it was back: how far pub/sub lags.
    redis_round_trip_seconds: histogram [] buckets LATENCY;
    /// Seconds that Redis took to answer the publish of a message to ourselves.
    redis_command_seconds: histogram [] buckets LATENCY;
    /// Messages to ourselves, by what became of them: back, lost (Redis took them), unsent (not connected, or not subscribed yet).
    redis_probes_total: counter ["result"] from ["back", "lost", "unsent"];
    /// Reconnections to Redis.
    redis_reconnects_total: counter [];
    /// Events appended to histories.
    history_appends_total: counter ["nsp"];
    /// Uses of a history that failed, by operation (append, copy, read, forget) and reason. The events went on live, unless the reason is full or fenced.
    history_errors_total: counter ["op", "reason"] each ["append", "copy", "read"] from ["unavailable", "timeout", "refused", "fenced", "full"];
    /// Rooms whose history was forgotten early, because histories in memory are bounded.
    history_evicted_total: counter [];
    /// Rooms whose history is in the memory of this node now; 0 with Redis, where histories are then.
    history_rooms: gauge [];
    /// Bytes of events in the histories in the memory of this node now.
    history_bytes: gauge [];
    /// Events shown to clients that joined a room.
    history_replayed_total: counter ["nsp"];
    /// Joins whose replay could not be proven complete, by reason: unavailable, gone (other epoch, trimmed), slow (the client's queue stayed full).
    history_incomplete_total: counter ["reason"] from ["unavailable", "gone", "slow"];
    /// Clients that came back and asked for their session, by what they got: recovered, or a new one because it is unknown, expired, incomplete (a history cannot prove what was missed), too_much (was missed), refused (another user, or other claims), unavailable (Redis); failed: recovered, and disconnected because the last part could not be given.
    recoveries_total: counter ["nsp", "result"] from ["recovered", "unknown", "expired", "incomplete", "too_much", "refused", "unavailable", "failed"];
    /// Events given to recovered clients that they had missed.
    recovery_events_total: counter ["nsp"];
    /// Sessions of clients that left and may come back, as far as they are kept in memory.
    recovery_sessions: gauge [];
    /// Such sessions that were forgotten early, because their number is bounded.
    recovery_evicted_total: counter [];
    /// Sessions whose rooms could not be kept for a return; it is tried again.
    recovery_errors_total: counter ["op"] from ["save", "end", "node"];
    /// Publishes whose id had been used for the same publish before; nothing was sent again.
    idempotent_duplicates_total: counter ["contract"];
    /// Ids of publishes that could not be claimed, kept or released, by operation. The publishes went on, without the promise.
    idempotent_errors_total: counter ["op"] from ["claim", "complete", "release"];
    /// Changes of mirrored keys that were not written, by reason: full (the queue), away (Redis), failed.
    mirror_dropped_total: counter ["reason"] from ["full", "away", "failed"];
    /// Joins, leaves and statuses written to the cluster's presence.
    presence_writes_total: counter [];
    /// Joins, leaves and statuses that were not written one by one, by reason (away, full, failed, events); all but "events" are made good by writing everything anew.
    presence_queue_dropped_total: counter ["reason"] from ["away", "full", "failed", "events"];
    /// Times that the node wrote all its presence anew, by reason: start, gone (the lease had ended, or Redis was emptied), failed, full.
    presence_resyncs_total: counter ["reason"] from ["start", "gone", "failed", "full"];
    /// Connections and events that came too soon, by what was counted: ip, event, socket, user, node.
    rate_limited_total: counter ["scope"] from ["ip", "event", "socket", "user", "node"];
    /// Buckets of rates that are kept now, by what they count: address, user.
    rate_buckets: gauge ["kind"] from ["address", "user"];
    /// Calls of hooks, by what became of them: ok, refused, timeout, unreachable, status, bad_answer, overloaded, open.
    hook_requests_total: counter ["hook", "result"] from ["ok", "refused", "timeout", "unreachable", "status", "bad_answer", "overloaded", "open"];
    /// Seconds from a call of a hook to its answer, waiting and retries included.
    hook_seconds: histogram ["hook"] buckets LATENCY;
    /// Attempts that repeated a failed one.
    hook_retries_total: counter ["hook"];
    /// Calls that wait for a free slot now.
    hook_queue: gauge ["hook"];
    /// 1 while a hook's circuit breaker is open or half-open, else 0.
    hook_breaker_open: gauge ["hook"];
    /// Questions to a join hook, by where the answer came from: hit (remembered) or miss (asked).
    hook_cache_total: counter ["hook", "result"] from ["hit", "miss"];
    /// Notices to hooks, by what became of them: delivered, refused, dropped (the bound was reached), retried, stored.
    hook_notices_total: counter ["hook", "result"] from ["delivered", "refused", "dropped", "retried", "stored"];
    /// Notices that this node keeps in its memory now.
    hook_notices_waiting: gauge ["hook"];
    /// Handshakes by what became of their token: ok, anonymous, or why it does not hold.
    authentications_total: counter ["result"] from ["ok", "anonymous", "token_missing", "token_malformed", "token_too_long", "token_expired", "token_not_yet_valid", "signature_invalid", "issuer", "audience", "key_unknown", "algorithm", "claim", "wrong_use", "revoked"];
    /// One-room capabilities by what became of them: ok, or why they do not hold.
    capabilities_total: counter ["result"] from ["ok", "other_room", "other_user", "token_missing", "token_malformed", "token_too_long", "token_expired", "token_not_yet_valid", "signature_invalid", "issuer", "audience", "key_unknown", "algorithm", "claim", "wrong_use", "revoked"];
    /// Records of the audit log that were not written, because there were too many of their kind.
    audit_suppressed_total: counter ["event"];
    /// Log records that were lost, because their reader stalled or writing to standard error failed.
    log_lost_total: counter [];
    /// Revocations that hold now.
    revocations: gauge [];
    /// Revocations that this node dropped, by reason: full (as many are kept as may be), unsaved (as many wait for Redis as may be, so Redis and later nodes do not learn of it).
    revocations_dropped_total: counter ["reason"] from ["full", "unsaved"];
    /// Sockets that the node disconnected because their token no longer holds, by reason: expired, revoked.
    sessions_ended_total: counter ["nsp", "reason"] from ["expired", "revoked"];
    /// Tokens that replaced an ending one in-band, by what became of them: ok, or why they were refused.
    refreshes_total: counter ["result"] from ["ok", "AUTHENTICATION_FAILED", "AUTHORIZATION_FAILED", "RATE_LIMIT_EXCEEDED", "TOO_MANY_CONNECTIONS", "INVALID_ROOM", "INVALID_PAYLOAD", "UNKNOWN_EVENT", "TOO_LARGE", "OVERLOADED", "UNAVAILABLE", "CALL_FAILED", "NOT_FOUND", "INTERNAL_ERROR"];
    /// Fetches of the published key set, ok or failed.
    jwks_refreshes_total: counter ["result"] from ["ok", "failed"];
    /// Keys of the published key set that are in use.
    jwks_keys: gauge [];
    /// Connections to the API's listener that were closed before they had sent a request's head, by reason: silent (not within 10 s), pending (1024 others wait).
    api_connections_refused_total: counter ["reason"] from ["silent", "pending"];
    /// Requests of the API, by route and status.
    api_requests_total: counter ["route", "status"];
    /// Seconds from an API request's head to its answer.
    api_request_seconds: histogram ["route"] buckets LATENCY;
    /// 1 for the state that the node is in: serving, leaving, closing (sockets, in waves), drained; else 0.
    drain_state: gauge ["state"] from ["serving", "leaving", "closing", "drained"];
    /// Clients that are still connected to a node that leaves; 0 while it serves.
    drain_sockets_left: gauge [];
    /// Sockets that were closed by waves, because the node leaves.
    drain_closed_total: counter [];
    /// Waves that closed at least one socket.
    drain_waves_total: counter [];
    /// Sockets a second that the last wave was of; 0 unless sockets are being closed.
    drain_pace: gauge [];
    /// Connections a second that the other nodes say they can take of this one.
    drain_offered: gauge [];
    /// New connections a second that this node says it can take.
    drain_accepts: gauge [];
    /// Questions for the owner of a room, by answer: found, none, unavailable.
    owner_lookups_total: counter ["result"] from ["found", "none", "unavailable"];
    /// Threads that run the node's tasks.
    runtime_workers: gauge [];
    /// Seconds that the workers were busy, summed over them; its rate by roomcast_runtime_workers is the busy share.
    runtime_busy_seconds_total: seconds [];
    /// Tasks that live now.
    runtime_tasks: gauge [];
    /// Tasks that are ready and wait in the queue that all workers share now.
    runtime_queue: gauge [];
    /// Seconds of CPU time that the process used, user and system.
    process_cpu: seconds [] = "process_cpu_seconds_total";
    /// Bytes of memory that the process has resident.
    process_resident: gauge [] = "process_resident_memory_bytes";
    /// Bytes of address space that the process has.
    process_virtual: gauge [] = "process_virtual_memory_bytes";
    /// File descriptors that the process has open.
    process_open_fds: gauge [] = "process_open_fds";
    /// File descriptors that the process may have open (its soft limit).
    process_max_fds: gauge [] = "process_max_fds";
    /// Threads of the process.
    process_threads: gauge [] = "process_threads";
    /// Unix time at which the process started, in seconds.
    process_start: gauge [] = "process_start_time_seconds";
}

impl Metrics {
    /// Has `measure` run at every scrape, before everything is written: gauges are then the truth of that moment, and cannot
    /// drift from it. What it holds lives as long as the metrics: give it weak references.
    pub fn measure(&self, measure: impl Fn(&Self) + Send + Sync + 'static) {
        self.measures.lock().expect("no panic while held").push(Box::new(measure));
    }

    /// The exposition in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be encoded, which would be a fault of the node.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        // Held to the end, so that what is measured for two scrapes at once is not added twice.
        let measures = self.measures.lock().expect("no panic while held");
        measures.iter().for_each(|measure| measure(self));
        for kind in Kind::ALL {
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

/// A count as a gauge takes it.
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
        // Their number would be that of the events times that of the codes; a request has a status of HTTP.
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
