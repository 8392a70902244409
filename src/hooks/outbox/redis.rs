//! Notices kept in Redis: any node may deliver them, one at a time does.
//!
//! A notice is put into this node's memory first, and a feeder moves it to Redis at once; when Redis is away, the
//! courier delivers from memory instead, so that an outage of Redis delays nothing. A node that ends loses only what
//! had not reached Redis.
//!
//! The lease makes the order: only its holder delivers, the oldest first. A holder that dies is replaced when its lease
//! ends. A holder that is slower than its lease may deliver a notice that another node delivers too; at least once is
//! what is promised, and the CloudEvent's id tells copies apart.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use fred::bytes_utils::Str;
use fred::error::{Error as RedisError, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::scripts::Script as Digest;
use fred::types::{ClusterHash, CustomCommand, FromValue, Value};
use futures_util::future::BoxFuture;
use prometheus::IntCounter;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ring::Ring;
use super::{Envelope, MAX_STORED, MAX_WAITING, Outbox};
use crate::hooks::outbox::courier::MAX_PAUSE;
use crate::hooks::retry;
use crate::telemetry::log_gate::log_seldom;
use crate::telemetry::metrics::Metrics;

/// At most so many notices go to Redis in one command.
const BATCH: usize = 64;

/// A list that nobody has touched for so long belongs to a hook that is gone.
const LIST_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often a node that does not deliver looks whether it should.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long notices are delivered from memory before a Redis that has failed is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The longest that Redis is waited for, whatever its client is configured with.
const PATIENCE: Duration = Duration::from_secs(5);

/// The keys of one hook; both must live in one slot.
#[derive(Debug, Clone)]
pub struct OutboxKeys {
    /// LIST of CloudEvents, oldest first.
    pub notices: String,
    /// STRING: the node that delivers now.
    pub lease: String,
}

/// Keeps the notices of one hook in Redis.
pub struct RedisOutbox<C> {
    shared: Arc<Shared<C>>,
    stop: CancellationToken,
}

/// Told of each error of Redis.
pub type Failed = Arc<dyn Fn(&RedisError) + Send + Sync>;

struct Shared<C> {
    client: C,
    failed: Failed,
    keys: OutboxKeys,
    holder: String,
    lease: Duration,
    ring: Ring,
    scripts: Scripts,
    // Something may have changed for the courier.
    wake: Notify,
    courier: Mutex<Courier>,
    hook: String,
    dropped: IntCounter,
    stored: IntCounter,
}

/// What the courier remembers from one notice to the next.
#[derive(Default)]
struct Courier {
    // The notice under way is one that Redis has not taken yet.
    from_memory: bool,
    // A notice that was delivered, but could not be removed from Redis.
    finished: Option<Bytes>,
    // Redis has failed; it is not asked before then while memory has notices.
    away_until: Option<Instant>,
}

/// A Lua script and its digest.
struct Script {
    text: &'static str,
    digest: Str,
}

/// Where the first key stands among the arguments of EVAL and EVALSHA.
const FIRST_KEY: usize = 2;

struct Scripts {
    push: Script,
    take: Script,
    done: Script,
    release: Script,
}

/// What Redis says of the oldest notice.
enum Taken {
    Notice(Envelope),
    Empty,
    Busy,
    // Nothing that this program wrote.
    Foreign(Bytes),
}

impl<C: ClientLike + Send + Sync + 'static> RedisOutbox<C> {
    /// An outbox for one hook, whose calls last at most `call`. Must be called within a Tokio runtime.
    pub fn new((client, failed): (C, Failed), keys: OutboxKeys, hook: &str, call: Duration, metrics: &Metrics) -> Self {
        let count = |result| metrics.hook_notices_total.with_label_values(&[hook, result]);
        let shared = Arc::new(Shared {
            client,
            failed,
            keys,
            holder: Uuid::new_v4().to_string(),
            // Renewed before each attempt, and an attempt is followed by a pause.
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

impl<C> Drop for RedisOutbox<C> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl<C: ClientLike + Send + Sync + 'static> Outbox for RedisOutbox<C> {
    fn put(&self, notice: Envelope) {
        self.shared.ring.push(notice);
    }

    fn oldest(&self) -> BoxFuture<'_, Envelope> {
        Box::pin(self.shared.oldest())
    }

    fn done<'a>(&'a self, notice: &'a Envelope) -> BoxFuture<'a, ()> {
        Box::pin(self.shared.done(notice))
    }

    fn at_risk(&self) -> usize {
        self.shared.ring.len()
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // In vain, the lease ends by itself.
            let _ = self.shared.release().await;
        })
    }
}

