//! Notices: what backends are told without being asked, at least once and in order.
//!
//! An [`Outbox`] keeps them until they are delivered; one courier for each hook takes the oldest, delivers it, and
//! tries again until the backend takes it. A notice is given up only when the backend says that it can never be taken
//! (400, 410, 413, 415, 422, or a refusal), or when newer ones have pushed it out of a full outbox; both are counted.

mod courier;
mod memory;
mod redis;
mod ring;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fred::interfaces::ClientLike;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{HookRequest, Hooks};

pub use super::request::Envelope;
pub use memory::MemoryOutbox;
pub use redis::{Failed, OutboxKeys, RedisOutbox};

/// At most so many notices of one hook wait in a node's memory.
pub const MAX_WAITING: usize = 65_536;

/// At most so many notices of one hook are kept in Redis.
pub const MAX_STORED: usize = 100_000;

/// A notice that would be larger leaves out claims, metadata and rooms.
pub const MAX_NOTICE_BYTES: usize = 16 * 1024;

/// Where the notices of one hook are kept until they are delivered.
pub trait Outbox: Send + Sync {
    /// Keeps a notice. Never waits; at the bound the oldest is dropped and counted.
    fn put(&self, notice: Envelope);

    /// The oldest notice, once there is one that this node is to deliver. The same one again until it is
    /// [done](Outbox::done).
    fn oldest(&self) -> BoxFuture<'_, Envelope>;

    /// Forgets a notice.
    fn done<'a>(&'a self, notice: &'a Envelope) -> BoxFuture<'a, ()>;

    /// How many would be lost if this node ended now.
    fn at_risk(&self) -> usize;

    /// Lets another node deliver at once what this one has not.
    fn release(&self) -> BoxFuture<'_, ()>;
}

/// Delivers notices. Dropping it leaves the couriers running; see [`Notices::close`].
pub struct Notices {
    hooks: Arc<Hooks>,
    outboxes: HashMap<String, Arc<dyn Outbox>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Notices {
    /// Starts a courier for each hook; `outbox` makes the place where its notices are kept, given its name and the
    /// longest time that one of its calls lasts.
    ///
    /// Must be called within a Tokio runtime.
    pub fn start(hooks: Arc<Hooks>, mut outbox: impl FnMut(&str, Duration) -> Arc<dyn Outbox>) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut outboxes = HashMap::new();
        for (name, backend) in &hooks.backends {
            let outbox = outbox(name, backend.timeout());
            let courier = courier::Courier::new(backend.clone(), outbox.clone(), &hooks.metrics);
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(courier.run()).await });
            outboxes.insert(name.clone(), outbox);
        }
        Self { hooks, outboxes, tasks, stop }
    }

    /// Starts couriers that keep everything in memory: what is not delivered when the node ends is lost.
    pub fn in_memory(hooks: Arc<Hooks>) -> Self {
        let metrics = hooks.metrics.clone();
        Self::start(hooks, |hook, _| Arc::new(MemoryOutbox::new(hook, MAX_WAITING, &metrics)))
    }

    /// Starts couriers that share the notices of all nodes in Redis. `keys` names what belongs to a hook; `failed` is told of
    /// each error.
    pub fn in_redis<C>(hooks: Arc<Hooks>, client: &C, failed: Failed, keys: impl Fn(&str) -> OutboxKeys) -> Self
    where
        C: ClientLike + Clone + Send + Sync + 'static,
    {
        let metrics = hooks.metrics.clone();
        Self::start(hooks, |hook, call| {
            let shared = (client.clone(), failed.clone());
            Arc::new(RedisOutbox::new(shared, keys(hook), hook, call, &metrics))
        })
    }

    /// Tells a hook, some time. False when there is no such hook.
    pub fn send(&self, hook: &str, request: HookRequest) -> bool {
        let Some(outbox) = self.outboxes.get(hook) else { return false };
        let notice = self.hooks.seal(&request);
        let fits = notice.body.len() <= MAX_NOTICE_BYTES;
        outbox.put(if fits { notice } else { self.hooks.seal(&request.shortened()) });
        true
    }

    /// How many notices would be lost if this node ended now.
    pub fn at_risk(&self) -> usize {
        self.outboxes.values().map(|outbox| outbox.at_risk()).sum()
    }

    /// Waits until nothing would be lost, at most for so long, and ends the couriers. Returns how many notices are lost.
    pub async fn close(&self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        while self.at_risk() > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        for outbox in self.outboxes.values() {
            outbox.release().await;
        }
        self.at_risk()
    }
}
