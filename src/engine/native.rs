//! The native engine. Its Engine.IO 4 sessions need little memory while they are idle, and little work for each
//! delivery.
//!
//! `intake` takes a client that opens with a WebSocket before HTTP sees it. All other requests come through HTTP and
//! the edge to `http`: long-polling, upgrades from it, and WebSocket handshakes on connections that have already
//! carried other requests.
//!
//! It is built in two steps, like the other engine: [`NativeCarrier`] delivers events to clients, [`NativeEngine`]
//! lets clients in.

mod candidate;
mod carrier;
pub mod deflate;
pub mod frame;
pub mod head;
mod http;
mod inbox;
mod intake;
mod member;
mod out;
pub mod packed;
pub mod packet;
mod packets;
pub mod payload;
mod polling;
mod session;
mod slices;
mod turn;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use carrier::NativeCarrier;

use self::deflate::Deflate;
use self::http::NativeService;
use self::intake::NativeIntake;
use self::packet::Greeting;
use self::turn::Turns;
use super::conn::Traffic;
use super::edge::{self, Edge, Hub};
use super::listener;
use super::nodes::{self, Nodes};
use super::outstanding::Bounds;
use super::{Gate, Terms};
use crate::config;
use crate::telemetry::metrics::Metrics;

/// The state that all connections share.
struct Shared<G> {
    gate: Arc<G>,
    namespaces: HashSet<Arc<str>>,
    metrics: Arc<Metrics>,
    path: String,
    greeting: Greeting,
    max_payload: usize,
    ping_interval: Duration,
    ping_timeout: Duration,
    connect_timeout: Duration,
    /// How long a client may take nothing of what is sent before it is disconnected.
    stall: Duration,
    bounds: Bounds,
    deflate: Option<Deflate>,
    turns: Arc<Turns>,
    traffic: Traffic,
}

/// Serves Socket.IO clients.
pub struct NativeEngine<G: Gate> {
    shared: Arc<Shared<G>>,
    hub: Arc<Hub>,
    config: config::Server,
    terms: Terms,
}

impl<G: Gate> NativeEngine<G> {
    /// Builds an engine for the carrier's namespaces. `gate` decides which clients may connect. Must be called within
    /// a Tokio runtime.
    pub fn new(config: &config::Server, terms: &Terms, carrier: &Arc<NativeCarrier>, gate: &Arc<G>) -> Self {
        let max_payload = usize::try_from(config.max_payload.bytes()).unwrap_or(usize::MAX);
        let (ping_interval, ping_timeout) = (config.ping_interval.get(), config.ping_timeout.get());
        let traffic = Traffic::new(carrier.metrics());
        let writers = tokio::runtime::Handle::current().metrics().num_workers();
        let shared = Shared {
            gate: gate.clone(),
            namespaces: carrier.namespaces().cloned().collect(),
            metrics: carrier.metrics().clone(),
            path: config.path.clone(),
            greeting: Greeting::new(ping_interval.as_millis(), ping_timeout.as_millis(), max_payload),
            max_payload,
            ping_interval,
            ping_timeout,
            connect_timeout: config.connect_timeout.get(),
            stall: config.stall(),
            bounds: Bounds { packets: config.queue, bytes: config.queued_bytes() },
            turns: Turns::start(writers, traffic.sent.clone(), carrier.metrics()),
            traffic,
            deflate: config
                .compression
                .as_ref()
                .map(|compression| Deflate { threshold: compression.threshold.as_usize(), level: compression.level }),
        };
        let hub = Arc::new(Hub::new(terms.limits.clone(), terms.forwarder.clone()));
        Self { shared: Arc::new(shared), hub, config: config.clone(), terms: terms.clone() }
    }

    /// The connections of this node.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Serves the public listener and the listener for other nodes. Returns when `stop` is cancelled and every
    /// connection is closed.
    pub async fn serve(&self, listener: TcpListener, nodes: Option<Nodes>, routes: Router, stop: CancellationToken) {
        let service = NativeService(self.shared.clone());
        let edge = Edge::new(&self.config, &self.terms, self.hub.clone(), service, routes);
        let intake = NativeIntake::new(self.shared.clone(), edge.entrance(), stop.clone());
        let manners = edge::manners(&self.config, &self.terms);
        let nodes = nodes::serve(nodes, edge.for_nodes(), &self.config, &self.terms, stop.clone());
        let clients = listener::serve(listener, intake, edge::around(&self.config, edge), manners, stop);
        tokio::join!(nodes, clients);
        self.hub.emptied().await;
    }

    /// Closes every connection. The official client then reconnects, as a rule to another node.
    pub fn close_all(&self) {
        self.hub.close_all();
    }
}

impl<G: Gate> Drop for NativeEngine<G> {
    fn drop(&mut self) {
        self.shared.turns.stop();
    }
}
