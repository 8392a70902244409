//! Counts the bytes of the events that wait on this node, behind an earlier event of their client or for a backend's
//! answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory that an event takes besides its text and attachments, in bytes (an estimate).
pub(super) const EVENT_BYTES: usize = 512;

/// The bytes of all waiting events, and their bound.
pub(super) struct PendingBytes {
    held: AtomicUsize,
    most: usize,
}

/// Bytes reserved from the bound. Dropping the share releases the bytes.
pub(super) struct PendingShare {
    of: Arc<PendingBytes>,
    bytes: usize,
}

impl PendingBytes {
    /// Creates a counter that starts at zero.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), most })
    }

    /// Reserves bytes. Returns `None` when the bound would be exceeded. An event larger than the whole bound is
    /// accepted if nothing else waits.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<PendingShare> {
        let fits = |held: usize| (held == 0 || held.saturating_add(bytes) <= self.most).then(|| held + bytes);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(PendingShare { of: self.clone(), bytes })
    }

    /// Returns how many bytes are reserved.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Drop for PendingShare {
    fn drop(&mut self) {
        let held = self.of.held.fetch_sub(self.bytes, Ordering::Relaxed);
        debug_assert!(held >= self.bytes, "more bytes were returned than reserved");
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
