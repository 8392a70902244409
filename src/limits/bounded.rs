//! A rate limit with one bucket for each key. Clients choose the keys, so the number of keys is bounded.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed, StateStore};

use super::{LimitClock, quota};
use crate::rate::Rate;

/// Number of shared buckets, for keys beyond the bound. Keys of one neighbourhood share a bucket. A bucket takes 8
/// bytes.
pub const OVERFLOW_BUCKETS: usize = 16_384;

/// Number of locks in a store, so that keys seldom wait for one another.
const SHARDS: usize = 16;

/// Minimum number of keys for which a store is swept because it has grown.
const SWEEP_FROM: usize = 1_024;

/// How often keys with a full bucket are removed when the store has not grown.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Minimum time between two sweeps. A sweep visits every key, so a store that is full of active keys must not be swept
/// more often.
const SWEEP_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// The key that is counted: an address or a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LimitKey {
    /// The number of the address or user.
    pub(super) id: u64,
    /// Keys with the same neighbourhood share a bucket when there is no space for a bucket of their own.
    pub(super) neighbourhood: u64,
}

/// A rate limit for each key, for a bounded number of keys.
///
/// A key whose bucket is full again is removed. When the store is full of active keys, a new key shares a bucket with
/// its neighbourhood. So known keys keep their own buckets, and a flood of new keys throttles only its own
/// neighbourhood.
pub(super) struct KeyedLimit {
    limiter: RateLimiter<LimitKey, BucketStore, LimitClock, NoOpMiddleware<Nanos>>,
    store: BucketStore,
    clock: LimitClock,
    swept_at: AtomicU64,
    sweep_at_size: AtomicUsize,
    /// The rate that the limit permits.
    pub(super) rate: Rate,
}

impl KeyedLimit {
    /// Creates a limit for at most `most` keys.
    pub(super) fn new(rate: Rate, most: usize, clock: &LimitClock) -> Self {
        let store = BucketStore::new(most);
        Self {
            limiter: RateLimiter::new(quota(rate), store.clone(), clock.clone()),
            store,
            swept_at: AtomicU64::new(clock.now().as_u64()),
            sweep_at_size: AtomicUsize::new(SWEEP_FROM.min(most)),
            clock: clock.clone(),
            rate,
        }
    }

    /// Counts one event for the key.
    ///
    /// # Errors
    /// Returns the time to wait, when the limit is exceeded.
    pub(super) fn check(&self, key: LimitKey) -> Result<(), Duration> {
        self.sweep_when_due();
        self.limiter.check_key(&key).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// The number of keys that have a bucket of their own.
    pub(super) fn tracked(&self) -> usize {
        self.limiter.len()
    }

    fn sweep_when_due(&self) {
        let now = self.clock.now().as_u64();
        let last = self.swept_at.load(Ordering::Relaxed);
        let age = Duration::from_nanos(now.saturating_sub(last));
        let grown = self.tracked() >= self.sweep_at_size.load(Ordering::Relaxed);
        let due = age >= SWEEP_EVERY || (grown && age >= SWEEP_AT_MOST_EVERY);
        // Only the thread whose exchange succeeds sweeps; the other threads continue.
        if due && self.swept_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
            let next = (self.tracked() * 2).clamp(SWEEP_FROM, self.store.0.most.max(SWEEP_FROM));
            self.sweep_at_size.store(next.min(self.store.0.most), Ordering::Relaxed);
        }
    }
}

/// The token buckets: for each key the time at which its bucket will be full again.
#[derive(Clone)]
struct BucketStore(Arc<KeyedLimitState>);

struct KeyedLimitState {
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<u64, Nanos>>]>,
    overflow: OnceLock<Box<[InMemoryState]>>,
    most: usize,
    len: AtomicUsize,
}

impl BucketStore {
    fn new(most: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let most = most.max(SHARDS);
        Self(Arc::new(KeyedLimitState {
            hasher: RandomState::new(),
            shards,
            overflow: OnceLock::new(),
            most,
            len: AtomicUsize::new(0),
        }))
    }

    /// Returns the shared bucket of the key's neighbourhood.
    fn shared(&self, key: &LimitKey) -> &InMemoryState {
        let all = self.0.overflow.get_or_init(|| (0..OVERFLOW_BUCKETS).map(|_| InMemoryState::default()).collect());
        &all[index(self.0.hasher.hash_one(key.neighbourhood), OVERFLOW_BUCKETS)]
    }
}

