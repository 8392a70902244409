//! Connections that have no session yet: how many there may be, and how long each may take to send a request.
//!
//! Limits on sessions do not count connections without a session. When there are too many, the one that has waited
//! longest is closed. A real client sends its request within a round trip, so a flood of silent connections pushes out
//! its own members and not real clients.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics::{Metrics, count};
use crate::telemetry::process;

/// The number of file descriptors that are reserved for the API's listener, Redis and hooks.
const SPARE_FILES: RawFd = 64;

/// The pending connections of one listener.
pub struct PendingConnections {
    /// The maximum number of pending connections. 0: no limit.
    most: usize,
    patience: Duration,
    pending: Mutex<PendingTable>,
    silent: IntCounter,
    crowded: IntCounter,
    files: Option<FileLimit>,
}

/// Reserves some of the process's file descriptors for purposes other than client connections.
struct FileLimit {
    /// A client's connection must have a descriptor below this number.
    end: RawFd,
    refused: IntCounter,
}

#[derive(Default)]
struct PendingTable {
    /// Pending connections in the order in which they came.
    waiting: BTreeMap<u64, CancellationToken>,
    came: u64,
}

/// A connection that has no session yet.
pub struct PendingConnection {
    pending_connections: Arc<PendingConnections>,
    number: u64,
    by: Instant,
    out: CancellationToken,
    note_request: AtomicBool,
}

impl PendingConnections {
    /// Creates the pending connections of the public listener: at most `most` (0: no limit), each of which must send a
    /// request within `patience`.
    pub fn new(most: usize, patience: Duration, metrics: &Metrics) -> Arc<Self> {
        let refused = |reason| metrics.handshakes_refused_total.with_label_values(&[reason]);
        let pending = Mutex::default();
        let files = FileLimit::new(process::max_open_files(), refused("files"));
        let pending_connections =
            Arc::new(Self { most, patience, pending, silent: refused("silent"), crowded: refused("pending"), files });
        let measured = Arc::downgrade(&pending_connections);
        metrics.measure(move |metrics| {
            if let Some(pending_connections) = measured.upgrade() {
                metrics.limits_present.with_label_values(&["pending"]).set(count(pending_connections.waiting()));
            }
        });
        pending_connections
    }

    /// Creates the pending connections of the API listener.
    pub fn of_api(most: usize, patience: Duration, metrics: &Metrics) -> Arc<Self> {
        let refused = |reason| metrics.api_connections_refused_total.with_label_values(&[reason]);
        let pending = Mutex::default();
        Arc::new(Self { most, patience, pending, silent: refused("silent"), crowded: refused("pending"), files: None })
    }

    /// Creates the pending connections of the listener for other nodes.
    pub fn of_nodes(most: usize, patience: Duration, metrics: &Metrics) -> Arc<Self> {
        let refused = |reason| metrics.forward_received_total.with_label_values(&[reason]);
        let files = FileLimit::new(process::max_open_files(), refused("files"));
        let pending = Mutex::default();
        Arc::new(Self { most, patience, pending, silent: refused("silent"), crowded: refused("pending"), files })
    }

    /// Whether enough file descriptors are left after this connection. If not, the connection is counted as refused.
    pub fn has_files_left(&self, connection: &impl AsRawFd) -> bool {
        self.files.as_ref().is_none_or(|files| files.permit(connection.as_raw_fd()))
    }

    /// Adds a new connection to the pending connections. Closes the oldest pending one if there are now too many.
    pub fn enter(self: &Arc<Self>) -> PendingConnection {
        let out = CancellationToken::new();
        let mut pending = self.pending();
        let number = pending.came;
        pending.came += 1;
        pending.waiting.insert(number, out.clone());
        let full = self.most > 0 && pending.waiting.len() > self.most;
        let first = if full { pending.waiting.pop_first() } else { None };
        drop(pending);
        if let Some((_, first)) = first {
            first.cancel();
        }
        PendingConnection {
            pending_connections: self.clone(),
            number,
            by: Instant::now() + self.patience,
            out,
            note_request: AtomicBool::new(false),
        }
    }

    /// The number of pending connections.
    pub fn waiting(&self) -> usize {
        self.pending().waiting.len()
    }

    fn pending(&self) -> MutexGuard<'_, PendingTable> {
        self.pending.lock().expect("no thread panics while it holds this lock")
    }
}

