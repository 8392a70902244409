//! Counters of forwarded requests.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::NotForwarded;
use crate::telemetry::metrics::Metrics;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForwardedKind {
    Poll,
    Post,
    Upgrade,
}

impl ForwardedKind {
    pub(super) fn of(method: &Method, websocket: bool) -> Self {
        match (websocket, method) {
            (true, _) => Self::Upgrade,
            (false, &Method::POST) => Self::Post,
            (false, _) => Self::Poll,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Post => "post",
            Self::Upgrade => "upgrade",
        }
    }
}

/// Counts forwarded requests.
#[derive(Clone)]
pub(super) struct ForwardCounters(pub(super) Arc<Metrics>);

impl ForwardCounters {
    /// Counts a request that the other node has answered, and records how long the answer took.
    pub(super) fn answered(&self, kind: ForwardedKind, took: Duration) {
        self.0.forwarded_total.with_label_values(&[kind.as_str(), "answered"]).inc();
        self.0.forward_seconds.with_label_values(&[kind.as_str()]).observe(took.as_secs_f64());
    }

    /// Counts a request that the other node did not answer.
    pub(super) fn failed(&self, kind: ForwardedKind, why: NotForwarded) {
        self.0.forwarded_total.with_label_values(&[kind.as_str(), why.as_str()]).inc();
    }

    /// Counts the result of a request that another node forwarded to this node.
    pub(super) fn received(&self, result: &str) {
        self.0.forward_received_total.with_label_values(&[result]).inc();
    }
}
