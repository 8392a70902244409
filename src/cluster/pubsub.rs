//! Publishes messages to the other nodes without waiting for Redis, and receives the messages of the other nodes.
//!
//! [`PubSub::publish`] returns at once. One task sends the messages to Redis in the order of the calls, and sends the
//! next message before Redis has answered the earlier ones. A publish that fails is counted once, with its reason, and
//! its receipt reports the failure. Each publish has a number, by which the other nodes count exactly which messages
//! they missed.

mod inbox;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::error::{Error, ErrorKind};
use fred::interfaces::PubsubInterface;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::frame::{Frame, FrameSender, now_us};
use super::gaps::{ArrivalOrder, Gaps, SendTime};
use super::numbers::ChannelNumbers;
use crate::publish::{Receipt, RemoteFailure};
use crate::redis::{
    Budget, ChannelMessage, Losses, MAX_PUBLISH_BYTES, MAX_RECEIVE_BYTES, Redis, ReservedBytes, SubscriptionKind,
};
use crate::telemetry::log_limit::log_seldom;
use crate::telemetry::metrics::Metrics;

pub use inbox::Incoming;
use inbox::SubscriptionQueue;

/// Maximum number of publishes that were sent to Redis and are not answered yet.
const MAX_IN_FLIGHT: usize = 2048;

/// Maximum number of quiet channels whose newest numbers go into one heartbeat.
const MAX_HEADS: usize = 128;

/// After a reconnection to Redis, publishes wait at most this long until every known node is subscribed again.
const LISTENERS_WAIT: Duration = Duration::from_secs(1);

/// How often Redis is asked for the number of subscribers during [`LISTENERS_WAIT`].
const LISTENERS_ASK: Duration = Duration::from_millis(10);

/// A node's publishes and subscriptions in Redis.
pub struct PubSub {
    redis: Redis,
    origin: FrameSender,
    metrics: Arc<Metrics>,
    // One lock guards the numbers and the queue, so that messages leave in the order of their numbers.
    outgoing: Mutex<OutgoingFrame>,
    gaps: Arc<Mutex<Gaps>>,
    listeners: Listeners,
    /// The queues of the subscriptions, in which received messages wait to be handled.
    incoming: Mutex<Vec<mpsc::WeakSender<Incoming>>>,
    /// Limits the bytes of the messages in all queues of `incoming` together.
    received: Budget,
}

/// For each channel, how many nodes are known to listen to it, this node included.
type Listeners = Arc<RwLock<HashMap<Arc<str>, usize>>>;

struct OutgoingFrame {
    numbers: ChannelNumbers,
    budget: Budget,
    queue: mpsc::Sender<SendJob>,
}

struct SendJob {
    channel: Arc<str>,
    /// How the receivers are subscribed to the channel.
    kind: SubscriptionKind,
    frame: Bytes,
    counted: bool,
    queued: Instant,
    /// The permit for the buffer: released when Redis has answered, or when the writer stops waiting for the answer.
    _bytes: ReservedBytes,
    done: oneshot::Sender<Result<usize, RemoteFailure>>,
}

/// Resolves to the number of connections that received a message.
type ReceiverCount = oneshot::Receiver<Result<usize, RemoteFailure>>;

impl PubSub {
    /// Starts the task that writes to Redis. At most `buffer` messages wait to be written.
    pub fn start(redis: Redis, node: &str, metrics: Arc<Metrics>, buffer: usize) -> Arc<Self> {
        let (queue, jobs) = mpsc::channel(buffer);
        let listeners = Listeners::default();
        tokio::spawn(write(
            FrameSenderTask { redis: redis.clone(), metrics: metrics.clone(), listeners: listeners.clone() },
            jobs,
        ));
        let origin = FrameSender { node: node.into(), incarnation: now_us() };
        let outgoing = Mutex::new(OutgoingFrame {
            numbers: ChannelNumbers::default(),
            budget: Budget::new(MAX_PUBLISH_BYTES),
            queue,
        });
        Arc::new(Self {
            redis,
            origin,
            metrics,
            outgoing,
            gaps: Arc::default(),
            listeners,
            incoming: Mutex::default(),
            received: Budget::new(MAX_RECEIVE_BYTES),
        })
    }

