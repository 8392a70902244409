//! The owners of rooms, as backends have recorded them (`PUT /api/v1/owners`). Join rules read an owner as
//! `owner(room)`.
//!
//! A record of an owner expires after a stated time.

mod cache;
mod memory;
mod redis;

use std::sync::Arc;
use std::time::Duration;

pub use memory::{MAX_MEMORY_OWNERS, MemoryOwners};
pub use redis::RedisOwners;

use crate::redis::Redis;
use crate::store::{MemoryOrRedis, on_store};
use crate::telemetry::metrics::Metrics;

/// How long a record of an owner lives when the request states no time.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// Maximum time that a record of an owner lives.
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why an operation on owners failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OwnersError {
    /// Redis is unavailable, refused the command, or did not answer within `redis.command_timeout`. A change may or may
    /// not have happened.
    #[error("owners cannot be used: Redis is away, or refuses writes")]
    Unavailable,
    /// The node stores the maximum number of owners in memory already.
    #[error("{MAX_MEMORY_OWNERS} rooms have owners already, which is the limit of a node without Redis")]
    Full,
}

/// Stores the owners of rooms.
pub trait OwnerStore: Send + Sync {
    /// Records a room's owner for the time `ttl`, at least 1 s. The new owner replaces an earlier one, and its time
    /// begins now.
    fn set(
        &self,
        namespace: &str,
        room: &str,
        owner: &str,
        ttl: Duration,
    ) -> impl Future<Output = Result<(), OwnersError>> + Send;

    /// Returns a room's owner; `None` when no owner is recorded, or the record has expired.
    fn get(&self, namespace: &str, room: &str) -> impl Future<Output = Result<Option<String>, OwnersError>> + Send;

    /// Removes a room's owner. Removing an unknown owner succeeds.
    fn remove(&self, namespace: &str, room: &str) -> impl Future<Output = Result<(), OwnersError>> + Send;
}

/// The owners of rooms.
pub struct Owners {
    backend: MemoryOrRedis<MemoryOwners, RedisOwners>,
    metrics: Arc<Metrics>,
}

impl Owners {
    /// Creates the owners of a single node. Owners are kept in memory, at most [`MAX_MEMORY_OWNERS`], and lost with the
    /// process.
    pub fn in_memory(metrics: Arc<Metrics>) -> Self {
        Self { backend: MemoryOrRedis::Memory(MemoryOwners::default()), metrics }
    }

    /// Creates the owners of a cluster. After another node changes an owner, this node can return the earlier owner for
    /// up to 1 s. The answer that a room has no owner is never cached.
    pub fn in_redis(redis: Redis, metrics: Arc<Metrics>) -> Self {
        Self { backend: MemoryOrRedis::Redis(RedisOwners::new(redis)), metrics }
    }

    /// Records a room's owner for `ttl`, at least 1 s and at most [`MAX_TTL`]. The new owner replaces an earlier one.
    ///
    /// # Errors
    /// [`OwnersError`]
    pub async fn set(&self, namespace: &str, room: &str, owner: &str, ttl: Duration) -> Result<(), OwnersError> {
        let ttl = ttl.clamp(Duration::from_secs(1), MAX_TTL);
        on_store!(&self.backend, store => store.set(namespace, room, owner, ttl).await)
    }

    /// Returns a room's owner; `None` when no owner is recorded.
    ///
    /// # Errors
    /// Returns [`OwnersError::Unavailable`], at once while Redis is known to be unavailable, otherwise within
    /// `redis.command_timeout`. A rule that needs the owner cannot be evaluated then; the caller must not read the
    /// error as "no owner".
    pub async fn get(&self, namespace: &str, room: &str) -> Result<Option<String>, OwnersError> {
        let found = on_store!(&self.backend, store => store.get(namespace, room).await);
        let result = match &found {
            Ok(Some(_)) => "found",
            Ok(None) => "none",
            Err(_) => "unavailable",
        };
        self.metrics.owner_lookups_total.with_label_values(&[result]).inc();
        found
    }

    /// Removes a room's owner. Removing an unknown owner succeeds.
    ///
    /// # Errors
    /// [`OwnersError::Unavailable`]
    pub async fn remove(&self, namespace: &str, room: &str) -> Result<(), OwnersError> {
        on_store!(&self.backend, store => store.remove(namespace, room).await)
    }
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owners").field("backend", &self.backend.name()).finish_non_exhaustive()
    }
}

/// A namespace and a room.
type OwnerKey = (Box<str>, Box<str>);

fn room_key(namespace: &str, room: &str) -> OwnerKey {
    (namespace.into(), room.into())
}
