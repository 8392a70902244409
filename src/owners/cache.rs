//! Caches Redis' answers for 1 s, so that many clients that join one room cause one lookup.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::OwnerKey;

/// How long a cached answer is used.
pub(super) const BELIEVED: Duration = Duration::from_secs(1);

/// Maximum number of cached answers.
pub(super) const MAX_REMEMBERED: usize = 10_000;

/// Cached owners. A missing owner is never cached: a backend that has just recorded an owner expects rules to find it
/// at once.
#[derive(Default)]
pub(super) struct OwnerCache(Mutex<CachedOwners>);

#[derive(Default)]
struct CachedOwners {
    answers: HashMap<OwnerKey, (String, Instant)>,
    /// Counts changes made by this node, so that an answer that Redis gave before a change is not cached after the
    /// change.
    changes: u64,
}

impl OwnerCache {
    pub(super) fn get(&self, key: &OwnerKey) -> Option<String> {
        let now = Instant::now();
        self.with(|table| table.answers.get(key).filter(|(_, until)| *until > now).map(|(owner, _)| owner.clone()))
    }

    /// The number of changes of owners so far. Read it before asking Redis, and pass it to [`OwnerCache::remember`].
    pub(super) fn changes(&self) -> u64 {
        self.with(|table| table.changes)
    }

    pub(super) fn remember(&self, key: OwnerKey, owner: &str, asked_at: u64) {
        let now = Instant::now();
        self.with(|table| {
            if table.answers.len() >= MAX_REMEMBERED {
                table.answers.retain(|_, (_, until)| *until > now);
            }
            if table.changes == asked_at && table.answers.len() < MAX_REMEMBERED {
                table.answers.insert(key, (owner.to_owned(), now + BELIEVED));
            }
        });
    }

    /// Drops the cached owner, because this node changes the owner in Redis.
    pub(super) fn forget(&self, key: &OwnerKey) {
        self.with(|table| {
            table.changes += 1;
            table.answers.remove(key);
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut CachedOwners) -> T) -> T {
        work(&mut self.0.lock().expect("no thread panics while it holds this lock"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::room_key;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_believed_for_a_moment() {
        let (cache, key) = (OwnerCache::default(), room_key("/", "a"));
        cache.remember(key.clone(), "ada", cache.changes());
        assert_eq!(cache.get(&key), Some("ada".into()));
        tokio::time::advance(BELIEVED).await;
        assert_eq!(cache.get(&key), None);
    }

    #[test]
    fn an_answer_from_before_a_change_is_not_remembered_after_it() {
        let (cache, key) = (OwnerCache::default(), room_key("/", "a"));
        let asked_at = cache.changes();
        cache.forget(&key);
        cache.remember(key.clone(), "ada", asked_at);
        assert_eq!(cache.get(&key), None);
    }

    #[test]
    fn the_cache_is_bounded() {
        let cache = OwnerCache::default();
        for room in 0..MAX_REMEMBERED + 5 {
            cache.remember(room_key("/", &room.to_string()), "ada", cache.changes());
        }
        assert_eq!(cache.with(|table| table.answers.len()), MAX_REMEMBERED);
    }
}
