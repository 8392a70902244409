//! The circuit breaker: stops calling a backend that fails repeatedly, for a while.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::time::Instant;

/// A breaker is closed while the backend works, and opens after `failures` failed attempts in a row. When the time
/// `open` has passed, one attempt at a time tests whether the backend works again.
pub struct Breaker {
    failures: u32,
    open: Duration,
    state: Mutex<BreakerState>,
    gauge: IntGauge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerState {
    Closed { failures: u32 },
    Open { until: Instant },
    // The attempt that tests the backend is under way.
    HalfOpen,
}

/// The state of the backend that the outcome of an attempt shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendHealth {
    /// The backend answered.
    Works,
    /// The backend failed, or could not be reached in time.
    Fails,
}

/// Permission to make one attempt. An attempt whose permission is dropped without a report (because the caller went
/// away) does not count. If it was the attempt that tests the backend, the next attempt tests it.
pub struct AttemptPermit {
    breaker: Arc<Breaker>,
    deciding: bool,
    reported: bool,
}

impl Breaker {
    /// Creates a breaker that opens after this many failures in a row (0: never) and stays open for `open`.
    pub fn new(failures: u32, open: Duration, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self { failures, open, state: Mutex::new(BreakerState::Closed { failures: 0 }), gauge })
    }

    /// Permits an attempt, if the breaker allows one now.
    ///
    /// # Errors
    /// Returns how long the caller should wait before it asks again.
    pub fn admit(self: &Arc<Self>) -> Result<AttemptPermit, Duration> {
        let mut state = self.lock();
        let deciding = match *state {
            BreakerState::Closed { .. } => false,
            BreakerState::Open { until } => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    return Err(left);
                }
                *state = BreakerState::HalfOpen;
                true
            }
            BreakerState::HalfOpen => return Err(self.open),
        };
        Ok(AttemptPermit { breaker: self.clone(), deciding, reported: false })
    }

    /// Returns how much longer the breaker refuses attempts. `None` when it permits them.
    pub fn refuses(&self) -> Option<Duration> {
        match *self.lock() {
            BreakerState::Closed { .. } => None,
            BreakerState::Open { until } => {
                Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
            }
            BreakerState::HalfOpen => Some(self.open),
        }
    }

    fn report(&self, health: BackendHealth, deciding: bool) {
        let mut state = self.lock();
        *state = match (*state, health) {
            (BreakerState::Closed { .. }, BackendHealth::Works) => BreakerState::Closed { failures: 0 },
            (BreakerState::Closed { failures }, BackendHealth::Fails) => {
                self.after_failures(failures.saturating_add(1))
            }
            (BreakerState::HalfOpen, BackendHealth::Works) if deciding => BreakerState::Closed { failures: 0 },
            (BreakerState::HalfOpen, BackendHealth::Fails) if deciding => self.opened(),
            // The attempt began before the breaker opened, so it does not change the state.
            (state, _) => state,
        };
        self.gauge.set(i64::from(!matches!(*state, BreakerState::Closed { .. })));
    }

    fn after_failures(&self, failures: u32) -> BreakerState {
        if self.failures > 0 && failures >= self.failures { self.opened() } else { BreakerState::Closed { failures } }
    }

    fn opened(&self) -> BreakerState {
        BreakerState::Open { until: Instant::now() + self.open }
    }

    fn abandon(&self) {
        let mut state = self.lock();
        if *state == BreakerState::HalfOpen {
            *state = BreakerState::Open { until: Instant::now() };
        }
    }

    fn lock(&self) -> MutexGuard<'_, BreakerState> {
        self.state.lock().expect("no thread panics while it holds this lock")
    }
}

impl AttemptPermit {
    /// Reports the outcome of the attempt to the breaker.
    pub fn report(mut self, health: BackendHealth) {
        self.reported = true;
        self.breaker.report(health, self.deciding);
    }
}

impl Drop for AttemptPermit {
    fn drop(&mut self) {
        if self.deciding && !self.reported {
            self.breaker.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(10);

    fn breaker() -> Arc<Breaker> {
        Breaker::new(3, OPEN, IntGauge::new("open", "open").unwrap())
    }

    fn attempt(breaker: &Arc<Breaker>, health: BackendHealth) {
        breaker.admit().expect("admitted").report(health);
    }

    fn trip(breaker: &Arc<Breaker>) {
        for _ in 0..3 {
            attempt(breaker, BackendHealth::Fails);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_says_for_how_long() {
        let breaker = breaker();
        attempt(&breaker, BackendHealth::Fails);
        attempt(&breaker, BackendHealth::Fails);
        attempt(&breaker, BackendHealth::Works);
        trip(&breaker);
        assert_eq!(breaker.admit().err(), Some(OPEN));
        assert_eq!(breaker.gauge.get(), 1);
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(breaker.refuses(), Some(Duration::from_secs(6)));
    }

    #[tokio::test(start_paused = true)]
    async fn half_open_lets_one_attempt_decide() {
        let breaker = breaker();
        trip(&breaker);
        tokio::time::advance(OPEN).await;
        let first = breaker.admit().expect("admitted");
        assert!(breaker.admit().is_err());
        first.report(BackendHealth::Fails);
        assert!(breaker.admit().is_err());
        tokio::time::advance(OPEN).await;
        attempt(&breaker, BackendHealth::Works);
        assert_eq!(breaker.gauge.get(), 0);
        attempt(&breaker, BackendHealth::Fails);
        assert!(breaker.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_attempt_leaves_the_decision_to_the_next() {
        let breaker = breaker();
        trip(&breaker);
        tokio::time::advance(OPEN).await;
        drop(breaker.admit());
        attempt(&breaker, BackendHealth::Works);
        assert_eq!(breaker.refuses(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_straggler_decides_nothing() {
        let breaker = breaker();
        let straggler = breaker.admit().expect("admitted");
        trip(&breaker);
        straggler.report(BackendHealth::Works);
        assert!(breaker.admit().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn zero_failures_means_never() {
        let breaker = Breaker::new(0, OPEN, IntGauge::new("open", "open").unwrap());
        for _ in 0..100 {
            attempt(&breaker, BackendHealth::Fails);
        }
        assert!(breaker.admit().is_ok());
    }
}
