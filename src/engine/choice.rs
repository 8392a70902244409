//! The engine that the configuration names.

use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::edge::Hub;
use super::native::{NativeCarrier, NativeEngine};
use super::nodes::Nodes;
use super::socketioxide::{SocketioxideCarrier, SocketioxideEngine};
use super::{Gate, Terms};
use crate::cluster::Cluster;
use crate::config;
use crate::publish::Carrier;
use crate::redis::Keys;
use crate::room::Rooms;
use crate::telemetry::metrics::Metrics;

/// How often it is looked whether slow clients read again.
const LOOK: Duration = Duration::from_millis(50);

/// Brings events to the clients of the engine that was chosen: the first step, before the gateway.
#[derive(Clone)]
pub enum EngineCarrier {
    /// For clients of the library.
    Socketioxide(Arc<SocketioxideCarrier>),
    /// For clients of our own engine, and those that begin by polling.
    Native(Arc<NativeCarrier>),
}

impl EngineCarrier {
    /// A carrier for every namespace of `rooms`. With `keys`, it begins to receive what other nodes send. Needs a Tokio
    /// runtime.
    pub fn new(
        engine: config::Engine,
        rooms: Arc<Rooms>,
        cluster: &Cluster,
        keys: Option<Keys>,
        metrics: Arc<Metrics>,
    ) -> Self {
        tokio::spawn(release_laggards(Arc::downgrade(&rooms)));
        match engine {
            config::Engine::Socketioxide => Self::Socketioxide(SocketioxideCarrier::new(rooms, cluster, keys, metrics)),
            config::Engine::Native => Self::Native(NativeCarrier::new(rooms, cluster, keys, metrics)),
        }
    }

    /// For whoever publishes.
    pub fn carrier(&self) -> Arc<dyn Carrier> {
        match self {
            Self::Socketioxide(carrier) => carrier.clone(),
            Self::Native(carrier) => carrier.clone(),
        }
    }
}

/// Sends what is kept for slow clients, as soon as they read.
async fn release_laggards(rooms: Weak<Rooms>) {
    loop {
        tokio::time::sleep(LOOK).await;
        match rooms.upgrade() {
            Some(rooms) => rooms.release_laggards(),
            None => return,
        }
    }
}

/// Serves Socket.IO clients: the second step, after the gateway.
pub enum Engine<G: Gate> {
    /// Everything by the library.
    Socketioxide(SocketioxideEngine),
    /// WebSockets by our own.
    Native(NativeEngine<G>),
}

impl<G: Gate> Engine<G> {
    /// The carrier's engine, whose clients `gate` lets in. Needs a Tokio runtime.
    pub fn new(config: &config::Server, terms: &Terms, carrier: &EngineCarrier, gate: &Arc<G>) -> Self {
        match carrier {
            EngineCarrier::Socketioxide(carrier) => {
                Self::Socketioxide(SocketioxideEngine::new(config, terms, carrier, gate))
            }
            EngineCarrier::Native(carrier) => Self::Native(NativeEngine::new(config, terms, carrier, gate)),
        }
    }

    /// The connections of this node.
    pub fn hub(&self) -> &Arc<Hub> {
        match self {
            Self::Socketioxide(engine) => engine.hub(),
            Self::Native(engine) => engine.hub(),
        }
    }

    /// Serves the public listener, and the one for other nodes, until `stop` is cancelled and every connection is closed.
    pub async fn serve(&self, listener: TcpListener, nodes: Option<Nodes>, routes: Router, stop: CancellationToken) {
        match self {
            Self::Socketioxide(engine) => engine.serve(listener, nodes, routes, stop).await,
            Self::Native(engine) => engine.serve(listener, nodes, routes, stop).await,
        }
    }

    /// Closes every connection; the official client returns, to another node.
    pub fn close_all(&self) {
        match self {
            Self::Socketioxide(engine) => engine.close_all(),
            Self::Native(engine) => engine.close_all(),
        }
    }
}
