//! The clock of the limits.

use std::time::{Duration, Instant};

use governor::clock::{Clock as GovernorClock, FakeRelativeClock};
use governor::nanos::Nanos;

/// Measures the time since the limits were created. It is real, or moved by a test.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Monotonic(Instant),
    Fake(FakeRelativeClock),
}

impl Clock {
    /// A clock that follows real time. Changes of the wall clock do not affect it.
    pub fn monotonic() -> Self {
        Self(Source::Monotonic(Instant::now()))
    }

    /// A clock that stands still until [`Clock::advance`].
    pub fn fake() -> Self {
        Self(Source::Fake(FakeRelativeClock::default()))
    }

    /// Moves a fake clock and all its clones. Does nothing for real time.
    pub fn advance(&self, by: Duration) {
        if let Source::Fake(clock) = &self.0 {
            clock.advance(by);
        }
    }
}

impl GovernorClock for Clock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        match &self.0 {
            Source::Monotonic(start) => start.elapsed().into(),
            Source::Fake(clock) => clock.now(),
        }
    }
}
