//! Remembers the decisions of join hooks, for as long as the backend allows.

use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use indexmap::IndexMap;
use tokio::time::Instant;
use uuid::Uuid;

/// Maximum number of remembered decisions, over all hooks.
pub const MAX_DECISIONS: usize = 65_536;

/// How many random entries are compared to choose one to evict.
const SAMPLE: usize = 8;

/// A bounded map whose entries expire.
///
/// When the map is full, it evicts one of a few random entries: the one that would expire first.
pub struct DecisionCache<K, V> {
    entries: Mutex<IndexMap<K, CachedDecision<V>>>,
    most: usize,
}

struct CachedDecision<V> {
    value: V,
    until: Instant,
}

impl<K: Hash + Eq, V: Clone> DecisionCache<K, V> {
    /// Creates a cache of at most `most` entries.
    pub fn new(most: usize) -> Self {
        Self { entries: Mutex::default(), most }
    }

    /// Returns the value stored for the key, unless the value has expired.
    pub fn get(&self, key: &K) -> Option<V> {
        let mut entries = self.lock();
        let entry = entries.get(key)?;
        if entry.until > Instant::now() {
            return Some(entry.value.clone());
        }
        entries.swap_remove(key);
        None
    }

    /// Stores a value for the time `ttl`.
    pub fn put(&self, key: K, value: V, ttl: Duration) {
        let entry = CachedDecision { value, until: Instant::now() + ttl };
        let mut entries = self.lock();
        if entries.len() >= self.most && !entries.contains_key(&key) {
            evict(&mut entries);
        }
        entries.insert(key, entry);
    }

    fn lock(&self) -> MutexGuard<'_, IndexMap<K, CachedDecision<V>>> {
        self.entries.lock().expect("no thread panics while it holds this lock")
    }
}

fn evict<K: Hash + Eq, V>(entries: &mut IndexMap<K, CachedDecision<V>>) {
    let random = Uuid::new_v4().into_bytes();
    let picks = random
        .chunks_exact(2)
        .take(SAMPLE)
        .map(|pair| usize::from(u16::from_ne_bytes([pair[0], pair[1]])) % entries.len().max(1));
    let first_to_end = picks.min_by_key(|&at| entries.get_index(at).map(|(_, entry)| entry.until));
    if let Some(at) = first_to_end {
        entries.swap_remove_index(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_value_lives_exactly_its_time() {
        let cache = DecisionCache::new(10);
        cache.put("k", 1, MINUTE);
        tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
        assert_eq!(cache.get(&"k"), Some(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cache.get(&"k"), None);
        assert!(cache.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_bound_holds_and_a_newer_answer_replaces_an_older_one() {
        let cache = DecisionCache::new(100);
        for key in 0..1000 {
            cache.put(key, key, MINUTE);
        }
        assert_eq!(cache.lock().len(), 100);
        cache.put(999, 1, MINUTE);
        assert_eq!((cache.get(&999), cache.lock().len()), (Some(1), 100));
    }
}
