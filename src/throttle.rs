//! Conflation: of many events for one room, only the newest is sent, at a limited rate over all nodes and publishers
//! together.

mod memory;
mod redis;

use std::sync::Arc;
use std::time::Duration;

use crate::redis::Redis;
use crate::telemetry::metrics::Metrics;
use memory::MemoryThrottles;

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

/// Throttles events over all nodes together while Redis is available. While Redis is unavailable, each node applies the
/// rate to its own events only.
pub struct Throttles {
    memory: MemoryThrottles,
    redis: Option<Redis>,
    metrics: Arc<Metrics>,
}

impl Throttles {
    /// Creates the throttles of a cluster, or of a single node when `redis` is `None`.
    pub fn new(redis: Option<Redis>, metrics: Arc<Metrics>) -> Self {
        Self { memory: MemoryThrottles::default(), redis, metrics }
    }

    /// Asks whether an event may be sent now. If not, the event is held as the newest one.
    pub async fn offer(&self, key: &ThrottleKey, every: Duration, value: &[u8]) -> ThrottleDecision {
        let offer = match self.up() {
            Some(redis) => redis::offer(redis, key, every, value).await,
            None => None,
        };
        let offer = offer.unwrap_or_else(|| self.memory.offer(key, every, value));
        let result = if matches!(offer, ThrottleDecision::Held(_)) { "held" } else { "passed" };
        self.metrics.throttled_total.with_label_values(&[&*key.event, result]).inc();
        offer
    }

    /// Asks for the held event when it may be due.
    pub async fn due(&self, key: &ThrottleKey, every: Duration) -> DueEvent {
        if let DueEvent::Send(value, number) = self.memory.due(key, every) {
            return DueEvent::Send(value, number);
        }
        match self.up() {
            Some(redis) => redis::due(redis, key, every).await.unwrap_or(DueEvent::Wait(every)),
            None => self.memory.due(key, every),
        }
    }

    /// Removes and returns the events that are held in a room, before a completion is sent.
    pub async fn close(&self, scope: &Arc<str>, events: &[Arc<str>]) -> Closing {
        let mut closing = self.memory.close(scope, events);
        if let Some(redis) = self.up()
            && let Some(shared) = redis::close(redis, scope, events).await
        {
            closing.held.extend(shared.held);
            closing.number = shared.number;
        }
        closing
    }

    fn up(&self) -> Option<&Redis> {
        self.redis.as_ref().filter(|redis| redis.is_up())
    }
}
