//! Limits the bytes that wait in queues, in addition to the limit on the number of entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit in bytes that several queues can share.
#[derive(Debug, Clone)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    most: usize,
}

/// Bytes that were taken from a budget. Dropping this gives them back.
#[derive(Debug)]
pub struct Taken {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Budget {
    /// Creates a budget of `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { used: Arc::default(), most }
    }

    /// Takes bytes if enough are left. A request that is larger than the whole budget succeeds when nothing else is
    /// taken.
    pub fn take(&self, bytes: usize) -> Option<Taken> {
        let fits = |used: usize| (used == 0 || used.saturating_add(bytes) <= self.most).then(|| used + bytes);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Taken { used: self.used.clone(), bytes })
    }

    /// How many bytes are taken.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::AcqRel);
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
}
