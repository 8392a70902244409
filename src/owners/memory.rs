//! The owners of a single node, in memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::{OwnerKey, OwnerStore, OwnersError, room_key};

/// Maximum number of rooms that have owners in memory.
pub const MAX_MEMORY_OWNERS: usize = 500_000;

/// Owners in memory. Expired owners are removed when other owners are set.
#[derive(Default)]
pub struct MemoryOwners(Mutex<OwnerTable>);

#[derive(Default)]
struct OwnerTable {
    owners: HashMap<OwnerKey, (String, Instant)>,
    ends: BTreeSet<(Instant, OwnerKey)>,
}

impl OwnerStore for MemoryOwners {
    async fn set(&self, namespace: &str, room: &str, owner: &str, ttl: Duration) -> Result<(), OwnersError> {
        self.with(|table| table.set(room_key(namespace, room), owner, ttl, MAX_MEMORY_OWNERS))
    }

    async fn get(&self, namespace: &str, room: &str) -> Result<Option<String>, OwnersError> {
        let now = Instant::now();
        Ok(self.with(|table| {
            let (owner, end) = table.owners.get(&room_key(namespace, room))?;
            (*end > now).then(|| owner.clone())
        }))
    }

    async fn remove(&self, namespace: &str, room: &str) -> Result<(), OwnersError> {
        self.with(|table| table.remove(&room_key(namespace, room)));
        Ok(())
    }
}

impl MemoryOwners {
    fn with<T>(&self, work: impl FnOnce(&mut OwnerTable) -> T) -> T {
        work(&mut self.0.lock().expect("no thread panics while it holds this lock"))
    }
}

impl OwnerTable {
    fn set(&mut self, key: OwnerKey, owner: &str, ttl: Duration, max: usize) -> Result<(), OwnersError> {
        let now = Instant::now();
        self.remove(&key);
        self.sweep(now);
        if self.owners.len() >= max {
            return Err(OwnersError::Full);
        }
        let end = now + ttl;
        self.ends.insert((end, key.clone()));
        self.owners.insert(key, (owner.to_owned(), end));
        Ok(())
    }

    fn remove(&mut self, key: &OwnerKey) {
        if let Some((_, end)) = self.owners.remove(key) {
            self.ends.remove(&(end, key.clone()));
        }
    }

    fn sweep(&mut self, now: Instant) {
        while self.ends.first().is_some_and(|(end, _)| *end <= now) {
            if let Some((_, key)) = self.ends.pop_first() {
                self.owners.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_makes_room() {
        let mut table = OwnerTable::default();
        for room in ["a", "b"] {
            table.set(room_key("/", room), "ada", HOUR, 2).unwrap();
        }
        assert_eq!(table.set(room_key("/", "c"), "ada", HOUR, 2), Err(OwnersError::Full));
        table.set(room_key("/", "a"), "bob", HOUR * 2, 2).unwrap();
        tokio::time::advance(HOUR).await;
        table.set(room_key("/", "c"), "ada", HOUR, 2).unwrap();
        assert_eq!((table.owners.len(), table.ends.len()), (2, 2));
    }
}
