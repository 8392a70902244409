//! Limits the bytes of the entries that wait in queues, in addition to the limit on the number of entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

/// A limit in bytes that several queues can share.
#[derive(Debug, Clone)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    most: usize,
}

/// Bytes that were taken from a budget. Dropping this value returns the bytes to the budget.
#[derive(Debug)]
pub struct ReservedBytes {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Budget {
    /// Creates a budget of `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { used: Arc::default(), most }
    }

    /// Takes bytes from the budget if enough are left. A request for more bytes than the whole budget succeeds when no
    /// other bytes are taken.
    pub fn take(&self, bytes: usize) -> Option<ReservedBytes> {
        let fits = |used: usize| (used == 0 || used.saturating_add(bytes) <= self.most).then(|| used + bytes);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(ReservedBytes { used: self.used.clone(), bytes })
    }

    /// How many bytes are taken.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

/// The sending end of a queue that is limited by the number of its entries and by their bytes.
#[derive(Debug, Clone)]
pub struct Metered<T> {
    queue: mpsc::Sender<(T, ReservedBytes)>,
    budget: Budget,
}

impl<T> Metered<T> {
    /// Creates a queue of at most `buffer` entries. Several queues can share the budget.
    pub fn new(buffer: usize, budget: Budget) -> (Self, mpsc::Receiver<(T, ReservedBytes)>) {
        let (queue, entries) = mpsc::channel(buffer);
        (Self { queue, budget }, entries)
    }

    /// Adds an entry of this many bytes. If the entry does not fit or the receiver was dropped, returns false without
    /// calling `entry`.
    pub fn offer(&self, bytes: usize, entry: impl FnOnce() -> T) -> bool {
        let Ok(place) = self.queue.try_reserve() else { return false };
        let Some(taken) = self.budget.take(bytes) else { return false };
        place.send((entry(), taken));
        true
    }
}

impl Drop for ReservedBytes {
    fn drop(&mut self) {
        let used = self.used.fetch_sub(self.bytes, Ordering::AcqRel);
        debug_assert!(used >= self.bytes, "more bytes were returned than taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let budget = Budget::new(10);
        let large = budget.take(50).expect("alone it fits");
        assert!(budget.take(1).is_none());
        drop(large);
        let some = [budget.take(4), budget.take(6)];
        assert!(some.iter().all(Option::is_some) && budget.take(1).is_none());
        drop(some);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn queue_is_bounded_by_number_and_by_bytes() {
        let budget = Budget::new(10);
        let (queue, mut entries) = Metered::new(3, budget.clone());
        let fits = |bytes| queue.offer(bytes, || bytes);
        assert_eq!([6, 6, 4, 0, 0].map(fits), [true, false, true, true, false]);
        while entries.try_recv().is_ok() {}
        assert_eq!(budget.used(), 0);
    }
}
