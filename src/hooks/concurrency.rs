//! Limits the concurrency of calls, with a bounded queue in front.

use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::IntGauge;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Admits at most `concurrency` callers at a time. At most `queue` further callers wait, and all others are refused.
pub struct ConcurrencyLimit {
    slots: Semaphore,
    waiting: AtomicUsize,
    queue: usize,
    gauge: IntGauge,
}

/// The error that the queue of waiting callers is full.
#[derive(Debug, PartialEq, Eq)]
pub struct QueueFull {
    /// The bound of the queue, in callers.
    pub bound: usize,
}

impl ConcurrencyLimit {
    /// Creates a gate with these bounds.
    pub fn new(concurrency: usize, queue: usize, gauge: IntGauge) -> Self {
        let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Self { slots: Semaphore::new(concurrency), waiting: AtomicUsize::new(0), queue, gauge }
    }

    /// Waits for a free slot; callers get slots in the order in which they came.
    ///
    /// # Errors
    /// Returns [`QueueFull`] when `queue` callers wait already.
    pub async fn enter(&self) -> Result<SemaphorePermit<'_>, QueueFull> {
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        let place = WaitingCaller::take(self)?;
        let slot = self.slots.acquire().await.expect("the semaphore is never closed");
        drop(place);
        Ok(slot)
    }
}

/// A position in the queue of waiting callers. Dropping the value frees the position, also when the caller went away.
struct WaitingCaller<'a>(&'a ConcurrencyLimit);

impl<'a> WaitingCaller<'a> {
    fn take(gate: &'a ConcurrencyLimit) -> Result<Self, QueueFull> {
        let took =
            gate.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < gate.queue).then_some(n + 1));
        took.map_err(|_| QueueFull { bound: gate.queue })?;
        gate.gauge.inc();
        Ok(Self(gate))
    }
}

impl Drop for WaitingCaller<'_> {
    fn drop(&mut self) {
        let waiting = self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(waiting > 0, "a caller that was not counted has stopped waiting");
        self.0.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn gate(concurrency: usize, queue: usize) -> ConcurrencyLimit {
        ConcurrencyLimit::new(concurrency, queue, IntGauge::new("queue", "queue").unwrap())
    }

    #[tokio::test]
    async fn the_caller_beyond_the_queue_is_turned_away_at_once() {
        let gate = gate(1, 1);
        let inside = gate.enter().await.unwrap();
        let mut waiting = Box::pin(gate.enter());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(gate.gauge.get(), 1);
        assert_eq!(gate.enter().await.err(), Some(QueueFull { bound: 1 }));
        drop(inside);
        assert!(waiting.await.is_ok());
        assert_eq!(gate.gauge.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_gives_its_place_back() {
        let gate = gate(1, 1);
        let _inside = gate.enter().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(1), gate.enter()).await.is_err());
        assert!(tokio::time::timeout(Duration::from_secs(1), gate.enter()).await.is_err());
        assert_eq!(gate.gauge.get(), 0);
    }
}