    /// This node's id and start time, which are in every message of this node.
    pub fn origin(&self) -> &FrameSender {
        &self.origin
    }

    /// Publishes an event. The event gets a number, and is counted if publishing fails. `body` is not called while
    /// Redis is known to be unreachable.
    ///
    /// # Errors
    /// Returns an error at once when Redis is known to be unreachable or the buffer is full. The receipt
    /// reports every later failure.
    pub fn publish<B: AsRef<[u8]>>(
        &self,
        channel: &Arc<str>,
        body: impl FnOnce() -> B,
    ) -> Result<Receipt, RemoteFailure> {
        self.publish_as(
            SubscriptionKind::Sharded,
            channel,
            || Some(body()),
            |origin, number, body| Frame::encode(origin, number, now_us(), body.as_ref()),
        )
    }

    /// Publishes an event in another format: `body` creates the part of the message that does not depend on the number,
    /// and `frame` adds the number. See [`PubSub::publish`].
    ///
    /// # Errors
    /// Returns the same errors as [`PubSub::publish`], and [`RemoteFailure::Refused`] if there is no body.
    pub fn publish_as<B>(
        &self,
        kind: SubscriptionKind,
        channel: &Arc<str>,
        body: impl FnOnce() -> Option<B>,
        frame: impl FnOnce(&FrameSender, u64, B) -> Bytes,
    ) -> Result<Receipt, RemoteFailure> {
        let body = self.redis.can_publish().then(body);
        let mut outgoing = self.outgoing.lock().expect("no thread panics while it holds this lock");
        // An event that is not sent gets a number too, because the other nodes miss the event and must count it as
        // missing.
        let number = outgoing.numbers.next(channel, Instant::now());
        let body = match body {
            Some(Some(body)) => body,
            Some(None) => return Err(self.count(RemoteFailure::Refused)),
            None => return Err(self.count(RemoteFailure::Away)),
        };
        let frame = frame(&self.origin, number, body);
        outgoing.send(kind, channel, frame, true).map(receipt).map_err(|why| self.count(why))
    }

    /// Publishes a message whose loss does not matter: the message has no number and is not counted.
    ///
    /// # Errors
    /// Returns the same errors as [`PubSub::publish`].
    pub fn tell(&self, channel: &Arc<str>, body: &[u8]) -> Result<Receipt, RemoteFailure> {
        self.send_as(SubscriptionKind::Sharded, channel, Frame::encode(&self.origin, 0, now_us(), body))
    }

    /// Like [`PubSub::tell`], but waits for Redis. Returns how many nodes received the message, this node included if
    /// it listens.
    ///
    /// # Errors
    /// Returns the same errors as [`PubSub::publish`].
    pub async fn tell_counted(&self, channel: &Arc<str>, body: &[u8]) -> Result<usize, RemoteFailure> {
        self.hand_over(SubscriptionKind::Sharded, channel, Frame::encode(&self.origin, 0, now_us(), body))?
            .await
            .unwrap_or(Err(RemoteFailure::Away))
    }

    /// Publishes bytes of another protocol unchanged.
    ///
    /// # Errors
    /// Returns the same errors as [`PubSub::publish`].
    pub fn send_as(&self, kind: SubscriptionKind, channel: &Arc<str>, bytes: Bytes) -> Result<Receipt, RemoteFailure> {
        self.hand_over(kind, channel, bytes).map(receipt)
    }

    fn hand_over(
        &self,
        kind: SubscriptionKind,
        channel: &Arc<str>,
        bytes: Bytes,
    ) -> Result<ReceiverCount, RemoteFailure> {
        if !self.redis.can_publish() {
            return Err(RemoteFailure::Away);
        }
        self.outgoing.lock().expect("no thread panics while it holds this lock").send(kind, channel, bytes, false)
    }

