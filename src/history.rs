//! What rooms have had: kept for late joiners and for readers.
//!
//! Each room with a history has an *epoch* and, within it, *offsets* without a gap from 1. A new epoch means that the
//! older history is gone: it expired, was forgotten or lost, and what was in it cannot be known. An answer
//! that cannot be proven whole says so.
//!
//! Two backends keep the same promises (`tests/history.rs` runs one suite against both): in memory for a node alone, in Redis
//! for a cluster. `docs/history.md` is the page for users.

mod holes;
mod memory;
mod page;
mod record;
mod redis;
pub mod replay;
mod sequencer;
mod unrecorded;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::contract::model::RoomDef;
use crate::event::Event;
use crate::redis::{Budget, Redis};
use crate::session::RoomName;
use crate::telemetry::metrics::Metrics;

pub use memory::{MAX_MEMORY_BYTES, MAX_MEMORY_ROOMS, Memory};
pub use page::{Order, Page, Query, Since};
pub use record::{Keeping, List, Recorded};
pub use redis::RedisHistory;
pub use sequencer::{Sequencer, Turn};
use unrecorded::Unrecorded;

/// At most so many events are in a page.
pub const MAX_PAGE: usize = 1000;

/// At most this many bytes of events wait to be recorded; one larger event waits alone. Beyond, an event is not published.
pub const MAX_RECORDING_BYTES: usize = 64 << 20;

/// No history lives longer after its last event: ten years.
pub const MAX_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A room of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey {
    /// The namespace's path.
    pub namespace: Arc<str>,
    /// The room.
    pub room: RoomName,
}

/// How much is kept of a room, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At most so many events; at least one.
    pub events: u32,
    /// From the last append on.
    pub ttl: Duration,
}

impl Retention {
    /// What the contract says for a room, `None` when it keeps nothing.
    ///
    /// A room that is forgotten when idle keeps its history no longer than that; one whose story a `terminal` event
    /// ends, for `linger` from then on.
    pub fn of(room: &RoomDef, terminal: bool) -> Option<Self> {
        let policy = room.history.as_ref()?;
        let linger = room.linger.filter(|_| terminal);
        let ttl = [room.idle, linger].into_iter().flatten().fold(policy.ttl, Duration::min);
        Some(Self { events: policy.events.max(1), ttl })
    }
}

/// A LIST that other services read, kept beside a room's history: payloads as JSON, newest last.
#[derive(Debug, Clone, Copy)]
pub struct ListCopy<'a> {
    /// The contract's own key, used exactly as it is.
    pub key: &'a str,
    /// What is pushed: the JSON of the event's first argument.
    pub payload: &'a str,
    /// At most so many.
    pub events: u32,
    /// From the last push on.
    pub ttl: Duration,
}

/// The place that an event was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The room's epoch, below 2^53 so that it survives JavaScript.
    pub epoch: u64,
    /// Without gaps within the epoch; the first is 1.
    pub offset: u64,
}

/// Why the history could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Redis is away: nothing was appended or read.
    #[error("the history is unavailable: Redis is away")]
    Unavailable,
    /// Redis did not answer in time: an append may have happened, but does not happen any more.
    #[error("the history did not answer in time")]
    Timeout,
    /// Another node has the lease by now: nothing was appended.
    #[error("another node publishes for emitters by now")]
    Fenced,
    /// Redis refused, or what it holds is not a history.
    #[error("the history cannot be used: {0}")]
    Refused(String),
}

impl HistoryError {
    /// The label in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Fenced => "fenced",
            Self::Refused(_) => "refused",
        }
    }
}

/// The histories of all rooms.
pub struct History {
    backend: Backend,
    sequencer: Sequencer,
    unrecorded: Unrecorded,
    /// What waits for its turn, or for Redis.
    waiting: Budget,
    metrics: Arc<Metrics>,
}

enum Backend {
    Memory(Memory),
    Redis(RedisHistory),
}

impl History {
    /// For a node alone: kept in memory, within named bounds, lost with the process.
    pub fn in_memory(metrics: Arc<Metrics>) -> Self {
        let backend = Backend::Memory(Memory::new(metrics.clone()));
        Self {
            backend,
            sequencer: Sequencer::new(),
            unrecorded: Unrecorded::new(None),
            waiting: Budget::new(usize::MAX),
            metrics,
        }
    }

    /// How many rooms have a history in the memory of this node, and the bytes of their events.
    pub fn size(&self) -> (usize, usize) {
        match &self.backend {
            Backend::Memory(memory) => memory.size(),
            Backend::Redis(_) => (0, 0),
        }
    }