impl<C: ClientLike + Send + Sync + 'static> Shared<C> {
    /// Moves notices to Redis as they come.
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
                    tracing::debug!(hook = self.hook, %error, "notices wait in memory: Redis does not take them");
                    self.wake.notify_one();
                    sleep(retry::CALL.after(failed)).await;
                }
            }
        }
    }

    async fn oldest(&self) -> Envelope {
        loop {
            if let Some(notice) = self.look().await {
                return notice;
            }
            let _ = timeout(LOOK_EVERY, self.wake.notified()).await;
        }
    }

    /// The oldest notice in Redis; in memory, when Redis is away.
    async fn look(&self) -> Option<Envelope> {
        let away = self.courier().away_until.is_some_and(|until| until > Instant::now());
        if away && let Some(notice) = self.ring.oldest(1).pop() {
            return Some(notice);
        }
        loop {
            let taken = self.take().await;
            self.note_health(taken.is_ok());
            match taken {
                Ok(Taken::Notice(notice)) if !self.is_finished(&notice) => return Some(notice),
                Ok(Taken::Notice(notice)) => self.remove(&notice.body).await.ok()?,
                Ok(Taken::Foreign(text)) => {
                    log_seldom!(warn, hook = self.hook, key = self.keys.notices, "the list holds what is no notice");
                    self.remove(&text).await.ok()?;
                }
                Ok(Taken::Empty | Taken::Busy) => return None,
                Err(_) => return self.ring.oldest(1).pop(),
            }
        }
    }

    async fn done(&self, notice: &Envelope) {
        let from_memory = self.courier().from_memory;
        let was_in_memory = self.ring.remove(&notice.id);
        // What the feeder has moved meanwhile is removed from Redis like any other.
        if from_memory && was_in_memory {
            return;
        }
        let removed = self.remove(&notice.body).await.is_ok();
        self.courier().finished = (!removed).then(|| notice.body.clone());
    }

    fn is_finished(&self, notice: &Envelope) -> bool {
        self.courier().finished.as_ref() == Some(&notice.body)
    }

    fn note_health(&self, well: bool) {
        let mut courier = self.courier();
        courier.from_memory = !well;
        courier.away_until = (!well).then(|| Instant::now() + ASK_AGAIN);
    }

    fn courier(&self) -> MutexGuard<'_, Courier> {
        self.courier.lock().expect("no panic while held")
    }

    async fn push(&self, batch: &[Envelope]) -> Result<u64, RedisError> {
        let mut args = vec![Value::from(MAX_STORED as i64), millis(LIST_LIFE)];
        args.extend(batch.iter().map(|notice| Value::Bytes(notice.body.clone())));
        self.run(&self.scripts.push, vec![self.keys.notices.clone()], args).await
    }

    async fn take(&self) -> Result<Taken, RedisError> {
        let keys = vec![self.keys.notices.clone(), self.keys.lease.clone()];
        let args = vec![Value::from(self.holder.as_str()), millis(self.lease), millis(LIST_LIFE)];
        let mut answer: Vec<Bytes> = self.run(&self.scripts.take, keys, args).await?;
        Ok(match (answer.first().map(|kind| &kind[..]), answer.len()) {
            (Some(b"notice"), 2) => {
                let text = answer.swap_remove(1);
                Envelope::open(text.clone()).map_or(Taken::Foreign(text), Taken::Notice)
            }
            (Some(b"busy"), _) => Taken::Busy,
            _ => Taken::Empty,
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
        let answer = timeout(PATIENCE, script.run(&self.client, keys, args)).await.map_err(late)?;
        answer.inspect_err(|error| (self.failed)(error))
    }
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, digest: Digest::from_lua(text).sha1().clone() }
    }

    // Not by `LuaInterface`: a client with options of its own has that only without them.
    async fn run<C: ClientLike, R: FromValue>(
        &self,
        client: &C,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<R, RedisError> {
        let call = |command, script: Value| {
            let count = i64::try_from(keys.len()).expect("a script has few keys");
            let keys = keys.iter().map(|key| Value::from(key.as_str()));
            let words = [script, Value::from(count)].into_iter().chain(keys).chain(args.iter().cloned());
            let command = CustomCommand::new_static(command, ClusterHash::Offset(FIRST_KEY), false);
            client.custom(command, words.collect())
        };
        match call("EVALSHA", Value::String(self.digest.clone())).await {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                call("EVAL", Value::from_static_str(self.text)).await
            }
            answer => answer,
        }
    }
}

fn millis(duration: Duration) -> Value {
    Value::from(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}
