//! The notices of one hook in a node's memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use prometheus::{IntCounter, IntGauge};
use tokio::sync::Notify;

use super::EncodedRequest;
use crate::telemetry::metrics::Metrics;

/// A bounded queue. When the queue is full, a new notice replaces the oldest one, and the lost notice is counted.
pub(super) struct Ring {
    notices: Mutex<VecDeque<EncodedRequest>>,
    most: usize,
    arrived: Notify,
    dropped: IntCounter,
    waiting: IntGauge,
}

impl Ring {
    pub(super) fn new(hook: &str, most: usize, metrics: &Metrics) -> Self {
        Self {
            notices: Mutex::default(),
            most: most.max(1),
            arrived: Notify::new(),
            dropped: metrics.hook_notices_total.with_label_values(&[hook, "dropped"]),
            waiting: metrics.hook_notices_waiting.with_label_values(&[hook]),
        }
    }

    pub(super) fn push(&self, notice: EncodedRequest) {
        let mut notices = self.lock();
        if notices.len() >= self.most {
            notices.pop_front();
            self.dropped.inc();
        }
        notices.push_back(notice);
        self.note(&notices);
        drop(notices);
        self.arrived.notify_one();
    }

    /// Copies of the oldest notices, at most `most`. The notices stay in the queue.
    pub(super) fn oldest(&self, most: usize) -> Vec<EncodedRequest> {
        self.lock().iter().take(most).cloned().collect()
    }

    /// Removes a notice that [`Ring::oldest`] returned. Returns false when the notice is no longer in the queue.
    pub(super) fn remove(&self, id: &str) -> bool {
        let mut notices = self.lock();
        let found = notices.iter().position(|notice| notice.id == id);
        if let Some(at) = found {
            notices.remove(at);
        }
        self.note(&notices);
        found.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Waits until a notice is pushed. Returns at once if a notice was pushed before this call, and no earlier call has
    /// returned for that push.
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    fn note(&self, notices: &VecDeque<EncodedRequest>) {
        self.waiting.set(i64::try_from(notices.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<EncodedRequest>> {
        self.notices.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn notice(id: usize) -> EncodedRequest {
        EncodedRequest { id: id.to_string(), traceparent: String::new(), body: Bytes::new() }
    }

    fn ids(ring: &Ring) -> Vec<String> {
        ring.oldest(10).into_iter().map(|notice| notice.id).collect()
    }

    #[test]
    fn the_oldest_goes_when_the_ring_is_full_and_is_counted() {
        let ring = Ring::new("h", 3, &Metrics::new());
        (1..=5).for_each(|id| ring.push(notice(id)));
        assert_eq!(ids(&ring), ["3", "4", "5"]);
        assert_eq!((ring.dropped.get(), ring.waiting.get()), (2, 3));
    }

    #[test]
    fn removing_what_was_dropped_already_removes_nothing() {
        let ring = Ring::new("h", 2, &Metrics::new());
        (1..=3).for_each(|id| ring.push(notice(id)));
        assert!(!ring.remove("1"));
        assert!(ring.remove("2"));
        assert_eq!(ids(&ring), ["3"]);
        assert_eq!(ring.waiting.get(), 1);
    }
}
