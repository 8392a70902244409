//! Publishing to the other nodes without waiting for Redis, and hearing from them.
//!
//! [`PubSub::publish`] returns at once. One task writes in the order of the calls and keeps many publishes in
//! flight; what does not get through is counted once, with its reason, and told by the receipt. Each publish has a
//! number, so that the others count exactly what they missed.

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

use super::frame::{Frame, Origin, now_us};
use super::gaps::{Came, Gaps, Sent};
use super::numbers::Numbers;
use crate::publish::{NotCarried, Receipt};
use crate::redis::{Budget, Kind, Losses, MAX_PUBLISH_BYTES, Message, Redis, Taken};
use crate::telemetry::metrics::Metrics;

/// At most so many publishes are on their way to Redis and back.
const MAX_IN_FLIGHT: usize = 2048;

/// At most so many rooms' newest numbers are told at once.
const MAX_HEADS: usize = 128;

/// After Redis was away, what is published waits for so long until every node that is known listens again.
const LISTENERS_WAIT: Duration = Duration::from_secs(1);

/// How often it is asked who listens, meanwhile.
const LISTENERS_ASK: Duration = Duration::from_millis(10);

/// A node's sharded pub/sub.
pub struct PubSub {
    redis: Redis,
    origin: Origin,
    metrics: Arc<Metrics>,
    // The numbers and the queue change together, so that numbers leave in order.
    outgoing: Mutex<Outgoing>,
    gaps: Arc<Mutex<Gaps>>,
    listeners: Listeners,
    /// What arrives waits there.
    incoming: Mutex<Vec<mpsc::WeakSender<Incoming>>>,
}

/// How many nodes are known to listen to a channel, this one included.
type Listeners = Arc<RwLock<HashMap<Arc<str>, usize>>>;

struct Outgoing {
    numbers: Numbers,
    budget: Budget,
    queue: mpsc::Sender<Job>,
}

struct Job {
    channel: Arc<str>,
    /// How its subscribers listen.
    kind: Kind,
    frame: Bytes,
    counted: bool,
    queued: Instant,
    /// Given back when Redis has answered, or is not waited for any more.
    _bytes: Taken,
    done: oneshot::Sender<Result<usize, NotCarried>>,
}

/// Resolves to how many connections have heard a message.
type Heard = oneshot::Receiver<Result<usize, NotCarried>>;

/// A message of another node.
#[derive(Debug)]
pub struct Incoming {
    /// The channel.
    pub channel: Arc<str>,
    /// Who sent it, when, and what.
    pub frame: Frame,
}

impl PubSub {
    /// Begins to write. `buffer` bounds what waits to be written.
    pub fn start(redis: Redis, node: &str, metrics: Arc<Metrics>, buffer: usize) -> Arc<Self> {
        let (queue, jobs) = mpsc::channel(buffer);
        let listeners = Listeners::default();
        tokio::spawn(write(
            Writer { redis: redis.clone(), metrics: metrics.clone(), listeners: listeners.clone() },
            jobs,
        ));
        let origin = Origin { node: node.into(), incarnation: now_us() };
        let outgoing =
            Mutex::new(Outgoing { numbers: Numbers::default(), budget: Budget::new(MAX_PUBLISH_BYTES), queue });
        Arc::new(Self { redis, origin, metrics, outgoing, gaps: Arc::default(), listeners, incoming: Mutex::default() })
    }

    /// This node, as the others know it.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Publishes an event: numbered, and counted when it does not get through. `body` is not asked while Redis is away.
    ///
    /// # Errors
    /// At once when Redis is known to be away or the buffer is full. Otherwise the receipt tells.
    pub fn publish<B: AsRef<[u8]>>(&self, channel: &Arc<str>, body: impl FnOnce() -> B) -> Result<Receipt, NotCarried> {
        self.publish_as(
            Kind::Sharded,
            channel,
            || Some(body()),
            |origin, number, body| Frame::encode(origin, number, now_us(), body.as_ref()),
        )
    }