    /// Subscribes to the messages of other nodes on a channel; the messages arrive in order. At most `buffer` messages
    /// wait, and [`MAX_RECEIVE_BYTES`] in all such queues; further ones are dropped and counted. A subscription that is
    /// made while Redis is unreachable begins when Redis is reachable again.
    pub fn subscribe(&self, channel: &Arc<str>, buffer: usize) -> mpsc::Receiver<Incoming> {
        let (inbox, incoming) =
            SubscriptionQueue::new(buffer, self.reader(), self.received.clone(), self.metrics.clone());
        self.incoming.lock().expect("no thread panics while it holds this lock").push(inbox.queue());
        self.gaps.lock().expect("no thread panics while it holds this lock").listen(channel);
        self.redis.subscriber().subscribe(channel.clone(), move |message| inbox.take(&message));
        incoming
    }

    /// Returns a reader of the messages that other nodes publish.
    pub(super) fn reader(&self) -> FrameReceiver {
        let losses = self.redis.subscriber().losses().clone();
        FrameReceiver { own: self.origin.clone(), metrics: self.metrics.clone(), gaps: self.gaps.clone(), losses }
    }

    /// The record from which messages that never arrived are counted.
    pub(super) fn gaps(&self) -> &Arc<Mutex<Gaps>> {
        &self.gaps
    }

    /// How many messages wait to be written to Redis, and how many received messages wait to be handled.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let depth = |queue: &mpsc::Sender<Incoming>| queue.max_capacity() - queue.capacity();
        let outgoing = self.outgoing.lock().expect("no thread panics while it holds this lock");
        let towards = outgoing.queue.max_capacity() - outgoing.queue.capacity();
        drop(outgoing);
        let mut incoming = self.incoming.lock().expect("no thread panics while it holds this lock");
        incoming.retain(|queue| queue.strong_count() > 0);
        (towards, incoming.iter().filter_map(mpsc::WeakSender::upgrade).map(|queue| depth(&queue)).sum())
    }

    /// The channels for frames that this node listens to for as long as it runs.
    pub(super) fn listens(&self) -> Vec<Arc<str>> {
        self.gaps.lock().expect("no thread panics while it holds this lock").listens()
    }

    /// Sets how many nodes are known to listen to each channel. A publish that fewer connections receive counts as
    /// failed.
    pub(super) fn expect_listeners(&self, listeners: HashMap<Arc<str>, usize>) {
        *self.listeners.write().expect("no thread panics while it holds this lock") = listeners;
    }

    /// The newest message number on each channel that every node listens to (0 before the first message), and on
    /// channels on which this node has published nothing for a second. The other nodes compare these numbers with the
    /// messages that they have received.
    ///
    /// The second value is the number of runs of numbers that this node has begun (see the module `numbers`).
    pub(super) fn heads(&self) -> (HashMap<Arc<str>, u64>, u32) {
        let listens = self.listens();
        let mut outgoing = self.outgoing.lock().expect("no thread panics while it holds this lock");
        let mut heads = outgoing.numbers.heads(MAX_HEADS, Instant::now());
        heads.extend(listens.into_iter().map(|channel| {
            let head = outgoing.numbers.head(&channel);
            (channel, head)
        }));
        (heads, outgoing.numbers.runs())
    }

    /// Compares the message numbers in another node's heartbeat with the messages that have arrived, and counts the
    /// missing messages.
    pub(super) fn note_heads(&self, hello: &Frame, heads: &HashMap<Arc<str>, u64>, runs: u32) {
        let (origin, sent) = (&hello.origin, sent(hello));
        let mut gaps = self.gaps.lock().expect("no thread panics while it holds this lock");
        for (channel, head) in heads {
            let missing = gaps.note_head(origin, channel, *head, sent);
            count_missed(&self.metrics, self.redis.subscriber().losses(), missing);
        }
        gaps.note_runs(origin, runs, sent);
    }

    fn count(&self, why: RemoteFailure) -> RemoteFailure {
        self.metrics.cluster_not_carried_total.with_label_values(&[why.as_str()]).inc();
        why
    }
}

