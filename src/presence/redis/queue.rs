//! The queue of changes to be written: limited in length, in order, and never blocking.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, mpsc};

use super::change::WriterItem;
use crate::telemetry::metrics::Metrics;

/// Why everything must be written to Redis again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RewriteReason {
    /// The node has just started.
    Start,
    /// The lease had ended, or Redis was emptied.
    Gone,
    /// A write failed, or its result is unknown.
    Failed,
    /// The queue was full.
    Full,
}

impl RewriteReason {
    /// The label in metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Gone => "gone",
            Self::Failed => "failed",
            Self::Full => "full",
        }
    }
}

/// The queue of changes in front of the writer.
///
/// While the queue is open, every change is queued, in order. While it is shut, changes are dropped, because everything
/// will be written again from the index (a rewrite). No change is missed: the index contains a change before the change
/// is queued, and the writer opens the queue before it reads the index.
pub(super) struct ChangeQueue {
    items: mpsc::Sender<WriterItem>,
    open: AtomicBool,
    reason: Mutex<RewriteReason>,
    close: Notify,
}

impl ChangeQueue {
    /// Creates a shut queue for at most `bound` items.
    pub(super) fn new(bound: usize) -> (Self, mpsc::Receiver<WriterItem>) {
        let (items, receiver) = mpsc::channel(bound.max(1));
        let queue = Self {
            items,
            open: AtomicBool::new(false),
            reason: Mutex::new(RewriteReason::Start),
            close: Notify::new(),
        };
        (queue, receiver)
    }

    /// Queues an item. Returns false if the queue is shut or full; a rewrite will then include the change.
    pub(super) fn push(&self, item: WriterItem, metrics: &Metrics) -> bool {
        let dropped = if !self.is_open() {
            "away"
        } else if self.items.try_send(item).is_err() {
            self.close(RewriteReason::Full);
            "full"
        } else {
            return true;
        };
        metrics.presence_queue_dropped_total.with_label_values(&[dropped]).inc();
        false
    }

    /// Shuts the queue, so that changes are dropped until the next rewrite.
    pub(super) fn close(&self, reason: RewriteReason) {
        if self.open.swap(false, Ordering::SeqCst) {
            *self.reason.lock().expect("no thread panics while it holds this lock") = reason;
            tracing::debug!(reason = reason.as_str(), "presence will be written again completely");
            self.close.notify_one();
        }
    }

    /// Opens the queue at the start of a rewrite. Returns the reason for the rewrite.
    pub(super) fn reopen(&self) -> RewriteReason {
        let reason = *self.reason.lock().expect("no thread panics while it holds this lock");
        self.open.store(true, Ordering::SeqCst);
        reason
    }

    /// Whether changes are queued.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    /// Waits until the queue is shut.
    pub(super) async fn close_now(&self) {
        self.close.notified().await;
    }
}
