//! Computes the pause before the next attempt.

use std::time::Duration;

use uuid::Uuid;

/// The pauses between attempts of a call, for which a client waits.
pub const CALL: Backoff = Backoff { first: Duration::from_millis(50), most: Duration::from_secs(2) };

/// The pauses between attempts of a notice, for which no client waits.
pub const NOTICE: Backoff = Backoff { first: Duration::from_millis(200), most: Duration::from_secs(10) };

/// Exponential backoff with jitter: each pause is between 50% and 100% of its nominal length.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// Returns the pause after `failed` failed attempts (counted from 1). Its nominal length is `first`, doubled with
    /// each further failure, at most `most`; jitter shortens it by up to one half.
    pub fn after(self, failed: u32) -> Duration {
        self.at(failed, jitter())
    }

    fn at(self, failed: u32, jitter: f64) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX));
        doubled.min(self.most).mul_f64(0.5 + jitter / 2.0)
    }
}

/// Returns a random number from 0 to 1.
fn jitter() -> f64 {
    // The low 32 bits of a UUID of version 4 are random. Its fixed bits are among the higher ones.
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
