//! Serves Socket.IO clients with the engine that the configuration names.

use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::edge::{self, Edge, Hub};
use super::listener::{self, HttpOnly};
use super::native::NativeEngine;
use super::nodes::{self, NodeListener};
use super::socketioxide::LibraryEngine;
use super::{EngineContext, Gate};
use crate::config;

/// The public listener and the engine behind it. It is built after the gateway, which decides about its clients.
pub struct Engine<G: Gate> {
    hub: Arc<Hub>,
    config: config::ServerSettings,
    context: EngineContext,
    sessions: Sessions<G>,
}

/// The engine that serves the clients.
enum Sessions<G: Gate> {
    Native(NativeEngine<G>),
    Library(LibraryEngine),
}

impl<G: Gate> Engine<G> {
    /// Builds the configured engine for these namespaces. `gate` decides which clients may connect. Must be called
    /// within a Tokio runtime.
    pub fn new<'n>(
        config: &config::ServerSettings,
        context: &EngineContext,
        namespaces: impl IntoIterator<Item = &'n Arc<str>>,
        gate: &Arc<G>,
    ) -> Self {
        let namespaces: Vec<_> = namespaces.into_iter().cloned().collect();
        let metrics = &context.metrics;
        Self {
            hub: Hub::new(context.limits.clone(), context.forwarder.clone(), metrics),
            sessions: match config.engine {
                config::EngineKind::Native => Sessions::Native(NativeEngine::new(config, metrics, &namespaces, gate)),
                config::EngineKind::Socketioxide => {
                    Sessions::Library(LibraryEngine::new(config, metrics, &namespaces, gate))
                }
            },
            config: config.clone(),
            context: context.clone(),
        }
    }

    /// The connections of this node.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Serves the public listener and the listener for other nodes. Returns when `stop` is cancelled and every
    /// connection is closed.
    pub async fn serve(
        &self,
        listener: TcpListener,
        nodes: Option<NodeListener>,
        routes: Router,
        stop: CancellationToken,
    ) {
        let service = match &self.sessions {
            Sessions::Native(engine) => engine.service(),
            Sessions::Library(engine) => engine.service(),
        };
        let edge = Edge::new(&self.config, &self.context, self.hub.clone(), service, routes);
        let checks = edge.checks();
        let options = edge::options(&self.config, &self.context);
        let nodes = nodes::serve(nodes, edge.for_nodes(), &self.config, &self.context, stop.clone());
        let edge = edge::with_cors(&self.config, edge);
        let clients = async {
            match &self.sessions {
                Sessions::Native(engine) => {
                    let intake = engine.intake(checks, stop.clone());
                    listener::serve(listener, intake, edge, options, stop.clone()).await;
                }
                Sessions::Library(_) => listener::serve(listener, HttpOnly, edge, options, stop.clone()).await,
            }
        };
        tokio::join!(nodes, clients);
        self.hub.emptied().await;
    }

    /// Closes every connection. The official client then reconnects, as a rule to another node.
    pub fn close_all(&self) {
        self.hub.close_all();
    }
}
