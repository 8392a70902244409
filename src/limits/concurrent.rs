//! How many of a kind there may be at a time: connections of an address, sockets of a user.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

/// Locks of one count: keys do not wait for one another.
const SHARDS: usize = 16;

/// A smaller table is not worth shrinking.
const SHRINK_FROM: usize = 256;

/// Counts by key. A key is kept only while its count is above zero: there are never more keys than things counted, and so
/// the memory is bounded by whatever bounds those.
pub(super) struct Concurrent {
    most: u32,
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<u64, u32>>]>,
}

impl Concurrent {
    /// At most so many of each key; 0: no limit, and nothing is counted.
    pub(super) fn new(most: u32) -> Self {
        Self { most, hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// What the limit permits; 0: everything.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// Counts one more. False: there are as many as there may be.
    pub(super) fn take(&self, key: u64) -> bool {
        if self.most == 0 {
            return true;
        }
        let mut shard = self.shard(key).lock().expect("no panic while held");
        let count = shard.entry(key).or_insert(0);
        // An entry that was just made counts none, and the limit is at least one.
        let fits = *count < self.most;
        *count += u32::from(fits);
        fits
    }

    /// Counts one less; whoever took one calls it once.
    pub(super) fn give_back(&self, key: u64) {
        if self.most == 0 {
            return;
        }
        let mut shard = self.shard(key).lock().expect("no panic while held");
        match shard.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                shard.remove(&key);
                if shard.capacity() > SHRINK_FROM && shard.capacity() > shard.len() * 4 {
                    let keep = shard.len() * 2;
                    shard.shrink_to(keep);
                }
            }
        }
    }

    /// Keys that are counted now.
    pub(super) fn tracked(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().expect("no panic while held").len()).sum()
    }

    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, u32>> {
        let upper = usize::try_from(self.hasher.hash_one(key) >> 32).expect("32 bits fit");
        &self.shards[upper % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_the_limit_fit_and_one_more_does_not() {
        let count = Concurrent::new(3);
        assert_eq!((0..4).filter(|_| count.take(7)).count(), 3);
        assert!(count.take(8), "another key");
        count.give_back(7);
        assert!(count.take(7));
        assert!(!count.take(7));
        assert_eq!(count.tracked(), 2);
    }

    #[test]
    fn nothing_is_kept_of_a_million_keys_that_went() {
        let count = Concurrent::new(2);
        for key in 0..1_000_000 {
            assert!(count.take(key));
        }
        (0..1_000_000).for_each(|key| count.give_back(key));
        assert_eq!(count.tracked(), 0);
        let places: usize = count.shards.iter().map(|shard| shard.lock().unwrap().capacity()).sum();
        assert!(places <= SHARDS * 2 * SHRINK_FROM, "{places}");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let count = Concurrent::new(0);
        assert!((0..100).all(|_| count.take(1)));
        assert_eq!(count.tracked(), 0);
        count.give_back(1);
    }
}
