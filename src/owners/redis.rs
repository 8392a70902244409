//! The owners of a cluster: one Redis STRING with a time to live for each room.

use std::time::Duration;

use fred::error::Error;
use fred::interfaces::KeysInterface;
use fred::types::Expiration;

use super::cache::OwnerCache;
use super::{OwnerStore, OwnersError, room_key};
use crate::redis::Redis;

/// Owners in Redis.
pub struct RedisOwners {
    redis: Redis,
    cache: OwnerCache,
}

impl RedisOwners {
    /// Creates the store on the node's connection to Redis.
    pub fn new(redis: Redis) -> Self {
        Self { redis, cache: OwnerCache::default() }
    }

    async fn answered<T>(&self, command: impl Future<Output = Result<T, Error>> + Send) -> Result<T, OwnersError> {
        let noticed = self.redis.noticed(|| "an owner".to_owned(), command);
        self.redis.when_up(noticed).await.map_err(|error| {
            tracing::debug!(redis.error = %error, "an operation on owners failed");
            OwnersError::Unavailable
        })
    }
}

impl OwnerStore for RedisOwners {
    async fn set(&self, namespace: &str, room: &str, owner: &str, ttl: Duration) -> Result<(), OwnersError> {
        let key = room_key(namespace, room);
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let name = self.redis.keys().owner(namespace, room);
        let set = self.redis.client().set::<(), _, _>(name, owner, Some(Expiration::EX(seconds)), None, false);
        self.cache.forget(&key);
        let result = self.answered(set).await;
        // Drops the cached owner once more, because a lookup that began meanwhile may have cached the earlier owner.
        self.cache.forget(&key);
        result
    }

    async fn get(&self, namespace: &str, room: &str) -> Result<Option<String>, OwnersError> {
        let key = room_key(namespace, room);
        if let Some(owner) = self.cache.get(&key) {
            return Ok(Some(owner));
        }
        let asked_at = self.cache.changes();
        let name = self.redis.keys().owner(namespace, room);
        let owner: Option<String> = self.answered(self.redis.client().get(name)).await?;
        if let Some(owner) = &owner {
            self.cache.remember(key, owner, asked_at);
        }
        Ok(owner)
    }

    async fn remove(&self, namespace: &str, room: &str) -> Result<(), OwnersError> {
        let key = room_key(namespace, room);
        let name = self.redis.keys().owner(namespace, room);
        self.cache.forget(&key);
        let result = self.answered(self.redis.client().del::<(), _>(name)).await;
        self.cache.forget(&key);
        result
    }
}
