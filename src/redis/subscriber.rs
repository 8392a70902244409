//! Subscriptions that survive reconnections. A subscription that is requested while Redis is unreachable is made when
//! Redis is reachable again, and every channel is subscribed again after each reconnection.
//!
//! Subscriptions are sent in batches, because a node has many. fred does not report confirmations, so a batch counts as
//! confirmed when Redis has answered a command that was sent after the batch. Channels of rooms are subscribed first; a
//! node subscribes to them only while the rooms have members on the node. The channels of the node itself are
//! subscribed last, so a node that is subscribed to these is subscribed to all its channels.

mod wanted;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand, MessageKind};
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::cause::{Cause, CauseKind};
use super::health::{RedisPart, RedisState};
use crate::telemetry::log_limit::log_seldom;
use crate::telemetry::metrics::Metrics;
use wanted::{Rank, SubscriptionChange, WantedChannels};

/// Pause before a failed subscription is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How often some confirmed subscriptions are sent again although no failure is known. When a slot of a Redis Cluster
/// moves to another server, its subscriptions are lost without an error.
const REFRESH: Duration = Duration::from_secs(10);

/// Maximum number of confirmed channels that are subscribed again at each [`REFRESH`].
const REFRESH_AT_ONCE: usize = 512;

/// Maximum number of channels in one command to subscribe or unsubscribe.
const BATCH: usize = 512;

/// Maximum time for which the confirmation of a subscription waits until earlier messages are delivered.
const CATCH_UP: Duration = Duration::from_secs(5);

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
    const fn command(self) -> &'static str {
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

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

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
        self.shared.sinks(kind).write().expect("no panic while held").remove(channel);
        self.shared.wanted.lock().expect("no panic while held").drop_channel(kind, channel);
        self.shared.changed.notify_one();
    }

    /// Whether the channels of the node itself are subscribed on the present connection. The channels of rooms were
    /// subscribed before them.
    pub fn is_complete(&self) -> bool {
        self.shared.client.is_connected() && self.shared.wanted.lock().expect("no panic while held").is_complete()
    }

    /// Whether Redis has confirmed or refused the subscription, or whether the subscription is no longer wanted.
    pub fn is_settled(&self, kind: SubscriptionKind, channel: &str) -> bool {
        self.shared.wanted.lock().expect("no panic while held").is_settled(kind, channel)
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
            sinks.write().expect("no panic while held").clear();
        }
        *self.shared.wanted.lock().expect("no panic while held") = WantedChannels::default();
        self.shared.settled.notify_waiters();
    }
}

// === impl Shared ===

impl SubscriberState {
    fn sinks(&self, kind: SubscriptionKind) -> &RwLock<Sinks> {
        &self.sinks[kind as usize]
    }

    fn want(&self, kind: SubscriptionKind, channel: Arc<str>, sink: Arc<dyn Sink>, rank: Rank) {
        self.sinks(kind).write().expect("no panic while held").insert(channel.clone(), sink);
        self.wanted.lock().expect("no panic while held").want(kind, channel, rank);
        self.changed.notify_one();
    }