    /// Publishes an event in another form: `body` makes what needs no number, `frame` adds it. See [`PubSub::publish`].
    ///
    /// # Errors
    /// As [`PubSub::publish`]; [`NotCarried::Refused`] when there is no body.
    pub fn publish_as<B>(
        &self,
        kind: Kind,
        channel: &Arc<str>,
        body: impl FnOnce() -> Option<B>,
        frame: impl FnOnce(&Origin, u64, B) -> Bytes,
    ) -> Result<Receipt, NotCarried> {
        let body = self.redis.can_publish().then(body);
        let mut outgoing = self.outgoing.lock().expect("no panic while held");
        // What is not carried has a number too: the other nodes have missed it.
        let number = outgoing.numbers.next(channel, Instant::now());
        let body = match body {
            Some(Some(body)) => body,
            Some(None) => return Err(self.count(NotCarried::Refused)),
            None => return Err(self.count(NotCarried::Away)),
        };
        let frame = frame(&self.origin, number, body);
        outgoing.send(kind, channel, frame, true).map(receipt).map_err(|why| self.count(why))
    }

    /// Tells something that may be lost: not numbered, not counted.
    ///
    /// # Errors
    /// As [`PubSub::publish`].
    pub fn tell(&self, channel: &Arc<str>, body: &[u8]) -> Result<Receipt, NotCarried> {
        self.send_as(Kind::Sharded, channel, Frame::encode(&self.origin, 0, now_us(), body))
    }

    /// As [`PubSub::tell`]. Waits for Redis, and returns how many nodes have heard it, this one among them if it listens.
    ///
    /// # Errors
    /// As [`PubSub::publish`].
    pub async fn tell_counted(&self, channel: &Arc<str>, body: &[u8]) -> Result<usize, NotCarried> {
        self.hand_over(Kind::Sharded, channel, Frame::encode(&self.origin, 0, now_us(), body))?
            .await
            .unwrap_or(Err(NotCarried::Away))
    }

    /// Publishes bytes of another protocol as they are.
    ///
    /// # Errors
    /// As [`PubSub::publish`].
    pub fn send_as(&self, kind: Kind, channel: &Arc<str>, bytes: Bytes) -> Result<Receipt, NotCarried> {
        self.hand_over(kind, channel, bytes).map(receipt)
    }

    fn hand_over(&self, kind: Kind, channel: &Arc<str>, bytes: Bytes) -> Result<Heard, NotCarried> {
        if !self.redis.can_publish() {
            return Err(NotCarried::Away);
        }
        self.outgoing.lock().expect("no panic while held").send(kind, channel, bytes, false)
    }

    /// The messages of other nodes on a channel, in order; `buffer` of them may wait. A subscription that is asked for while
    /// Redis is away begins when it comes.
    pub fn subscribe(&self, channel: &Arc<str>, buffer: usize) -> mpsc::Receiver<Incoming> {
        let (queue, incoming) = mpsc::channel(buffer);
        self.incoming.lock().expect("no panic while held").push(queue.downgrade());
        self.gaps.lock().expect("no panic while held").listen(channel);
        let reader = self.reader();
        self.redis.subscriber().subscribe(channel.clone(), move |message| {
            let Some(frame) = reader.read(&message) else { return };
            if let Err(TrySendError::Full(_)) = queue.try_send(Incoming { channel: message.channel, frame }) {
                reader.metrics.cluster_dropped_total.with_label_values(&["full"]).inc();
            }
        });
        incoming
    }

    /// Reads what other nodes published.
    pub(super) fn reader(&self) -> Reader {
        let losses = self.redis.subscriber().losses().clone();
        Reader { own: self.origin.clone(), metrics: self.metrics.clone(), gaps: self.gaps.clone(), losses }
    }

    /// Who counts what never arrived.
    pub(super) fn gaps(&self) -> &Arc<Mutex<Gaps>> {
        &self.gaps
    }