impl FileLimit {
    /// Returns `None` if the process has no limit on open files.
    fn new(most: Option<i64>, refused: IntCounter) -> Option<Self> {
        let most = RawFd::try_from(most?).ok()?;
        Some(Self { end: most - SPARE_FILES.min(most / 4), refused })
    }

    /// Whether a connection with the descriptor `new` leaves enough descriptors. A new descriptor always gets the
    /// lowest free number, so its number shows how many descriptors are in use, whatever they are used for.
    fn permit(&self, new: RawFd) -> bool {
        if new >= self.end {
            self.refused.inc();
        }
        new < self.end
    }
}

impl PendingConnection {
    /// Records that the connection has sent a request. While it has no session, it may still be closed to make room.
    pub fn note_request(&self) {
        self.note_request.store(true, Ordering::Relaxed);
    }

    /// Records that the connection has a session, or carries requests of a session. It is no longer pending.
    pub fn leave(&self) {
        self.pending_connections.pending().waiting.remove(&self.number);
        self.note_request();
    }

    /// Resolves when the connection must be closed, because the client sent no request within the time limit, or
    /// because too many connections are pending. The reason is counted.
    pub async fn must_close(&self) {
        tokio::select! {
            biased;
            () = self.out.cancelled() => {}
            () = tokio::time::sleep_until(self.by) => {
                if !self.note_request.load(Ordering::Relaxed) {
                    return self.pending_connections.silent.inc();
                }
                self.out.cancelled().await;
            }
        }
        self.pending_connections.crowded.inc();
    }

    /// Waits for `said`. Returns `None` if the connection must be closed before `said` completes.
    pub async fn unless_closed<T>(&self, said: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            said = said => Some(said),
            () = self.must_close() => None,
        }
    }
}

impl Drop for PendingConnection {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn refused(metrics: &Metrics) -> (u64, u64) {
        let of = |reason| metrics.handshakes_refused_total.with_label_values(&[reason]).get();
        (of("silent"), of("pending"))
    }

    #[tokio::test(start_paused = true)]
    async fn guest_that_says_nothing_is_shown_out_in_time_and_one_that_spoke_is_not() {
        let metrics = Metrics::new();
        let pending_connections = PendingConnections::new(0, Duration::from_secs(15), &metrics);
        let (silent, note_request) = (pending_connections.enter(), pending_connections.enter());
        let began = Instant::now();
        assert_eq!(silent.unless_closed(pending::<()>()).await, None);
        assert_eq!(began.elapsed().as_secs(), 15);
        note_request.note_request();
        let stays = tokio::time::timeout(Duration::from_secs(60), note_request.must_close()).await;
        assert!(stays.is_err());
        assert_eq!(refused(&metrics), (1, 0));
        drop((silent, note_request));
        assert_eq!(pending_connections.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_who_has_waited_longest_makes_room_beyond_the_bound_and_not_at_it() {
        let metrics = Metrics::new();
        let pending_connections = PendingConnections::new(2, Duration::from_secs(15), &metrics);
        let (first, second) = (pending_connections.enter(), pending_connections.enter());
        assert!(!first.out.is_cancelled(), "two fit");
        let third = pending_connections.enter();
        assert_eq!(first.unless_closed(pending::<()>()).await, None);
        // A request that has already arrived is read before the connection is closed to make room.
        let fourth = pending_connections.enter();
        assert_eq!(second.unless_closed(async { 1 }).await, Some(1));
        assert!(!third.out.is_cancelled() && !fourth.out.is_cancelled());
        assert_eq!((pending_connections.waiting(), refused(&metrics)), (2, (0, 1)));
    }

    #[test]
    fn clients_leave_some_file_descriptors_to_others() {
        let refused = || IntCounter::new("refused", "refused").unwrap();
        for (most, end) in [(65_536, 65_472), (1024, 960), (256, 192), (64, 48), (8, 6)] {
            let files = FileLimit::new(Some(most), refused()).unwrap();
            assert!(files.permit(end - 1) && !files.permit(end), "{most}");
            assert_eq!(files.refused.get(), 1);
        }
        assert!(FileLimit::new(None, refused()).is_none());
        assert!(FileLimit::new(Some(i64::MAX), refused()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_a_session_is_no_guest_any_more() {
        let pending_connections = PendingConnections::new(1, Duration::from_secs(15), &Metrics::new());
        let first = pending_connections.enter();
        first.leave();
        let _second = pending_connections.enter();
        let stays = tokio::time::timeout(Duration::from_secs(60), first.must_close()).await;
        assert!(stays.is_err() && pending_connections.waiting() == 1);
    }
}
