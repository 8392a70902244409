//! The ids of a cluster: one Redis STRING for each id.

use std::time::Duration;

use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::{IdStore, IdempotencyError, PublishKey};
use crate::redis::Redis;

/// Ids in Redis.
pub struct RedisIds {
    redis: Redis,
}

impl IdStore for RedisIds {
    async fn claim(&self, key: &PublishKey, entry: &str, life: Duration) -> Result<Option<String>, IdempotencyError> {
        let args = vec![self.name(key), entry.into(), "NX".into(), "GET".into(), "PX".into(), millis(life)];
        Ok(self.run("SET", args).await?.into_string())
    }

    async fn complete(&self, key: &PublishKey, entry: &str, ttl: Duration) -> Result<(), IdempotencyError> {
        self.run("SET", vec![self.name(key), entry.into(), "PX".into(), millis(ttl)]).await.map(drop)
    }

    async fn release(&self, key: &PublishKey) -> Result<(), IdempotencyError> {
        self.run("DEL", vec![self.name(key)]).await.map(drop)
    }
}

impl RedisIds {
    /// Creates the store on the node's connection to Redis.
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    async fn run(&self, command: &'static str, args: Vec<Value>) -> Result<Value, IdempotencyError> {
        let about = || format!("{command} {}", args[0].as_string().unwrap_or_default());
        let call = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
        let noticed = self.redis.noticed(about, self.redis.client().custom(call, args.clone()));
        self.redis.when_up(noticed).await.map_err(|error| {
            tracing::debug!(redis.error = %error, "an id of a publish could not be checked or recorded");
            IdempotencyError::Unavailable
        })
    }

    fn name(&self, key: &PublishKey) -> Value {
        self.redis.keys().publish_id(&key.scope, &key.id).into()
    }
}

/// Returns a duration in ms, at least 1, because Redis refuses a time to live of zero.
fn millis(duration: Duration) -> Value {
    duration.as_millis().max(1).to_string().into()
}
