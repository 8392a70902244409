//! The queue of changes of rooms that are to be announced.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::policy::RoomChange;
use crate::telemetry::metrics::Metrics;

/// Maximum number of changes that wait to be announced.
const MAX_UNTOLD: usize = 65_536;

enum Announcement {
    Change(Box<RoomChange>),
    /// Answered when every change before it has been announced.
    Barrier(oneshot::Sender<()>),
}

/// The end of the queue at which presence puts changes in. It never waits.
pub(super) struct ChangeSender {
    queue: mpsc::Sender<Announcement>,
    metrics: Arc<Metrics>,
}

/// The changes of rooms that are to be announced, in order.
#[must_use]
pub struct RoomChanges(mpsc::Receiver<Announcement>);

/// Creates the queue.
pub(super) fn queue(metrics: Arc<Metrics>) -> (ChangeSender, RoomChanges) {
    let (queue, changes) = mpsc::channel(MAX_UNTOLD);
    (ChangeSender { queue, metrics }, RoomChanges(changes))
}

impl ChangeSender {
    /// Queues a change. A change beyond [`MAX_UNTOLD`] is dropped and counted.
    pub(super) fn push(&self, change: RoomChange) {
        if self.queue.try_send(Announcement::Change(Box::new(change))).is_err() {
            self.metrics.presence_queue_dropped_total.with_label_values(&["events"]).inc();
        }
    }

    /// Waits until every change before this call has been announced. Does not wait if nobody announces changes.
    pub(super) async fn announced(&self) {
        let (done, announced) = oneshot::channel();
        if self.queue.send(Announcement::Barrier(done)).await.is_ok() {
            let _ = announced.await;
        }
    }
}

impl RoomChanges {
    /// Announces every change with `tell`, one after the other, until presence is dropped.
    pub async fn for_each<F: Future<Output = ()> + Send>(mut self, tell: impl Fn(RoomChange) -> F + Send) {
        while let Some(next) = self.0.recv().await {
            match next {
                Announcement::Change(change) => tell(*change).await,
                // Fails if the caller has stopped waiting, which is harmless.
                Announcement::Barrier(done) => drop(done.send(())),
            }
        }
    }
}
