//! The notices of one hook in a node's memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use prometheus::{IntCounter, IntGauge};
use tokio::sync::Notify;

use super::{EncodedRequest, MAX_WAITING_BYTES};
use crate::telemetry::metrics::Metrics;

/// A bounded queue. When the queue is full, a new notice replaces the oldest one, and the lost notice is counted.
pub(super) struct Ring {
    notices: Mutex<RingNotices>,
    most: usize,
    arrived: Notify,
    dropped: IntCounter,
    waiting: IntGauge,
}

#[derive(Default)]
struct RingNotices {
    notices: VecDeque<EncodedRequest>,
    /// The size of the bodies of all notices.
    bytes: usize,
}

impl RingNotices {
    fn remove(&mut self, at: usize) {
        if let Some(notice) = self.notices.remove(at) {
            self.bytes -= notice.body.len();
        }
    }
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
        let mut waiting = self.lock();
        let size = notice.body.len();
        while waiting.notices.len() >= self.most
            || (!waiting.notices.is_empty() && waiting.bytes + size > MAX_WAITING_BYTES)
        {
            waiting.remove(0);
            self.dropped.inc();
        }
        waiting.bytes += size;
        waiting.notices.push_back(notice);
        self.note(&waiting);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Returns copies of the oldest notices, at most `most`. The notices stay in the queue.
    pub(super) fn oldest(&self, most: usize) -> Vec<EncodedRequest> {
        self.lock().notices.iter().take(most).cloned().collect()
    }

    /// Removes a notice that [`Ring::oldest`] returned. Returns false when the notice is no longer in the queue.
    pub(super) fn remove(&self, id: &str) -> bool {
        let mut waiting = self.lock();
        let found = waiting.notices.iter().position(|notice| notice.id == id);
        if let Some(at) = found {
            waiting.remove(at);
        }
        self.note(&waiting);
        found.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().notices.len()
    }

    /// Waits until a notice is pushed. Returns at once if a notice was pushed before this call, and no earlier call has
    /// returned for that push.
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    fn note(&self, waiting: &RingNotices) {
        self.waiting.set(i64::try_from(waiting.notices.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, RingNotices> {
        self.notices.lock().expect("no thread panics while it holds this lock")
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
    fn bytes_are_bounded_and_given_back() {
        let ring = Ring::new("h", 10, &Metrics::new());
        let large = |id: usize| EncodedRequest { body: vec![0; MAX_WAITING_BYTES / 2].into(), ..notice(id) };
        (1..=3).for_each(|id| ring.push(large(id)));
        assert_eq!((ids(&ring), ring.dropped.get()), (vec!["2".to_owned(), "3".to_owned()], 1));
        assert!(ring.remove("2") && ring.remove("3"));
        assert_eq!(ring.lock().bytes, 0);
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
