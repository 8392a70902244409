//! Notices: messages to backends that need no answer, delivered at least once and in order.
//!
//! An [`Outbox`] keeps notices until they are delivered. Each hook has one courier, which takes the oldest notice and
//! repeats it until the backend accepts it. A notice is given up only when the backend says that it will never accept
//! it (400, 410, 413, 415, 422, or a refusal), or when newer notices push it out of a full outbox. Both are counted.

mod memory;
mod redis;
mod ring;
mod sender;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{HookRequest, Hooks};
use crate::redis::Redis;
use crate::store::{MemoryOrRedis, on_store};

pub use super::request::EncodedRequest;
pub use memory::MemoryOutbox;
pub use redis::RedisOutbox;

/// Maximum number of notices of one hook that wait in a node's memory.
pub const MAX_WAITING: usize = 65_536;

/// Maximum number of notices of one hook that are kept in Redis.
pub const MAX_STORED: usize = 100_000;

/// Maximum size of a notice, in bytes. A larger one is sent without claims, metadata and rooms; if it is still larger,
/// as the notice of an event can be, it is refused.
pub const MAX_NOTICE_BYTES: usize = 16 * 1024;

/// Maximum size of the notices of one hook that wait in a node's memory, in bytes.
pub const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// Keeps the notices of one hook until they are delivered.
pub trait Outbox: Send + Sync {
    /// Stores a notice. Never waits. When the outbox is full, the oldest notice is dropped and counted.
    fn put(&self, notice: EncodedRequest);

    /// Waits for the oldest notice that this node must deliver. Returns the same notice again until [`Outbox::done`]
    /// removes it.
    fn oldest(&self) -> impl Future<Output = EncodedRequest> + Send;

    /// Removes a notice that was delivered, or that the sender gave up.
    fn done(&self, notice: &EncodedRequest) -> impl Future<Output = ()> + Send;

    /// Returns how many notices would be lost if this node stopped now.
    fn at_risk(&self) -> usize;

    /// Lets another node deliver the remaining notices at once.
    fn release(&self) -> impl Future<Output = ()> + Send;
}

/// The outbox of one hook.
type HookOutbox = MemoryOrRedis<MemoryOutbox, RedisOutbox>;

/// Sends notices to all hooks. Dropping this value leaves the couriers running; see [`Notices::close`].
pub struct Notices {
    hooks: Arc<Hooks>,
    outboxes: HashMap<String, Arc<HookOutbox>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Notices {
    /// Starts a courier for each hook. `outbox` creates the outbox of a hook, from the hook's name and the longest
    /// time that one of its calls lasts.
    ///
    /// This function must be called within a Tokio runtime.
    fn start(hooks: Arc<Hooks>, outbox: impl Fn(&str, Duration) -> HookOutbox) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut outboxes = HashMap::new();
        for (name, backend) in &hooks.backends {
            let outbox = Arc::new(outbox(name, backend.timeout()));
            let courier = sender::NoticeSender::new(backend.clone(), outbox.clone(), &hooks.metrics);
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(courier.run()).await });
            outboxes.insert(name.clone(), outbox);
        }
        Self { hooks, outboxes, tasks, stop }
    }

    /// Starts couriers that keep notices in memory only. Notices that are not delivered when the node stops are lost.
    pub fn in_memory(hooks: Arc<Hooks>) -> Self {
        let metrics = hooks.metrics.clone();
        Self::start(hooks, |hook, _| MemoryOrRedis::Memory(MemoryOutbox::new(hook, MAX_WAITING, &metrics)))
    }

    /// Starts couriers that keep the notices of all nodes in Redis.
    pub fn in_redis(hooks: Arc<Hooks>, redis: &Redis) -> Self {
        let metrics = hooks.metrics.clone();
        Self::start(hooks, |hook, call| MemoryOrRedis::Redis(RedisOutbox::new(redis.clone(), hook, call, &metrics)))
    }

    /// Encodes a notice, and shortens it if necessary. `None` when it is too large even then.
    pub fn seal(&self, request: HookRequest) -> Option<EncodedRequest> {
        let fits = |notice: &EncodedRequest| notice.body.len() <= MAX_NOTICE_BYTES;
        let notice = self.hooks.seal(&request);
        if fits(&notice) { Some(notice) } else { Some(self.hooks.seal(&request.shortened())).filter(fits) }
    }

    /// Queues a notice for a hook. Does nothing when there is no such hook, which the node refuses when it starts.
    pub fn put(&self, hook: &str, notice: EncodedRequest) {
        if let Some(outbox) = self.outboxes.get(hook) {
            on_store!(&**outbox, outbox => outbox.put(notice));
        }
    }

    /// Queues a notice without a payload for a hook: a shortened one always fits. Returns false when there is no such
    /// hook.
    pub fn send(&self, hook: &str, request: HookRequest) -> bool {
        let notice = self.seal(request);
        debug_assert!(notice.is_some(), "a notice without a payload fits");
        self.outboxes.contains_key(hook) && notice.map(|notice| self.put(hook, notice)).is_some()
    }

    /// Returns how many notices would be lost if this node stopped now.
    pub fn at_risk(&self) -> usize {
        self.outboxes.values().map(|outbox| on_store!(&**outbox, outbox => outbox.at_risk())).sum()
    }

    /// Waits until no notice would be lost, at most `patience`, then stops the couriers. Returns how many notices are
    /// lost.
    pub async fn close(&self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        while self.at_risk() > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        for outbox in self.outboxes.values() {
            on_store!(&**outbox, outbox => outbox.release().await);
        }
        self.at_risk()
    }
}
