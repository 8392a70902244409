//! What both engines' carriers do alike: nothing overtakes what is newer, everybody who is served or passed over is
//! counted, and the other nodes hear of it afterwards.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use prometheus::IntCounter;

use crate::cluster::{Cluster, Wire};
use crate::order::OrderGuard;
use crate::publish::{Carried, Carrier, Outgoing, Remote};
use crate::room::Rooms;
use crate::session::{Delivery as Fate, SendError, Session};
use crate::telemetry::metrics::Metrics;

/// So many clients are looked at before the first of them is served; see [`Session::warm`].
const AHEAD: usize = 16;

/// The part of a carrier that does not depend on how its clients are served.
pub(super) struct Deliveries {
    rooms: Arc<Rooms>,
    guard: OrderGuard,
    counters: HashMap<Arc<str>, Counters>,
    wire: Option<Arc<Wire>>,
}

/// Those of a namespace.
struct Counters {
    delivered: IntCounter,
    full: IntCounter,
    volatile: IntCounter,
    closed: IntCounter,
    replaced: IntCounter,
    overtaken: IntCounter,
}

/// What became of an event on this node.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) queued: usize,
    pub(super) full: usize,
    /// Not sent, because it is volatile and the client takes nothing now.
    volatile: usize,
    pub(super) closed: usize,
    replaced: usize,
    /// For which something is kept from now on.
    laggards: Vec<Weak<Session>>,
}

impl Deliveries {
    /// For every namespace of `rooms`; with `is_connected`, to and from the other nodes, too.
    pub(super) fn new(rooms: Arc<Rooms>, cluster: &Cluster, is_connected: bool, metrics: &Metrics) -> Self {
        let counters = rooms.namespaces().map(|path| (path.clone(), Counters::new(path, metrics))).collect();
        let wire = cluster.wire().filter(|_| is_connected).cloned();
        Self { rooms, guard: OrderGuard::default(), counters, wire }
    }

    /// Begins to give `carrier`, whose part this is, what other nodes send.
    pub(super) fn receive(&self, carrier: &Arc<impl Carrier + 'static>) {
        if let Some(wire) = &self.wire {
            let carrier = carrier.clone();
            wire.receive(move |outgoing| {
                carrier.deliver(outgoing);
            });
        }
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.counters.keys()
    }

    /// Has the event handed out on this node, unless something newer has overtaken it. `hand_out` is told, too, whether
    /// the event's clients are served one by one, since one of them minds how.
    pub(super) fn deliver(&self, outgoing: &Outgoing, hand_out: impl FnOnce(&Outgoing, bool) -> Tally) -> Carried {
        let nothing = Carried { local: 0, dropped: 0, remote: Remote::Alone };
        let Some(counters) = self.counters.get(&outgoing.namespace) else { return nothing };
        let minded = self.rooms.minded(&outgoing.namespace, &outgoing.event, &outgoing.rooms);
        let is_minded = minded.is_some();
        let minded = minded.map(|event| Outgoing { event, ..outgoing.clone() });
        let outgoing = minded.as_ref().unwrap_or(outgoing);
        let work = || hand_out(outgoing, is_minded);
        let Some(tally) = self.guard.deliver(outgoing.order.as_ref(), outgoing.event.name(), work) else {
            counters.overtaken.inc();
            self.pass_over(outgoing);
            return nothing;
        };
        counters.count(&tally);
        let carried = Carried { local: tally.queued, dropped: tally.full + tally.volatile, remote: Remote::Alone };
        self.rooms.note_laggards(tally.laggards);
        carried
    }

    /// Those who would have got an event that was overtaken are not owed it when they come back, either.
    fn pass_over(&self, outgoing: &Outgoing) {
        if outgoing.stamps.is_empty() {
            return;
        }
        self.rooms.visit(&outgoing.namespace, &outgoing.rooms, &outgoing.except, |sessions| {
            sessions.for_each(|session| session.pass_over(&outgoing.stamps));
        });
    }

    /// As [`Deliveries::deliver`], and then to the other nodes: local delivery waits for nobody.
    pub(super) fn carry(&self, outgoing: &Outgoing, hand_out: impl FnOnce(&Outgoing, bool) -> Tally) -> Carried {
        let carried = self.deliver(outgoing, hand_out);
        let wire = self.wire.as_ref().filter(|_| self.counters.contains_key(&outgoing.namespace));
        Carried { remote: wire.map_or(Remote::Alone, |wire| wire.publish(outgoing)), ..carried }
    }
}

// === impl Counters ===

impl Counters {
    fn new(path: &Arc<str>, metrics: &Metrics) -> Self {
        let dropped = |reason| metrics.deliveries_dropped_total.with_label_values(&[&**path, reason]);
        Self {
            delivered: metrics.deliveries_total.with_label_values(&[path]),
            full: dropped("queue_full"),
            volatile: dropped("volatile"),
            closed: dropped("closed"),
            replaced: dropped("slow_replaced"),
            overtaken: dropped("overtaken"),
        }
    }

    fn count(&self, tally: &Tally) {
        self.delivered.inc_by(tally.queued as u64);
        self.full.inc_by(tally.full as u64);
        self.volatile.inc_by(tally.volatile as u64);
        self.closed.inc_by(tally.closed as u64);
        self.replaced.inc_by(tally.replaced as u64);
    }
}

// === impl Tally ===

impl Tally {
    /// Of clients that were all served at once.
    pub(super) fn of_queued(queued: usize) -> Self {
        Self { queued, ..Self::default() }
    }

    /// Queues the event for these clients, one after the other.
    pub(super) fn hand_all<'s>(&mut self, mut sessions: impl Iterator<Item = &'s Arc<Session>>, outgoing: &Outgoing) {
        let mut ahead = [None; AHEAD];
        loop {
            let taken = ahead.iter_mut().zip(&mut sessions).map(|(place, session)| *place = Some(session)).count();
            ahead[..taken].iter().flatten().for_each(|session| session.warm());
            ahead[..taken].iter().flatten().for_each(|session| self.hand(session, outgoing));
            if taken < AHEAD {
                return;
            }
        }
    }

    /// Queues the event for one client.
    pub(super) fn hand(&mut self, session: &Arc<Session>, outgoing: &Outgoing) {
        if outgoing.passes_over(session) {
            self.volatile += 1;
            return;
        }
        let held = session.holds();
        match session.deliver(&outgoing.event, &outgoing.rooms, &outgoing.stamps) {
            Ok(Fate::Sent) => self.queued += 1,
            Ok(kept @ (Fate::Held | Fate::Replaced)) => {
                self.queued += 1;
                self.replaced += usize::from(kept == Fate::Replaced);
                if !held && session.holds() {
                    self.laggards.push(Arc::downgrade(session));
                }
            }
            Ok(Fate::Replayed) => {}
            Err(SendError::Full) => self.full += 1,
            Err(SendError::Closed) => self.closed += 1,
        }
    }
}
