//! The queue in which messages for a namespace wait to be delivered.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::cluster::gaps::Gaps;
use crate::redis::{Budget, ChannelMessage, Losses, ReservedBytes, Sink, SubscriptionKind};
use crate::telemetry::metrics::Metrics;

/// An entry of the queue of received messages.
pub(super) enum ReceivedItem {
    Message(ChannelMessage, ReservedBytes),
    /// A mark in the queue, answered when every message before the mark is delivered.
    Mark(oneshot::Sender<()>),
}

/// Puts received messages into the queue of a namespace.
pub(super) struct ReceiveQueue {
    queue: mpsc::Sender<ReceivedItem>,
    gaps: Arc<Mutex<Gaps>>,
    metrics: Arc<Metrics>,
    losses: Losses,
    /// Limits the bytes of the messages in the queues of all namespaces together.
    budget: Budget,
}

impl ReceiveQueue {
    /// Creates the queue of a namespace, with at most `buffer` entries.
    pub(super) fn new(
        buffer: usize,
        gaps: Arc<Mutex<Gaps>>,
        metrics: Arc<Metrics>,
        losses: Losses,
        budget: Budget,
    ) -> (Self, mpsc::Receiver<ReceivedItem>) {
        let (queue, incoming) = mpsc::channel(buffer);
        (Self { queue, gaps, metrics, losses, budget }, incoming)
    }

    /// Number of messages in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

impl Sink for ReceiveQueue {
    fn take(&self, message: ChannelMessage) {
        let taken = self.budget.take(message.body.len());
        let queued = taken.map(|taken| self.queue.try_send(ReceivedItem::Message(message, taken)));
        if matches!(queued, None | Some(Err(mpsc::error::TrySendError::Full(_)))) {
            self.metrics.cluster_dropped_total.with_label_values(&["full"]).inc();
            self.losses.note();
        }
    }

    fn all_delivered(&self) -> Option<BoxFuture<'_, ()>> {
        Some(Box::pin(async {
            let (mark, delivered) = oneshot::channel();
            if self.queue.send(ReceivedItem::Mark(mark)).await.is_ok() {
                // An error means that the node is stopping and the queue is closed.
                let _ = delivered.await;
            }
        }))
    }

    /// Begins to count missing messages on the channel. Messages of an earlier subscription to the channel have already
    /// been delivered, and were not counted.
    fn confirmed(&self, kind: SubscriptionKind, channel: &Arc<str>) {
        if kind != SubscriptionKind::Below {
            self.gaps.lock().expect("no thread panics while it holds this lock").follow(channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;

    use super::*;
    use crate::cluster::frame::FrameSender;
    use crate::cluster::gaps::{ArrivalOrder, SendTime};

    #[tokio::test]
    async fn a_mark_is_behind_what_came_before_it_and_what_does_not_fit_is_counted() {
        let (gaps, metrics): (_, Arc<Metrics>) = (Arc::<Mutex<Gaps>>::default(), Arc::default());
        let (intake, mut incoming) =
            ReceiveQueue::new(2, gaps.clone(), metrics.clone(), Losses::default(), Budget::new(9));
        let message = || ChannelMessage { channel: "c".into(), kind: SubscriptionKind::Sharded, body: Bytes::new() };
        (0..3).for_each(|_| intake.take(message()));
        assert_eq!(intake.waiting(), 2);
        assert_eq!(metrics.cluster_dropped_total.with_label_values(&["full"]).get(), 1);
        let mut all_delivered = intake.all_delivered().unwrap();
        for _ in 0..2 {
            assert!(futures_util::poll!(&mut all_delivered).is_pending());
            assert!(matches!(incoming.recv().await, Some(ReceivedItem::Message(..))));
        }
        assert!(futures_util::poll!(&mut all_delivered).is_pending());
        let Some(ReceivedItem::Mark(mark)) = incoming.recv().await else { panic!("the mark comes last") };
        mark.send(()).unwrap();
        all_delivered.await;
        drop(incoming);
        intake.all_delivered().unwrap().await;
    }

    #[test]
    fn bytes_that_wait_are_bounded_and_what_is_too_much_is_counted() {
        let (metrics, budget) = (Arc::<Metrics>::default(), Budget::new(100));
        let (intake, mut incoming) =
            ReceiveQueue::new(9, Arc::default(), metrics.clone(), Losses::default(), budget.clone());
        let message =
            || ChannelMessage { channel: "c".into(), kind: SubscriptionKind::Sharded, body: Bytes::from(vec![0; 40]) };
        (0..5).for_each(|_| intake.take(message()));
        assert_eq!((intake.waiting(), budget.used()), (2, 80));
        assert_eq!(metrics.cluster_dropped_total.with_label_values(&["full"]).get(), 3);
        while incoming.try_recv().is_ok() {}
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn gaps_are_counted_from_the_confirmation_on() {
        let gaps = Arc::<Mutex<Gaps>>::default();
        let (intake, _incoming) = ReceiveQueue::new(1, gaps.clone(), Arc::default(), Losses::default(), Budget::new(1));
        let (origin, channel) = (FrameSender { node: "a".into(), incarnation: 1 }, Arc::from("c"));
        let sent = || SendTime { at: Instant::now(), uptime: Duration::from_secs(3600) };
        let note = |number| gaps.lock().unwrap().note(&origin, &channel, number, sent());
        assert_eq!((note(1), note(4)), (ArrivalOrder::After(0), ArrivalOrder::After(0)));
        intake.confirmed(SubscriptionKind::Below, &channel);
        assert_eq!((note(5), note(7)), (ArrivalOrder::After(0), ArrivalOrder::After(0)), "nothing is numbered there");
        intake.confirmed(SubscriptionKind::Sharded, &channel);
        assert_eq!((note(9), note(11)), (ArrivalOrder::After(0), ArrivalOrder::After(1)));
    }
}