    /// The messages on a channel of another protocol, our own included, each turned into a `T`.
    pub fn subscribe_plain<T: Send + 'static>(
        &self,
        channel: &Arc<str>,
        buffer: usize,
        turn: impl Fn(Message) -> T + Send + Sync + 'static,
    ) -> mpsc::Receiver<T> {
        let (queue, incoming) = mpsc::channel(buffer);
        let metrics = self.metrics.clone();
        self.redis.subscriber().subscribe(channel.clone(), move |message| {
            if let Err(TrySendError::Full(_)) = queue.try_send(turn(message)) {
                metrics.cluster_dropped_total.with_label_values(&["full"]).inc();
            }
        });
        incoming
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, channel: &str) {
        self.redis.subscriber().unsubscribe(channel);
    }

    /// How many connections are subscribed to a channel, on the Redis node that has it.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn subscribers(&self, channel: &str) -> Result<u64, Error> {
        subscribers(&self.redis, channel).await
    }

    /// How many messages wait to be written to Redis, and how many of other nodes wait to be handled.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let depth = |queue: &mpsc::Sender<Incoming>| queue.max_capacity() - queue.capacity();
        let outgoing = self.outgoing.lock().expect("no panic while held");
        let towards = outgoing.queue.max_capacity() - outgoing.queue.capacity();
        drop(outgoing);
        let mut incoming = self.incoming.lock().expect("no panic while held");
        incoming.retain(|queue| queue.strong_count() > 0);
        (towards, incoming.iter().filter_map(mpsc::WeakSender::upgrade).map(|queue| depth(&queue)).sum())
    }

    /// The channels that this node listens to, our own protocol only.
    pub(super) fn listens(&self) -> Vec<Arc<str>> {
        self.gaps.lock().expect("no panic while held").listens()
    }

    /// Sets how many nodes are known to listen to each channel: a publish that fewer hear is not carried.
    pub(super) fn expect_listeners(&self, listeners: HashMap<Arc<str>, usize>) {
        *self.listeners.write().expect("no panic while held") = listeners;
    }

    /// The newest number on each channel that all nodes hear, 0 before the first, and on rooms that have fallen quiet, for
    /// the others to compare with what they got.
    /// Beside them: how many runs of numbers it has begun.
    pub(super) fn heads(&self) -> (HashMap<Arc<str>, u64>, u32) {
        let listens = self.listens();
        let mut outgoing = self.outgoing.lock().expect("no panic while held");
        let mut heads = outgoing.numbers.heads(MAX_HEADS, Instant::now());
        heads.extend(listens.into_iter().map(|channel| {
            let head = outgoing.numbers.head(&channel);
            (channel, head)
        }));
        (heads, outgoing.numbers.runs())
    }

    /// Compares what another node says it has sent with what arrived.
    pub(super) fn note_heads(&self, hello: &Frame, heads: &HashMap<Arc<str>, u64>, runs: u32) {
        let (origin, sent) = (&hello.origin, sent(hello));
        let mut gaps = self.gaps.lock().expect("no panic while held");
        for (channel, head) in heads {
            let missing = gaps.note_head(origin, channel, *head, sent);
            count_missed(&self.metrics, self.redis.subscriber().losses(), missing);
        }
        gaps.note_runs(origin, runs, sent);
    }

    fn count(&self, why: NotCarried) -> NotCarried {
        self.metrics.cluster_not_carried_total.with_label_values(&[why.as_str()]).inc();
        why
    }
}

fn receipt(heard: Heard) -> Receipt {
    Box::pin(async move { heard.await.unwrap_or(Err(NotCarried::Away)).map(drop) })
}

async fn subscribers(redis: &Redis, channel: &str) -> Result<u64, Error> {
    let (_, count): (String, u64) = redis.client().pubsub_shardnumsub(channel).await?;
    Ok(count)
}

/// When a frame was sent. A sender whose clock is ahead has sent it now.
fn sent(frame: &Frame) -> Sent {
    let now = Instant::now();
    Sent { at: now.checked_sub(frame.age()).unwrap_or(now), uptime: frame.uptime() }
}

fn count_missed(metrics: &Metrics, losses: &Losses, missing: u64) {
    if missing > 0 {
        losses.note();
        metrics.cluster_missed_total.with_label_values::<&str>(&[]).inc_by(missing);
    }
}

/// Reads what other nodes published.
#[derive(Clone)]
pub(super) struct Reader {
    own: Origin,
    metrics: Arc<Metrics>,
    gaps: Arc<Mutex<Gaps>>,
    losses: Losses,
}

// === impl Reader ===

impl Reader {
    /// The frame; `None` when it is our own or cannot be read. Counts what was missed before it.
    pub(super) fn read(&self, message: &Message) -> Option<Frame> {
        self.read_frame(&message.channel, message.body.clone())
    }

    /// See [`Reader::read`].
    pub(super) fn read_frame(&self, channel: &Arc<str>, body: Bytes) -> Option<Frame> {
        let frame = match Frame::decode(body) {
            Ok(frame) if frame.origin == self.own => return None,
            Ok(frame) => frame,
            Err(error) => {
                tracing::debug!(redis.channel = %channel, %error, "ignored a message");
                self.metrics.cluster_dropped_total.with_label_values(&["unreadable"]).inc();
                return None;
            }
        };
        if frame.number > 0 {
            let mut gaps = self.gaps.lock().expect("no panic while held");
            let came = gaps.note(&frame.origin, channel, frame.number, sent(&frame));
            drop(gaps);
            match came {
                Came::After(missing) => count_missed(&self.metrics, &self.losses, missing),
                Came::Late => {
                    self.metrics.cluster_dropped_total.with_label_values(&["late"]).inc();
                    return None;
                }
            }
        }
        Some(frame)
    }
}

