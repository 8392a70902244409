//! What happens to a client: let in, heard, answered, let go.
//!
//! Engines call [`Gateway::admit`], [`Gateway::open`], [`Gateway::dispatch`] and [`Gateway::closed`]; everything that a
//! client causes leaves through [`Publisher`].

mod answer;
mod call;
mod clock;
mod connect;
mod event;
mod expiry;
mod lane;
mod membership;
mod pending;
mod plan;
mod presence;
mod recover;
mod relay;
pub mod replay;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::Authenticator;
use crate::contract::model::{Contract, Namespace};
use crate::error::{Code, Refusal};
use crate::event::{Args, Event};
use crate::history::History;
use crate::hooks::{Hooks, Notices};
use crate::limits::{Limits, SessionLimits};
use crate::owners::Owners;
use crate::presence::Presence;
use crate::publish::Publisher;
use crate::recovery::Recovery;
use crate::room::Rooms;
use crate::session::{AckId, SendError, Session};
use crate::telemetry::metrics::{Metrics, count};

use clock::Clock;
pub use connect::Admission;
use lane::{Bound, Bounds, Item, Lane, LaneFull, Refused, Work};
use pending::{EVENT_BYTES, PendingBytes, Share};

/// How often an event is in memory while a backend is asked about it: itself, its parts, and the request, in which
/// attachments are a third longer.
const CALL_COPIES: usize = 4;

/// What the gateway is made of.
pub struct Parts {
    /// The contracts, by namespace.
    pub namespaces: Vec<Arc<Namespace>>,
    /// Who is in which room of this node.
    pub rooms: Arc<Rooms>,
    /// The one way out.
    pub publisher: Arc<Publisher>,
    /// Token in, user out.
    pub auth: Arc<Authenticator>,
    /// Rates of connections and events.
    pub limits: Arc<Limits>,
    /// What joining clients are shown.
    pub history: Arc<History>,
    /// Calls to backends.
    pub hooks: Arc<Hooks>,
    /// Notices to backends.
    pub notices: Notices,
    /// Owners of rooms, as backends recorded them.
    pub owners: Arc<Owners>,
    /// Who is where, over the cluster.
    pub presence: Arc<dyn Presence>,
    /// Sessions of clients that come back.
    pub recovery: Arc<Recovery>,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// What may wait while an earlier event of its client is handled.
    pub pending: Pending,
}

/// Bounds on events that wait.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    /// Events of one client.
    pub events: usize,
    /// Their bytes.
    pub bytes: usize,
    /// The bytes of the events of all clients of the node that wait, or that backends are asked about.
    pub node_bytes: usize,
}

/// The way in. One for a node, shared by its engines.
pub struct Gateway {
    parts: Parts,
    namespaces: HashMap<Arc<str>, Arc<Namespace>>,
    clock: Clock,
    pending_bytes: Arc<PendingBytes>,
}

/// An acknowledgement that a client asked for.
struct Asked<'a> {
    id: AckId,
    came: Instant,
    contract: &'a str,
    event: &'a str,
    result: &'static str,
}

/// A client, as the gateway keeps it beside its session.
pub struct Client {
    /// The session.
    pub session: Arc<Session>,
    namespace: Arc<Namespace>,
    lane: Arc<Lane>,
    limits: SessionLimits,
    admitted: bool,
}

