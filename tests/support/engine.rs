//! An engine that serves a test's own gate on a free port until it is dropped.

use std::sync::Arc;

use roomcast::config;
use roomcast::engine::{Engine, EngineContext, Gate};
use roomcast::forward::Forwarder;
use roomcast::limits::Limits;
use roomcast::telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub struct Served<G: Gate> {
    pub address: String,
    pub engine: Arc<Engine<G>>,
    pub limits: Arc<Limits>,
    stop: CancellationToken,
}

impl<G: Gate> Served<G> {
    pub async fn start(
        (server, limits): (&config::ServerSettings, &config::LimitsSettings),
        namespaces: &[Arc<str>],
        gate: &Arc<G>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let limits = Arc::new(Limits::new(limits, &[], metrics.clone()));
        let terms = EngineContext::new(limits.clone(), &[], Forwarder::alone(metrics.clone()), metrics.clone());
        let engine = Arc::new(Engine::new(server, &terms, namespaces, gate));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, serving) = (CancellationToken::new(), engine.clone());
        let stopped = stop.clone();
        tokio::spawn(async move { serving.serve(listener, None, axum::Router::new(), stopped).await });
        Self { address, engine, limits, stop }
    }
}

impl<G: Gate> Drop for Served<G> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
