//! Subscriptions that survive reconnections. A subscription that is requested while Redis is unreachable is made when
//! Redis is reachable again, and every channel is subscribed again after each reconnection.
//!
//! Subscriptions are sent in batches, because a node has many. fred does not report confirmations, so a batch counts as
//! confirmed when Redis has answered a command that was sent after the batch. Channels of rooms are subscribed first; a
//! node subscribes to them only while the rooms have members on the node. The channels of the node itself are
//! subscribed last, so a node that is subscribed to these is subscribed to all its channels.

mod dispatch;
mod sending;
mod sink;
mod wanted;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::health::RedisState;
use crate::telemetry::metrics::Metrics;
use dispatch::dispatch;
use sending::keep_subscribed;
pub use sink::{ChannelMessage, Losses, Sink, SubscriptionKind};
use wanted::{Rank, WantedChannels};

/// Pause before a failed subscription is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// The subscriptions of this node.
#[derive(Clone)]
pub struct Subscriber {
    shared: Arc<SubscriberState>,
}

/// The sink of each channel.
type Sinks = HashMap<Arc<str>, Arc<dyn Sink>>;

struct SubscriberState {
    client: Client,
    state: Arc<RedisState>,
    metrics: Arc<Metrics>,
    sinks: [RwLock<Sinks>; wanted::KINDS.len()],
    wanted: Mutex<WantedChannels>,
    changed: Notify,
    settled: Notify,
    barrier: AtomicU64,
    /// Counts how often all subscriptions were lost.
    generation: AtomicU64,
    losses: Losses,
    /// Marks in the order of messages. Each mark is answered when all messages that arrived before the mark were passed
    /// to their sinks.
    marks: mpsc::Sender<oneshot::Sender<()>>,
}

impl Subscriber {
    pub(super) fn start(client: &Client, state: Arc<RedisState>, metrics: Arc<Metrics>, tasks: &TaskTracker) -> Self {
        // The channel needs space for one mark only, because the only sender waits for the answer to each mark.
        let (marks, marked) = mpsc::channel(1);
        let shared = Arc::new(SubscriberState {
            client: client.clone(),
            state,
            metrics,
            sinks: Default::default(),
            wanted: Mutex::default(),
            changed: Notify::new(),
            settled: Notify::new(),
            barrier: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            losses: Losses::default(),
            marks,
        });
        // Both tasks get their receivers before the client connects, so that no message is missed.
        tasks.spawn(dispatch(shared.clone(), client.message_rx(), marked));
        tasks.spawn(keep_subscribed(shared.clone()));
        Self { shared }
    }

    /// Subscribes now, or as soon as Redis is reachable. `sink` receives the messages in order, and replaces an earlier
    /// sink of the channel.
    pub fn subscribe(&self, channel: impl Into<Arc<str>>, sink: impl Fn(ChannelMessage) + Send + Sync + 'static) {
        self.listen(SubscriptionKind::Sharded, channel.into(), Arc::new(sink));
    }

    /// Subscribes to a channel that the node needs for as long as it runs. See [`Subscriber::subscribe`].
    pub fn listen(&self, kind: SubscriptionKind, channel: Arc<str>, sink: Arc<dyn Sink>) {
        self.shared.want(kind, channel, sink, Rank::Node);
    }

    /// Subscribes to the channel of a room, which the node needs while the room has members on the node. Such a
    /// subscription is cheap, because many are sent in one command.
    pub fn follow(&self, kind: SubscriptionKind, channel: Arc<str>, sink: Arc<dyn Sink>) {
        self.shared.want(kind, channel, sink, Rank::Room);
    }

    /// Ends the subscription of this kind to the channel.
    pub fn unfollow(&self, kind: SubscriptionKind, channel: &str) {
        self.shared.sinks(kind).write().expect("no thread panics while it holds this lock").remove(channel);
        self.shared.wanted.lock().expect("no thread panics while it holds this lock").drop_channel(kind, channel);
        self.shared.changed.notify_one();
    }

    /// Whether the channels of the node itself are subscribed on the present connection. The channels of rooms were
    /// subscribed before them.
    pub fn is_complete(&self) -> bool {
        self.shared.client.is_connected()
            && self.shared.wanted.lock().expect("no thread panics while it holds this lock").is_complete()
    }

    /// Whether Redis has confirmed or refused the subscription, or whether the subscription is no longer wanted.
    pub fn is_settled(&self, kind: SubscriptionKind, channel: &str) -> bool {
        self.shared.wanted.lock().expect("no thread panics while it holds this lock").is_settled(kind, channel)
    }

    /// Waits until [`Subscriber::is_settled`]. Returns at once while there is no connection, because no message can
    /// arrive without a connection and the caller has no guarantee.
    pub async fn settled(&self, kind: SubscriptionKind, channel: &str) {
        self.wait(|| self.is_settled(kind, channel)).await;
    }

    /// Waits until [`Subscriber::is_complete`]. Returns at once while there is no connection.
    pub async fn completed(&self) {
        self.wait(|| self.is_complete()).await;
    }

    async fn wait(&self, done: impl Fn() -> bool) {
        loop {
            // The future is created before the check, so that a notification after the check is not missed.
            let next = self.shared.settled.notified();
            if done() || !self.shared.client.is_connected() {
                return;
            }
            tokio::select! {
                () = next => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Counts how often all subscriptions were lost. The count rises before any subscription is made again.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::SeqCst)
    }

    /// The counter of lost messages.
    pub fn losses(&self) -> &Losses {
        &self.shared.losses
    }

    pub(super) fn stop(&self) {
        for sinks in &self.shared.sinks {
            sinks.write().expect("no thread panics while it holds this lock").clear();
        }
        *self.shared.wanted.lock().expect("no thread panics while it holds this lock") = WantedChannels::default();
        self.shared.settled.notify_waiters();
    }
}

// === impl Shared ===

impl SubscriberState {
    fn sinks(&self, kind: SubscriptionKind) -> &RwLock<Sinks> {
        &self.sinks[kind as usize]
    }

    fn want(&self, kind: SubscriptionKind, channel: Arc<str>, sink: Arc<dyn Sink>, rank: Rank) {
        self.sinks(kind).write().expect("no thread panics while it holds this lock").insert(channel.clone(), sink);
        self.wanted.lock().expect("no thread panics while it holds this lock").want(kind, channel, rank);
        self.changed.notify_one();
    }

    /// Records that a new connection has no subscriptions yet.
    fn forget_confirmations(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.wanted.lock().expect("no thread panics while it holds this lock").forget_confirmations();
    }
}
