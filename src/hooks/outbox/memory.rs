//! Notices in memory only, for a node without Redis.

use futures_util::future::BoxFuture;

use super::ring::Ring;
use super::{EncodedRequest, Outbox};
use crate::telemetry::metrics::Metrics;

/// Keeps the notices of one hook in memory. Notices that are not delivered when the node stops are lost.
pub struct MemoryOutbox {
    ring: Ring,
}

impl MemoryOutbox {
    /// An outbox of at most `most` notices.
    pub fn new(hook: &str, most: usize, metrics: &Metrics) -> Self {
        Self { ring: Ring::new(hook, most, metrics) }
    }
}

impl Outbox for MemoryOutbox {
    fn put(&self, notice: EncodedRequest) {
        self.ring.push(notice);
    }

    fn oldest(&self) -> BoxFuture<'_, EncodedRequest> {
        Box::pin(async {
            loop {
                if let Some(notice) = self.ring.oldest(1).pop() {
                    return notice;
                }
                self.ring.arrival().await;
            }
        })
    }

    fn done<'a>(&'a self, notice: &'a EncodedRequest) -> BoxFuture<'a, ()> {
        self.ring.remove(&notice.id);
        Box::pin(std::future::ready(()))
    }

    fn at_risk(&self) -> usize {
        self.ring.len()
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
