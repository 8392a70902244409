//! Limits how many connections of an address, or sockets of a user, there may be at a time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

/// Number of locks, so that keys seldom wait for one another.
const SHARDS: usize = 16;

/// Minimum capacity from which a table is shrunk.
const SHRINK_FROM: usize = 256;

/// Counts the connections or sockets of each key. A key is stored only while its count is above zero, so there are
/// never more keys than counted connections, and the bound on connections also bounds this memory.
pub(super) struct Concurrent {
    most: u32,
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<u64, u32>>]>,
}

impl Concurrent {
    /// Creates a limit of at most `most` connections or sockets for each key. With 0 there is no limit, and nothing is
    /// counted.
    pub(super) fn new(most: u32) -> Self {
        Self { most, hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// The limit; 0 means no limit.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// Counts one more connection or socket of the key. Returns false, without counting, when the limit is reached.
    pub(super) fn take(&self, key: u64) -> bool {
        if self.most == 0 {
            return true;
        }
        let mut shard = self.shard(key).lock().expect("no thread panics while it holds this lock");
        let count = shard.entry(key).or_insert(0);
        // A new entry has the count 0 and the limit is at least 1, so it always fits.
        let fits = *count < self.most;
        *count += u32::from(fits);
        fits
    }

    /// Subtracts one connection or socket of the key. Call it once for each successful [`Concurrent::take`].
    pub(super) fn give_back(&self, key: u64) {
        if self.most == 0 {
            return;
        }
        let mut shard = self.shard(key).lock().expect("no thread panics while it holds this lock");
        debug_assert!(shard.contains_key(&key), "a connection or socket that was not counted has ended");
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

    /// Returns the number of keys with a count above zero.
    pub(super) fn tracked(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().expect("no thread panics while it holds this lock").len()).sum()
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
