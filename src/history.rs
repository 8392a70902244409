//! The newest events of rooms, kept for clients that join late and for readers.
//!
//! Each room with a history has an *epoch* and, within the epoch, *offsets* that count from 1 without gaps. A new epoch
//! means that the older history is gone: it expired, was removed or was lost, and its events cannot be known. An answer
//! that cannot be proven complete is marked as incomplete.
//!
//! The page for users is `docs/history.md`.

mod holes;
mod memory;
mod page;
mod record;
mod redis;
pub mod replay;
mod sequencer;
mod unrecorded;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::contract::model::RoomDef;
use crate::event::Event;
use crate::redis::{Budget, Redis};
use crate::session::RoomName;
use crate::store::{MemoryOrRedis, on_store};
use crate::telemetry::metrics::Metrics;
use crate::time::unix_millis;

pub use memory::{MAX_MEMORY_BYTES, MAX_MEMORY_ROOMS, MemoryHistory};
pub use page::{HistoryPage, HistoryQuery, HistoryStart, PageOrder};
pub use record::{ListTarget, Recorded, RoomRecord};
pub use redis::RedisHistory;
pub use sequencer::{RoomTurn, Sequencer};

/// Maximum number of events in a page.
pub const MAX_PAGE: usize = 1000;

/// Maximum size of the events that wait to be recorded, in bytes. An event larger than this is accepted only if no
/// other event waits. An event that would exceed the limit is not published.
pub const MAX_RECORDING_BYTES: usize = 64 << 20;

/// Maximum life of a history after its last event: ten years.
pub const MAX_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How long a client can be gone before its node notices. This time is added to the recovery window.
const GRACE: Duration = Duration::from_secs(60);

/// A namespace and a room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey {
    /// The namespace's path.
    pub namespace: Arc<str>,
    /// The room's name.
    pub room: RoomName,
}

/// How many events of a room are kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Maximum number of events; at least 1.
    pub events: u32,
    /// Time to live of the history after the last append.
    pub ttl: Duration,
}

impl Retention {
    /// Returns the contract's retention for a room; `None` when the room keeps no history.
    ///
    /// A room with an `idle` time keeps its history at most that long. After a `terminal` event the history is kept at
    /// most for `linger`.
    pub fn of(room: &RoomDef, terminal: bool) -> Option<Self> {
        let policy = room.history.as_ref()?;
        let linger = room.linger.filter(|_| terminal);
        let ttl = [room.idle, linger].into_iter().flatten().fold(policy.ttl, Duration::min);
        Some(Self { events: policy.events.max(1), ttl })
    }
}

/// A Redis LIST that other services read, written beside a room's history: payloads as JSON, newest last.
#[derive(Debug, Clone, Copy)]
pub struct ListCopy<'a> {
    /// The list's key from the contract, used exactly as it is.
    pub key: &'a str,
    /// The value that is added to the list: the JSON of the event's first argument.
    pub payload: &'a str,
    /// Maximum number of payloads in the list.
    pub events: u32,
    /// Time to live of the list after the last added payload.
    pub ttl: Duration,
}

/// The position that an append gave to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The room's epoch. It is below 2^53, so that JavaScript can represent it.
    pub epoch: u64,
    /// The event's number in the epoch, without gaps. The first is 1.
    pub offset: u64,
}

/// Why the history could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Redis is unavailable. No command was sent to Redis.
    #[error("the history is unavailable: Redis is away")]
    Unavailable,
    /// Redis did not answer within `redis.command_timeout`, or the connection broke before the answer. An append may
    /// have happened. It does not happen later, unless this node had not read Redis' clock before.
    #[error("the history did not answer in time")]
    Timeout,
    /// Another node has the lease to publish for emitters now; nothing was appended.
    #[error("another node has taken the lease to publish for emitters")]
    Fenced,
    /// Redis refused the command, or the value at the key is not a history.
    #[error("the history cannot be used: {0}")]
    Refused(String),
}

impl HistoryError {
    /// The error's label in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Fenced => "fenced",
            Self::Refused(_) => "refused",
        }
    }
}

/// Stores the histories of rooms.
pub trait HistoryStore: Send + Sync {
    /// Appends one event to a room's history, and its payload to the contract's own list. Returns the event's position.
    ///
    /// The append to a history is atomic. The history is trimmed to `keep.events` and lives for `keep.ttl` from now on.
    /// In a Redis Cluster a second command writes the list, because its key comes from the contract and lives in
    /// another slot; the list can then lack an event that the history has. In memory there is no list.
    fn append(
        &self,
        room: &RoomKey,
        keep: Retention,
        copy: Option<ListCopy<'_>>,
        event: &Event,
    ) -> impl Future<Output = Result<Appended, HistoryError>> + Send;

