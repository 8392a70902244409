//! The part of delivery that both engines share. It drops an event that a newer one has overtaken, counts every
//! delivery and every drop, and publishes to the other nodes after local delivery.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use prometheus::IntCounter;
use tokio::sync::oneshot;

use crate::cluster::{Cluster, Wire};
use crate::order::OrderGuard;
use crate::publish::{Carried, Carrier, Outgoing, Reach, Remote, Served};
use crate::room::Rooms;
use crate::session::{Delivery as Fate, SendError, Session};
use crate::telemetry::metrics::Metrics;

/// How many clients [`Session::warm`] prefetches before the first of them is served.
const AHEAD: usize = 16;

/// The part of a carrier that does not depend on the engine.
pub(super) struct Deliveries {
    rooms: Arc<Rooms>,
    guard: OrderGuard,
    books: HashMap<Arc<str>, Arc<Books>>,
    wire: Option<Arc<Wire>>,
}

/// Records what became of the events of one namespace.
pub(super) struct Books {
    rooms: Arc<Rooms>,
    counters: Counters,
}

/// How an event is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Every client gets the event in the same way.
    Alike,
    /// Clients are served one by one, because a contract says how slow clients get this event.
    Minded,
    /// No client gets the event, because a newer one has overtaken it. Its recipients are also not sent it when they
    /// recover their sessions.
    Overtaken,
}

/// Whether an event has been delivered yet.
pub(super) enum Handed {
    /// The event has been delivered.
    Now(Tally),
    /// The event waits for its turn.
    Later {
        /// Upper bound of the number of clients that will get it.
        local: usize,
        /// Receives the result when the event has been delivered.
        served: oneshot::Receiver<Served>,
    },
}

/// The delivery counters of one namespace.
struct Counters {
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
pub(super) struct Tally {
    pub(super) queued: usize,
    pub(super) full: usize,
    /// Clients that were skipped, because the event is volatile and they take nothing now.
    volatile: usize,
    pub(super) closed: usize,
    replaced: usize,
    /// Clients that did not get the event, because too many events wait to be delivered.
    refused: usize,
    /// Clients for which this event is the first that is kept until they read again.
    laggards: Vec<Weak<Session>>,
}

impl Deliveries {
    /// Covers every namespace of `rooms`. With `is_connected`, events are also exchanged with other nodes.
    pub(super) fn new(rooms: Arc<Rooms>, cluster: &Cluster, is_connected: bool, metrics: &Metrics) -> Self {
        let books = |path: &Arc<str>| Books { rooms: rooms.clone(), counters: Counters::new(path, metrics) };
        let books = rooms.namespaces().map(|path| (path.clone(), Arc::new(books(path)))).collect();
        let wire = cluster.wire().filter(|_| is_connected).cloned();
        Self { rooms, guard: OrderGuard::default(), books, wire }
    }

    /// Begins to pass events from other nodes to `carrier`, which must be the owner of this value.
    pub(super) fn receive(&self, carrier: &Arc<impl Carrier + 'static>) {
        if let Some(wire) = &self.wire {
            let carrier = carrier.clone();
            wire.receive(move |outgoing| carrier.deliver(outgoing));
        }
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.books.keys()
    }

    /// The records of every namespace.
    pub(super) fn books(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Books>)> {
        self.books.iter()
    }

    /// Delivers an event on this node with `hand_out`, unless a newer event has overtaken it.
    pub(super) fn deliver(&self, outgoing: &Outgoing, hand_out: impl Fn(&Outgoing, How) -> Handed) -> Carried {
        let Some(books) = self.books.get(&outgoing.namespace) else { return Carried::to(0, 0) };
        let minded = self.rooms.minded(&outgoing.namespace, &outgoing.event, &outgoing.rooms);
        let how = if minded.is_some() { How::Minded } else { How::Alike };
        let minded = minded.map(|event| Outgoing { event, ..outgoing.clone() });
        let outgoing = minded.as_ref().unwrap_or(outgoing);
        let work = || hand_out(outgoing, how);
        let handed = self.guard.deliver(outgoing.order.as_ref(), outgoing.event.name(), work).unwrap_or_else(|| {
            books.counters.overtaken.inc();
            if outgoing.stamps.is_empty() { Handed::Now(Tally::default()) } else { hand_out(outgoing, How::Overtaken) }
        });
        match handed {
            Handed::Now(tally) => {
                let Served { queued, dropped } = books.enter(tally);
                Carried::to(queued, dropped)
            }
            Handed::Later { local, served } => Carried { served: Some(served), ..Carried::to(local, 0) },
        }
    }

    /// Delivers an event as [`Deliveries::deliver`] does, and then publishes it to other processes. Local delivery
    /// does not wait for them.
    pub(super) fn carry(
        &self,
        outgoing: &Outgoing,
        reach: Reach,
        hand_out: impl Fn(&Outgoing, How) -> Handed,
    ) -> Carried {
        let carried = self.deliver(outgoing, hand_out);
        let wire = self.wire.as_ref().filter(|_| self.books.contains_key(&outgoing.namespace));
        Carried { remote: wire.map_or(Remote::Alone, |wire| wire.publish(outgoing, reach)), ..carried }
    }
}

// === impl Books ===

impl Books {
    /// Counts the results of an event, and remembers the clients for which events are kept.
    pub(super) fn enter(&self, tally: Tally) -> Served {
        self.counters.count(&tally);
        let served = Served { queued: tally.queued, dropped: tally.full + tally.volatile + tally.refused };
        self.rooms.note_laggards(tally.laggards);
        served
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
            refused: dropped("publish_queue_full"),
        }
    }

    fn count(&self, tally: &Tally) {
        self.delivered.inc_by(tally.queued as u64);
        self.full.inc_by(tally.full as u64);
        self.volatile.inc_by(tally.volatile as u64);
        self.closed.inc_by(tally.closed as u64);
        self.replaced.inc_by(tally.replaced as u64);
        self.refused.inc_by(tally.refused as u64);
    }
}

// === impl Tally ===

impl Tally {
    /// The result of a broadcast that was queued for this many clients.
    pub(super) fn of_queued(queued: usize) -> Self {
        Self { queued, ..Self::default() }
    }

    /// Delivers an event to these clients, one after the other.
    pub(super) fn of<'s>(sessions: impl Iterator<Item = &'s Arc<Session>>, outgoing: &Outgoing, how: How) -> Self {
        let mut tally = Self::default();
        tally.hand_all(sessions, outgoing, how);
        tally
    }

    /// The result of an event that none of `clients` gets, because too many events wait before it.
    pub(super) fn refused(clients: usize) -> Self {
        Self { refused: clients, ..Self::default() }
    }

    fn hand_all<'s>(&mut self, mut sessions: impl Iterator<Item = &'s Arc<Session>>, outgoing: &Outgoing, how: How) {
        if how == How::Overtaken {
            return sessions.for_each(|session| session.pass_over(&outgoing.stamps));
        }
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