fn receipt(heard: ReceiverCount) -> Receipt {
    Box::pin(async move { heard.await.unwrap_or(Err(RemoteFailure::Away)).map(drop) })
}

async fn subscribers(redis: &Redis, channel: &str) -> Result<u64, Error> {
    let (_, count): (String, u64) = redis.client().pubsub_shardnumsub(channel).await?;
    Ok(count)
}

/// When a frame was sent, by this node's clock. If the sender's clock is ahead, the result is the present moment.
fn sent(frame: &Frame) -> SendTime {
    let now = Instant::now();
    SendTime { at: now.checked_sub(frame.age()).unwrap_or(now), uptime: frame.uptime() }
}

fn count_missed(metrics: &Metrics, losses: &Losses, missing: u64) {
    if missing > 0 {
        losses.note();
        metrics.cluster_missed_total.with_label_values::<&str>(&[]).inc_by(missing);
    }
}

/// Reads the frames of other nodes and counts missing frames.
#[derive(Clone)]
pub(super) struct FrameReceiver {
    own: FrameSender,
    metrics: Arc<Metrics>,
    gaps: Arc<Mutex<Gaps>>,
    losses: Losses,
}

// === impl Reader ===

impl FrameReceiver {
    /// Reads a frame. Returns `None` if the frame is our own, cannot be read, or arrives after a newer one. Counts the
    /// frames that are missing before it.
    pub(super) fn read(&self, message: &ChannelMessage) -> Option<Frame> {
        self.read_frame(&message.channel, message.body.clone())
    }

    /// Like [`FrameReceiver::read`], for a frame inside another message.
    pub(super) fn read_frame(&self, channel: &Arc<str>, body: Bytes) -> Option<Frame> {
        let frame = match Frame::decode(body) {
            Ok(frame) if frame.origin == self.own => return None,
            Ok(frame) => frame,
            Err(error) => {
                log_seldom!(warn, redis.channel = %channel, %error, "ignored an unreadable message");
                self.metrics.cluster_dropped_total.with_label_values(&["unreadable"]).inc();
                return None;
            }
        };
        if frame.number > 0 {
            let mut gaps = self.gaps.lock().expect("no thread panics while it holds this lock");
            let came = gaps.note(&frame.origin, channel, frame.number, sent(&frame));
            drop(gaps);
            match came {
                ArrivalOrder::After(missing) => count_missed(&self.metrics, &self.losses, missing),
                ArrivalOrder::Late => {
                    self.metrics.cluster_dropped_total.with_label_values(&["late"]).inc();
                    return None;
                }
            }
        }
        Some(frame)
    }
}

// === impl Outgoing ===

impl OutgoingFrame {
    fn send(
        &mut self,
        kind: SubscriptionKind,
        channel: &Arc<str>,
        frame: Bytes,
        counted: bool,
    ) -> Result<ReceiverCount, RemoteFailure> {
        let (done, heard) = oneshot::channel();
        let _bytes = self.budget.take(frame.len()).ok_or(RemoteFailure::Full)?;
        let job = SendJob { channel: channel.clone(), kind, frame, counted, queued: Instant::now(), _bytes, done };
        match self.queue.try_send(job) {
            Ok(()) => Ok(heard),
            Err(TrySendError::Full(_)) => Err(RemoteFailure::Full),
            Err(TrySendError::Closed(_)) => Err(RemoteFailure::Away),
        }
    }
}

#[derive(Clone)]
struct FrameSenderTask {
    redis: Redis,
    metrics: Arc<Metrics>,
    listeners: Listeners,
}

