//! Conflation: of many events for one room, only the newest is sent, at a limited rate over all nodes and publishers
//! together.

mod memory;
mod redis;

use std::sync::Arc;
use std::time::Duration;

pub use memory::MemoryThrottles;
pub use redis::RedisThrottles;

use crate::redis::Redis;
use crate::store::{MemoryOrRedis, on_store};
use crate::telemetry::metrics::Metrics;

/// Identifies the events that are conflated with each other: one event name in one room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ThrottleKey {
    /// The namespace and room.
    pub scope: Arc<str>,
    /// The event's name.
    pub event: Arc<str>,
}

impl ThrottleKey {
    /// Creates the key of an event in a room.
    pub fn new(namespace: &str, room: &str, event: &str) -> Self {
        Self { scope: scope(namespace, room), event: event.into() }
    }
}

/// The text that identifies one room of a namespace, for orders and throttles.
pub fn scope(namespace: &str, room: &str) -> Arc<str> {
    format!("{namespace}|{room}").into()
}

/// The answer to an event that a publisher wants to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThrottleDecision {
    /// The event may be sent now, with this number. An event that was held before must not be sent any more.
    Pass(u64),
    /// The event is held, and replaces any older held event. It may be sent after this time.
    Held(Duration),
}

/// The answer when a timer asks for a held event that may be due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DueEvent {
    /// Send this event, with this number.
    Send(Vec<u8>, u64),
    /// The held event is not due yet, because another event was sent meanwhile. Ask again after this time.
    Wait(Duration),
    /// No event is held any more.
    Nothing,
}

/// The answer to a completion, an event that ends the conflated events of its room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The held events and their numbers. These events are sent before the completion.
    pub held: Vec<(Vec<u8>, u64)>,
    /// The number of the completion itself.
    pub number: u64,
}

/// Decides when throttled events are sent, and holds the newest ones until then.
pub trait ThrottleStore: Send + Sync {
    /// Asks whether an event may be sent now. If not, the event is held as the newest one.
    fn offer(&self, key: &ThrottleKey, every: Duration, value: &[u8]) -> impl Future<Output = ThrottleDecision> + Send;

    /// Asks for the held event when it may be due.
    fn due(&self, key: &ThrottleKey, every: Duration) -> impl Future<Output = DueEvent> + Send;

    /// Removes and returns the events that are held in a room, before a completion is sent.
    fn close(&self, scope: &Arc<str>, events: &[Arc<str>]) -> impl Future<Output = Closing> + Send;
}

/// Throttles events over all nodes together while Redis is available. While Redis is unavailable, each node applies the
/// rate to its own events only.
pub struct Throttles {
    backend: MemoryOrRedis<MemoryThrottles, RedisThrottles>,
    metrics: Arc<Metrics>,
}

impl Throttles {
    /// Creates the throttles of a single node.
    pub fn in_memory(metrics: Arc<Metrics>) -> Self {
        Self { backend: MemoryOrRedis::Memory(MemoryThrottles::default()), metrics }
    }

    /// Creates the throttles of a cluster.
    pub fn in_redis(redis: Redis, metrics: Arc<Metrics>) -> Self {
        Self { backend: MemoryOrRedis::Redis(RedisThrottles::new(redis)), metrics }
    }

    /// See [`ThrottleStore::offer`]. The decision is counted.
    pub async fn offer(&self, key: &ThrottleKey, every: Duration, value: &[u8]) -> ThrottleDecision {
        let offer = on_store!(&self.backend, store => store.offer(key, every, value).await);
        let result = if matches!(offer, ThrottleDecision::Held(_)) { "held" } else { "passed" };
        self.metrics.throttled_total.with_label_values(&[&*key.event, result]).inc();
        offer
    }

    /// See [`ThrottleStore::due`].
    pub async fn due(&self, key: &ThrottleKey, every: Duration) -> DueEvent {
        on_store!(&self.backend, store => store.due(key, every).await)
    }

    /// See [`ThrottleStore::close`].
    pub async fn close(&self, scope: &Arc<str>, events: &[Arc<str>]) -> Closing {
        on_store!(&self.backend, store => store.close(scope, events).await)
    }
}
