//! The counters of publishes. Each is looked up by its labels only once.

use prometheus::{Histogram, IntCounter};

use super::PublisherKind;
use crate::telemetry::metrics::Metrics;

/// One value for each kind of publisher.
pub(super) struct ByPublisherKind<T>([T; PublisherKind::ALL.len()]);

impl<T> ByPublisherKind<T> {
    fn new(value: impl Fn(PublisherKind) -> T) -> Self {
        Self(PublisherKind::ALL.map(value))
    }

    pub(super) fn of(&self, origin: PublisherKind) -> &T {
        &self.0[origin as usize]
    }
}

/// The contract label and event label of events that no contract describes. All these events share one label, because
/// senders can choose any names for them.
const PLAIN: &str = "plain";

/// The counters of an event's publishes, for the kinds of publishers that can publish the event. A client's relays and
/// the node's own events are counted elsewhere.
pub(super) struct Publishes {
    api: IntCounter,
    hook: Option<IntCounter>,
    emitter: Option<IntCounter>,
}

impl Publishes {
    /// The counters of an event of a contract. `is_ruled` tells whether the contract has rules for the event: without
    /// rules, an emitter's event counts as one that no contract describes.
    pub(super) fn described(metrics: &Metrics, contract: &str, event: &str, is_ruled: bool) -> Self {
        let counter = |origin| one(metrics, contract, event, origin);
        Self {
            api: counter(PublisherKind::Api),
            hook: Some(counter(PublisherKind::Hook)),
            emitter: is_ruled.then(|| counter(PublisherKind::Emitter)),
        }
    }

    /// The counters of events that no contract describes.
    pub(super) fn plain(metrics: &Metrics) -> Self {
        let counter = |origin| one(metrics, PLAIN, PLAIN, origin);
        Self { api: counter(PublisherKind::Api), hook: None, emitter: Some(counter(PublisherKind::Emitter)) }
    }

    /// The counter of one kind of publisher; the backends' counter if this kind has none.
    pub(super) fn of(&self, origin: PublisherKind) -> &IntCounter {
        let own = match origin {
            PublisherKind::Hook => self.hook.as_ref(),
            PublisherKind::Emitter => self.emitter.as_ref(),
            PublisherKind::Api => Some(&self.api),
            PublisherKind::Client | PublisherKind::Node => None,
        };
        debug_assert!(own.is_some(), "{origin:?} does not publish this event");
        own.unwrap_or(&self.api)
    }
}

/// The counter of an event of a contract for one kind of publisher.
pub(super) fn one(metrics: &Metrics, contract: &str, event: &str, origin: PublisherKind) -> IntCounter {
    metrics.events_published_total.with_label_values(&[contract, event, origin.as_str()])
}

/// How long a publish takes until the event is queued.
pub(super) fn seconds(metrics: &Metrics) -> ByPublisherKind<Histogram> {
    ByPublisherKind::new(|origin| metrics.publish_seconds.with_label_values(&[origin.as_str()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_has_counters_of_the_publishers_that_can_publish_it_and_they_begin_at_zero() {
        let metrics = Metrics::new();
        Publishes::plain(&metrics);
        Publishes::described(&metrics, "c", "bare", false);
        Publishes::described(&metrics, "c", "ruled", true).of(PublisherKind::Emitter).inc();
        let text = metrics.encode().unwrap();
        let mut series: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix("roomcast_events_published_total")).collect();
        series.sort_unstable();
        let expected = [
            r#"{contract="c",event="bare",origin="api"} 0"#,
            r#"{contract="c",event="bare",origin="hook"} 0"#,
            r#"{contract="c",event="ruled",origin="api"} 0"#,
            r#"{contract="c",event="ruled",origin="emitter"} 1"#,
            r#"{contract="c",event="ruled",origin="hook"} 0"#,
            r#"{contract="plain",event="plain",origin="api"} 0"#,
            r#"{contract="plain",event="plain",origin="emitter"} 0"#,
        ];
        assert_eq!(series, expected);
    }
}
