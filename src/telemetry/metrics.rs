//! Every metric of the node, declared once. The doc comment of a field is its HELP text.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// Declares the struct, and registers each metric under `roomcast_<field>`.
macro_rules! metrics {
    ($( #[doc = $help:literal] $name:ident: $kind:ident [$($label:literal),*] $(buckets $buckets:expr)?; )*) => {
        /// All metrics of a node. Labels come from contracts and enumerations, never from clients.
        pub struct Metrics {
            registry: Registry,
            $( #[doc = $help] pub $name: metrics!(@type $kind), )*
        }

        impl Metrics {
            /// Registers every metric.
            pub fn new() -> Self {
                let registry = Registry::new();
                $(
                    let $name = metrics!(@make $kind concat!("roomcast_", stringify!($name)), $help.trim(), &[$($label),*] $(, $buckets)?);
                    registry.register(Box::new($name.clone())).expect("names are unique");
                )*
                Self { registry, $( $name, )* }
            }

            /// Name, kind, labels and help of every metric, for `docs/metrics.md`.
            pub const CATALOGUE: &'static [(&'static str, &'static str, &'static [&'static str], &'static str)] =
                &[$( (concat!("roomcast_", stringify!($name)), stringify!($kind), &[$($label),*], $help), )*];
        }
    };
    (@type counter) => { IntCounterVec };
    (@type gauge) => { IntGaugeVec };
    (@type histogram) => { HistogramVec };
    (@make counter $name:expr, $help:expr, $labels:expr) => {
        IntCounterVec::new(Opts::new($name, $help), $labels).expect("the declaration is valid")
    };
    (@make gauge $name:expr, $help:expr, $labels:expr) => {
        IntGaugeVec::new(Opts::new($name, $help), $labels).expect("the declaration is valid")
    };
    (@make histogram $name:expr, $help:expr, $labels:expr, $buckets:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), $labels).expect("the declaration is valid")
    };
}

