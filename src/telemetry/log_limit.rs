//! Limits how often a record is logged: a burst, and then a number per second. Further records are only counted.
//!
//! Clients cause log records. Each record that a single client can cause at will, at `info` or above, passes a gate of
//! its own. So no client can fill a disk or hide other records.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A rate limit for one kind of record. It applies to the whole process, like the log.
pub struct LogLimit {
    burst: u32,
    per_second: u32,
    state: Mutex<Option<Bucket>>,
    suppressed: AtomicU64,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
    /// How many records were suppressed since the last one that passed.
    missed: u64,
}

impl LogLimit {
    /// A gate that lets `burst` records pass at once, and `per_second` after that.
    pub const fn new(burst: u32, per_second: u32) -> Self {
        Self { burst, per_second, state: Mutex::new(None), suppressed: AtomicU64::new(0) }
    }

    /// Returns `Some` when a record may pass, with the number of records that were suppressed before it. Returns
    /// `None` when the record is suppressed.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let (burst, per_second) = (f64::from(self.burst), f64::from(self.per_second));
        let mut state = self.state.lock().expect("no panic while held");
        let bucket = state.get_or_insert(Bucket { tokens: burst, at: now, missed: 0 });
        let since = now.saturating_duration_since(bucket.at).min(Duration::from_secs(3600));
        bucket.tokens = (bucket.tokens + since.as_secs_f64() * per_second).min(burst);
        bucket.at = bucket.at.max(now);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Some(std::mem::take(&mut bucket.missed));
        }
        bucket.missed += 1;
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
        static GATE: $crate::telemetry::log_limit::LogLimit = $crate::telemetry::log_limit::LogLimit::new(1, 1);
        if let Some(suppressed) = GATE.pass(::std::time::Instant::now()) {
            let suppressed = (suppressed > 0).then_some(suppressed);
            ::tracing::$level!(suppressed, $($record)+);
        }
    }};
}

pub(crate) use log_seldom;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_is_bounded_and_counted() {
        let gate = LogLimit::new(200, 20);
        let start = Instant::now();
        let written = (0..100_000).filter(|_| gate.pass(start).is_some()).count();
        assert_eq!(written, 200);
        assert_eq!(gate.suppressed(), 99_800);
        let later = start + Duration::from_secs(1);
        assert_eq!(gate.pass(later), Some(99_800), "the next record says how many it stands for");
        assert_eq!((0..1000).filter(|_| gate.pass(later).is_some()).count(), 19);
    }
}
