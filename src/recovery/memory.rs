//! The sessions of clients that disconnected from a node without Redis.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::{EndedSession, RecoveryFailure, SessionStore, StoredSession};
use crate::history::HistoryError;
use crate::session::Session;
use crate::session::offsets::OffsetsSnapshot;
use crate::telemetry::metrics::Metrics;

/// Stores sessions until their clients return or their recovery window is over.
pub struct MemorySessionStore {
    table: Mutex<SessionTable>,
    most: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct SessionTable {
    sessions: HashMap<Arc<str>, SessionEntry>,
    /// The keys and expiry times in the order of storing. A session that was taken stays in this list until its expiry
    /// time.
    order: VecDeque<(Arc<str>, Instant)>,
}

struct SessionEntry {
    digest: String,
    kept: StoredSession,
    until: Instant,
}

impl MemorySessionStore {
    /// Creates a store of at most `most` sessions. Beyond it, the session that was stored first is removed.
    pub fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self { table: Mutex::default(), most, metrics }
    }

    fn note(&self, table: &SessionTable) {
        let count = i64::try_from(table.sessions.len()).unwrap_or(i64::MAX);
        self.metrics.recovery_sessions.with_label_values::<&str>(&[]).set(count);
    }
}

impl SessionStore for MemorySessionStore {
    async fn save(&self, _session: &Session, _snapshot: OffsetsSnapshot) -> Result<(), HistoryError> {
        Ok(())
    }

    async fn keep(&self, ended: EndedSession) -> Result<(), HistoryError> {
        if ended.window.is_zero() {
            return Ok(());
        }
        let now = Instant::now();
        let mut table = self.table.lock().expect("no thread panics while it holds this lock");
        let until = now + ended.window;
        table.order.push_back((ended.key.clone(), until));
        table.sessions.insert(ended.key, SessionEntry { digest: ended.digest, kept: ended.state, until });
        let evicted = table.prune(now, self.most);
        self.metrics.recovery_evicted_total.with_label_values::<&str>(&[]).inc_by(evicted);
        self.note(&table);
        Ok(())
    }

    async fn take(
        &self,
        _namespace: &Arc<str>,
        key: &Arc<str>,
        digest: &str,
    ) -> Result<StoredSession, RecoveryFailure> {
        let now = Instant::now();
        let mut table = self.table.lock().expect("no thread panics while it holds this lock");
        table.prune(now, self.most);
        let entry = table.sessions.get(key).ok_or(RecoveryFailure::Unknown)?;
        if entry.until <= now {
            return Err(RecoveryFailure::Expired);
        }
        if entry.digest != digest {
            return Err(RecoveryFailure::Refused);
        }
        let entry = table.sessions.remove(key).ok_or(RecoveryFailure::Unknown)?;
        self.note(&table);
        Ok(entry.kept.next_generation())
    }

    async fn tend(&self, _longest: Duration) -> bool {
        true
    }
}

impl SessionTable {
    /// Removes expired sessions, and the oldest sessions when there are more than `most`. Returns how many of the
    /// removed sessions had not expired.
    fn prune(&mut self, now: Instant, most: usize) -> u64 {
        let sessions = &self.sessions;
        let is_kept = |(key, until): &(Arc<str>, Instant)| sessions.get(key).is_some_and(|entry| entry.until == *until);
        // Most entries belong to sessions that were taken. They are removed all at once, so that the list stays
        // bounded.
        if self.order.len() > most.saturating_mul(2) {
            self.order.retain(is_kept);
        }
        let mut evicted = 0;
        while let Some((key, until)) = self.order.front() {
            let kept = self.sessions.get(key).is_some_and(|entry| entry.until == *until);
            if kept && *until > now && self.sessions.len() <= most {
                break;
            }
            if kept {
                evicted += u64::from(*until > now);
                self.sessions.remove(key);
            }
            self.order.pop_front();
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(key: &str) -> EndedSession {
        let state = StoredSession {
            id: key.into(),
            rooms: Vec::new(),
            metadata: Default::default(),
            set_by_hooks: Default::default(),
            generation: 0,
            version: 0,
        };
        EndedSession::again(&key.into(), "u".into(), &state, Duration::from_secs(60))
    }

    async fn is_taken(memory: &MemorySessionStore, key: &str) -> bool {
        memory.take(&"/".into(), &key.into(), "u").await.is_ok()
    }

    fn evicted(memory: &MemorySessionStore) -> u64 {
        memory.metrics.recovery_evicted_total.with_label_values::<&str>(&[]).get()
    }

    #[tokio::test(start_paused = true)]
    async fn oldest_make_way() {
        let memory = MemorySessionStore::new(2, Arc::default());
        for key in ["a", "b", "c"] {
            memory.keep(ended(key)).await.unwrap();
        }
        assert!(!is_taken(&memory, "a").await && is_taken(&memory, "b").await && is_taken(&memory, "c").await);
        assert_eq!(evicted(&memory), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_were_taken_push_none_out_and_are_not_listed_for_long() {
        let memory = MemorySessionStore::new(2, Arc::default());
        memory.keep(ended("stays")).await.unwrap();
        for _ in 0..100 {
            memory.keep(ended("returns")).await.unwrap();
            assert!(is_taken(&memory, "returns").await);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(memory.table.lock().unwrap().order.len() <= 4);
        assert!(is_taken(&memory, "stays").await);
        assert_eq!(evicted(&memory), 0);
    }
}
