//! The queue in which the messages of a subscription wait to be handled: control messages, or canaries.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::FrameReceiver;
use crate::cluster::frame::Frame;
use crate::redis::{Budget, ChannelMessage, ReservedBytes};
use crate::telemetry::metrics::Metrics;

/// A message from another node.
#[derive(Debug)]
pub struct Incoming {
    /// The sender, the time and the content of the message.
    pub frame: Frame,
    /// Released when the message has been handled.
    _taken: ReservedBytes,
}

/// Puts the messages of a subscription into its queue. A message that does not fit is dropped and counted.
pub(super) struct SubscriptionQueue {
    queue: mpsc::Sender<Incoming>,
    reader: FrameReceiver,
    /// Limits the bytes of the messages in the queues of all subscriptions together.
    budget: Budget,
    metrics: Arc<Metrics>,
}

impl SubscriptionQueue {
    /// Creates the queue of a subscription, with at most `buffer` messages.
    pub(super) fn new(
        buffer: usize,
        reader: FrameReceiver,
        budget: Budget,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<Incoming>) {
        let (queue, incoming) = mpsc::channel(buffer);
        (Self { queue, reader, budget, metrics }, incoming)
    }

    /// The queue, for as long as the subscription exists.
    pub(super) fn queue(&self) -> mpsc::WeakSender<Incoming> {
        self.queue.downgrade()
    }

    /// Puts a message into the queue of a subscription. The message is not queued if it is the node's own or cannot be
    /// read.
    pub(super) fn take(&self, message: &ChannelMessage) {
        let Some(frame) = self.reader.read(message) else { return };
        let taken = self.budget.take(message.body.len());
        let queued = taken.map(|taken| self.queue.try_send(Incoming { frame, _taken: taken }));
        if matches!(queued, None | Some(Err(TrySendError::Full(_)))) {
            self.metrics.cluster_dropped_total.with_label_values(&["full"]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::frame::FrameSender;
    use crate::redis::{Losses, SubscriptionKind};

    fn inbox(buffer: usize, budget: &Budget) -> (SubscriptionQueue, mpsc::Receiver<Incoming>, Arc<Metrics>) {
        let metrics: Arc<Metrics> = Arc::default();
        let own = FrameSender { node: "here".into(), incarnation: 1 };
        let reader = FrameReceiver { own, metrics: metrics.clone(), gaps: Arc::default(), losses: Losses::default() };
        let (inbox, incoming) = SubscriptionQueue::new(buffer, reader, budget.clone(), metrics.clone());
        (inbox, incoming, metrics)
    }

    fn message(node: &str, bytes: usize) -> ChannelMessage {
        let origin = FrameSender { node: node.into(), incarnation: 1 };
        ChannelMessage {
            channel: "c".into(),
            kind: SubscriptionKind::Sharded,
            body: Frame::encode(&origin, 0, 0, &vec![0; bytes]),
        }
    }

    fn dropped(metrics: &Metrics) -> u64 {
        metrics.cluster_dropped_total.with_label_values(&["full"]).get()
    }

    #[test]
    fn messages_beyond_the_number_or_the_bytes_are_dropped_and_counted() {
        let budget = Budget::new(1000);
        let (inbox, mut incoming, metrics) = inbox(3, &budget);
        (0..5).for_each(|_| inbox.take(&message("there", 10)));
        assert_eq!((incoming.len(), dropped(&metrics)), (3, 2), "by number");
        while incoming.try_recv().is_ok() {}
        (0..3).for_each(|_| inbox.take(&message("there", 400)));
        assert_eq!((incoming.len(), dropped(&metrics)), (2, 3), "by bytes");
        while incoming.try_recv().is_ok() {}
        assert_eq!(budget.used(), 0);
        inbox.take(&message("here", 10));
        assert_eq!((incoming.len(), dropped(&metrics)), (0, 3), "the node ignores its own messages");
    }

    #[test]
    fn queues_share_the_bytes() {
        let budget = Budget::new(1000);
        let (control, _first, _) = inbox(9, &budget);
        let (canaries, _second, metrics) = inbox(9, &budget);
        control.take(&message("there", 900));
        canaries.take(&message("there", 400));
        assert_eq!(dropped(&metrics), 1);
    }
}
