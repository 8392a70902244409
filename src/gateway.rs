//! Handles everything that a client does: admits the client, handles and answers its events, and cleans up after it
//! disconnects.
//!
//! Engines call [`Gateway::admit`], [`Gateway::open`], [`Gateway::dispatch`] and [`Gateway::closed`]; everything that a
//! client causes leaves through [`Publisher`].

mod answer;
mod call;
mod connect;
mod context;
mod deadlines;
mod event;
mod expiry;
mod handlers;
mod membership;
mod pending;
mod plan;
mod presence;
mod queue;
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

pub use connect::ConnectDecision;
use deadlines::TokenDeadlines;
use handlers::{HandlerCounters, Handlers};
use pending::{EVENT_BYTES, PendingBytes, PendingShare};
use queue::{ClientQueue, ClientQueueFull, QueueBound, QueueBounds, QueueItem, RefusedEvent, Work};

/// How many copies of an event are in memory while a backend is asked about it. The copies are the event itself, its
/// decoded parts, and the request, in which base64 makes attachments a third longer.
const CALL_COPIES: usize = 4;

/// The parts that a gateway is built from.
pub struct GatewayParts {
    /// The contracts, grouped by namespace.
    pub namespaces: Vec<Arc<Namespace>>,
    /// The index of room members on this node.
    pub rooms: Arc<Rooms>,
    /// Sends all outgoing events.
    pub publisher: Arc<Publisher>,
    /// Verifies tokens and returns users.
    pub auth: Arc<Authenticator>,
    /// Rate limits of connections and events.
    pub limits: Arc<Limits>,
    /// The histories of rooms, which joining clients are shown.
    pub history: Arc<History>,
    /// Calls to backends that decide something.
    pub hooks: Arc<Hooks>,
    /// Notices to backends, which do not have to be answered.
    pub notices: Notices,
    /// Owners of rooms, as backends recorded them.
    pub owners: Arc<Owners>,
    /// Which users are in which rooms, over the whole cluster.
    pub presence: Arc<dyn Presence>,
    /// Keeps the sessions of disconnected clients, so that clients can recover them.
    pub recovery: Arc<Recovery>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// Bounds on the events that wait while an earlier event of the same client is handled.
    pub pending: PendingBounds,
}

/// Bounds on the events that wait while an earlier event of the same client is handled.
#[derive(Debug, Clone, Copy)]
pub struct PendingBounds {
    /// Maximum number of waiting events of one client.
    pub events: usize,
    /// Maximum size of the waiting events of one client, in bytes.
    pub bytes: usize,
    /// Maximum size of all events on this node that wait behind an earlier event or for a backend's answer, in bytes.
    pub node_bytes: usize,
}

/// Handles clients and their events. A node has one gateway, which its engines share.
pub struct Gateway {
    parts: GatewayParts,
    namespaces: HashMap<Arc<str>, (Arc<Namespace>, Arc<Handlers>)>,
    clock: TokenDeadlines,
    pending_bytes: Arc<PendingBytes>,
}

/// An acknowledgement that a client asked for.
struct RequestedAck<'a> {
    id: AckId,
    received_at: Instant,
    contract: &'a str,
    event: &'a str,
    result: &'static str,
    /// The counters of an event that succeeded; without them, the counters are looked up by their labels.
    counters: Option<&'a HandlerCounters>,
}

/// A client in the gateway: its session, and what is needed to handle its events.
pub struct GatewayClient {
    /// The session.
    pub session: Arc<Session>,
    namespace: Arc<Namespace>,
    handlers: Arc<Handlers>,
    queue: Arc<ClientQueue>,
    limits: SessionLimits,
    admitted: bool,
}

impl Gateway {
    /// Builds a gateway from these parts.
    pub fn new(parts: GatewayParts) -> Arc<Self> {
        let with_handlers = |namespace: &Arc<Namespace>| {
            let handlers = Handlers::new(namespace, &parts.publisher, &parts.metrics);
            (namespace.path.clone(), (namespace.clone(), Arc::new(handlers)))
        };
        let namespaces = parts.namespaces.iter().map(with_handlers).collect();
        let pending_bytes = PendingBytes::new(parts.pending.node_bytes);
        let waiting = Arc::downgrade(&pending_bytes);
        parts.metrics.measure(move |metrics| {
            if let Some(pending_bytes) = waiting.upgrade() {
                metrics.events_pending_bytes.with_label_values::<&str>(&[]).set(count(pending_bytes.held()));
            }
        });
        Arc::new(Self { parts, namespaces, clock: TokenDeadlines::default(), pending_bytes })
    }

    /// Counts an event of a client against the rate limits, and checks the event's size and shape. Only the event's
    /// name has been parsed at this point. Returns false when the event is refused; the refusal is then already queued
    /// as the event's answer.
    pub fn permit(self: &Arc<Self>, client: &Arc<GatewayClient>, event: &Event, ack: Option<AckId>) -> bool {
        let limits = &self.parts.limits;
        let known = client.handlers.get(event.name()).map(|handler| &handler.def);
        match event::check_rate(client, known).and_then(|()| limits.shape().check(event)) {
            Ok(()) => true,
            Err(refusal) => {
                self.refuse_event(client, event, ack, refusal);
                false
            }
        }
    }

