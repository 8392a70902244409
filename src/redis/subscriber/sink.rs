//! The receiving end of subscriptions: messages, and the sinks that take them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// A message that was published on a channel.
#[derive(Debug)]
pub struct ChannelMessage {
    /// The channel.
    pub channel: Arc<str>,
    /// The kind of subscription through which the message arrived.
    pub kind: SubscriptionKind,
    /// The content of the message.
    pub body: Bytes,
}

/// The kind of a subscription, which decides which of Redis' three commands is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubscriptionKind {
    /// `SUBSCRIBE`: receives `PUBLISH`, and is counted by `PUBSUB NUMSUB`.
    Plain,
    /// `PSUBSCRIBE` of a pattern that matches one channel: receives `PUBLISH`, and is not counted.
    Unseen,
    /// `PSUBSCRIBE` of all channels that begin with the name: receives `PUBLISH`, and is not counted.
    Below,
    /// `SSUBSCRIBE`: receives `SPUBLISH`. Sent after the other kinds.
    Sharded,
}

impl SubscriptionKind {
    /// The command that makes a subscription of this kind.
    pub(super) const fn command(self) -> &'static str {
        match self {
            Self::Plain => "SUBSCRIBE",
            Self::Unseen | Self::Below => "PSUBSCRIBE",
            Self::Sharded => "SSUBSCRIBE",
        }
    }
}

/// Receives the messages of channels, in order. One task calls the sinks of all channels, so a sink must not block or
/// do more than pass a message on.
pub trait Sink: Send + Sync {
    /// Receives a message.
    fn take(&self, message: ChannelMessage);

    /// Returns a future that resolves when every message that this sink has received so far is delivered. `None` if all
    /// messages are already delivered.
    fn all_delivered(&self) -> Option<BoxFuture<'_, ()>> {
        None
    }

    /// Called when a subscription is confirmed: from now on every message on the channel arrives. The caller holds a
    /// lock, so this function must not block.
    fn confirmed(&self, _kind: SubscriptionKind, _channel: &Arc<str>) {}
}

impl<F: Fn(ChannelMessage) + Send + Sync> Sink for F {
    fn take(&self, message: ChannelMessage) {
        self(message);
    }
}

/// Counts how often messages of other nodes were lost although this node was subscribed.
#[derive(Debug, Clone, Default)]
pub struct Losses(Arc<AtomicU64>);

impl Losses {
    /// Records that messages were lost.
    pub fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::redis) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
