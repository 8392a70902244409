//! Passes the messages from Redis to the sinks of their channels.

use std::sync::Arc;
use std::time::Duration;

use fred::types::MessageKind;
use futures_util::future::join_all;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{mpsc, oneshot};

use super::SubscriberState;
use super::sink::{ChannelMessage, Sink, SubscriptionKind};
use super::wanted::SubscriptionChange;
use crate::telemetry::log_limit::log_seldom;

/// Maximum time for which the confirmation of a subscription waits until earlier messages are delivered.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Passes every message from Redis to the sink of the message's channel.
pub(super) async fn dispatch(
    shared: Arc<SubscriberState>,
    mut messages: Receiver<fred::types::Message>,
    mut marks: mpsc::Receiver<oneshot::Sender<()>>,
) {
    loop {
        tokio::select! {
            () = shared.state.stopped() => return,
            message = messages.recv() => match message {
                Ok(message) => shared.hand_over(message),
                Err(RecvError::Lagged(lost)) => shared.note_lost(lost),
                Err(RecvError::Closed) => return,
            },
            Some(mark) = marks.recv() => {
                for _ in 0..messages.len() {
                    match messages.try_recv() {
                        Ok(message) => shared.hand_over(message),
                        Err(TryRecvError::Lagged(lost)) => shared.note_lost(lost),
                        Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                    }
                }
                // The task that waits for the mark may have ended.
                let _ = mark.send(());
            }
        }
    }
}

impl SubscriberState {
    /// The channel, kind and sink of a message.
    fn find(&self, kind: &MessageKind, channel: &str) -> Option<(Arc<str>, SubscriptionKind, Arc<dyn Sink>)> {
        let exact = |kind: SubscriptionKind| {
            let sinks = self.sinks(kind).read().expect("no thread panics while it holds this lock");
            sinks.get_key_value(channel).map(|(channel, sink)| (channel.clone(), kind, sink.clone()))
        };
        match kind {
            MessageKind::SMessage => exact(SubscriptionKind::Sharded),
            MessageKind::Message => exact(SubscriptionKind::Plain),
            MessageKind::PMessage => exact(SubscriptionKind::Unseen).or_else(|| {
                let sinks =
                    self.sinks(SubscriptionKind::Below).read().expect("no thread panics while it holds this lock");
                let sink = sinks.iter().find(|(name, _)| channel.starts_with(&***name)).map(|(_, sink)| sink.clone());
                drop(sinks);
                sink.map(|sink| (channel.into(), SubscriptionKind::Below, sink))
            }),
        }
    }

    fn hand_over(&self, message: fred::types::Message) {
        if let (Some((channel, kind, sink)), Some(body)) =
            (self.find(&message.kind, &message.channel), message.value.into_bytes())
        {
            sink.take(ChannelMessage { channel, kind, body });
        }
    }

    fn note_lost(&self, lost: u64) {
        self.losses.note();
        self.metrics.cluster_dropped_total.with_label_values(&["lagged"]).inc_by(lost);
        log_seldom!(warn, lost, "messages from Redis were lost: this node is too slow to read them");
    }

    /// Waits until every message that has arrived is delivered. A room's channel may have had an earlier subscription,
    /// whose messages still wait to be delivered. These messages must be delivered before a client that joins the room
    /// is told that it receives all events from now on.
    pub(super) async fn catch_up(&self, changes: &[SubscriptionChange]) {
        let sinks =
            self.sinks_of(self.wanted.lock().expect("no thread panics while it holds this lock").asked(changes));
        if sinks.is_empty() {
            return;
        }
        let all = async {
            let (done, handed_over) = oneshot::channel();
            if self.marks.send(done).await.is_ok() && handed_over.await.is_ok() {
                join_all(sinks.iter().filter_map(|sink| sink.all_delivered())).await;
            }
        };
        if tokio::time::timeout(CATCH_UP, all).await.is_err() {
            log_seldom!(warn, "messages from Redis wait for a long time to be delivered: this node is overloaded");
        }
    }

    /// The sinks of the channels, without duplicates.
    fn sinks_of<'a>(&self, changes: impl Iterator<Item = &'a SubscriptionChange>) -> Vec<Arc<dyn Sink>> {
        let mut sinks: Vec<Arc<dyn Sink>> = Vec::new();
        for SubscriptionChange { kind, channel, .. } in changes {
            if let Some(sink) =
                self.sinks(*kind).read().expect("no thread panics while it holds this lock").get(channel)
                && !sinks.iter().any(|known| Arc::ptr_eq(known, sink))
            {
                sinks.push(sink.clone());
            }
        }
        sinks
    }
}