    /// For a cluster: kept in Redis.
    pub fn in_redis(redis: Redis, metrics: Arc<Metrics>) -> Self {
        let unrecorded = Unrecorded::new(Some(redis.clone()));
        let backend = Backend::Redis(RedisHistory::new(redis, metrics.clone()));
        Self { backend, sequencer: Sequencer::new(), unrecorded, waiting: Budget::new(MAX_RECORDING_BYTES), metrics }
    }

    /// Appends one event to a room's history, and its payload to the contract's own list, and says where it went.
    ///
    /// Atomic. The room's history is trimmed to `keep.events` and lives for `keep.ttl` from now on. In a Redis
    /// Cluster the list is written by a second command, because its key is the contract's and lives in another slot: it may
    /// then miss an event that the history has. In memory there is no list.
    ///
    /// # Errors
    /// [`HistoryError`]; the publish goes on live without a place in the history. After [`HistoryError::Timeout`] the append may
    /// have happened.
    pub async fn append(
        &self,
        room: &RoomKey,
        keep: Retention,
        copy: Option<ListCopy<'_>>,
        event: &Event,
    ) -> Result<Appended, HistoryError> {
        let appended = match &self.backend {
            Backend::Memory(memory) => Ok(memory.append(room, keep, event)),
            Backend::Redis(redis) => redis.append(room, keep, copy, event).await,
        };
        match &appended {
            Ok(_) => self.metrics.history_appends_total.with_label_values(&[&*room.namespace]).inc(),
            Err(error) => self.count("append", error),
        }
        appended
    }

    /// Reads a page of a room's history; an empty one when the room has none.
    ///
    /// # Errors
    /// [`HistoryError`]
    pub async fn read(&self, room: &RoomKey, query: Query) -> Result<Page, HistoryError> {
        let page = match &self.backend {
            Backend::Memory(memory) => Ok(memory.read(room, query)),
            Backend::Redis(redis) => redis.read(room, query).await,
        };
        page.inspect_err(|error| self.count("read", error))
    }

    /// Lets a room's history end `after` this time, if it would not end earlier; a later append revives it.
    ///
    /// # Errors
    /// [`HistoryError`]; the history then ends by itself, when its retention says.
    pub async fn forget(&self, room: &RoomKey, after: Duration) -> Result<(), HistoryError> {
        let forgotten = match &self.backend {
            Backend::Memory(memory) => {
                memory.forget(room, after);
                Ok(())
            }
            Backend::Redis(redis) => redis.forget(room, after).await,
        };
        forgotten.inspect_err(|error| self.count("forget", error))
    }

    /// An event went live that histories should have and may not: for `window` and a little longer nobody can prove what
    /// he missed in the namespace. Told to the other nodes as soon as Redis takes it.
    pub fn note_unrecorded(&self, namespace: &Arc<str>, window: Duration) {
        self.unrecorded.note(namespace, window);
    }

    /// Whether the histories of the namespace may lack an event that a client who comes back is owed.
    ///
    /// # Errors
    /// [`HistoryError`]
    pub async fn lacks_events(&self, namespace: &str) -> Result<bool, HistoryError> {
        self.unrecorded.is_noted(namespace).await
    }

    /// Counts what a joining client was shown, and why that was not all, if it was not.
    pub fn count_replay(&self, namespace: &str, events: usize, incomplete: Option<&str>) {
        self.metrics.history_replayed_total.with_label_values(&[namespace]).inc_by(events as u64);
        if let Some(reason) = incomplete {
            self.metrics.history_incomplete_total.with_label_values(&[reason]).inc();
        }
    }

    fn count(&self, op: &str, error: &HistoryError) {
        self.metrics.history_errors_total.with_label_values(&[op, error.as_str()]).inc();
        tracing::debug!(history.op = op, error = %error, "the history could not be used");
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let backend = match self.backend {
            Backend::Memory(_) => "memory",
            Backend::Redis(_) => "redis",
        };
        f.debug_struct("History").field("backend", &backend).finish_non_exhaustive()
    }
}

/// A new epoch: the time in ms and ten random bits, 51 bits in all. A later one is larger, unless clocks go back.
fn new_epoch() -> u64 {
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let ms = u64::try_from(ms).unwrap_or(0) & ((1 << 41) - 1);
    let random = uuid::Uuid::new_v4().as_u128() as u64 & 0x3ff;
    (ms << 10 | random).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_survives_javascript() {
        let epoch = new_epoch();
        assert!(epoch > 0 && epoch < 1 << 53);
        assert_eq!(epoch as f64 as u64, epoch);
    }
}