/// From 50 µs to 10 s.
const LATENCY: &[f64] =
    &[0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

metrics! {
    /// Clients connected to a namespace of this node now.
    connections: gauge ["nsp"];
    /// Clients that connected to a namespace since the node started.
    connections_opened_total: counter ["nsp", "transport"];
    /// Clients that left a namespace since the node started, by reason.
    connections_closed_total: counter ["nsp", "reason"];
    /// Clients that were refused, by code.
    connections_refused_total: counter ["nsp", "code"];
    /// Rooms with members on this node now.
    rooms: gauge ["nsp"];
    /// Events from clients, by what became of them: ok, or the code of the error. Events that no contract knows are named "unknown".
    events_received_total: counter ["contract", "event", "result"];
    /// Events published, from clients, backends and hooks. Plain emits are of the contract "plain".
    events_published_total: counter ["contract", "event", "origin"];
    /// Copies of events queued for clients of this node.
    deliveries_total: counter ["nsp"];
    /// Copies of events that were not queued for a client, by reason.
    deliveries_dropped_total: counter ["nsp", "reason"];
    /// Seconds from an event's arrival to its last local queue.
    publish_seconds: histogram ["origin"] buckets LATENCY;
    /// Events that Redis has taken for the other nodes.
    cluster_carried_total: counter [];
    /// Events that a throttle let pass, or held as the newest of their room.
    throttled_total: counter ["event", "result"];
    /// Events that did not reach the other nodes, by reason.
    cluster_not_carried_total: counter ["reason"];
    /// Events received from other nodes.
    cluster_received_total: counter ["nsp"];
    /// Events of other nodes that this node knows it has missed, by gaps in their numbers.
    cluster_missed_total: counter [];
    /// Messages of other nodes that arrived and were not used, by reason: lagged, full, unreadable.
    cluster_dropped_total: counter ["reason"];
    /// Seconds from a publish on another node to its delivery here; clocks of the nodes must agree.
    cluster_delay_seconds: histogram [] buckets LATENCY;
    /// 1 when Redis is connected and a message to ourselves came back, else 0.
    redis_up: gauge [];
    /// Seconds of the last round trip through Redis pub/sub to ourselves.
    redis_round_trip_seconds: histogram [] buckets LATENCY;
    /// Reconnections to Redis.
    redis_reconnects_total: counter [];
    /// Events appended to histories.
    history_appends_total: counter ["nsp"];
    /// Uses of a history that failed, by operation (append, copy, read, forget) and reason. The events went on live.
    history_errors_total: counter ["op", "reason"];
    /// Rooms whose history was forgotten early, because histories in memory are bounded.
    history_evicted_total: counter [];
    /// Events shown to clients that joined a room.
    history_replayed_total: counter ["nsp"];
    /// Joins whose replay could not be proven complete, by reason: unavailable, gone (other epoch, trimmed), slow (the client's queue stayed full).
    history_incomplete_total: counter ["reason"];
    /// Publishes whose id had been used for the same publish before; nothing was sent again.
    idempotent_duplicates_total: counter ["contract"];
    /// Ids of publishes that could not be claimed, kept or released, by operation. The publishes went on, without the promise.
    idempotent_errors_total: counter ["op"];
    /// Changes of mirrored keys that were not written, by reason: full (the queue), away (Redis), failed.
    mirror_dropped_total: counter ["reason"];
    /// Joins, leaves and statuses written to the cluster's presence.
    presence_writes_total: counter [];
    /// Joins, leaves and statuses that were not written one by one, by reason (away, full, failed, events); all but "events" are made good by writing everything anew.
    presence_queue_dropped_total: counter ["reason"];
    /// Times that the node wrote all its presence anew, by reason: start, gone (the lease had ended, or Redis was emptied), failed, full.
    presence_resyncs_total: counter ["reason"];
    /// Connections and events that came too soon, by what was counted: ip, event, socket, user, node.
    rate_limited_total: counter ["scope"];
    /// Calls of hooks, by what became of them: ok, refused, timeout, unreachable, status, bad_answer, overloaded, open.
    hook_requests_total: counter ["hook", "result"];
    /// Seconds from a call of a hook to its answer, waiting and retries included.
    hook_seconds: histogram ["hook"] buckets LATENCY;
    /// Attempts that repeated a failed one.
    hook_retries_total: counter ["hook"];
    /// Calls that wait for a free slot now.
    hook_queue: gauge ["hook"];
    /// 1 while a hook's circuit breaker is open or half-open, else 0.
    hook_breaker_open: gauge ["hook"];
    /// Questions to a join hook, by where the answer came from: hit (remembered) or miss (asked).
    hook_cache_total: counter ["hook", "result"];
    /// Notices to hooks, by what became of them: delivered, refused, dropped (the bound was reached), retried, stored.
    hook_notices_total: counter ["hook", "result"];
    /// Notices that this node keeps in its memory now.
    hook_notices_waiting: gauge ["hook"];
    /// Handshakes by what became of their token: ok, anonymous, or why it does not hold.
    authentications_total: counter ["result"];
    /// One-room capabilities by what became of them: ok, or why they do not hold.
    capabilities_total: counter ["result"];
    /// Revocations that hold now.
    revocations: gauge [];
    /// Sockets that the node disconnected because their token no longer holds, by reason: expired, revoked.
    sessions_ended_total: counter ["nsp", "reason"];
    /// Tokens that replaced an ending one in-band, by what became of them: ok, or why they were refused.
    refreshes_total: counter ["result"];
    /// Fetches of the published key set, ok or failed.
    jwks_refreshes_total: counter ["result"];
    /// Keys of the published key set that are in use.
    jwks_keys: gauge [];
    /// Requests of the API, by route and status.
    api_requests_total: counter ["route", "status"];
    /// Seconds from an API request's head to its answer.
    api_request_seconds: histogram ["route"] buckets LATENCY;
    /// Questions for the owner of a room, by answer: found, none, unavailable.
    owner_lookups_total: counter ["result"];
}

impl Metrics {
    /// The exposition in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be encoded, which would be a fault of the node.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_help_text_and_a_conventional_name() {
        for (name, kind, _, help) in Metrics::CATALOGUE {
            assert!(help.trim().ends_with('.'), "{name}");
            assert_eq!(*kind == "counter", name.ends_with("_total"), "{name}");
            assert_eq!(*kind == "histogram", name.ends_with("_seconds"), "{name}");
        }
        assert!(Metrics::new().encode().is_ok());
    }
}
