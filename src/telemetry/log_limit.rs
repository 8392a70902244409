//! Limits how often a record is logged: a burst, and then a number per second. Further records are only counted.
//!
//! Clients cause log records. Each record that a single client can cause at will, at `info` or above, passes a gate of
//! its own. So no client can fill a disk or hide other records.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// A rate limit for one kind of record. It applies to the whole process, like the log.
pub struct LogLimit<C: Clock = MonotonicClock> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
    /// How many records were suppressed since the last one that passed.
    missed: AtomicU64,
    suppressed: AtomicU64,
}

impl LogLimit {
    /// A gate that lets `burst` records pass at once, and `per_second` after that. Both are at least 1.
    pub fn new(burst: u32, per_second: u32) -> Self {
        Self::with_clock(burst, per_second, MonotonicClock)
    }
}

impl<C: Clock> LogLimit<C> {
    fn with_clock(burst: u32, per_second: u32, clock: C) -> Self {
        let positive = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(positive(per_second)).allow_burst(positive(burst));
        let limiter = RateLimiter::direct_with_clock(quota, clock);
        Self { limiter, missed: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Returns `Some` when a record may pass, with the number of records that were suppressed before it. Returns
    /// `None` when the record is suppressed.
    pub fn pass(&self) -> Option<u64> {
        if self.limiter.check().is_ok() {
            return Some(self.missed.swap(0, Ordering::Relaxed));
        }
        self.missed.fetch_add(1, Ordering::Relaxed);
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// How many records were suppressed since the process started.
    pub fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }
}

/// Logs a record at most once a second from each place in the code. The field `suppressed` says how many records were
/// left out since the previous one. Takes a level (`error`, `warn`, `info`) and the arguments of the macros of
/// `tracing`.
macro_rules! log_seldom {
    ($level:ident, $($record:tt)+) => {{
        use $crate::telemetry::log_limit::LogLimit;
        static GATE: ::std::sync::LazyLock<LogLimit> = ::std::sync::LazyLock::new(|| LogLimit::new(1, 1));
        if let Some(suppressed) = GATE.pass() {
            let suppressed = (suppressed > 0).then_some(suppressed);
            ::tracing::$level!(suppressed, $($record)+);
        }
    }};
}

pub(crate) use log_seldom;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn flood_is_bounded_and_counted() {
        let clock = FakeRelativeClock::default();
        let gate = LogLimit::with_clock(200, 20, clock.clone());
        let written = (0..100_000).filter(|_| gate.pass().is_some()).count();
        assert_eq!(written, 200);
        assert_eq!(gate.suppressed(), 99_800);
        clock.advance(Duration::from_secs(1));
        assert_eq!(gate.pass(), Some(99_800), "the next record says how many it stands for");
        assert_eq!((0..1000).filter(|_| gate.pass().is_some()).count(), 19);
    }
}