/// Sends messages to Redis in their order, without waiting for the answer to one before sending the next.
async fn write(writer: FrameSenderTask, mut jobs: mpsc::Receiver<SendJob>) {
    let mut in_flight = FuturesUnordered::new();
    let mut connections = 0;
    loop {
        tokio::select! {
            biased;
            Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
            job = jobs.recv(), if in_flight.len() < MAX_IN_FLIGHT => {
                let Some(job) = job else { break };
                if writer.redis.connections() != connections && writer.redis.can_publish() {
                    connections = writer.redis.connections();
                    // A time-out is no error here, because the receipts report each publish that not all nodes
                    // received.
                    let _ = tokio::time::timeout(LISTENERS_WAIT, writer.listeners_are_back()).await;
                }
                let mut sending = Box::pin(writer.clone().send(job));
                // The first poll of the future gives the command to fred. Polling here keeps the commands in order.
                if futures_util::poll!(&mut sending).is_pending() {
                    in_flight.push(sending);
                }
            }
        }
    }
    while in_flight.next().await.is_some() {}
}

// === impl Writer ===

impl FrameSenderTask {
    async fn send(self, job: SendJob) {
        let outcome = if self.redis.can_publish() {
            let client = self.redis.client();
            let sent: Result<usize, Error> = match job.kind {
                SubscriptionKind::Sharded => client.spublish(&*job.channel, job.frame).await,
                SubscriptionKind::Plain | SubscriptionKind::Unseen | SubscriptionKind::Below => {
                    client.publish(&*job.channel, job.frame).await
                }
            };
            match sent {
                Ok(heard) if job.counted && heard < self.expected(&job.channel) => Err(RemoteFailure::Unheard),
                // A caller that waits for the receipt gets a success only if a primary took the publish.
                Ok(heard) if job.counted && !job.done.is_closed() => self.proven().await.map(|()| heard),
                Ok(heard) => Ok(heard),
                Err(error) => {
                    self.redis.notice(&error, &job.channel);
                    Err(classify(&error))
                }
            }
        } else {
            Err(RemoteFailure::Away)
        };
        self.metrics.cluster_publish_seconds.with_label_values::<&str>(&[]).observe(job.queued.elapsed().as_secs_f64());
        match outcome {
            Ok(_) if job.counted => self.metrics.cluster_carried_total.with_label_values::<&str>(&[]).inc(),
            Err(why) if job.counted => {
                self.metrics.cluster_not_carried_total.with_label_values(&[why.as_str()]).inc();
            }
            _ => {}
        }
        // The caller may have dropped the receiver of the receipt.
        let _ = job.done.send(outcome);
    }

    /// Checks that the server that took the publish is the primary. A replica passes a publish only to the nodes that
    /// are still connected to the replica.
    async fn proven(&self) -> Result<(), RemoteFailure> {
        self.redis.proves_primary().await.map_err(|error| classify(&error))
    }

    /// Waits until each channel has as many subscribers as nodes are known to listen to it.
    async fn listeners_are_back(&self) {
        while self.redis.can_publish() && !self.all_listen().await {
            tokio::time::sleep(LISTENERS_ASK).await;
        }
    }

    async fn all_listen(&self) -> bool {
        let expected = self.listeners.read().expect("no thread panics while it holds this lock").clone();
        for (channel, expected) in expected {
            if subscribers(&self.redis, &channel).await.is_ok_and(|count| count < expected as u64) {
                return false;
            }
        }
        true
    }

    fn expected(&self, channel: &str) -> usize {
        self.listeners.read().expect("no thread panics while it holds this lock").get(channel).copied().unwrap_or(0)
    }
}

fn classify(error: &Error) -> RemoteFailure {
    match error.kind() {
        // The command was sent and perhaps executed, but was not answered: the command timed out, or the connection
        // broke.
        ErrorKind::Timeout | ErrorKind::IO => RemoteFailure::Timeout,
        // The command was not sent, because fred knew that there was no connection.
        ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Backpressure => RemoteFailure::Away,
        _ => RemoteFailure::Refused,
    }
}
