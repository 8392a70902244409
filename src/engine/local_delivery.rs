//! Queues an event for the clients of this node one after the other, and counts the results.

use std::sync::{Arc, Weak};

use prometheus::IntCounter;

use super::slow_clients::SlowClients;
use crate::publish::{Outgoing, SliceCounts};
use crate::session::{LiveDelivery as Fate, SendError, Session};
use crate::telemetry::metrics::Metrics;

/// How many clients [`Session::warm`] prefetches before the first of them is served.
const AHEAD: usize = 16;

/// Whether an event is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeliveryMode {
    /// The event is queued for its recipients.
    Queued,
    /// No client gets the event, because a newer event has overtaken it. Its recipients are also not sent it when they
    /// recover their sessions.
    Overtaken,
}

/// Records the results of delivering the events of one namespace.
pub(super) struct DeliveryRecorder {
    slow: Arc<SlowClients>,
    counters: DeliveryCounters,
}

/// The delivery counters of one namespace.
struct DeliveryCounters {
    delivered: IntCounter,
    full: IntCounter,
    volatile: IntCounter,
    closed: IntCounter,
    replaced: IntCounter,
    overtaken: IntCounter,
    refused: IntCounter,
}

/// How many clients got an event on this node, and how many did not and why.
#[derive(Default)]
pub(super) struct DeliveryCounts {
    queued: usize,
    full: usize,
    /// Clients that were skipped, because the event is volatile and these clients do not read now.
    volatile: usize,
    closed: usize,
    replaced: usize,
    /// Clients that did not get the event, because too many events wait to be delivered.
    refused: usize,
    /// Clients for which no earlier event was kept until they read again, and for which this event is kept.
    laggards: Vec<Weak<Session>>,
}

// === impl Books ===

impl DeliveryRecorder {
    pub(super) fn new(slow: &Arc<SlowClients>, namespace: &Arc<str>, metrics: &Metrics) -> Self {
        Self { slow: slow.clone(), counters: DeliveryCounters::new(namespace, metrics) }
    }

    /// Counts the results of an event, and remembers the clients for which events are kept.
    pub(super) fn enter(&self, counts: DeliveryCounts) -> SliceCounts {
        self.counters.count(&counts);
        let served = SliceCounts { queued: counts.queued, dropped: counts.full + counts.volatile + counts.refused };
        self.slow.note(counts.laggards);
        served
    }

    /// Counts an event that a newer event has overtaken.
    pub(super) fn count_overtaken(&self) {
        self.counters.overtaken.inc();
    }
}

// === impl Counters ===

impl DeliveryCounters {
    fn new(path: &Arc<str>, metrics: &Metrics) -> Self {
        let dropped = |reason| metrics.deliveries_dropped_total.with_label_values(&[&**path, reason]);
        Self {
            delivered: metrics.deliveries_total.with_label_values(&[path]),
            full: dropped("queue_full"),
            volatile: dropped("volatile"),
            closed: dropped("closed"),
            replaced: dropped("slow_replaced"),
            overtaken: dropped("overtaken"),
            refused: dropped("publish_queue_full"),
        }
    }

    fn count(&self, counts: &DeliveryCounts) {
        self.delivered.inc_by(counts.queued as u64);
        self.full.inc_by(counts.full as u64);
        self.volatile.inc_by(counts.volatile as u64);
        self.closed.inc_by(counts.closed as u64);
        self.replaced.inc_by(counts.replaced as u64);
        self.refused.inc_by(counts.refused as u64);
    }
}

// === impl Tally ===

impl DeliveryCounts {
    /// Delivers an event to these clients, one after the other.
    pub(super) fn of<'s>(
        sessions: impl Iterator<Item = &'s Arc<Session>>,
        outgoing: &Outgoing,
        how: DeliveryMode,
    ) -> Self {
        let mut counts = Self::default();
        counts.queue_all(sessions, outgoing, how);
        counts
    }

    /// The result of an event that no client gets, because too many events wait before it. `clients` is the number of
    /// its recipients.
    pub(super) fn refused(clients: usize) -> Self {
        Self { refused: clients, ..Self::default() }
    }

    fn queue_all<'s>(
        &mut self,
        mut sessions: impl Iterator<Item = &'s Arc<Session>>,
        outgoing: &Outgoing,
        how: DeliveryMode,
    ) {
        if how == DeliveryMode::Overtaken {
            return sessions.for_each(|session| session.pass_over(&outgoing.stamps));
        }
        let mut ahead = [None; AHEAD];
        loop {
            let taken = ahead.iter_mut().zip(&mut sessions).map(|(place, session)| *place = Some(session)).count();
            ahead[..taken].iter().flatten().for_each(|session| session.warm());
            ahead[..taken].iter().flatten().for_each(|session| self.queue(session, outgoing));
            if taken < AHEAD {
                return;
            }
        }
    }

    /// Queues the event for one client.
    fn queue(&mut self, session: &Arc<Session>, outgoing: &Outgoing) {
        if outgoing.passes_over(session) {
            self.volatile += 1;
            session.count_dropped();
            return;
        }
        let held = session.holds();
        match session.deliver(&outgoing.event, &outgoing.rooms, &outgoing.stamps) {
            Ok(Fate::Sent) => self.queued += 1,
            Ok(kept @ (Fate::Held | Fate::Replaced)) => {
                self.queued += 1;
                if kept == Fate::Replaced {
                    self.replaced += 1;
                    session.count_dropped();
                }
                if !held && session.holds() {
                    self.laggards.push(Arc::downgrade(session));
                }
            }
            Ok(Fate::Replayed) => {}
            Err(SendError::Full) => {
                self.full += 1;
                session.count_dropped();
            }
            Err(SendError::Closed) => self.closed += 1,
        }
    }
}
