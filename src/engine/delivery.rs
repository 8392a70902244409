//! Delivers events to the clients of this node, and publishes them to the other nodes.
//!
//! Local clients are served first, and do not wait for Redis. Each recipient's session gets the event, whichever
//! engine serves it. The messages between nodes do not depend on the engine, so a cluster may use both.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use super::slices::Line;
use super::socketioxide::LibraryRequests;
use super::tally::{How, Tally};
use crate::cluster::{Cluster, Wire};
use crate::order::OrderGuard;
use crate::publish::{Carried, Carrier, Outgoing, Reach, Remote, Served};
use crate::room::Rooms;
use crate::telemetry::metrics::Metrics;

/// How often the node tries again to send the events that it keeps for slow clients.
const LOOK: Duration = Duration::from_millis(50);

/// Delivers events to the clients of this node and to the other nodes. The publish path sends everything through it.
pub struct Broadcaster {
    rooms: Arc<Rooms>,
    guard: OrderGuard,
    lines: HashMap<Arc<str>, Arc<Line>>,
    wire: Option<Arc<Wire>>,
}

/// Whether an event has been delivered yet.
pub(super) enum Handed {
    /// The event has been delivered.
    Now(Tally),
    /// Another task delivers the event later.
    Later {
        /// The maximum number of clients that will get the event.
        local: usize,
        /// Receives the result when the event has been delivered.
        served: oneshot::Receiver<Served>,
    },
}

impl Broadcaster {
    /// Creates a broadcaster for every namespace of `rooms`. In a cluster, the broadcaster also begins to receive
    /// events from other nodes, servers and emitters. Must be called within a Tokio runtime.
    pub fn new(rooms: Arc<Rooms>, cluster: &Cluster, metrics: &Metrics) -> Arc<Self> {
        tokio::spawn(release_laggards(Arc::downgrade(&rooms)));
        let line = |path: &Arc<str>| (path.clone(), Line::new(&rooms, path, metrics));
        let lines = rooms.namespaces().map(line).collect();
        let wire = cluster.wire().cloned();
        let broadcaster = Arc::new(Self { rooms, guard: OrderGuard::default(), lines, wire });
        if let Some(wire) = &broadcaster.wire {
            wire.read_requests_by(Arc::new(LibraryRequests::default()));
            let receiver = broadcaster.clone();
            wire.receive(move |outgoing| receiver.deliver(outgoing));
        }
        broadcaster
    }

    /// Delivers an event to the clients of this node, and then publishes the event to other processes.
    fn carry_to(&self, outgoing: &Outgoing, reach: Reach) -> Carried {
        let carried = self.deliver(outgoing);
        let wire = self.wire.as_ref().filter(|_| self.lines.contains_key(&outgoing.namespace));
        Carried { remote: wire.map_or(Remote::Alone, |wire| wire.publish(outgoing, reach)), ..carried }
    }
}

impl Carrier for Broadcaster {
    fn carry(&self, outgoing: &Outgoing) -> Carried {
        self.carry_to(outgoing, Reach::Everyone)
    }

    fn carry_to_nodes(&self, outgoing: &Outgoing) -> Carried {
        self.carry_to(outgoing, Reach::Nodes)
    }

    fn deliver(&self, outgoing: &Outgoing) -> Carried {
        let Some(line) = self.lines.get(&outgoing.namespace) else { return Carried::to(0, 0) };
        let minded = self.rooms.minded(&outgoing.namespace, &outgoing.event, &outgoing.rooms);
        let minded = minded.map(|event| Outgoing { event, ..outgoing.clone() });
        let outgoing = minded.as_ref().unwrap_or(outgoing);
        let work = || line.hand_out(outgoing, How::Queued);
        let handed = self.guard.deliver(outgoing.order.as_ref(), outgoing.event.name(), work).unwrap_or_else(|| {
            line.books().count_overtaken();
            if outgoing.stamps.is_empty() {
                Handed::Now(Tally::default())
            } else {
                line.hand_out(outgoing, How::Overtaken)
            }
        });
        match handed {
            Handed::Now(tally) => {
                let Served { queued, dropped } = line.books().enter(tally);
                Carried::to(queued, dropped)
            }
            Handed::Later { local, served } => Carried { served: Some(served), ..Carried::to(local, 0) },
        }
    }
}

/// Sends the events that are kept for slow clients as soon as those clients read again. Ends when `rooms` is dropped.
async fn release_laggards(rooms: Weak<Rooms>) {
    loop {
        tokio::time::sleep(LOOK).await;
        match rooms.upgrade() {
            Some(rooms) => rooms.release_laggards(),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests;
