//! Conflation over all nodes, decided by scripts in Redis.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fred::types::Value;

use super::{Closing, DueEvent, MemoryThrottles, ThrottleDecision, ThrottleKey, ThrottleStore};
use crate::redis::Redis;
use crate::redis::script::Script;
use crate::telemetry::log_limit::log_seldom;

static THROTTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("throttle.lua")));
static CLOSE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("close.lua")));

/// Minimum time that Redis keeps a held value. After that Redis removes the value if the node that stored it has died.
const KEEP: Duration = Duration::from_secs(60);

/// Throttles in Redis. While Redis is unavailable, this node decides alone.
pub struct RedisThrottles {
    redis: Redis,
    alone: MemoryThrottles,
}

impl ThrottleStore for RedisThrottles {
    async fn offer(&self, key: &ThrottleKey, every: Duration, value: &[u8]) -> ThrottleDecision {
        let decision = match self.up() {
            Some(redis) => offer(redis, key, every, value).await,
            None => None,
        };
        match decision {
            Some(decision) => decision,
            None => self.alone.offer(key, every, value).await,
        }
    }

    async fn due(&self, key: &ThrottleKey, every: Duration) -> DueEvent {
        // The node may hold an event from the time when Redis was unavailable.
        match (self.alone.due(key, every).await, self.up()) {
            (DueEvent::Send(value, number), _) => DueEvent::Send(value, number),
            (_, Some(redis)) => due(redis, key, every).await.unwrap_or(DueEvent::Wait(every)),
            (alone, None) => alone,
        }
    }

    async fn close(&self, scope: &Arc<str>, events: &[Arc<str>]) -> Closing {
        let mut closing = self.alone.close(scope, events).await;
        if let Some(redis) = self.up()
            && let Some(shared) = close(redis, scope, events).await
        {
            closing.held.extend(shared.held);
            closing.number = shared.number;
        }
        closing
    }
}

impl RedisThrottles {
    /// Creates the store on the node's connection to Redis.
    pub fn new(redis: Redis) -> Self {
        Self { redis, alone: MemoryThrottles::default() }
    }

    fn up(&self) -> Option<&Redis> {
        Some(&self.redis).filter(|redis| redis.is_up())
    }
}

/// See [`ThrottleStore::offer`]. Returns `None` when Redis did not answer or returned an error.
async fn offer(redis: &Redis, key: &ThrottleKey, every: Duration, value: &[u8]) -> Option<ThrottleDecision> {
    let args = [
        Value::from_static_str("offer"),
        millis(every),
        Value::Bytes(bytes::Bytes::copy_from_slice(value)),
        millis(KEEP.max(every * 2)),
    ];
    let answer = run(&THROTTLE, redis, keys(redis, key), args.to_vec()).await?;
    match (answer.first()?.as_str()?.as_ref(), answer.get(1)?.as_u64()?) {
        ("pass", number) => Some(ThrottleDecision::Pass(number)),
        ("held", wait) => Some(ThrottleDecision::Held(Duration::from_millis(wait))),
        _ => None,
    }
}

/// See [`ThrottleStore::due`]. Returns `None` when Redis did not answer or returned an error.
async fn due(redis: &Redis, key: &ThrottleKey, every: Duration) -> Option<DueEvent> {
    let args = vec![Value::from_static_str("due"), millis(every)];
    let answer = run(&THROTTLE, redis, keys(redis, key), args).await?;
    match answer.first()?.as_str()?.as_ref() {
        "send" => Some(DueEvent::Send(answer.get(1)?.as_bytes()?.to_vec(), answer.get(2)?.as_u64()?)),
        "wait" => Some(DueEvent::Wait(Duration::from_millis(answer.get(1)?.as_u64()?))),
        _ => Some(DueEvent::Nothing),
    }
}

/// See [`ThrottleStore::close`]. Returns `None` when Redis did not answer or returned an error.
async fn close(redis: &Redis, scope: &Arc<str>, events: &[Arc<str>]) -> Option<Closing> {
    let names = redis.keys();
    let mut all = vec![names.throttle_number(scope)];
    for event in events {
        all.push(names.throttle_gate(scope, event));
        all.push(names.throttle_held(scope, event));
    }
    let answer = run(&CLOSE, redis, all, Vec::new()).await?;
    let number = answer.first()?.as_u64()?;
    let held = answer[1..]
        .chunks_exact(2)
        .filter_map(|pair| Some((pair[0].as_bytes()?.to_vec(), pair[1].as_u64()?)))
        .collect();
    Some(Closing { held, number })
}

fn keys(redis: &Redis, key: &ThrottleKey) -> Vec<String> {
    let names = redis.keys();
    vec![
        names.throttle_gate(&key.scope, &key.event),
        names.throttle_held(&key.scope, &key.event),
        names.throttle_number(&key.scope),
    ]
}

async fn run(script: &Script, redis: &Redis, keys: Vec<String>, args: Vec<Value>) -> Option<Vec<Value>> {
    match script.run(redis, keys, args).await {
        Ok(answer) => Some(answer.into_array()),
        Err(error) => {
            log_seldom!(warn, %error, "a throttle could not be decided in Redis; this node decides alone");
            None
        }
    }
}

fn millis(duration: Duration) -> Value {
    Value::Integer(i64::try_from(duration.as_millis().max(1)).unwrap_or(i64::MAX))
}