    /// Reads a page of a room's history. The page is empty when the room has no history.
    fn read(
        &self,
        room: &RoomKey,
        query: HistoryQuery,
    ) -> impl Future<Output = Result<HistoryPage, HistoryError>> + Send;

    /// Records for the time `life` that an event was published live and may be missing in the histories of the
    /// namespace. In memory nothing is noted, because an append cannot fail.
    fn note_unrecorded(&self, namespace: &Arc<str>, life: Duration);

    /// Whether any node has recorded that the histories may lack an event.
    fn lacks_events(&self, namespace: &str) -> impl Future<Output = Result<bool, HistoryError>> + Send;

    /// The number of rooms that have a history in this node's memory, and the bytes of their events.
    fn size(&self) -> (usize, usize);
}

/// The histories of all rooms.
pub struct History {
    backend: MemoryOrRedis<MemoryHistory, RedisHistory>,
    sequencer: Sequencer,
    /// Limits the bytes of events that wait for earlier events of their rooms, or for Redis.
    waiting: Budget,
    metrics: Arc<Metrics>,
}

impl History {
    /// Creates the histories of a single node. They are kept in memory, bounded by [`MAX_MEMORY_ROOMS`] and
    /// [`MAX_MEMORY_BYTES`], and lost with the process.
    pub fn in_memory(metrics: Arc<Metrics>) -> Self {
        let backend = MemoryOrRedis::Memory(MemoryHistory::new(metrics.clone()));
        Self { backend, sequencer: Sequencer::new(), waiting: Budget::new(usize::MAX), metrics }
    }

    /// The number of rooms that have a history in this node's memory, and the bytes of their events.
    pub fn size(&self) -> (usize, usize) {
        on_store!(&self.backend, store => store.size())
    }

    /// Creates the histories of a cluster. They are kept in Redis.
    pub fn in_redis(redis: Redis, metrics: Arc<Metrics>) -> Self {
        let backend = MemoryOrRedis::Redis(RedisHistory::new(redis, metrics.clone()));
        Self { backend, sequencer: Sequencer::new(), waiting: Budget::new(MAX_RECORDING_BYTES), metrics }
    }

    /// See [`HistoryStore::append`]. The append is counted.
    ///
    /// # Errors
    /// [`HistoryError`]. The event is then published live without a position in the history, unless the error is
    /// [`HistoryError::Fenced`]. After [`HistoryError::Timeout`] the append may have happened.
    pub async fn append(
        &self,
        room: &RoomKey,
        keep: Retention,
        copy: Option<ListCopy<'_>>,
        event: &Event,
    ) -> Result<Appended, HistoryError> {
        let appended = on_store!(&self.backend, store => store.append(room, keep, copy, event).await);
        match &appended {
            Ok(_) => self.metrics.history_appends_total.with_label_values(&[&*room.namespace]).inc(),
            Err(error) => self.count("append", error),
        }
        appended
    }

    /// Reads a page of a room's history. The page is empty when the room has no history.
    ///
    /// # Errors
    /// [`HistoryError`]
    pub async fn read(&self, room: &RoomKey, query: HistoryQuery) -> Result<HistoryPage, HistoryError> {
        let page = on_store!(&self.backend, store => store.read(room, query).await);
        page.inspect_err(|error| self.count("read", error))
    }

    /// Records that an event was published live and may be missing in the histories. For `window` plus 60 s, no client
    /// of the namespace can prove which events it missed. The other nodes learn of this as soon as Redis accepts the
    /// note.
    pub fn note_unrecorded(&self, namespace: &Arc<str>, window: Duration) {
        let life = window + GRACE;
        on_store!(&self.backend, store => store.note_unrecorded(namespace, life));
    }

    /// Whether the histories of the namespace may lack an event that a returning client must get.
    ///
    /// # Errors
    /// [`HistoryError`]
    pub async fn lacks_events(&self, namespace: &str) -> Result<bool, HistoryError> {
        on_store!(&self.backend, store => store.lacks_events(namespace).await)
    }

    /// Counts the events that a joining client was shown, and the reason if the events were incomplete.
    pub fn count_replay(&self, namespace: &str, events: usize, incomplete: Option<&str>) {
        self.metrics.history_replayed_total.with_label_values(&[namespace]).inc_by(events as u64);
        if let Some(reason) = incomplete {
            self.metrics.history_incomplete_total.with_label_values(&[reason]).inc();
        }
    }

    fn count(&self, op: &str, error: &HistoryError) {
        self.metrics.history_errors_total.with_label_values(&[op, error.as_str()]).inc();
        tracing::debug!(history.op = op, error = %error, "an operation on a history failed");
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("backend", &self.backend.name()).finish_non_exhaustive()
    }
}

/// Creates an epoch: the time in ms and ten random bits, 51 bits in all. A later epoch is larger, unless clocks go
/// back.
fn new_epoch() -> u64 {
    let ms = unix_millis(SystemTime::now()) & ((1 << 41) - 1);
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
