//! Which engine serves a client, and the doors of the node: the public listener and its connections.
//!
//! Engines know the library that speaks Socket.IO; nothing above them does. What happens to a client and its events is
//! decided behind [`Gate`].

mod choice;
pub mod conn;
mod delivery;
pub mod edge;
mod incompatible;
pub mod listener;
pub mod lobby;
pub mod native;
pub mod nodes;
mod outstanding;
pub mod proxy;
mod rewind;
mod slot;
pub mod socketioxide;
pub mod validate;

pub use choice::{Engine, EngineCarrier};

use std::future::Future;
use std::sync::Arc;

use crate::auth::Handshake;
use crate::contract::model::{Namespace, TokenSource};
use crate::error::Refusal;
use crate::event::Event;
use crate::forward::Forwarder;
use crate::gateway::{Admission, Client, Gateway};
use crate::limits::Limits;
use crate::recovery::Pid;
use crate::session::{AckId, Link, Peer};
use crate::telemetry::metrics::Metrics;

/// The reason of a session's end when the node has closed its connection.
const CLOSED_BY_US: &str = "server transport close";

/// Under what terms clients may connect, before anybody asks who they are.
#[derive(Clone)]
pub struct Terms {
    /// Limits on connections, and on what clients send.
    pub limits: Arc<Limits>,
    /// Where the contracts look for tokens: requests of one session carry the same.
    pub tokens: Vec<TokenSource>,
    /// Passes on what is of sessions of other nodes.
    pub forwarder: Arc<Forwarder>,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
}

impl Terms {
    /// The terms of a node that serves these namespaces.
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
        Self { limits, tokens, forwarder, metrics }
    }
}

/// What CONNECT tells a client, where it is not the engine that decides.
#[derive(Default)]
pub struct Pass {
    /// The id of the session that it gets back.
    pub id: Option<String>,
    /// The secret that it can come back with.
    pub pid: Option<Pid>,
}

/// What engines ask of the node for each client. The gateway implements it.
pub trait Gate: Send + Sync + 'static {
    /// What was found out about a client before it is let in.
    type Admission: Send + 'static;

    /// A client that was let in.
    type Client: Send + Sync + 'static;

    /// Decides whether a client may connect to a namespace, before CONNECT is acknowledged. An error becomes a
    /// CONNECT_ERROR with the message `CODE: text`.
    fn admit(
        &self,
        namespace: &Arc<str>,
        id: &str,
        handshake: Handshake,
        peer: &Peer,
    ) -> impl Future<Output = Result<Self::Admission, Refusal>> + Send;

    /// What CONNECT tells the client.
    fn pass(&self, _: &Self::Admission) -> Pass {
        Pass::default()
    }

    /// Lets the client in; CONNECT is queued already, and whatever is sent follows it. `None`: it was sent what it
    /// should know, and is being disconnected.
    fn open(
        self: &Arc<Self>,
        admission: Self::Admission,
        id: &str,
        peer: Peer,
        link: Box<dyn Link>,
    ) -> Option<Arc<Self::Client>>;

    /// Counts an event of a client and looks at its size and shape, before anything of it but its name is parsed. False: it
    /// goes no further, and what there is to say was said.
    fn permit(self: &Arc<Self>, _client: &Arc<Self::Client>, _event: &Event, _ack: Option<AckId>) -> bool {
        true
    }

    /// Takes one event of a client, permitted and valid. Called in the order in which the client sent them; returns at once.
    fn dispatch(self: &Arc<Self>, client: &Arc<Self::Client>, event: Event, ack: Option<AckId>);

    /// The client is gone. Called once for every client that was let in.
    fn closed(self: &Arc<Self>, client: &Arc<Self::Client>, reason: &'static str);
}

impl Gate for Gateway {
    type Admission = Admission;
    type Client = Client;

    async fn admit(
        &self,
        namespace: &Arc<str>,
        id: &str,
        handshake: Handshake,
        peer: &Peer,
    ) -> Result<Admission, Refusal> {
        Self::admit(self, namespace, id, &handshake, peer).await
    }

    fn pass(&self, admission: &Admission) -> Pass {
        let (id, pid) = admission.pass();
        Pass { id, pid }
    }

    fn open(self: &Arc<Self>, admission: Admission, id: &str, peer: Peer, link: Box<dyn Link>) -> Option<Arc<Client>> {
        let stays = !admission.is_rejection();
        let client = Self::open(self, admission, id, peer, link);
        stays.then_some(client)
    }

    fn permit(self: &Arc<Self>, client: &Arc<Client>, event: &Event, ack: Option<AckId>) -> bool {
        Self::permit(self, client, event, ack)
    }

    fn dispatch(self: &Arc<Self>, client: &Arc<Client>, event: Event, ack: Option<AckId>) {
        Self::dispatch(self, client, event, ack);
    }

    fn closed(self: &Arc<Self>, client: &Arc<Client>, reason: &'static str) {
        Self::closed(self, client, reason);
    }
}