    /// Handles an event that [`Gateway::permit`] accepted: at once if no earlier event of the client is waiting, and
    /// otherwise after the earlier events. Returns without waiting.
    ///
    /// A client's events take effect in the order of the calls. An event for which the client's queue has no space is
    /// answered with OVERLOADED.
    pub fn dispatch(self: &Arc<Self>, client: &Arc<GatewayClient>, event: Event, ack: Option<AckId>) {
        let item = QueueItem::Event(event, ack, Instant::now());
        if let Err(ClientQueueFull(QueueItem::Event(event, ack, received_at), bound)) = self.enqueue(client, item) {
            self.refuse_now(client, &event, ack.map(|id| (id, received_at)), &self.overloaded(bound));
        }
    }

    /// Counts an event that was refused because the queue of waiting events is full.
    fn overloaded(&self, bound: QueueBound) -> Refusal {
        let PendingBounds { events, bytes, .. } = self.parts.pending;
        let (reason, text) = match bound {
            QueueBound::Items => {
                ("client_events", format!("more than {events} of your events wait to be handled; slow down"))
            }
            QueueBound::Bytes => {
                ("client_bytes", format!("more than {bytes} bytes of your events wait to be handled; slow down"))
            }
            QueueBound::Node => ("node_bytes", "too many events wait on this node; try again later".to_owned()),
        };
        self.parts.metrics.events_not_queued_total.with_label_values(&[reason]).inc();
        Refusal::new(Code::Overloaded, text)
    }

    /// Reserves memory for an event while a backend is asked about it. Dropping the share releases the memory.
    ///
    /// # Errors
    /// `OVERLOADED`.
    fn hold(&self, event: &Event) -> Result<PendingShare, Refusal> {
        let bytes = CALL_COPIES * (EVENT_BYTES + event.size_bytes());
        self.pending_bytes.take(bytes).ok_or_else(|| self.overloaded(QueueBound::Node))
    }

    /// Refuses an event. The refusal waits behind the client's earlier events, so that answers keep the order of the
    /// events. When the client's queue is full, the refusal is sent at once. Only the event's name is used.
    pub fn refuse_event(
        self: &Arc<Self>,
        client: &Arc<GatewayClient>,
        event: &Event,
        ack: Option<AckId>,
        refusal: Refusal,
    ) {
        let refused = RefusedEvent { event: event.clone(), ack, received_at: Instant::now(), refusal };
        if let Err(ClientQueueFull(QueueItem::Refused(refused), _)) =
            self.enqueue(client, QueueItem::Refused(Box::new(refused)))
        {
            let RefusedEvent { event, ack, received_at, refusal } = &*refused;
            self.refuse_now(client, event, ack.map(|id| (id, *received_at)), refusal);
        }
    }

    /// Waits at most `sessions` until the sessions of disconnected clients are stored, and then at most `patience`
    /// until backends have received their notices. Returns how many notices are lost.
    pub async fn close(&self, sessions: Duration, patience: Duration) -> usize {
        self.parts.recovery.close(sessions).await;
        self.parts.notices.close(patience).await
    }

    #[expect(clippy::result_large_err, reason = "it is given back as it came")]
    fn enqueue(self: &Arc<Self>, client: &Arc<GatewayClient>, item: QueueItem) -> Result<(), ClientQueueFull> {
        let (gateway, handled) = (self.clone(), client.clone());
        let PendingBounds { events, bytes, .. } = self.parts.pending;
        let bounds = QueueBounds { items: events, bytes, node: &self.pending_bytes };
        client.queue.push(item, &bounds, move |item, place| {
            let (gateway, client) = (gateway.clone(), handled.clone());
            // Each kind of item has a future of its own size, so that the small futures do not take as much memory as
            // the largest.
            match item {
                QueueItem::Event(event, ack, received_at) => {
                    place.hold(async move { gateway.handle(&client, &event, ack, received_at).await })
                }
                QueueItem::Refused(refused) => Work::new(async move { gateway.refuse(&client, &refused).await }),
                QueueItem::Opened(answers) => Work::new(async move { gateway.settle_in(&client, answers).await }),
                QueueItem::Back(returned) => Work::new(async move { gateway.send_missed(&client, *returned).await }),
            }
        })
    }

    /// The index of rooms and their members.
    fn rooms(&self) -> &Rooms {
        &self.parts.rooms
    }

    /// Queues an event for one client, and counts the event as dropped when the client's write queue has no space.
    fn send(&self, session: &Session, event: &Event) {
        self.count_send(session, session.send(event));
    }

    /// Acknowledges an event, and measures the time since the event arrived.
    fn ack(&self, client: &GatewayClient, of: RequestedAck<'_>, args: &Args) {
        let sent = client.session.ack(of.id, args);
        let metrics = &self.parts.metrics;
        let taken = of.received_at.elapsed().as_secs_f64();
        if let Some(counters) = of.counters
            && sent.is_ok()
        {
            counters.acked.inc();
            counters.ack_seconds.observe(taken);
            return client.handlers.delivered.inc();
        }
        let result = if sent.is_ok() { of.result } else { "lost" };
        metrics.acks_total.with_label_values(&[of.contract, of.event, result]).inc();
        metrics.ack_seconds.with_label_values(&[of.contract]).observe(taken);
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

/// The contract whose error event is used for events that belong to no contract: the namespace's first contract that
/// declares an error event, or else its first contract.
fn error_contract(namespace: &Namespace) -> &Arc<Contract> {
    namespace.contracts.iter().find(|contract| contract.errors.event.is_some()).unwrap_or(&namespace.contracts[0])
}
