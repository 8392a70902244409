//! Serves Socket.IO clients with the engine that the configuration names.

use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::edge::{self, Edge, Hub, Services};
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
    /// The native engine; with `server.allow_eio3` the library serves clients of Engine.IO 3 beside it.
    Native(NativeEngine<G>, Option<LibraryEngine>),
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
        let native = || NativeEngine::new(config, metrics, &namespaces, gate);
        let library = || LibraryEngine::new(config, metrics, &namespaces, gate);
        Self {
            hub: Hub::new(context.limits.clone(), context.forwarder.clone(), metrics),
            sessions: match config.engine {
                config::EngineKind::Native => Sessions::Native(native(), config.allow_eio3.then(library)),
                config::EngineKind::Socketioxide => Sessions::Library(library()),
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
        let edge = Edge::new(&self.config, &self.context, self.hub.clone(), self.services(), routes);
        let checks = edge.checks();
        let options = edge::options(&self.config, &self.context);
        let nodes = nodes::serve(nodes, edge.for_nodes(), &self.config, &self.context, stop.clone());
        let edge = edge::with_cors(&self.config, edge);
        let clients = async {
            match &self.sessions {
                Sessions::Native(engine, _) => {
                    let intake = engine.intake(checks, stop.clone());
                    listener::serve(listener, intake, edge, options, stop.clone()).await;
                }
                Sessions::Library(_) => listener::serve(listener, HttpOnly, edge, options, stop.clone()).await,
            }
        };
        tokio::join!(nodes, clients);
        self.hub.emptied().await;
    }

    fn services(&self) -> Services {
        match &self.sessions {
            Sessions::Native(engine, library) => {
                Services { current: engine.service(), legacy: library.as_ref().map(LibraryEngine::service) }
            }
            Sessions::Library(engine) => {
                let service = engine.service();
                Services { legacy: self.config.allow_eio3.then(|| service.clone()), current: service }
            }
        }
    }

    /// Closes every connection. The official client then reconnects, as a rule to another node.
    pub fn close_all(&self) {
        self.hub.close_all();
    }
}
