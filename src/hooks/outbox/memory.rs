//! Notices in memory only, for a node without Redis.

use super::ring::Ring;
use super::{EncodedRequest, Outbox};
use crate::telemetry::metrics::Metrics;

/// Keeps the notices of one hook in memory. Notices that are not delivered when the node stops are lost.
pub struct MemoryOutbox {
    ring: Ring,
}

impl MemoryOutbox {
    /// Creates an outbox of at most `most` notices.
    pub fn new(hook: &str, most: usize, metrics: &Metrics) -> Self {
        Self { ring: Ring::new(hook, most, metrics) }
    }
}

impl Outbox for MemoryOutbox {
    fn put(&self, notice: EncodedRequest) {
        self.ring.push(notice);
    }

    async fn oldest(&self) -> EncodedRequest {
        loop {
            if let Some(notice) = self.ring.oldest(1).pop() {
                return notice;
            }
            self.ring.arrival().await;
        }
    }

    async fn done(&self, notice: &EncodedRequest) {
        self.ring.remove(&notice.id);
    }

    fn at_risk(&self) -> usize {
        self.ring.len()
    }

    async fn release(&self) {}
}
