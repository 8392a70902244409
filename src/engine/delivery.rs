//! What both engines' carriers do alike: nothing overtakes what is newer, everybody who is served or passed over is
//! counted, and the other nodes hear of it afterwards.

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

/// So many clients are looked at before the first of them is served; see [`Session::warm`].
const AHEAD: usize = 16;

/// The part of a carrier that does not depend on how its clients are served.
pub(super) struct Deliveries {
    rooms: Arc<Rooms>,
    guard: OrderGuard,
    books: HashMap<Arc<str>, Arc<Books>>,
    wire: Option<Arc<Wire>>,
}

/// Where it is written what became of a namespace's events.
pub(super) struct Books {
    rooms: Arc<Rooms>,
    counters: Counters,
}

/// How an event is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// To everybody alike.
    Alike,
    /// To its clients one by one, since one of them may mind how.
    Minded,
    /// To nobody: something newer has overtaken it. Those who would have got it are not owed it when they come back, either.
    Overtaken,
}

/// Whether an event was handed out.
pub(super) enum Handed {
    /// To everybody.
    Now(Tally),
    /// It will be.
    Later {
        /// To so many at most.
        local: usize,
        /// What has become of it then.
        served: oneshot::Receiver<Served>,
    },
}

/// Those of a namespace.
struct Counters {
    delivered: IntCounter,
    full: IntCounter,
    volatile: IntCounter,
    closed: IntCounter,
    replaced: IntCounter,
    overtaken: IntCounter,
    refused: IntCounter,
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
    /// Not sent, because too many events wait to be handed out.
    refused: usize,
    /// For which something is kept from now on.
    laggards: Vec<Weak<Session>>,
}

impl Deliveries {
    /// For every namespace of `rooms`; with `is_connected`, to and from the other nodes, too.
    pub(super) fn new(rooms: Arc<Rooms>, cluster: &Cluster, is_connected: bool, metrics: &Metrics) -> Self {
        let books = |path: &Arc<str>| Books { rooms: rooms.clone(), counters: Counters::new(path, metrics) };
        let books = rooms.namespaces().map(|path| (path.clone(), Arc::new(books(path)))).collect();
        let wire = cluster.wire().filter(|_| is_connected).cloned();
        Self { rooms, guard: OrderGuard::default(), books, wire }
    }

    /// Begins to give `carrier`, whose part this is, what other nodes send.
    pub(super) fn receive(&self, carrier: &Arc<impl Carrier + 'static>) {
        if let Some(wire) = &self.wire {
            let carrier = carrier.clone();
            wire.receive(move |outgoing| carrier.deliver(outgoing));
        }
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.books.keys()
    }

    /// A namespace's books.
    pub(super) fn books(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Books>)> {
        self.books.iter()
    }

    /// Has the event handed out on this node, unless something newer has overtaken it.
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

    /// As [`Deliveries::deliver`], and then to other processes: local delivery does not wait for them.
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
    /// Counts what became of an event, and remembers for whom something is kept.
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
    /// Of clients that were all served at once.
    pub(super) fn of_queued(queued: usize) -> Self {
        Self { queued, ..Self::default() }
    }

    /// An event is handed to these clients, one after the other.
    pub(super) fn of<'s>(sessions: impl Iterator<Item = &'s Arc<Session>>, outgoing: &Outgoing, how: How) -> Self {
        let mut tally = Self::default();
        tally.hand_all(sessions, outgoing, how);
        tally
    }

    /// An event reaches none of so many clients: too much waits before it.
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
