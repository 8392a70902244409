//! How many bytes may wait: queues are bounded by number, and by this.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound in bytes that several queues can share.
#[derive(Debug, Clone)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    most: usize,
}

/// Bytes of a budget, given back when this is dropped.
#[derive(Debug)]
pub struct Taken {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Budget {
    /// At most this many bytes at once.
    pub fn new(most: usize) -> Self {
        Self { used: Arc::default(), most }
    }

    /// Takes bytes, if they are left. What alone is larger than the budget has it for itself.
    pub fn take(&self, bytes: usize) -> Option<Taken> {
        let fits = |used: usize| (used == 0 || used.saturating_add(bytes) <= self.most).then(|| used + bytes);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Taken { used: self.used.clone(), bytes })
    }

    /// How many bytes are taken.
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
