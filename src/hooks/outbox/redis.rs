//! Notices in Redis. Any node may deliver them, but only one node does at a time.
//!
//! A notice goes to this node's memory first, and a task (the feeder) moves it to Redis at once. While Redis is away,
//! the courier delivers from memory, so that an outage of Redis does not delay notices. A node that stops loses only
//! the notices that had not reached Redis.
//!
//! A lease keeps the order of notices: only its holder delivers, the oldest notice first. If the holder dies, another
//! node takes over when the lease expires. A holder that is slower than its lease may deliver a notice that another
//! node delivers too. That is within the promise of at-least-once delivery; the id of the CloudEvent identifies
//! duplicates.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use fred::error::{Error as RedisError, ErrorKind};
use fred::types::{FromValue, Value};
use prometheus::IntCounter;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ring::Ring;
use super::{EncodedRequest, MAX_STORED, MAX_WAITING, Outbox};
use crate::hooks::outbox::sender::MAX_PAUSE;
use crate::hooks::retry;
use crate::redis::Redis;
use crate::redis::script::Script;
use crate::telemetry::log_limit::log_seldom;
use crate::telemetry::metrics::Metrics;
use crate::time::millis;

/// Maximum number of notices in one command to Redis.
const BATCH: usize = 64;

/// How long Redis keeps a list of notices that no node reads or writes. After that, the hook is assumed to be removed.
const LIST_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often a node without the lease tries to get it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long notices are delivered from memory after Redis failed, before Redis is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The longest wait for an answer of Redis, whatever time-outs the client is configured with.
const PATIENCE: Duration = Duration::from_secs(5);

/// The Redis keys of one hook. Both hash to the same slot.
struct OutboxKeys {
    /// The LIST of CloudEvents, oldest first.
    notices: String,
    /// STRING: the lease. Its value is the id of the outbox, on some node, that delivers now.
    lease: String,
}

/// Keeps the notices of one hook in Redis.
pub struct RedisOutbox {
    shared: Arc<RedisOutboxState>,
    stop: CancellationToken,
}

struct RedisOutboxState {
    redis: Redis,
    keys: OutboxKeys,
    holder: String,
    lease: Duration,
    ring: Ring,
    scripts: Scripts,
    // Notified when the sender should look for notices again.
    wake: Notify,
    courier: Mutex<SenderState>,
    hook: String,
    dropped: IntCounter,
    stored: IntCounter,
}

/// The sender's state between two notices.
#[derive(Default)]
struct SenderState {
    // Whether the notice that is being delivered came from memory, because Redis did not answer.
    from_memory: bool,
    // A notice that was delivered but could not be removed from Redis.
    finished: Option<Bytes>,
    // Whether Redis has failed. Until this time the courier does not ask Redis while there are notices in memory.
    away_until: Option<Instant>,
}

struct Scripts {
    push: Script,
    take: Script,
    done: Script,
    release: Script,
}

/// The answer of Redis to the question for the oldest notice.
enum NextNotice {
    Notice(EncodedRequest),
    Empty,
    Busy,
    // An entry of the list that roomcast did not write.
    Foreign(Bytes),
}

impl RedisOutbox {
    /// Creates an outbox for one hook, whose calls last at most `call`. Must be called within a Tokio runtime.
    pub fn new(redis: Redis, hook: &str, call: Duration, metrics: &Metrics) -> Self {
        let count = |result| metrics.hook_notices_total.with_label_values(&[hook, result]);
        let keys = OutboxKeys { notices: redis.keys().hook_notices(hook), lease: redis.keys().hook_lease(hook) };
        let shared = Arc::new(RedisOutboxState {
            redis,
            keys,
            holder: Uuid::new_v4().to_string(),
            // The lease is renewed before each attempt, and a pause follows an attempt. So it must outlast an attempt,
            // a pause and an answer of Redis.
            lease: call + MAX_PAUSE + PATIENCE,
            ring: Ring::new(hook, MAX_WAITING, metrics),
            scripts: Scripts {
                push: Script::new(include_str!("push.lua")),
                take: Script::new(include_str!("take.lua")),
                done: Script::new(include_str!("done.lua")),
                release: Script::new(include_str!("release.lua")),
            },
            wake: Notify::new(),
            courier: Mutex::default(),
            hook: hook.to_owned(),
            dropped: count("dropped"),
            stored: count("stored"),
        });
        let stop = CancellationToken::new();
        let (feeder, ended) = (shared.clone(), stop.clone());
        tokio::spawn(async move { ended.run_until_cancelled(feeder.feed()).await });
        Self { shared, stop }
    }
}

impl Drop for RedisOutbox {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Outbox for RedisOutbox {
    fn put(&self, notice: EncodedRequest) {
        self.shared.ring.push(notice);
    }

    async fn oldest(&self) -> EncodedRequest {
        self.shared.oldest().await
    }

    async fn done(&self, notice: &EncodedRequest) {
        self.shared.done(notice).await;
    }

    fn at_risk(&self) -> usize {
        self.shared.ring.len()
    }

