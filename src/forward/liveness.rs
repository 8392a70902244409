//! Detects whether another node is still running.
//!
//! A stopped process keeps its connections, and the kernel still accepts new ones. A long poll may wait for its answer
//! for a long time, so a missing answer does not prove that a node is gone. Heartbeats prove that a node is running,
//! but a node that has only lost Redis cannot send them. So a node counts as gone when this node receives no heartbeat
//! from the node and the node does not answer a probe either.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A node that has sent neither a heartbeat nor an answer for this time is probed. Nodes send a heartbeat every second.
pub(super) const QUIET: Duration = Duration::from_secs(5);

/// How long a node may take to answer a probe.
pub(super) const PROBE: Duration = Duration::from_secs(3);

/// How often a request checks for the result of a probe that another request has sent.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Records when a node last sent a heartbeat or an answer, and when a probe of the node failed.
#[derive(Debug)]
pub(super) struct Liveness {
    start: Instant,
    /// When the node last sent a heartbeat or an answer, in milliseconds since `start`.
    alive_ms: AtomicU64,
    /// When the node last did not answer a probe, in milliseconds since `start`. 0 means never.
    failed_ms: AtomicU64,
    probing: AtomicBool,
}

/// A guard that lives while a request probes the node.
pub(super) struct Probing<'a>(&'a AtomicBool);

impl Liveness {
    /// Creates the record of a node that has sent a heartbeat at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, alive_ms: AtomicU64::new(0), failed_ms: AtomicU64::new(0), probing: AtomicBool::new(false) }
    }

    /// Records that the node has sent a heartbeat or an answer.
    pub(super) fn note(&self, now: Instant) {
        self.alive_ms.fetch_max(self.millis(now), Ordering::Relaxed);
    }

    /// Records that the node has not answered a probe.
    pub(super) fn note_failed(&self, now: Instant) {
        self.failed_ms.fetch_max(self.millis(now).max(1), Ordering::Relaxed);
    }

    /// How long the node has sent neither a heartbeat nor an answer.
    pub(super) fn quiet(&self, now: Instant) -> Duration {
        Duration::from_millis(self.millis(now).saturating_sub(self.alive_ms.load(Ordering::Relaxed)))
    }

    /// Whether the node has not answered a probe that ended at `since` or later.
    pub(super) fn has_failed_since(&self, since: Instant) -> bool {
        self.failed_ms.load(Ordering::Relaxed) >= self.millis(since).max(1)
    }

    /// Begins a probe. `None` if another request is probing the node.
    pub(super) fn probe(&self) -> Option<Probing<'_>> {
        (!self.probing.swap(true, Ordering::AcqRel)).then_some(Probing(&self.probing))
    }

    fn millis(&self, at: Instant) -> u64 {
        crate::time::millis(at.saturating_duration_since(self.start))
    }
}

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_quiet_from_its_last_sign_of_life() {
        let start = Instant::now();
        let (liveness, at) = (Liveness::new(start), |seconds| start + Duration::from_secs(seconds));
        assert_eq!(liveness.quiet(at(4)), Duration::from_secs(4));
        liveness.note(at(4));
        liveness.note(at(3));
        assert_eq!(liveness.quiet(at(6)), Duration::from_secs(2));
    }

    #[test]
    fn one_request_probes_and_the_others_learn_what_came_of_it() {
        let start = Instant::now();
        let (liveness, later) = (Liveness::new(start), start + Duration::from_secs(9));
        let probing = liveness.probe().unwrap();
        assert!(liveness.probe().is_none());
        drop(probing);
        assert!(liveness.probe().is_some(), "a request that was given up does not keep the others from probing");
        assert!(!liveness.has_failed_since(start));
        liveness.note_failed(later);
        assert!(liveness.has_failed_since(start) && liveness.has_failed_since(later));
        assert!(!liveness.has_failed_since(later + Duration::from_secs(1)), "an earlier failure proves nothing");
    }
}
