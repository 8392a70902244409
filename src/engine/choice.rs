//! Chooses the engine that the configuration names.

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

/// How often events that are kept for slow clients are offered to them again.
const LOOK: Duration = Duration::from_millis(50);

/// Delivers events to the clients of the chosen engine. It is built before the gateway, which publishes through it.
#[derive(Clone)]
pub enum EngineCarrier {
    /// Delivers to clients of socketioxide.
    Socketioxide(Arc<SocketioxideCarrier>),
    /// Delivers to clients of the native engine, whether they use a WebSocket or long-polling.
    Native(Arc<NativeCarrier>),
}

impl EngineCarrier {
    /// Builds a carrier for every namespace of `rooms`. With `keys`, it also begins to receive events from other
    /// nodes. Must be called within a Tokio runtime.
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

    /// The carrier through which others publish.
    pub fn carrier(&self) -> Arc<dyn Carrier> {
        match self {
            Self::Socketioxide(carrier) => carrier.clone(),
            Self::Native(carrier) => carrier.clone(),
        }
    }
}

/// Sends the events that are kept for slow clients as soon as those clients read again. Ends when `rooms` is dropped.
async fn release_laggards(rooms: Weak<Rooms>) {
    loop {
        tokio::time::sleep(LOOK).await;
        match rooms.upgrade() {
            Some(rooms) => rooms.release_laggards(),
            None => return,
        }
    }
}

/// Serves Socket.IO clients. It is built after the gateway, which decides about its clients.
pub enum Engine<G: Gate> {
    /// socketioxide serves every client.
    Socketioxide(SocketioxideEngine),
    /// The native engine serves every client.
    Native(NativeEngine<G>),
}

impl<G: Gate> Engine<G> {
    /// Builds the engine that belongs to `carrier`. `gate` decides which clients may connect. Must be called within a
    /// Tokio runtime.
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

    /// Serves the public listener and the listener for other nodes. Returns when `stop` is cancelled and every
    /// connection is closed.
    pub async fn serve(&self, listener: TcpListener, nodes: Option<Nodes>, routes: Router, stop: CancellationToken) {
        match self {
            Self::Socketioxide(engine) => engine.serve(listener, nodes, routes, stop).await,
            Self::Native(engine) => engine.serve(listener, nodes, routes, stop).await,
        }
    }

    /// Closes every connection. The official client then reconnects, as a rule to another node.
    pub fn close_all(&self) {
        match self {
            Self::Socketioxide(engine) => engine.close_all(),
            Self::Native(engine) => engine.close_all(),
        }
    }
}
