//! The engines, which speak Socket.IO with clients, and the public listener in front of them.
//!
//! Only this module depends on the library that implements Socket.IO. The modules above it decide, through [`Gate`],
//! which clients may connect and what happens to their events.

pub mod closable_stream;
mod delivery;
pub mod edge;
mod incompatible;
pub mod listener;
mod local_delivery;
pub mod native;
pub mod nodes;
pub mod pending;
pub mod proxy;
mod queue_estimate;
mod rewind;
mod server;
mod slices;
mod slot;
mod slow_clients;
pub mod socketioxide;
mod time_slice;
pub mod validate;

pub use delivery::Broadcaster;
pub use server::Engine;

use std::future::Future;
use std::sync::Arc;

use crate::auth::Handshake;
use crate::contract::handshake::HandshakePart;
use crate::contract::model::{Namespace, TokenSource};
use crate::error::Refusal;
use crate::event::Event;
use crate::forward::Forwarder;
use crate::gateway::{ConnectDecision, Gateway, GatewayClient};
use crate::limits::Limits;
use crate::recovery::Pid;
use crate::session::{AckId, ClientFacts, Link};
use crate::telemetry::metrics::Metrics;

/// The disconnect reason that a session reports when this node closed its connection.
const CLOSED_BY_US: &str = "server transport close";

/// The limits and services that the engines need before they know who a client is.
#[derive(Clone)]
pub struct EngineContext {
    /// Limits on connections and on the events of clients.
    pub limits: Arc<Limits>,
    /// The places where the contracts look for tokens. All requests of one session must carry the same values there.
    pub tokens: Vec<TokenSource>,
    /// The parts of handshakes that templates of the contracts use.
    pub handshake: Vec<HandshakePart>,
    /// Forwards requests that belong to sessions on other nodes.
    pub forwarder: Arc<Forwarder>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
}

impl EngineContext {
    /// Collects the token sources of these namespaces.
    pub fn new(
        limits: Arc<Limits>,
        namespaces: &[Arc<Namespace>],
        forwarder: Arc<Forwarder>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut tokens: Vec<TokenSource> = Vec::new();
        for source in namespaces.iter().flat_map(|namespace| &namespace.auth().tokens) {
            if !tokens.contains(source) {
                tokens.push(source.clone());
            }
        }
        let mut handshake: Vec<HandshakePart> = Vec::new();
        for part in namespaces.iter().flat_map(|namespace| namespace.handshake()) {
            if !handshake.contains(part) {
                handshake.push(part.clone());
            }
        }
        Self { limits, tokens, handshake, forwarder, metrics }
    }
}

/// The values that the gate puts into the CONNECT answer. An engine makes the values that are missing.
#[derive(Default)]
pub struct ConnectAnswer {
    /// The id of the session that was recovered. `None`: the engine makes a new id.
    pub id: Option<String>,
    /// The secret with which the client can recover the session later.
    pub pid: Option<Pid>,
}

/// The content of an Engine.IO message.
#[derive(Debug, Clone, Copy)]
pub enum MessageContent<'a> {
    /// A text message, without the digit of Engine.IO's message type.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

/// The decisions that an engine asks for about each client. The gateway implements it.
pub trait Gate: Send + Sync + 'static {
    /// The decision to admit a client, with everything that [`Gate::open`] needs.
    type Admission: Send + 'static;

    /// A client that has joined a namespace.
    type Client: Send + Sync + 'static;

    /// Handles a message of a client of the native engine in a protocol other than Socket.IO; `answer` queues a
    /// message for the client. Returns false, as the gateway always does, to have the message read as Socket.IO.
    fn message(&self, _: MessageContent<'_>, _answer: &mut dyn FnMut(MessageContent<'_>)) -> bool {
        false
    }

    /// Decides whether a client may connect to a namespace, before CONNECT is acknowledged. An error becomes a
    /// CONNECT_ERROR with the message `CODE: text`.
    fn admit(
        &self,
        namespace: &Arc<str>,
        id: &str,
        handshake: Handshake,
        peer: &ClientFacts,
    ) -> impl Future<Output = Result<Self::Admission, Refusal>> + Send;

    /// Returns the session id and the secret for the CONNECT answer.
    fn pass(&self, _: &Self::Admission) -> ConnectAnswer {
        ConnectAnswer::default()
    }

    /// Opens the client's session. The engine has already queued CONNECT, so everything that is sent here follows it.
    /// Returns `None` when the client has been told why it may not stay and is being disconnected.
    fn open(
        self: &Arc<Self>,
        admission: Self::Admission,
        id: &str,
        peer: ClientFacts,
        link: Box<dyn Link>,
    ) -> Option<Arc<Self::Client>>;

    /// Counts an event and checks its size and shape. At this time only the event's name has been parsed. Returns false
    /// when the event must be dropped; the gate has then already sent the client any error that it needs.
    fn permit(self: &Arc<Self>, _client: &Arc<Self::Client>, _event: &Event, _ack: Option<AckId>) -> bool {
        true
    }

    /// Refuses an event that [`Gate::permit`] has permitted, but that the node cannot convert to JSON. The engine calls
    /// this in the order in which the client sent its events. The event has a name and no arguments.
    fn refuse(self: &Arc<Self>, _client: &Arc<Self::Client>, _event: &Event, _ack: Option<AckId>, _: Refusal) {}

    /// Handles one event that is permitted and valid. The engine calls this in the order in which the client sent its
    /// events. Returns without waiting.
    fn dispatch(self: &Arc<Self>, client: &Arc<Self::Client>, event: Event, ack: Option<AckId>);

    /// Reports that the client has disconnected. The engine calls this once for every client that [`Gate::open`]
    /// returned.
    fn closed(self: &Arc<Self>, client: &Arc<Self::Client>, reason: &'static str);
}

impl Gate for Gateway {
    type Admission = ConnectDecision;
    type Client = GatewayClient;

    async fn admit(
        &self,
        namespace: &Arc<str>,
        id: &str,
        handshake: Handshake,
        peer: &ClientFacts,
    ) -> Result<ConnectDecision, Refusal> {
        Self::admit(self, namespace, id, &handshake, peer).await
    }

    fn pass(&self, admission: &ConnectDecision) -> ConnectAnswer {
        let (id, pid) = admission.pass();
        ConnectAnswer { id, pid }
    }

    fn open(
        self: &Arc<Self>,
        admission: ConnectDecision,
        id: &str,
        peer: ClientFacts,
        link: Box<dyn Link>,
    ) -> Option<Arc<GatewayClient>> {
        let stays = !admission.is_rejection();
        let client = Self::open(self, admission, id, peer, link);
        stays.then_some(client)
    }

    fn permit(self: &Arc<Self>, client: &Arc<GatewayClient>, event: &Event, ack: Option<AckId>) -> bool {
        Self::permit(self, client, event, ack)
    }

    fn refuse(self: &Arc<Self>, client: &Arc<GatewayClient>, event: &Event, ack: Option<AckId>, refusal: Refusal) {
        Self::refuse_event(self, client, event, ack, refusal);
    }

    fn dispatch(self: &Arc<Self>, client: &Arc<GatewayClient>, event: Event, ack: Option<AckId>) {
        Self::dispatch(self, client, event, ack);
    }

    fn closed(self: &Arc<Self>, client: &Arc<GatewayClient>, reason: &'static str) {
        Self::closed(self, client, reason);
    }
}
