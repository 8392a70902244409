//! The bytes of events that wait on this node: behind an earlier event of their client, or for the answer of a backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What an event takes beside its text and attachments.
pub(super) const EVENT_BYTES: usize = 512;

/// All bytes that wait, within a bound.
pub(super) struct PendingBytes {
    held: AtomicUsize,
    most: usize,
}

/// A part of the bound; given back when it is dropped.
pub(super) struct Share {
    of: Arc<PendingBytes>,
    bytes: usize,
}

impl PendingBytes {
    /// Nothing waits yet.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), most })
    }

    /// Takes a part of the bound. `None`: it does not fit. One that is larger than the bound fits where nothing else waits.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let fits = |held: usize| (held == 0 || held.saturating_add(bytes) <= self.most).then(|| held + bytes);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Share { of: self.clone(), bytes })
    }

    /// How many bytes wait.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_holds_and_everything_is_given_back() {
        let pending_bytes = PendingBytes::new(100);
        let first = pending_bytes.take(60).unwrap();
        assert!(pending_bytes.take(41).is_none());
        let second = pending_bytes.take(40).unwrap();
        assert_eq!(pending_bytes.held(), 100);
        drop((first, second));
        assert_eq!(pending_bytes.held(), 0);
        let large = pending_bytes.take(1000).unwrap();
        assert!(pending_bytes.take(1).is_none());
        drop(large);
        assert_eq!(pending_bytes.held(), 0);
    }
}