impl Gateway {
    /// A gateway for these parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let namespaces = parts.namespaces.iter().map(|namespace| (namespace.path.clone(), namespace.clone())).collect();
        let pending_bytes = PendingBytes::new(parts.pending.node_bytes);
        let waiting = Arc::downgrade(&pending_bytes);
        parts.metrics.measure(move |metrics| {
            if let Some(pending_bytes) = waiting.upgrade() {
                metrics.events_pending_bytes.with_label_values::<&str>(&[]).set(count(pending_bytes.held()));
            }
        });
        Arc::new(Self { parts, namespaces, clock: Clock::default(), pending_bytes })
    }

    /// The namespaces that clients may connect to.
    pub fn namespaces(&self) -> &[Arc<Namespace>] {
        &self.parts.namespaces
    }

    /// Counts an event of a client, and looks at its size and shape, before anything of it but its name is parsed. False: it
    /// was refused, and goes no further.
    pub fn permit(self: &Arc<Self>, client: &Arc<Client>, event: &Event, ack: Option<AckId>) -> bool {
        let limits = &self.parts.limits;
        let known = client.namespace.client.get(event.name()).map(|(_, def)| def);
        match event::check_rate(client, known).and_then(|()| limits.shape().check(event)) {
            Ok(()) => true,
            Err(refusal) => {
                self.enqueue_refusal(client, event, ack, refusal);
                false
            }
        }
    }

    /// Handles an event of a client that was permitted: at once where nothing has to wait, else after those before it. Returns at once.
    ///
    /// A client's events take effect in the order in which this is called. One that does not fit the client's lane is
    /// answered with OVERLOADED.
    pub fn dispatch(self: &Arc<Self>, client: &Arc<Client>, event: Event, ack: Option<AckId>) {
        let item = Item::Event(event, ack, Instant::now());
        if let Err(LaneFull(Item::Event(event, ack, came), bound)) = self.enqueue(client, item) {
            self.refuse_now(client, &event, ack.map(|id| (id, came)), &self.overloaded(bound));
        }
    }

    /// Counts an event that may not wait.
    fn overloaded(&self, bound: Bound) -> Refusal {
        let Pending { events, bytes, .. } = self.parts.pending;
        let (reason, text) = match bound {
            Bound::Items => {
                ("client_events", format!("more than {events} of your events wait to be handled; slow down"))
            }
            Bound::Bytes => {
                ("client_bytes", format!("more than {bytes} bytes of your events wait to be handled; slow down"))
            }
            Bound::Node => ("node_bytes", "too many events wait on this node; try again later".to_owned()),
        };
        self.parts.metrics.events_not_queued_total.with_label_values(&[reason]).inc();
        Refusal::new(Code::Overloaded, text)
    }

    /// Room for an event that a backend is asked about, until the answer is there.
    ///
    /// # Errors
    /// `OVERLOADED`.
    fn hold(&self, event: &Event) -> Result<Share, Refusal> {
        let bytes = CALL_COPIES * (EVENT_BYTES + event.size_bytes());
        self.pending_bytes.take(bytes).ok_or_else(|| self.overloaded(Bound::Node))
    }

    /// The answer keeps its place among those to the events before it, unless too many wait.
    fn enqueue_refusal(self: &Arc<Self>, client: &Arc<Client>, event: &Event, ack: Option<AckId>, refusal: Refusal) {
        let refused = Refused { event: event.clone(), ack, came: Instant::now(), refusal };
        if let Err(LaneFull(Item::Refused(refused), _)) = self.enqueue(client, Item::Refused(Box::new(refused))) {
            let Refused { event, ack, came, refusal } = &*refused;
            self.refuse_now(client, event, ack.map(|id| (id, *came)), refusal);
        }
    }

    /// Waits until those who left are kept for their return, and backends were told of them, at most for so long. Returns
    /// how many notices are lost.
    pub async fn close(&self, sessions: Duration, patience: Duration) -> usize {
        self.parts.recovery.close(sessions).await;
        self.parts.notices.close(patience).await
    }

    #[expect(clippy::result_large_err, reason = "it is given back as it came")]
    fn enqueue(self: &Arc<Self>, client: &Arc<Client>, item: Item) -> Result<(), LaneFull> {
        let (gateway, handled) = (self.clone(), client.clone());
        let Pending { events, bytes, .. } = self.parts.pending;
        let bounds = Bounds { items: events, bytes, node: &self.pending_bytes };
        client.lane.push(item, &bounds, move |item, place| {
            let (gateway, client) = (gateway.clone(), handled.clone());
            // Each as large as it is, not as the largest of them.
            match item {
                Item::Event(event, ack, came) => {
                    place.hold(async move { gateway.handle(&client, &event, ack, came).await })
                }
                Item::Refused(refused) => Work::new(async move { gateway.refuse(&client, &refused).await }),
                Item::Opened(answers) => Work::new(async move { gateway.settle_in(&client, answers).await }),
                Item::Back(returned) => Work::new(async move { gateway.bring_back(&client, *returned).await }),
            }
        })
    }

    /// The index of rooms and members.
    fn rooms(&self) -> &Rooms {
        &self.parts.rooms
    }

    /// Queues an event for one client, and counts it when it does not fit.
    fn send(&self, session: &Session, event: &Event) {
        self.count_send(session, session.send(event));
    }

    /// Acknowledges an event that came then.
    fn ack(&self, client: &Client, of: Asked<'_>, args: &Args) {
        let sent = client.session.ack(of.id, args);
        let metrics = &self.parts.metrics;
        let result = if sent.is_ok() { of.result } else { "lost" };
        metrics.acks_total.with_label_values(&[of.contract, of.event, result]).inc();
        metrics.ack_seconds.with_label_values(&[of.contract]).observe(of.came.elapsed().as_secs_f64());
        self.count_send(&client.session, sent);
    }

    fn count_send(&self, session: &Session, sent: Result<(), SendError>) {
        let namespace = session.namespace().as_ref();
        match sent {
            Ok(()) => self.parts.metrics.deliveries_total.with_label_values(&[namespace]).inc(),
            Err(SendError::Full) => {
                self.parts.metrics.deliveries_dropped_total.with_label_values(&[namespace, "queue_full"]).inc();
                session.count_dropped();
            }
            Err(SendError::Closed) => {
                self.parts.metrics.deliveries_dropped_total.with_label_values(&[namespace, "closed"]).inc();
            }
        }
    }
}

/// The first contract of a namespace that tells its clients of errors speaks for those that belong to no contract.
fn spokesman(namespace: &Namespace) -> &Arc<Contract> {
    namespace.contracts.iter().find(|contract| contract.errors.event.is_some()).unwrap_or(&namespace.contracts[0])
}
