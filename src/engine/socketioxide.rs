//! The engine on the library socketioxide. The library serves every transport; rooms and broadcasts go through its
//! adapter.
//!
//! It is built in two steps, because the gateway publishes through the first and receives from the second:
//! [`SocketioxideCarrier`] delivers events to clients, [`SocketioxideEngine`] lets clients in.

mod adapter;
mod carrier;
mod connection;
mod door;
mod driver;
mod front;
mod link;
mod requests;

use std::sync::Arc;

use axum::Router;
use socketioxide::adapter::Emitter;
use socketioxide::{ParserConfig, SocketIo};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use carrier::SocketioxideCarrier;
pub use requests::LibraryRequests;

use self::adapter::NodeAdapter;
use self::door::Door;
use self::front::LibraryService;
use super::edge::{self, Edge, Hub};
use super::listener::{self, HttpOnly};
use super::nodes::{self, Nodes};
use super::outstanding::Bounds;
use super::{Gate, Terms};
use crate::config;
use crate::protocol::MAX_ATTACHMENTS;

/// The size of a WebSocket's read buffer in bytes. It is small, because every idle connection keeps one.
const WS_READ_BUFFER: usize = 1024;

type Adapter = NodeAdapter<Emitter>;

/// Serves Socket.IO clients.
pub struct SocketioxideEngine {
    hub: Arc<Hub>,
    service: LibraryService,
    config: config::Server,
    terms: Terms,
    // Keeps the library's namespaces alive.
    _io: SocketIo<Adapter>,
}

impl SocketioxideEngine {
    /// Builds an engine for the carrier's namespaces. `gate` decides which clients may connect. Must be called within
    /// a Tokio runtime.
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
            // Each of these options limits another transport, so all must be set.
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
        let bounds = Bounds { packets: config.queue, bytes: config.queued_bytes() };
        let service = LibraryService::new(service, &config.path, bounds, terms.metrics.clone());
        Self {
            hub: Arc::new(Hub::new(terms.limits.clone(), terms.forwarder.clone())),
            terms: terms.clone(),
            service,
            config: config.clone(),
            _io: io,
        }
    }

    /// The connections of this node.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Serves the public listener and the listener for other nodes. Returns when `stop` is cancelled and every
    /// connection is closed.
    pub async fn serve(&self, listener: TcpListener, nodes: Option<Nodes>, routes: Router, stop: CancellationToken) {
        let edge = Edge::new(&self.config, &self.terms, self.hub.clone(), self.service.clone(), routes);
        let manners = edge::manners(&self.config, &self.terms);
        let nodes = nodes::serve(nodes, edge.for_nodes(), &self.config, &self.terms, stop.clone());
        let clients = listener::serve(listener, HttpOnly, edge::around(&self.config, edge), manners, stop);
        tokio::join!(nodes, clients);
        self.hub.emptied().await;
    }

    /// Closes every connection. The official client then reconnects, as a rule to another node.
    pub fn close_all(&self) {
        self.hub.close_all();
    }
}
