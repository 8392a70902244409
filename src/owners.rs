//! Who owns which room, as backends have said (`PUT /api/v1/owners`). Join rules ask it as `owner(room)`.
//!
//! Two backends keep the same promises: in memory for a node alone, in Redis for a cluster. An owner is known for a stated
//! time and no longer.

mod cache;
mod memory;
mod redis;

use std::sync::Arc;
use std::time::Duration;

pub use memory::MAX_MEMORY_OWNERS;

use crate::redis::Redis;
use crate::telemetry::metrics::Metrics;
use memory::MemoryOwners;
use redis::RedisOwners;

/// How long an owner is known where the backend does not say.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// No owner is known longer.
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why owners could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OwnersError {
    /// Redis is away, or did not answer in time: whether a change happened is not known.
    #[error("owners cannot be used: Redis is away, or refuses writes")]
    Unavailable,
    /// The node's memory for owners is at its bound.
    #[error("{MAX_MEMORY_OWNERS} rooms have owners already; this node keeps no more without Redis")]
    Full,
}

/// Who owns which room.
pub struct Owners {
    backend: Backend,
    metrics: Arc<Metrics>,
}

enum Backend {
    Memory(MemoryOwners),
    Redis(RedisOwners),
}

impl Owners {
    /// For a node alone: lost with the process, at most [`MAX_MEMORY_OWNERS`].
    pub fn in_memory(metrics: Arc<Metrics>) -> Self {
        Self { backend: Backend::Memory(MemoryOwners::default()), metrics }
    }

    /// For a cluster. An owner that was found is believed for up to a second more after another node changed it; one that
    /// was not is asked for again each time.
    pub fn in_redis(redis: Redis, metrics: Arc<Metrics>) -> Self {
        Self { backend: Backend::Redis(RedisOwners::new(redis)), metrics }
    }

    /// Records a room's owner for a time of at most [`MAX_TTL`]; an earlier owner is replaced.
    ///
    /// # Errors
    /// [`OwnersError`]
    pub async fn set(&self, namespace: &str, room: &str, owner: &str, ttl: Duration) -> Result<(), OwnersError> {
        let ttl = ttl.clamp(Duration::from_secs(1), MAX_TTL);
        match &self.backend {
            Backend::Memory(memory) => memory.set(namespace, room, owner, ttl),
            Backend::Redis(redis) => redis.set(namespace, room, owner, ttl).await,
        }
    }

    /// A room's owner; `None` when none is known.
    ///
    /// # Errors
    /// [`OwnersError::Unavailable`], at once while Redis is known to be away, else after `redis.command_timeout` at the
    /// latest. A rule that needs the owner cannot be answered then; it must not be taken for a no.
    pub async fn get(&self, namespace: &str, room: &str) -> Result<Option<String>, OwnersError> {
        let found = match &self.backend {
            Backend::Memory(memory) => Ok(memory.get(namespace, room)),
            Backend::Redis(redis) => redis.get(namespace, room).await,
        };
        let result = match &found {
            Ok(Some(_)) => "found",
            Ok(None) => "none",
            Err(_) => "unavailable",
        };
        self.metrics.owner_lookups_total.with_label_values(&[result]).inc();
        found
    }

    /// Forgets a room's owner; one that is not known is forgotten already.
    ///
    /// # Errors
    /// [`OwnersError::Unavailable`]
    pub async fn remove(&self, namespace: &str, room: &str) -> Result<(), OwnersError> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.remove(namespace, room);
                Ok(())
            }
            Backend::Redis(redis) => redis.remove(namespace, room).await,
        }
    }
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let backend = match self.backend {
            Backend::Memory(_) => "memory",
            Backend::Redis(_) => "redis",
        };
        f.debug_struct("Owners").field("backend", &backend).finish_non_exhaustive()
    }
}

/// A room of a namespace.
type RoomKey = (Box<str>, Box<str>);

fn room_key(namespace: &str, room: &str) -> RoomKey {
    (namespace.into(), room.into())
}
