//! How long to wait before another attempt.

use std::time::Duration;

use uuid::Uuid;

/// The first wait of a call that a client is waiting for.
pub const CALL: Backoff = Backoff { first: Duration::from_millis(50), most: Duration::from_secs(2) };

/// The first wait of a notice that nobody is waiting for.
pub const NOTICE: Backoff = Backoff { first: Duration::from_millis(200), most: Duration::from_secs(10) };

/// Exponential backoff with full jitter above a half.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// The wait before the attempt that follows `failed` failed ones (from 1): between a half and the whole of
    /// `first`, doubled each time, `most` at most.
    pub fn after(self, failed: u32) -> Duration {
        self.at(failed, jitter())
    }

    fn at(self, failed: u32, jitter: f64) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX));
        doubled.min(self.most).mul_f64(0.5 + jitter / 2.0)
    }
}

/// From 0 to 1.
fn jitter() -> f64 {
    // The low half of a UUID of version 4 has 62 random bits; two fixed ones above are cut off.
    let bits = u32::try_from(Uuid::new_v4().as_u128() & u128::from(u32::MAX)).expect("masked");
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most() {
        let waits: Vec<_> = (1..=8).map(|failed| CALL.at(failed, 1.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(CALL.at(u32::MAX, 1.0), Duration::from_secs(2));
    }

    #[test]
    fn jitter_takes_at_most_a_half() {
        assert_eq!(CALL.at(1, 0.0), Duration::from_millis(25));
        for _ in 0..100 {
            assert!((0.0..=1.0).contains(&jitter()));
        }
    }
}
