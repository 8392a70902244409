//! What waits for a client of the library, in bytes: the library's own queue counts packets only, and tells nobody how
//! many of them are left.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

/// How much may wait for one client.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Packets.
    pub packets: usize,
    /// Their bytes. One packet always fits.
    pub bytes: usize,
}

/// Counts what is given to the library for a connection, and what has left the node on it.
///
/// What leaves has frames around it, and packets of the library's own between, so it runs ahead. At every packet the count
/// catches up, so that it is no credit for later; what ran ahead while something waited is in the client's favour.
#[derive(Debug)]
pub struct Outstanding {
    bounds: Bounds,
    queued: AtomicU64,
    left: AtomicU64,
    /// When something last left, as Unix time in ms; 0: never.
    left_at_ms: AtomicU64,
    /// For so many events more it is asked by itself.
    alone: AtomicUsize,
    /// The kernel takes nothing now.
    blocked: AtomicBool,
}

impl Outstanding {
    /// Nothing waits.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            queued: AtomicU64::new(0),
            left: AtomicU64::new(0),
            left_at_ms: AtomicU64::new(0),
            alone: AtomicUsize::new(0),
            blocked: AtomicBool::new(false),
        }
    }

    /// Counts a packet that is about to be queued. False: it does not fit.
    pub fn take(&self, bytes: usize) -> bool {
        let (bytes, bound) = (bytes as u64, self.bounds.bytes as u64);
        let count = |queued: u64| {
            let left = self.left.load(Ordering::Relaxed);
            let waiting = queued.saturating_sub(left);
            (waiting == 0 || waiting.saturating_add(bytes) <= bound).then(|| queued.max(left).saturating_add(bytes))
        };
        self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_ok()
    }

    /// The packet was not queued after all.
    pub fn give_back(&self, bytes: usize) {
        let count = |queued: u64| Some(queued.saturating_sub(bytes as u64));
        let _ = self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
    }

    /// Counts an event that is about to be queued for many at once. False: this client is to be asked by itself.
    pub fn share(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.alone.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() && self.take(bytes)
    }

    /// Somebody's queue was full, perhaps this client's: the library does not say whose. The event is not counted, and the
    /// client is asked by itself for as many events as its queue has places. So at most two that are not counted can wait.
    pub fn unshare(&self, bytes: usize) {
        self.give_back(bytes);
        self.stay_alone();
    }

    /// Its queue is full of packets: those who are served together with it would suffer.
    pub fn stay_alone(&self) {
        self.alone.store(self.bounds.packets, Ordering::Relaxed);
    }

    /// Notes whether the kernel takes what is written.
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Whether the kernel takes nothing of what is written. Never known of a client that polls: it comes when it likes.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Bytes that wait. Frames and packets of the library that left meanwhile count as if they had been among them.
    pub fn waiting(&self) -> usize {
        let waiting = self.queued.load(Ordering::Relaxed).saturating_sub(self.left.load(Ordering::Relaxed));
        usize::try_from(waiting).unwrap_or(usize::MAX)
    }

    /// When something last left, as Unix time in ms; 0: never.
    pub fn left_at_ms(&self) -> u64 {
        self.left_at_ms.load(Ordering::Relaxed)
    }

    /// How many bytes have left so far.
    pub fn departed(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// So many bytes have left the node.
    pub fn left(&self, bytes: u64) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
        self.left_at_ms.store(unix_millis(), Ordering::Relaxed);
    }

    /// As far as can be known, everything has left the node.
    pub fn drained(&self) {
        self.left.fetch_max(self.queued.load(Ordering::Relaxed), Ordering::Relaxed);
        self.left_at_ms.store(unix_millis(), Ordering::Relaxed);
    }
}

/// Now, as Unix time in ms.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outstanding() -> Outstanding {
        Outstanding::new(Bounds { packets: 3, bytes: 100 })
    }

    #[test]
    fn what_waits_is_bounded_and_one_packet_always_fits() {
        let client = outstanding();
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
        let client = outstanding();
        client.left(10_000);
        assert!(client.take(60) && client.take(40) && !client.take(1));
        client.give_back(40);
        assert!(client.take(40) && !client.take(1));
    }

    #[test]
    fn client_whose_share_is_doubtful_is_asked_by_itself_for_a_queue_of_events() {
        let client = outstanding();
        assert!(client.share(90));
        client.unshare(90);
        assert!((0..3).all(|_| !client.share(1)), "as many as its queue has places");
        assert!(client.share(100), "the doubtful one is not counted");
        assert!(!client.share(1), "it does not fit");
    }
}
