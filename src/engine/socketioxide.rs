//! The engine on socketioxide: every transport, rooms and broadcasts through its adapter.
//!
//! Built in two steps, because the gateway publishes through the one and receives from the other: [`SocketioxideCarrier`]
//! brings events to clients, [`SocketioxideEngine`] lets clients in.

mod adapter;
mod carrier;
mod door;
mod driver;
mod link;

use std::sync::Arc;

use axum::Router;
use socketioxide::adapter::Emitter;
use socketioxide::service::SocketIoService;
use socketioxide::{ParserConfig, SocketIo};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Layer;

pub use carrier::SocketioxideCarrier;

use self::adapter::NodeAdapter;
use self::door::Door;
use super::conn::Traffic;
use super::edge::{Edge, Hub, Origins};
use super::listener::{self, HttpOnly, Manners, Serve};
use super::lobby::Lobby;
use super::nodes::Nodes;
use super::outstanding::Bounds;
use super::proxy::Balancers;
use super::{Gate, Terms};
use crate::config;

/// Read buffers of WebSockets: what idle connections hold of them adds up.
const WS_READ_BUFFER: usize = 1024;

/// A packet may have at most so many binary attachments.
const MAX_ATTACHMENTS: usize = 1024;

type Adapter = NodeAdapter<Emitter>;

/// Serves Socket.IO clients.
pub struct SocketioxideEngine {
    hub: Arc<Hub>,
    service: SocketIoService<Router, Adapter>,
    config: config::Server,
    terms: Terms,
    // Keeps the namespaces.
    _io: SocketIo<Adapter>,
}

impl SocketioxideEngine {
    /// An engine for the carrier's namespaces, whose clients `gate` lets in. Needs a Tokio runtime.
    pub fn new<G: Gate>(
        config: &config::Server,
        terms: &Terms,
        carrier: &Arc<SocketioxideCarrier>,
        gate: &Arc<G>,
    ) -> Self {
        let max_payload = usize::try_from(config.max_payload.bytes()).unwrap_or(usize::MAX);
        let parser =
            ParserConfig::common().max_incoming_binary_buf_size(max_payload).max_incoming_binaries(MAX_ATTACHMENTS);
        let (service, io) = SocketIo::builder()
            .req_path(config.path.clone())
            .ping_interval(config.ping_interval.get())
            .ping_timeout(config.ping_timeout.get())
            .connect_timeout(config.connect_timeout.get())
            .max_buffer_size(config.queue)
            // Each bounds another transport; all must be set.
            .max_payload(config.max_payload.bytes())
            .ws_max_message_size(max_payload)
            .ws_max_frame_size(max_payload)
            .ws_read_buffer_size(WS_READ_BUFFER)
            .with_parser(parser)
            .with_adapter::<Adapter>(carrier.adapter_state())
            .build_with_inner_svc(Router::new());
        for namespace in carrier.namespaces() {
            io.ns(namespace.to_string(), Door::new(namespace.clone(), gate.clone(), carrier.clone()));
        }
        let hub = Arc::new(Hub::new(
            terms.limits.clone(),
            terms.forwarder.clone(),
            Bounds { packets: config.queue, bytes: config.queued_bytes() },
        ));
        Self { hub, terms: terms.clone(), service, config: config.clone(), _io: io }
    }

    /// The connections of this node.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The public listener's service: Socket.IO on `server.path`, `routes` elsewhere.
    pub fn service(&self, routes: Router) -> impl Serve {
        self.around(self.edge(routes))
    }

    /// The door before the engine.
    pub(super) fn edge(&self, routes: Router) -> Edge<SocketIoService<Router, Adapter>> {
        Edge::new(&self.config, &self.terms, self.hub.clone(), self.service.clone(), routes)
    }

    /// What is around the door, because the engine knows no OPTIONS.
    pub(super) fn around(&self, edge: Edge<SocketIoService<Router, Adapter>>) -> impl Serve + use<> {
        Origins::new(&self.config.cors_origins).cors().layer(edge)
    }

    /// Serves the public listener, and the one for other nodes, until `stop` is cancelled and every connection is closed.
    pub async fn serve(&self, listener: TcpListener, nodes: Option<Nodes>, routes: Router, stop: CancellationToken) {
        let edge = self.edge(routes);
        let nodes = self.serve_nodes(nodes, edge.for_nodes(), stop.clone());
        tokio::join!(nodes, listener::serve(listener, HttpOnly, self.around(edge), self.manners(), stop));
        self.hub.emptied().await;
    }

    /// Serves the listener for other nodes, if there is one.
    pub(super) async fn serve_nodes(
        &self,
        nodes: Option<Nodes>,
        edge: Edge<SocketIoService<Router, Adapter>>,
        stop: CancellationToken,
    ) {
        if let Some(nodes) = nodes {
            nodes.serve(edge, &self.config, &self.terms.metrics, stop).await;
        }
    }

    /// How the public listener treats connections.
    pub(super) fn manners(&self) -> Manners {
        let metrics = &self.terms.metrics;
        Manners {
            lobby: Lobby::new(self.terms.limits.most_pending(), self.config.handshake_timeout.get(), metrics),
            stall: self.config.stall(),
            max_head: listener::MAX_HEAD,
            traffic: Traffic::new(metrics),
            balancers: self.config.proxy_protocol.then(|| Balancers::new(&self.config.trusted_proxies)),
        }
    }

    /// Closes every connection; the official client returns, to another node.
    pub fn close_all(&self) {
        self.hub.sessions().iter().for_each(|session| session.close());
    }
}