    /// The channel, kind and sink of a message.
    fn find(&self, kind: &MessageKind, channel: &str) -> Option<(Arc<str>, SubscriptionKind, Arc<dyn Sink>)> {
        let exact = |kind: SubscriptionKind| {
            let sinks = self.sinks(kind).read().expect("no panic while held");
            sinks.get_key_value(channel).map(|(channel, sink)| (channel.clone(), kind, sink.clone()))
        };
        match kind {
            MessageKind::SMessage => exact(SubscriptionKind::Sharded),
            MessageKind::Message => exact(SubscriptionKind::Plain),
            MessageKind::PMessage => exact(SubscriptionKind::Unseen).or_else(|| {
                let sinks = self.sinks(SubscriptionKind::Below).read().expect("no panic while held");
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

    /// Records that a new connection has no subscriptions yet.
    fn forget_confirmations(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.wanted.lock().expect("no panic while held").forget_confirmations();
    }

    /// Sends the changes in their order and waits until Redis has made the changes. Returns false if a change failed.
    async fn settle(&self, changes: Vec<SubscriptionChange>, reconnects: &mut Receiver<Server>) -> bool {
        // In a Redis Cluster each sharded channel has its own slot, and needs a command of its own.
        let alone = self.client.is_clustered();
        let mut sent = Vec::new();
        for group in wanted::groups(changes, |kind| if alone && kind == SubscriptionKind::Sharded { 1 } else { BATCH })
        {
            match self.send_permitted(group).await {
                Ok(group) => sent.extend(group),
                Err(error) => {
                    tracing::debug!(redis.error = %error, "subscribing failed");
                    self.state.failed(RedisPart::Subscriptions, Cause::of(&error).about("subscribing"));
                    self.confirm(&sent, reconnects).await;
                    return false;
                }
            }
            if sent.len() >= BATCH {
                if !self.confirm(&sent, reconnects).await {
                    return false;
                }
                sent.clear();
            }
        }
        let confirmed = self.confirm(&sent, reconnects).await;
        if confirmed && !self.wanted.lock().expect("no panic while held").has_refused() {
            self.state.mended(RedisPart::Subscriptions);
        }
        confirmed
    }

    /// Sends a group of changes, and returns the changes that Redis has accepted. Redis refuses a whole command if the
    /// user has no right to one of its channels. After a refusal the group is halved and sent again, until each refused
    /// channel is alone. Refused channels are recorded, reported, and tried again at the next [`REFRESH`].
    async fn send_permitted(&self, group: Vec<SubscriptionChange>) -> Result<Vec<SubscriptionChange>, Error> {
        let mut taken = Vec::with_capacity(group.len());
        let mut left = vec![group];
        while let Some(mut group) = left.pop() {
            match self.send(&group).await {
                Ok(()) => taken.append(&mut group),
                Err(error) if lacks_channel(&error) && group.len() > 1 => {
                    let rest = group.split_off(group.len() / 2);
                    left.extend([rest, group]);
                }
                Err(error) if lacks_channel(&error) => {
                    let SubscriptionChange { kind, channel, .. } = &group[0];
                    let cause = Cause::of(&error).about(&format!("{} {}", kind.command(), spelled(*kind, channel)));
                    self.state.failed(RedisPart::Subscriptions, cause);
                    self.wanted.lock().expect("no panic while held").refuse(&group[0]);
                    self.settled.notify_waiters();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Records that Redis has made the changes. Returns false if a reconnection has undone the changes.
    async fn confirm(&self, changes: &[SubscriptionChange], reconnects: &mut Receiver<Server>) -> bool {
        self.catch_up(changes).await;
        // A reconnection since the changes were sent may have lost the subscriptions.
        if reconnects.try_recv().is_ok() {
            self.forget_confirmations();
            return false;
        }
        self.wanted.lock().expect("no panic while held").confirm(changes, |change| self.tell(change));
        self.settled.notify_waiters();
        true
    }

    fn tell(&self, SubscriptionChange { kind, channel, .. }: &SubscriptionChange) {
        if let Some(sink) = self.sinks(*kind).read().expect("no panic while held").get(channel) {
            sink.confirmed(*kind, channel);
        }
    }

    /// Waits until every message that has arrived is delivered. A room's channel may have had an earlier subscription,
    /// whose messages still wait to be delivered. These messages must be delivered before a client that joins the room
    /// is told that it receives all events from now on.
    async fn catch_up(&self, changes: &[SubscriptionChange]) {
        let sinks = self.sinks_of(self.wanted.lock().expect("no panic while held").asked(changes));
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
            if let Some(sink) = self.sinks(*kind).read().expect("no panic while held").get(channel)
                && !sinks.iter().any(|known| Arc::ptr_eq(known, sink))
            {
                sinks.push(sink.clone());
            }
        }
        sinks
    }

    /// Sends one command for a group of changes of the same kind.
    async fn send(&self, group: &[SubscriptionChange]) -> Result<(), Error> {
        let Some(first) = group.first() else { return Ok(()) };
        let names: Vec<String> = group.iter().map(|change| spelled(change.kind, &change.channel)).collect();
        match (first.kind, first.wanted) {
            (SubscriptionKind::Sharded, true) => self.client.ssubscribe(names).await,
            (SubscriptionKind::Sharded, false) => self.client.sunsubscribe(names).await,
            (SubscriptionKind::Plain, true) => self.client.subscribe(names).await,
            (SubscriptionKind::Plain, false) => self.client.unsubscribe(names).await,
            (SubscriptionKind::Unseen | SubscriptionKind::Below, true) => self.client.psubscribe(names).await,
            (SubscriptionKind::Unseen | SubscriptionKind::Below, false) => self.client.punsubscribe(names).await,
        }?;
        // In a Redis Cluster, fred waits for the answer to a sharded subscription itself, and follows redirections.
        if first.wanted && !(self.client.is_clustered() && first.kind == SubscriptionKind::Sharded) {
            self.pass_barrier().await?;
        }
        Ok(())
    }

    /// Waits until Redis has answered a command that was sent after all other commands. fred may return a confirmation
    /// as the answer, so only the echo of this barrier, or of a later barrier, counts. fred does not wait for answers
    /// to SUBSCRIBE and PSUBSCRIBE, so the answer to this command may be the refusal of an earlier subscription.
    ///
    /// The command is ECHO, because Redis never refuses ECHO, but refuses PING after a failed snapshot (MISCONF).
    async fn pass_barrier(&self) -> Result<(), Error> {
        let mark = self.barrier.fetch_add(1, Ordering::Relaxed) + 1;
        // In a Redis Cluster, fred sends plain subscriptions to the server of this slot.
        let slot = fred::util::redis_keyslot(self.client.id().as_bytes());
        let mut refusal = None;
        for _ in 0..=2 * BATCH {
            let echo = CustomCommand::new_static("ECHO", ClusterHash::Custom(slot), false);
            let number = self.barrier.fetch_add(1, Ordering::Relaxed) + 1;
            match self.client.custom::<fred::types::Value, _>(echo, vec![number.to_string()]).await {
                Ok(echo) if echo.as_u64().is_some_and(|echo| echo >= mark) => return refusal.map_or(Ok(()), Err),
                Ok(_) => {}
                // This answer belongs to an earlier subscription; the answer to ECHO follows.
                Err(error) if lacks_channel(&error) => refusal = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(fred::error::ErrorKind::Protocol, "an echo behind the subscriptions is not answered"))
    }
}

/// Whether the user has no right to one of the command's channels.
fn lacks_channel(error: &Error) -> bool {
    Cause::of(error).kind == CauseKind::NoRight && error.details().contains("channel")
}

/// The channel as written in the command. In a pattern the special characters are escaped, so that the pattern matches
/// only this name.
fn spelled(kind: SubscriptionKind, channel: &str) -> String {
    match kind {
        SubscriptionKind::Plain | SubscriptionKind::Sharded => channel.to_owned(),
        SubscriptionKind::Unseen => escaped(channel),
        SubscriptionKind::Below => escaped(channel) + "*",
    }
}

fn escaped(channel: &str) -> String {
    channel.chars().fold(String::with_capacity(channel.len()), |mut out, character| {
        if matches!(character, '*' | '?' | '[' | '\\') {
            out.push('\\');
        }
        out.push(character);
        out
    })
}

/// Makes the subscriptions that are requested, and makes all subscriptions again after each reconnection.
async fn keep_subscribed(shared: Arc<SubscriberState>) {
    let mut reconnects = shared.client.reconnect_rx();
    let mut changes = shared.client.cluster_change_rx();
    let mut refresh = tokio::time::interval(REFRESH);
    let mut settled = true;
    loop {
        let mut again = false;
        tokio::select! {
            () = shared.state.stopped() => return,
            server = reconnects.recv() => match server {
                Err(RecvError::Closed) => return,
                _ => shared.forget_confirmations(),
            },
            Ok(_) = changes.recv() => shared.forget_confirmations(),
            _ = refresh.tick() => again = true,
            () = shared.changed.notified() => {}
            () = tokio::time::sleep(RETRY), if !settled => {}
        }
        // Without a connection no change is sent, and this task tries again until the connection is made.
        let list = {
            let mut wanted = shared.wanted.lock().expect("no panic while held");
            if again { wanted.changes_and(REFRESH_AT_ONCE) } else { wanted.changes() }
        };
        settled = shared.client.is_connected() && shared.settle(list, &mut reconnects).await;
        if again && !settled {
            shared.forget_confirmations();
        }
    }
}

/// Passes every message from Redis to the sink of the message's channel.
async fn dispatch(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_one_channel_only() {
        assert_eq!(spelled(SubscriptionKind::Plain, "a#/*#"), "a#/*#");
        assert_eq!(spelled(SubscriptionKind::Below, "a#/*#"), r"a#/\*#*");
        assert_eq!(spelled(SubscriptionKind::Unseen, "a-b#/x[*]#"), r"a-b#/x\[\*]#");
    }
}
