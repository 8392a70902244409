//! Conflation: of many events for one room, the newest at a bounded rate, over all nodes and publishers.

mod memory;
mod redis;

use std::sync::Arc;
use std::time::Duration;

use crate::order::Order;
use crate::redis::Redis;
use crate::telemetry::metrics::Metrics;
use memory::Memory;

/// What is conflated: one event in one room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ThrottleKey {
    /// The namespace and room.
    pub scope: Arc<str>,
    /// The event's name.
    pub event: Arc<str>,
}

impl ThrottleKey {
    /// The key of an event in a room.
    pub fn new(namespace: &str, room: &str, event: &str) -> Self {
        Self { scope: scope(namespace, room), event: event.into() }
    }
}

/// What orders and throttles count in.
pub fn scope(namespace: &str, room: &str) -> Arc<str> {
    format!("{namespace}|{room}").into()
}

/// The answer to an event that wants to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// It may be sent now; what was held before it is obsolete.
    Pass(u64),
    /// It is held, in place of any older one, and due after this time.
    Held(Duration),
}

/// The answer when something held may be due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Send this.
    Send(Vec<u8>, u64),
    /// Not yet: something else was sent meanwhile.
    Wait(Duration),
    /// Nothing is held any more.
    Nothing,
}

/// What a completion finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// What was held, to be sent first.
    pub held: Vec<(Vec<u8>, u64)>,
    /// The completion's own number.
    pub number: u64,
}

/// Decides over all nodes when Redis is there, and for this node alone when it is not: the rate is then bounded for each node,
/// and the newest value still arrives.
pub struct Throttles {
    memory: Memory,
    redis: Option<Redis>,
    metrics: Arc<Metrics>,
}

impl Throttles {
    /// For a cluster, or for a node alone.
    pub fn new(redis: Option<Redis>, metrics: Arc<Metrics>) -> Self {
        Self { memory: Memory::default(), redis, metrics }
    }

    /// Asks whether an event may be sent now; else it is kept as the newest.
    pub async fn offer(&self, key: &ThrottleKey, every: Duration, value: &[u8]) -> Offer {
        let offer = match self.up() {
            Some(redis) => redis::offer(redis, key, every, value).await,
            None => None,
        };
        let offer = offer.unwrap_or_else(|| self.memory.offer(key, every, value));
        let result = if matches!(offer, Offer::Held(_)) { "held" } else { "passed" };
        self.metrics.throttled_total.with_label_values(&[&*key.event, result]).inc();
        offer
    }

    /// Asks for what is held, when its time may have come.
    pub async fn due(&self, key: &ThrottleKey, every: Duration) -> Due {
        if let Due::Send(value, number) = self.memory.due(key, every) {
            return Due::Send(value, number);
        }
        match self.up() {
            Some(redis) => redis::due(redis, key, every).await.unwrap_or(Due::Wait(every)),
            None => self.memory.due(key, every),
        }
    }

    /// Takes everything that is held for these events of a room, before something that ends it is sent.
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

    /// The order of an event.
    pub fn order(scope: &Arc<str>, number: u64, closes: bool) -> Order {
        Order { scope: scope.clone(), number, closes }
    }

    fn up(&self) -> Option<&Redis> {
        self.redis.as_ref().filter(|redis| redis.is_up())
    }
}
