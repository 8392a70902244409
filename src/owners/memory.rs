//! The owners of a single node, in memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::{OwnerKey, OwnersError, room_key};

/// Maximum number of rooms that have owners in memory.
pub const MAX_MEMORY_OWNERS: usize = 500_000;

/// Owners in memory. Expired owners are removed when other owners are set.
#[derive(Default)]
pub(super) struct MemoryOwners(Mutex<OwnerTable>);

#[derive(Default)]
struct OwnerTable {
    owners: HashMap<OwnerKey, (String, Instant)>,
    ends: BTreeSet<(Instant, OwnerKey)>,
}

impl MemoryOwners {
    pub(super) fn set(&self, namespace: &str, room: &str, owner: &str, ttl: Duration) -> Result<(), OwnersError> {
        self.with(|table| table.set(room_key(namespace, room), owner, ttl, MAX_MEMORY_OWNERS))
    }

    pub(super) fn get(&self, namespace: &str, room: &str) -> Option<String> {
        let now = Instant::now();
        self.with(|table| {
            let (owner, end) = table.owners.get(&room_key(namespace, room))?;
            (*end > now).then(|| owner.clone())
        })
    }

    pub(super) fn remove(&self, namespace: &str, room: &str) {
        self.with(|table| table.remove(&room_key(namespace, room)));
    }

    fn with<T>(&self, work: impl FnOnce(&mut OwnerTable) -> T) -> T {
        work(&mut self.0.lock().expect("no panic while held"))
    }
}

// === impl Table ===

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

    #[test]
    fn owners_are_kept_by_namespace_and_room() {
        let owners = MemoryOwners::default();
        owners.set("/", "a", "ada", HOUR).unwrap();
        owners.set("/x", "a", "bob", HOUR).unwrap();
        assert_eq!(
            (owners.get("/", "a"), owners.get("/x", "a"), owners.get("/", "b")),
            (Some("ada".into()), Some("bob".into()), None)
        );
        owners.set("/", "a", "eve", HOUR).unwrap();
        owners.remove("/x", "a");
        owners.remove("/x", "a");
        assert_eq!((owners.get("/", "a"), owners.get("/x", "a")), (Some("eve".into()), None));
    }

    #[tokio::test(start_paused = true)]
    async fn owners_end_with_their_time() {
        let owners = MemoryOwners::default();
        owners.set("/", "a", "ada", HOUR).unwrap();
        tokio::time::advance(HOUR / 2).await;
        owners.set("/", "a", "ada", HOUR).unwrap();
        tokio::time::advance(HOUR / 2).await;
        assert_eq!(owners.get("/", "a"), Some("ada".into()), "setting it again begins a new time");
        tokio::time::advance(HOUR / 2).await;
        assert_eq!(owners.get("/", "a"), None);
    }

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
