//! The ids of a single node, in memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::{IdStore, IdempotencyError, PublishKey};

/// Maximum number of ids in memory. Beyond it, the id that would expire next is removed.
pub const MAX_MEMORY_IDS: usize = 100_000;

/// Ids in memory.
#[derive(Default)]
pub struct MemoryIds {
    table: Mutex<IdTable>,
}

#[derive(Default)]
struct IdTable {
    entries: HashMap<PublishKey, (Instant, String)>,
    ends: BTreeSet<(Instant, PublishKey)>,
}

impl IdStore for MemoryIds {
    async fn claim(&self, key: &PublishKey, entry: &str, life: Duration) -> Result<Option<String>, IdempotencyError> {
        Ok(self.with(|table, now| match table.entries.get(key) {
            Some((_, found)) => Some(found.clone()),
            None => {
                table.set(key, entry, now + life);
                None
            }
        }))
    }

    async fn complete(&self, key: &PublishKey, entry: &str, ttl: Duration) -> Result<(), IdempotencyError> {
        self.with(|table, now| table.set(key, entry, now + ttl));
        Ok(())
    }

    async fn release(&self, key: &PublishKey) -> Result<(), IdempotencyError> {
        self.with(|table, _| table.remove(key));
        Ok(())
    }
}

impl MemoryIds {
    fn with<T>(&self, work: impl FnOnce(&mut IdTable, Instant) -> T) -> T {
        let now = Instant::now();
        let mut table = self.table.lock().expect("no thread panics while it holds this lock");
        table.expire(now);
        work(&mut table, now)
    }
}

impl IdTable {
    fn set(&mut self, key: &PublishKey, entry: &str, ends_at: Instant) {
        self.remove(key);
        if self.entries.len() >= MAX_MEMORY_IDS
            && let Some((_, next)) = self.ends.first().cloned()
        {
            self.remove(&next);
        }
        self.entries.insert(key.clone(), (ends_at, entry.to_owned()));
        self.ends.insert((ends_at, key.clone()));
    }

    fn remove(&mut self, key: &PublishKey) {
        if let Some((ends_at, _)) = self.entries.remove(key) {
            self.ends.remove(&(ends_at, key.clone()));
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((ends_at, key)) = self.ends.first().cloned()
            && ends_at <= now
        {
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ids_are_bounded() {
        let memory = MemoryIds::default();
        let key = |number: usize| PublishKey { scope: "s".into(), id: number.to_string() };
        for number in 0..=MAX_MEMORY_IDS {
            assert_eq!(memory.claim(&key(number), "x", Duration::from_secs(60)).await, Ok(None));
        }
        let table = memory.table.lock().unwrap();
        assert_eq!((table.entries.len(), table.ends.len()), (MAX_MEMORY_IDS, MAX_MEMORY_IDS));
        assert!(!table.entries.contains_key(&key(0)));
    }
}
