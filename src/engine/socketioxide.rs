//! The engine on the library socketioxide. The library serves every transport. It knows no rooms: each session gets its
//! packets one by one, as with the native engine.

mod adapter;
mod connection;
mod link;
mod namespace;
mod protocol3;
mod requests;
mod root;
mod service;

use std::sync::Arc;

use axum::Router;
use socketioxide::adapter::Emitter;
use socketioxide::{ParserConfig, SocketIo};

pub use requests::LibraryRequests;

use self::adapter::{NodeAdapter, PacketPorts};
use self::namespace::NamespaceHandler;
use self::root::RootNamespace;
use self::service::{ClientLimits, LibraryService};
use super::Gate;
use super::edge::SessionService;
use super::queue_estimate::WriteQueueLimits;
use crate::config;
use crate::protocol::MAX_ATTACHMENTS;
use crate::telemetry::metrics::Metrics;

/// The size of a WebSocket's read buffer in bytes. It is small, because every idle connection keeps one.
const WS_READ_BUFFER: usize = 1024;

/// The namespace to which the library connects every client of Engine.IO 3.
const ROOT: &str = "/";

type Adapter = NodeAdapter<Emitter>;

/// Serves Socket.IO clients with the library socketioxide.
pub struct LibraryEngine {
    service: LibraryService,
    // Keeps the library's namespaces alive.
    _io: SocketIo<Adapter>,
}

impl LibraryEngine {
    /// Builds an engine for these namespaces. `gate` decides which clients may connect. Must be called within a Tokio
    /// runtime.
    pub(super) fn new<G: Gate>(
        config: &config::ServerSettings,
        metrics: &Arc<Metrics>,
        namespaces: &[Arc<str>],
        gate: &Arc<G>,
    ) -> Self {
        let max_payload = usize::try_from(config.max_payload.bytes()).unwrap_or(usize::MAX);
        let parser =
            ParserConfig::common().max_incoming_binary_buf_size(max_payload).max_incoming_binaries(MAX_ATTACHMENTS);
        let ports = Arc::new(PacketPorts::new(namespaces));
        let (service, io) = SocketIo::builder()
            .req_path(config.path.clone())
            .ping_interval(config.ping_interval.get())
            .ping_timeout(config.ping_timeout.get())
            .connect_timeout(config.connect_timeout.get())
            .max_buffer_size(config.queue)
            // Each of these options limits another transport, so all of them must be set.
            .max_payload(config.max_payload.bytes())
            .ws_max_message_size(max_payload)
            .ws_max_frame_size(max_payload)
            .ws_read_buffer_size(WS_READ_BUFFER)
            .with_parser(parser)
            .with_adapter::<Adapter>(ports.clone())
            .build_with_inner_svc(Router::new());
        for namespace in namespaces {
            let handler = NamespaceHandler::new(namespace.clone(), gate.clone(), ports.clone(), metrics.clone());
            io.ns(namespace.to_string(), handler);
        }
        if config.allow_eio3 && !namespaces.iter().any(|namespace| &**namespace == ROOT) {
            io.ns(ROOT, RootNamespace::new(metrics.clone()));
        }
        let limits = ClientLimits {
            bounds: WriteQueueLimits { packets: config.queue, bytes: config.queued_bytes() },
            max_payload,
            connect_timeout: config.connect_timeout.get(),
        };
        Self { service: LibraryService::new(service, &config.path, limits, metrics.clone()), _io: io }
    }

    /// Returns the library's service, to which the edge passes requests.
    pub(super) fn service(&self) -> Arc<dyn SessionService> {
        Arc::new(self.service.clone())
    }
}
