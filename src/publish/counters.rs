//! The counters of publishes. Each is looked up by its labels only once.

use prometheus::{Histogram, IntCounter};

use super::Origin;
use crate::telemetry::metrics::Metrics;

/// One value for each kind of publisher.
pub(super) struct ByOrigin<T>([T; Origin::ALL.len()]);

impl<T> ByOrigin<T> {
    pub(super) fn new(value: impl Fn(Origin) -> T) -> Self {
        Self(Origin::ALL.map(value))
    }

    pub(super) fn of(&self, origin: Origin) -> &T {
        &self.0[origin as usize]
    }
}

/// The contract label and event label of events that no contract describes. All these events share one label, because
/// senders can choose any names for them.
const PLAIN: &str = "plain";

/// The counters of an event of a contract, for each kind of publisher.
pub(super) fn published(metrics: &Metrics, contract: &str, event: &str) -> ByOrigin<IntCounter> {
    ByOrigin::new(|origin| one(metrics, contract, event, origin))
}

/// The counters of events that no contract describes.
pub(super) fn plain(metrics: &Metrics) -> ByOrigin<IntCounter> {
    published(metrics, PLAIN, PLAIN)
}

/// The counter of an event of a contract for one kind of publisher.
pub(super) fn one(metrics: &Metrics, contract: &str, event: &str, origin: Origin) -> IntCounter {
    metrics.events_published_total.with_label_values(&[contract, event, origin.as_str()])
}

/// How long a publish takes until the event is queued.
pub(super) fn seconds(metrics: &Metrics) -> ByOrigin<Histogram> {
    ByOrigin::new(|origin| metrics.publish_seconds.with_label_values(&[origin.as_str()]))
}