// === impl Outgoing ===

impl Outgoing {
    fn send(&mut self, kind: Kind, channel: &Arc<str>, frame: Bytes, counted: bool) -> Result<Heard, NotCarried> {
        let (done, heard) = oneshot::channel();
        let _bytes = self.budget.take(frame.len()).ok_or(NotCarried::Full)?;
        let job = Job { channel: channel.clone(), kind, frame, counted, queued: Instant::now(), _bytes, done };
        match self.queue.try_send(job) {
            Ok(()) => Ok(heard),
            Err(TrySendError::Full(_)) => Err(NotCarried::Full),
            Err(TrySendError::Closed(_)) => Err(NotCarried::Away),
        }
    }
}

#[derive(Clone)]
struct Writer {
    redis: Redis,
    metrics: Arc<Metrics>,
    listeners: Listeners,
}

/// Writes in order, and keeps many publishes in flight.
async fn write(writer: Writer, mut jobs: mpsc::Receiver<Job>) {
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
                    // Giving up is right as well: receipts then say who did not hear.
                    let _ = tokio::time::timeout(LISTENERS_WAIT, writer.listeners_are_back()).await;
                }
                let mut sending = Box::pin(writer.clone().send(job));
                // The first poll hands the command to fred: polled here, commands are handed over in order.
                if futures_util::poll!(&mut sending).is_pending() {
                    in_flight.push(sending);
                }
            }
        }
    }
    while in_flight.next().await.is_some() {}
}

// === impl Writer ===

impl Writer {
    async fn send(self, job: Job) {
        let outcome = if self.redis.can_publish() {
            let client = self.redis.client();
            let sent: Result<usize, Error> = match job.kind {
                Kind::Sharded => client.spublish(&*job.channel, job.frame).await,
                Kind::Plain | Kind::Unseen | Kind::Below => client.publish(&*job.channel, job.frame).await,
            };
            match sent {
                Ok(heard) if job.counted && heard < self.expected(&job.channel) => Err(NotCarried::Unheard),
                // A publisher that waits for the answer is told only of what a primary took.
                Ok(heard) if job.counted && !job.done.is_closed() => self.proven().await.map(|()| heard),
                Ok(heard) => Ok(heard),
                Err(error) => {
                    self.redis.notice(&error, &job.channel);
                    Err(classify(&error))
                }
            }
        } else {
            Err(NotCarried::Away)
        };
        self.metrics.cluster_publish_seconds.with_label_values::<&str>(&[]).observe(job.queued.elapsed().as_secs_f64());
        match outcome {
            Ok(_) if job.counted => self.metrics.cluster_carried_total.with_label_values::<&str>(&[]).inc(),
            Err(why) if job.counted => {
                self.metrics.cluster_not_carried_total.with_label_values(&[why.as_str()]).inc();
            }
            _ => {}
        }
        // The publisher may not want to know.
        let _ = job.done.send(outcome);
    }

    /// Whether the server that took the publish is the primary: a replica reaches only those who have not left it.
    async fn proven(&self) -> Result<(), NotCarried> {
        self.redis.proves_primary().await.map_err(|error| classify(&error))
    }

    /// Waits until every node that is known listens to what it listened to.
    async fn listeners_are_back(&self) {
        while self.redis.can_publish() && !self.all_listen().await {
            tokio::time::sleep(LISTENERS_ASK).await;
        }
    }

    async fn all_listen(&self) -> bool {
        let expected = self.listeners.read().expect("no panic while held").clone();
        for (channel, expected) in expected {
            if subscribers(&self.redis, &channel).await.is_ok_and(|count| count < expected as u64) {
                return false;
            }
        }
        true
    }

    fn expected(&self, channel: &str) -> usize {
        self.listeners.read().expect("no panic while held").get(channel).copied().unwrap_or(0)
    }
}

fn classify(error: &Error) -> NotCarried {
    match error.kind() {
        // Written, perhaps carried out, but the connection broke before the answer.
        ErrorKind::Timeout | ErrorKind::IO => NotCarried::Timeout,
        // Not written: fred knew that there is no connection.
        ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Backpressure => NotCarried::Away,
        _ => NotCarried::Refused,
    }
}
