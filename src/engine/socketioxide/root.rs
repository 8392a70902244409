//! The namespace `/` of a node without a contract for it. The library connects every client of Engine.IO 3 to `/`, as
//! the Node.js server does, and closes the connection if there is no such namespace. Nothing happens in this one: the
//! client has no session, no events and no rooms, and the connection stays open for its other namespaces.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use socketioxide::ProtocolVersion;
use socketioxide::handler::{ConnectHandler, MessageHandler};
use socketioxide::socket::Socket;
use socketioxide_core::Value;

use super::Adapter;
use super::namespace::HandlerMarker;
use crate::error::Code;
use crate::telemetry::metrics::Metrics;

/// The answer to clients of Engine.IO 4, which are connected to no namespace that they have not asked for.
const INVALID_NAMESPACE: &str = "Invalid namespace";

/// Connects clients of Engine.IO 3 to `/`.
#[derive(Clone)]
pub(super) struct RootNamespace {
    metrics: Arc<Metrics>,
}

impl RootNamespace {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl ConnectHandler<Adapter, HandlerMarker> for RootNamespace {
    fn call_middleware<'a>(
        &'a self,
        socket: Arc<Socket<Adapter>>,
        _: &'a Option<Value>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Box<dyn Display + Send>>> + Send + 'a>> {
        let admitted = match socket.protocol() {
            ProtocolVersion::V4 => Ok(()),
            ProtocolVersion::V5 => Err(Box::new(INVALID_NAMESPACE) as Box<dyn Display + Send>),
        };
        Box::pin(std::future::ready(admitted))
    }

    fn call(&self, socket: Arc<Socket<Adapter>>, _: Option<Value>) {
        socket.on_fallback(Unknown(self.metrics.clone()));
    }
}

/// Counts the events of a client, which no contract describes.
struct Unknown(Arc<Metrics>);

impl MessageHandler<Adapter, HandlerMarker> for Unknown {
    fn call(&self, _: Arc<Socket<Adapter>>, _: Value, _: Option<i64>) {
        let labels = ["unknown", "unknown", Code::UnknownEvent.as_str()];
        self.0.events_received_total.with_label_values(&labels).inc();
    }
}
