//! The parts of the public listener that are the same for every engine.

use tower::Layer;

use super::Edge;
use super::origin::Origins;
use crate::config;
use crate::engine::Terms;
use crate::engine::conn::Traffic;
use crate::engine::listener::{self, Manners, Serve};
use crate::engine::lobby::Lobby;
use crate::engine::proxy::Balancers;

/// Wraps the edge with CORS, because the engines do not answer OPTIONS requests.
pub fn around(config: &config::Server, edge: Edge) -> impl Serve + use<> {
    Origins::new(&config.cors_origins).cors().layer(edge)
}

/// The settings of the public listener.
pub fn manners(config: &config::Server, terms: &Terms) -> Manners {
    let metrics = &terms.metrics;
    Manners {
        lobby: Lobby::new(terms.limits.most_pending(), config.handshake_timeout.get(), metrics),
        stall: config.stall(),
        read_ahead: config.read_ahead(),
        max_head: listener::MAX_HEAD,
        traffic: Traffic::new(metrics),
        balancers: config.proxy_protocol.then(|| Balancers::new(&config.trusted_proxies)),
    }
}
