//! The sessions of clients that disconnected from a node without Redis.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::{RecoveryFailure, StoredSession};
use crate::telemetry::metrics::Metrics;

/// Stores sessions until their clients return or their recovery window is over.
pub(super) struct MemorySessionStore {
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
    pub(super) fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self { table: Mutex::default(), most, metrics }
    }

    pub(super) fn keep(&self, key: Arc<str>, digest: String, kept: StoredSession, window: Duration) {
        let now = Instant::now();
        let mut table = self.table.lock().expect("no panic while held");
        let until = now + window;
        table.order.push_back((key.clone(), until));
        table.sessions.insert(key, SessionEntry { digest, kept, until });
        let evicted = table.prune(now, self.most);
        self.metrics.recovery_evicted_total.with_label_values::<&str>(&[]).inc_by(evicted);
        self.note(&table);
    }

    /// Removes and returns the session. A session can be taken only once.
    pub(super) fn take(&self, key: &Arc<str>, digest: &str) -> Result<StoredSession, RecoveryFailure> {
        let now = Instant::now();
        let mut table = self.table.lock().expect("no panic while held");
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
        Ok(entry.kept)
    }

    fn note(&self, table: &SessionTable) {
        let count = i64::try_from(table.sessions.len()).unwrap_or(i64::MAX);
        self.metrics.recovery_sessions.with_label_values::<&str>(&[]).set(count);
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

    fn kept(id: &str) -> StoredSession {
        StoredSession { id: id.into(), rooms: Vec::new(), metadata: serde_json::Map::new(), generation: 0, version: 0 }
    }

    fn memory(most: usize) -> MemorySessionStore {
        MemorySessionStore::new(most, Arc::new(Metrics::new()))
    }

    const WINDOW: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn session_is_given_once_in_time_and_to_its_user() {
        let memory = memory(10);
        memory.keep("k".into(), "alice".into(), kept("1"), WINDOW);
        assert_eq!(memory.take(&"k".into(), "bob"), Err(RecoveryFailure::Refused));
        assert_eq!(memory.take(&"k".into(), "alice"), Ok(kept("1")));
        assert_eq!(memory.take(&"k".into(), "alice"), Err(RecoveryFailure::Unknown));
        memory.keep("k".into(), "alice".into(), kept("2"), WINDOW);
        tokio::time::advance(WINDOW).await;
        assert_eq!(memory.take(&"k".into(), "alice"), Err(RecoveryFailure::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn oldest_make_way() {
        let memory = memory(2);
        for key in ["a", "b", "c"] {
            memory.keep(key.into(), "u".into(), kept(key), WINDOW);
        }
        assert_eq!(memory.take(&"a".into(), "u"), Err(RecoveryFailure::Unknown));
        assert!(memory.take(&"b".into(), "u").is_ok() && memory.take(&"c".into(), "u").is_ok());
        assert_eq!(memory.metrics.recovery_evicted_total.with_label_values::<&str>(&[]).get(), 1);
    }
    #[tokio::test(start_paused = true)]
    async fn sessions_that_were_taken_push_none_out_and_are_not_listed_for_long() {
        let memory = memory(2);
        memory.keep("stays".into(), "u".into(), kept("stays"), WINDOW);
        for _ in 0..100 {
            memory.keep("returns".into(), "u".into(), kept("returns"), WINDOW);
            assert!(memory.take(&"returns".into(), "u").is_ok());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(memory.table.lock().unwrap().order.len() <= 4);
        assert_eq!(memory.take(&"stays".into(), "u"), Ok(kept("stays")));
        assert_eq!(memory.metrics.recovery_evicted_total.with_label_values::<&str>(&[]).get(), 0);
    }
}