    async fn release(&self) {
        // If removing the lease fails, the lease expires by itself.
        let _ = self.shared.release().await;
    }
}

impl RedisOutboxState {
    /// Moves notices from memory to Redis as they arrive.
    async fn feed(&self) {
        let mut failed = 0;
        loop {
            let batch = self.ring.oldest(BATCH);
            if batch.is_empty() {
                self.ring.arrival().await;
                continue;
            }
            match self.push(&batch).await {
                Ok(dropped) => {
                    failed = 0;
                    self.stored.inc_by(batch.len() as u64);
                    self.dropped.inc_by(dropped);
                    for notice in &batch {
                        self.ring.remove(&notice.id);
                    }
                    self.wake.notify_one();
                }
                Err(error) => {
                    failed += 1;
                    tracing::debug!(hook = self.hook, %error, "notices wait in memory: Redis does not accept them");
                    self.wake.notify_one();
                    sleep(retry::CALL.after(failed)).await;
                }
            }
        }
    }

    async fn oldest(&self) -> EncodedRequest {
        loop {
            if let Some(notice) = self.look().await {
                return notice;
            }
            let _ = timeout(LOOK_EVERY, self.wake.notified()).await;
        }
    }

    /// Returns the oldest notice in Redis, or in memory when Redis does not answer.
    async fn look(&self) -> Option<EncodedRequest> {
        let away = self.courier().away_until.is_some_and(|until| until > Instant::now());
        if away && let Some(notice) = self.ring.oldest(1).pop() {
            return Some(notice);
        }
        loop {
            let taken = self.take().await;
            self.note_health(taken.is_ok());
            match taken {
                Ok(NextNotice::Notice(notice)) if !self.is_finished(&notice) => return Some(notice),
                Ok(NextNotice::Notice(notice)) => self.remove(&notice.body).await.ok()?,
                Ok(NextNotice::Foreign(text)) => {
                    log_seldom!(
                        warn,
                        hook = self.hook,
                        key = self.keys.notices,
                        "the list contains an entry that is not a notice"
                    );
                    self.remove(&text).await.ok()?;
                }
                Ok(NextNotice::Empty | NextNotice::Busy) => return None,
                Err(_) => return self.ring.oldest(1).pop(),
            }
        }
    }

    async fn done(&self, notice: &EncodedRequest) {
        let from_memory = self.courier().from_memory;
        let was_in_memory = self.ring.remove(&notice.id);
        // A notice that was moved to Redis meanwhile must also be removed from Redis.
        if from_memory && was_in_memory {
            return;
        }
        let removed = self.remove(&notice.body).await.is_ok();
        self.courier().finished = (!removed).then(|| notice.body.clone());
    }

    fn is_finished(&self, notice: &EncodedRequest) -> bool {
        self.courier().finished.as_ref() == Some(&notice.body)
    }

    fn note_health(&self, well: bool) {
        let mut courier = self.courier();
        courier.from_memory = !well;
        courier.away_until = (!well).then(|| Instant::now() + ASK_AGAIN);
    }

    fn courier(&self) -> MutexGuard<'_, SenderState> {
        self.courier.lock().expect("no thread panics while it holds this lock")
    }

    async fn push(&self, batch: &[EncodedRequest]) -> Result<u64, RedisError> {
        let mut args = vec![number(MAX_STORED as u64), number(millis(LIST_LIFE))];
        args.extend(batch.iter().map(|notice| Value::Bytes(notice.body.clone())));
        self.run(&self.scripts.push, vec![self.keys.notices.clone()], args).await
    }

    async fn take(&self) -> Result<NextNotice, RedisError> {
        let keys = vec![self.keys.notices.clone(), self.keys.lease.clone()];
        let args = vec![Value::from(self.holder.as_str()), number(millis(self.lease)), number(millis(LIST_LIFE))];
        let mut answer: Vec<Bytes> = self.run(&self.scripts.take, keys, args).await?;
        Ok(match (answer.first().map(|kind| &kind[..]), answer.len()) {
            (Some(b"notice"), 2) => {
                let text = answer.swap_remove(1);
                EncodedRequest::open(text.clone()).map_or(NextNotice::Foreign(text), NextNotice::Notice)
            }
            (Some(b"busy"), _) => NextNotice::Busy,
            _ => NextNotice::Empty,
        })
    }

    async fn remove(&self, text: &Bytes) -> Result<(), RedisError> {
        let args = vec![Value::Bytes(text.clone())];
        self.run::<i64>(&self.scripts.done, vec![self.keys.notices.clone()], args).await.map(drop)
    }

    async fn release(&self) -> Result<(), RedisError> {
        let args = vec![Value::from(self.holder.as_str())];
        self.run::<i64>(&self.scripts.release, vec![self.keys.lease.clone()], args).await.map(drop)
    }

    async fn run<R: FromValue>(&self, script: &Script, keys: Vec<String>, args: Vec<Value>) -> Result<R, RedisError> {
        let late = |_| RedisError::new(ErrorKind::Timeout, "Redis did not answer in time");
        timeout(PATIENCE, script.run(&self.redis, keys, args)).await.map_err(late)??.convert()
    }
}

fn number(number: u64) -> Value {
    Value::from(i64::try_from(number).unwrap_or(i64::MAX))
}
