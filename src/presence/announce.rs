//! The queue of changes of rooms that are to be announced.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::policy::RoomChange;
use crate::telemetry::metrics::Metrics;

/// Maximum number of changes that wait to be announced.
const MAX_UNTOLD: usize = 65_536;

/// Maximum number of changes that are announced together.
const BATCH: usize = 256;

enum Announcement {
    Change(Box<RoomChange>),
    /// A mark in the queue, answered when every change before it has been announced.
    Barrier(oneshot::Sender<()>),
}

/// The end of the queue where presence adds changes. It never waits.
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
    /// Announces every change with `tell`, in order, until presence is dropped. Changes that wait are announced
    /// together.
    pub async fn announce<F: Future<Output = ()> + Send>(mut self, tell: impl Fn(Vec<RoomChange>) -> F + Send) {
        let mut waiting = Vec::with_capacity(BATCH);
        while self.0.recv_many(&mut waiting, BATCH).await > 0 {
            let (mut changes, mut barriers) = (Vec::with_capacity(waiting.len()), Vec::new());
            for next in waiting.drain(..) {
                match next {
                    Announcement::Change(change) => changes.push(*change),
                    Announcement::Barrier(done) => barriers.push(done),
                }
            }
            tell(changes).await;
            for done in barriers {
                // Answering fails if the caller has stopped waiting, which is harmless.
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::contract::load::{Source, load_sources};
    use crate::presence::{MemberChange, Policies};

    #[tokio::test]
    async fn changes_beyond_the_bound_are_dropped_and_counted_and_a_barrier_waits_for_the_others() {
        let text = "name = 'c'\n[rooms.r]\nname = 'r'\npresence = { changed = 'seen' }\n";
        let namespaces = load_sources(vec![Source { name: "c.toml".into(), text: text.into() }]).unwrap();
        let policies = Policies::new(&namespaces.into_iter().map(Arc::new).collect::<Vec<_>>());
        let change = policies.change(&"/".into(), "r", MemberChange::Metadata).unwrap();
        let metrics = Arc::new(Metrics::new());
        let (sender, changes) = queue(metrics.clone());
        for _ in 0..MAX_UNTOLD + 3 {
            sender.push(change.clone());
        }
        assert_eq!(metrics.presence_queue_dropped_total.with_label_values(&["events"]).get(), 3);
        let told = Arc::new(AtomicUsize::new(0));
        let counter = told.clone();
        let teller = tokio::spawn(changes.announce(move |changes| {
            counter.fetch_add(changes.len(), Ordering::SeqCst);
            std::future::ready(())
        }));
        sender.announced().await;
        assert_eq!(told.load(Ordering::SeqCst), MAX_UNTOLD);
        drop(sender);
        teller.await.unwrap();
    }
}
