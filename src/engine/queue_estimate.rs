//! Estimates how many bytes wait for a client of socketioxide. The library's own queue counts packets, not bytes, and
//! does not say how many packets wait.

use crate::time::unix_millis;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

/// The limits of one client's queue.
#[derive(Debug, Clone, Copy)]
pub struct WriteQueueLimits {
    /// The maximum number of packets.
    pub packets: usize,
    /// The maximum number of bytes. A single packet is accepted even if it is larger.
    pub bytes: usize,
}

/// Counts the bytes that are given to the library for a connection, and the bytes that the node has written to it.
///
/// The written bytes include frame headers and packets of the library itself, so this count runs ahead of the queued
/// one. When a packet is queued, the queued count is raised to the written count, so that the difference does not
/// become credit for later packets. Overhead that is written while packets wait makes the client's queue look shorter
/// than it is.
#[derive(Debug)]
pub struct QueueEstimate {
    bounds: WriteQueueLimits,
    queued: AtomicU64,
    left: AtomicU64,
    /// When bytes were last written, as Unix time in ms. 0: never.
    left_at_ms: AtomicU64,
    /// Whether the kernel's send buffer is full.
    blocked: AtomicBool,
}

impl QueueEstimate {
    /// Creates the counters of an empty queue.
    pub fn new(bounds: WriteQueueLimits) -> Self {
        Self {
            bounds,
            queued: AtomicU64::new(0),
            left: AtomicU64::new(0),
            left_at_ms: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
        }
    }

    /// Counts a packet that is about to be queued. Returns false if the packet does not fit.
    pub fn take(&self, bytes: usize) -> bool {
        let (bytes, bound) = (bytes as u64, self.bounds.bytes as u64);
        let count = |queued: u64| {
            let left = self.left.load(Ordering::Relaxed);
            let waiting = queued.saturating_sub(left);
            (waiting == 0 || waiting.saturating_add(bytes) <= bound).then(|| queued.max(left).saturating_add(bytes))
        };
        self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_ok()
    }

    /// Subtracts a packet that could not be queued.
    pub fn give_back(&self, bytes: usize) {
        let count = |queued: u64| Some(queued.saturating_sub(bytes as u64));
        let _ = self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
    }

    /// Records whether the kernel's send buffer is full.
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Whether the kernel's send buffer is full. Always false for a polling client, because the node cannot know when
    /// it polls again.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// The estimated number of bytes that wait for the client. Frame headers and packets of the library itself that
    /// were written meanwhile are subtracted, too.
    pub fn waiting(&self) -> usize {
        let waiting = self.queued.load(Ordering::Relaxed).saturating_sub(self.left.load(Ordering::Relaxed));
        usize::try_from(waiting).unwrap_or(usize::MAX)
    }

    /// When bytes were last written, as Unix time in ms. 0: never.
    pub fn left_at_ms(&self) -> u64 {
        self.left_at_ms.load(Ordering::Relaxed)
    }

    /// The number of bytes that have been written so far.
    pub fn departed(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Counts bytes that the node has written.
    pub fn left(&self, bytes: u64) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
        self.left_at_ms.store(unix_millis(SystemTime::now()), Ordering::Relaxed);
    }

    /// Records that everything has been written, as far as the node can know.
    pub fn drained(&self) {
        self.left.fetch_max(self.queued.load(Ordering::Relaxed), Ordering::Relaxed);
        self.left_at_ms.store(unix_millis(SystemTime::now()), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate() -> QueueEstimate {
        QueueEstimate::new(WriteQueueLimits { packets: 3, bytes: 100 })
    }

    #[test]
    fn what_waits_is_bounded_and_one_packet_always_fits() {
        let client = estimate();
        assert!(client.take(1000), "nothing waits");
        assert!(!client.take(1));
        client.left(950);
        assert_eq!(client.waiting(), 50);
        assert!(client.take(50) && !client.take(1), "to the byte");
        client.drained();
        assert_eq!(client.waiting(), 0);
        assert!(client.take(100) && !client.take(1));
    }

    #[test]
    fn what_has_left_beyond_what_was_counted_is_no_credit() {
        let client = estimate();
        client.left(10_000);
        assert!(client.take(60) && client.take(40) && !client.take(1));
        client.give_back(40);
        assert!(client.take(40) && !client.take(1));
    }
}
