//! The ids of a single node, in memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::Key;

/// Maximum number of ids in memory. Beyond it, the id that would expire next is removed.
pub const MAX_MEMORY_IDS: usize = 100_000;

#[derive(Default)]
pub(super) struct Memory {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Key, (Instant, String)>,
    ends: BTreeSet<(Instant, Key)>,
}

impl Memory {
    /// Returns the stored value of the id. If there is no value, claims the id and returns `None`.
    pub(super) fn claim(&self, key: &Key, entry: &str, life: Duration) -> Option<String> {
        self.with(|table, now| match table.entries.get(key) {
            Some((_, found)) => Some(found.clone()),
            None => {
                table.set(key, entry.to_owned(), now + life);
                None
            }
        })
    }

    pub(super) fn complete(&self, key: &Key, entry: String, ttl: Duration) {
        self.with(|table, now| table.set(key, entry, now + ttl));
    }

    pub(super) fn release(&self, key: &Key) {
        self.with(|table, _| table.remove(key));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Table, Instant) -> T) -> T {
        let now = Instant::now();
        let mut table = self.table.lock().expect("no panic while held");
        table.expire(now);
        work(&mut table, now)
    }
}

impl Table {
    fn set(&mut self, key: &Key, entry: String, ends_at: Instant) {
        self.remove(key);
        if self.entries.len() >= MAX_MEMORY_IDS
            && let Some((_, next)) = self.ends.first().cloned()
        {
            self.remove(&next);
        }
        self.entries.insert(key.clone(), (ends_at, entry));
        self.ends.insert((ends_at, key.clone()));
    }

    fn remove(&mut self, key: &Key) {
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

    #[test]
    fn ids_are_bounded() {
        let memory = Memory::default();
        let key = |number: usize| Key { scope: "s".into(), id: number.to_string() };
        for number in 0..=MAX_MEMORY_IDS {
            assert_eq!(memory.claim(&key(number), "x", Duration::from_secs(60)), None);
        }
        let table = memory.table.lock().unwrap();
        assert_eq!((table.entries.len(), table.ends.len()), (MAX_MEMORY_IDS, MAX_MEMORY_IDS));
        assert!(!table.entries.contains_key(&key(0)));
    }
}
