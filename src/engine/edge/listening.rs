//! The parts of the public listener that are the same for every engine.

use tower::Layer;

use super::Edge;
use super::origin::AllowedOrigins;
use crate::config;
use crate::engine::EngineContext;
use crate::engine::closable_stream::Traffic;
use crate::engine::listener::{self, ConnectionOptions, Serve};
use crate::engine::pending::PendingConnections;
use crate::engine::proxy::Balancers;

/// Wraps the edge with CORS, because the engines do not answer OPTIONS requests.
pub fn with_cors(config: &config::ServerSettings, edge: Edge) -> impl Serve + use<> {
    AllowedOrigins::new(&config.cors_origins).cors().layer(edge)
}

/// The settings of the public listener.
pub fn options(config: &config::ServerSettings, context: &EngineContext) -> ConnectionOptions {
    let metrics = &context.metrics;
    ConnectionOptions {
        pending_connections: PendingConnections::new(
            context.limits.most_pending(),
            config.handshake_timeout.get(),
            metrics,
        ),
        stall: config.stall(),
        read_ahead: config.read_ahead(),
        max_head: listener::MAX_HEAD,
        traffic: Traffic::new(metrics),
        balancers: config.proxy_protocol.then(|| Balancers::new(&config.trusted_proxies)),
    }
}
