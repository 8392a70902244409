//! The clock of the limits.

#[cfg(test)]
use std::time::Duration;
use std::time::Instant;

use governor::clock::Clock as GovernorClock;
#[cfg(test)]
use governor::clock::FakeRelativeClock;
use governor::nanos::Nanos;

/// Measures the time since the limits were created: real time, or a time that a test sets.
#[derive(Debug, Clone)]
pub struct LimitClock(TimeSource);

#[derive(Debug, Clone)]
enum TimeSource {
    Monotonic(Instant),
    #[cfg(test)]
    Fake(FakeRelativeClock),
}

impl LimitClock {
    /// A clock that follows real time. Changes of the wall clock do not affect it.
    pub fn monotonic() -> Self {
        Self(TimeSource::Monotonic(Instant::now()))
    }

    /// A clock that shows the same time until [`LimitClock::advance`] is called.
    #[cfg(test)]
    pub fn fake() -> Self {
        Self(TimeSource::Fake(FakeRelativeClock::default()))
    }

    /// Moves a fake clock and all its clones. Does nothing for real time.
    #[cfg(test)]
    pub fn advance(&self, by: Duration) {
        if let TimeSource::Fake(clock) = &self.0 {
            clock.advance(by);
        }
    }
}

impl GovernorClock for LimitClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        match &self.0 {
            TimeSource::Monotonic(start) => start.elapsed().into(),
            #[cfg(test)]
            TimeSource::Fake(clock) => clock.now(),
        }
    }
}
