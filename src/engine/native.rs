//! The native engine. Its Engine.IO 4 sessions need little memory while they are idle, and little work for each
//! delivery.
//!
//! The module `intake` serves a client that opens with a WebSocket, before the HTTP server reads from the connection.
//! All other requests come through HTTP and the edge to `http`: long-polling, upgrades from it, and WebSocket
//! handshakes on connections that have already carried other requests.

mod candidate;
pub mod deflate;
pub mod frame;
pub mod head;
pub(super) mod http;
mod inbox;
mod intake;
pub mod msgpack_packet;
mod namespace;
pub mod packet;
mod packets;
pub mod payload;
mod polling;
mod sender;
mod session;
mod violation;
mod write_queue;
mod write_scheduler;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::deflate::Deflate;
use self::http::NativeService;
use self::intake::NativeIntake;
use self::packet::OpenPacket;
use self::write_scheduler::WriteScheduler;
use super::Gate;
use super::closable_stream::Traffic;
use super::edge::{HandshakeChecks, SessionService};
use super::listener::ConnectionIntake;
use super::queue_estimate::WriteQueueLimits;
use crate::config;
use crate::telemetry::metrics::Metrics;

/// The state that all connections share.
struct EngineState<G> {
    gate: Arc<G>,
    namespaces: HashSet<Arc<str>>,
    metrics: Arc<Metrics>,
    path: String,
    greeting: OpenPacket,
    max_payload: usize,
    ping_interval: Duration,
    ping_timeout: Duration,
    connect_timeout: Duration,
    /// A client that reads none of the bytes sent to it for this long is disconnected.
    stall: Duration,
    bounds: WriteQueueLimits,
    deflate: Option<Deflate>,
    scheduler: Arc<WriteScheduler>,
    traffic: Traffic,
}

/// Serves Socket.IO clients with roomcast's own implementation of the protocol.
pub struct NativeEngine<G: Gate> {
    shared: Arc<EngineState<G>>,
}

impl<G: Gate> NativeEngine<G> {
    /// Builds an engine for these namespaces. `gate` decides which clients may connect. Must be called within a Tokio
    /// runtime.
    pub(super) fn new(
        config: &config::ServerSettings,
        metrics: &Arc<Metrics>,
        namespaces: &[Arc<str>],
        gate: &Arc<G>,
    ) -> Self {
        let max_payload = usize::try_from(config.max_payload.bytes()).unwrap_or(usize::MAX);
        let (ping_interval, ping_timeout) = (config.ping_interval.get(), config.ping_timeout.get());
        let traffic = Traffic::new(metrics);
        let writers = tokio::runtime::Handle::current().metrics().num_workers();
        let shared = EngineState {
            gate: gate.clone(),
            namespaces: namespaces.iter().cloned().collect(),
            metrics: metrics.clone(),
            path: config.path.clone(),
            greeting: OpenPacket::new(ping_interval.as_millis(), ping_timeout.as_millis(), max_payload),
            max_payload,
            ping_interval,
            ping_timeout,
            connect_timeout: config.connect_timeout.get(),
            stall: config.stall(),
            bounds: WriteQueueLimits { packets: config.queue, bytes: config.queued_bytes() },
            scheduler: WriteScheduler::start(writers, traffic.sent.clone(), metrics),
            traffic,
            deflate: config
                .compression
                .as_ref()
                .map(|compression| Deflate { threshold: compression.threshold.as_usize(), level: compression.level }),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the service for the requests that come through HTTP.
    pub(super) fn service(&self) -> Arc<dyn SessionService> {
        Arc::new(NativeService(self.shared.clone()))
    }

    /// Returns the intake for the clients that open with a WebSocket.
    pub(super) fn intake(&self, checks: HandshakeChecks, stop: CancellationToken) -> impl ConnectionIntake + use<G> {
        NativeIntake::new(self.shared.clone(), checks, stop)
    }
}

impl<G: Gate> Drop for NativeEngine<G> {
    fn drop(&mut self) {
        self.shared.scheduler.stop();
    }
}