impl StateStore for BucketStore {
    type Key = LimitKey;

    fn measure_and_replace<T, F, E>(&self, key: &LimitKey, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let shard = &self.0.shards[index(self.0.hasher.hash_one(key.id), SHARDS)];
        let mut shard = shard.lock().expect("no thread panics while it holds this lock");
        if let Some(at) = shard.get_mut(&key.id) {
            let (answer, next) = decide(Some(*at))?;
            *at = next;
            return Ok(answer);
        }
        if shard.len() >= self.0.most / SHARDS {
            drop(shard);
            return self.shared(key).measure_and_replace(&NotKeyed::NonKey, decide);
        }
        let (answer, next) = decide(None)?;
        shard.insert(key.id, next);
        self.0.len.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }
}

impl ShrinkableKeyedStateStore<LimitKey> for BucketStore {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in &self.0.shards {
            let mut shard = shard.lock().expect("no thread panics while it holds this lock");
            let before = shard.len();
            shard.retain(|_, at| *at > drop_below);
            let (removed, all) = (before - shard.len(), self.0.len.load(Ordering::Relaxed));
            // Buckets are counted while their shard is locked.
            debug_assert!(all >= removed, "{removed} buckets of {all} were removed");
            self.0.len.fetch_sub(removed, Ordering::Relaxed);
        }
    }

    fn shrink_to_fit(&self) {
        for shard in &self.0.shards {
            let mut shard = shard.lock().expect("no thread panics while it holds this lock");
            // Keeps twice the space that is needed, so that a steady load does not allocate again and again.
            if shard.capacity() > shard.len() * 4 {
                let keep = shard.len() * 2;
                shard.shrink_to(keep);
            }
        }
    }

    fn len(&self) -> usize {
        self.0.len.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Returns an index below `count`, from the upper half of the hash.
fn index(hash: u64, count: usize) -> usize {
    let upper = usize::try_from(hash >> 32).expect("32 bits fit");
    upper % count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(rate: &str, most: usize) -> (KeyedLimit, LimitClock) {
        let clock = LimitClock::fake();
        (KeyedLimit::new(rate.parse().unwrap(), most, &clock), clock)
    }

    fn key(id: u64) -> LimitKey {
        LimitKey { id, neighbourhood: id >> 32 }
    }

    #[test]
    fn key_has_its_own_bucket_and_is_told_how_long_to_wait() {
        let (limit, clock) = keyed("2/10s", 100);
        assert!(limit.check(key(1)).is_ok() && limit.check(key(1)).is_ok());
        assert_eq!(limit.check(key(1)), Err(Duration::from_secs(5)));
        assert!(limit.check(key(2)).is_ok());
        clock.advance(Duration::from_secs(5));
        assert!(limit.check(key(1)).is_ok());
        assert!(limit.check(key(1)).is_err());
    }

    #[test]
    fn keys_beyond_the_bound_share_a_bucket_and_known_ones_keep_theirs() {
        let (limit, _) = keyed("2/10s", 160);
        assert!(limit.check(key(0)).is_ok());
        let refused = (1..10_000).filter(|id| limit.check(key(*id)).is_err()).count();
        assert!(limit.tracked() <= 160, "{}", limit.tracked());
        assert!(refused > 9_000, "they are one neighbourhood: {refused}");
        assert!(limit.check(key(0)).is_ok(), "known before the flood");
        assert!(limit.check(key(7 << 32)).is_ok(), "of another neighbourhood");
    }

    #[test]
    fn keys_that_may_do_everything_again_are_forgotten() {
        let (limit, clock) = keyed("10/1m", 1_000_000);
        for id in 0..50_000 {
            assert!(limit.check(key(id)).is_ok());
        }
        assert_eq!(limit.tracked(), 50_000);
        clock.advance(Duration::from_secs(61));
        assert!(limit.check(key(0)).is_ok());
        assert!(limit.tracked() <= 1, "{}", limit.tracked());
        let capacity: usize = limit.store.0.shards.iter().map(|shard| shard.lock().unwrap().capacity()).sum();
        assert!(capacity < 1_000, "{capacity}");
    }
}
