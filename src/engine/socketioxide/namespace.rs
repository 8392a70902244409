//! Admits sockets to a namespace, and passes their events to the gate. All handlers are synchronous, which keeps the
//! order of events, and are registered before CONNECT is acknowledged, so that no event is lost.

use std::borrow::Cow;
use std::fmt::Display;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use bytestring::ByteString;
use socketioxide::ProtocolVersion;
use socketioxide::handler::{ConnectHandler, DisconnectHandler, MessageHandler};
use socketioxide::socket::{DisconnectReason, Socket};
use socketioxide_core::Value;

use super::adapter::PacketPorts;
use super::link::SocketLink;
use super::{Adapter, ROOT};
use crate::auth::Handshake;
use crate::engine::edge::EngineSession;
use crate::engine::slot::{InvalidEvent, SessionSlot};
use crate::engine::{CLOSED_BY_US, Gate};
use crate::error::{Code, Refusal};
use crate::event::Event;
use crate::session::ClientFacts;
use crate::telemetry::metrics::Metrics;

/// A marker type by which the library distinguishes handlers.
pub(super) struct HandlerMarker;

/// Admits clients to one namespace.
pub(super) struct NamespaceHandler<G> {
    namespace: Arc<str>,
    gate: Arc<G>,
    ports: Arc<PacketPorts>,
    metrics: Arc<Metrics>,
}

/// An admitted client whose CONNECT is not queued yet.
struct PendingConnect<G: Gate> {
    admission: Mutex<Option<G::Admission>>,
    slot: Arc<SessionSlot<G>>,
}

impl<G> NamespaceHandler<G> {
    pub(super) fn new(namespace: Arc<str>, gate: Arc<G>, ports: Arc<PacketPorts>, metrics: Arc<Metrics>) -> Self {
        Self { namespace, gate, ports, metrics }
    }
}

impl<G: Gate> NamespaceHandler<G> {
    async fn admit(&self, socket: &Arc<Socket<Adapter>>, auth: Option<&Value>) -> Result<(), Refusal> {
        let handshake = handshake(socket, auth)?;
        let admission = self.gate.admit(&self.namespace, &self.id(socket), handshake, &peer(socket)).await?;
        let slot = SessionSlot::new(self.gate.clone());
        let events = EventDispatch { slot: slot.clone(), metrics: self.metrics.clone() };
        socket.on_fallback(events);
        socket.on_disconnect(SocketEnd { slot: slot.clone() });
        socket.extensions.insert(Arc::new(PendingConnect::<G> { admission: Mutex::new(Some(admission)), slot }));
        Ok(())
    }

    /// The id of the client's session. A client of Engine.IO 3 makes its own id from its namespace and the id of its
    /// connection, and the Node.js server does the same.
    fn id<'s>(&self, socket: &'s Socket<Adapter>) -> Cow<'s, str> {
        match socket.protocol() {
            ProtocolVersion::V4 if &*self.namespace != ROOT => format!("{}#{}", self.namespace, socket.id).into(),
            _ => socket.id.as_str().into(),
        }
    }

    fn open(&self, socket: &Arc<Socket<Adapter>>) {
        let Some(pending) = socket.extensions.remove::<Arc<PendingConnect<G>>>() else { return };
        let admission = pending.admission.lock().expect("no thread panics while it holds this lock").take();
        let (Some(admission), Some(port)) = (admission, self.ports.get(&self.namespace)) else { return };
        let link = Box::new(SocketLink::new(socket, port, connection(socket)));
        pending.slot.open(|| self.gate.open(admission, &self.id(socket), peer(socket), link));
    }
}

impl<G> Clone for NamespaceHandler<G> {
    fn clone(&self) -> Self {
        let Self { namespace, gate, ports, metrics } = self;
        Self::new(namespace.clone(), gate.clone(), ports.clone(), metrics.clone())
    }
}

impl<G: Gate> ConnectHandler<Adapter, HandlerMarker> for NamespaceHandler<G> {
    fn call_middleware<'a>(
        &'a self,
        socket: Arc<Socket<Adapter>>,
        auth: &'a Option<Value>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Box<dyn Display + Send>>> + Send + 'a>> {
        Box::pin(async move {
            let admitted = self.admit(&socket, auth.as_ref()).await;
            admitted.map_err(|refusal| Box::new(refusal) as Box<dyn Display + Send>)
        })
    }

    // The library calls this function in the task that has just queued CONNECT.
    fn call(&self, socket: Arc<Socket<Adapter>>, _: Option<Value>) {
        self.open(&socket);
    }
}

/// Handles every event of a socket, because the names of a contract's events are known only at run time.
struct EventDispatch<G: Gate> {
    slot: Arc<SessionSlot<G>>,
    metrics: Arc<Metrics>,
}

impl<G: Gate> EventDispatch<G> {
    /// Closes the connection of a client that breaks the protocol, as the Node.js server does.
    fn give_up(&self, socket: &Arc<Socket<Adapter>>, code: Code) {
        let labels = ["unknown", "unknown", code.as_str()];
        self.metrics.events_received_total.with_label_values(&labels).inc();
        if let Some(connection) = connection(socket) {
            connection.close();
        }
    }
}

impl<G: Gate> MessageHandler<Adapter, HandlerMarker> for EventDispatch<G> {
    fn call(&self, socket: Arc<Socket<Adapter>>, value: Value, ack: Option<i64>) {
        let Some(event) = event(value) else {
            return self.give_up(&socket, Code::InvalidPayload);
        };
        match self.slot.event(event, ack) {
            Ok(()) => {}
            Err(InvalidEvent::TooEarly) => self.give_up(&socket, Code::Overloaded),
            Err(InvalidEvent::Malformed) => self.give_up(&socket, Code::InvalidPayload),
        }
    }
}

/// Reports the end of a socket.
struct SocketEnd<G: Gate> {
    slot: Arc<SessionSlot<G>>,
}

impl<G: Gate> DisconnectHandler<Adapter, HandlerMarker> for SocketEnd<G> {
    fn call_with_defer(&self, socket: Arc<Socket<Adapter>>, reason: DisconnectReason, defer: fn(Arc<Socket<Adapter>>)) {
        // The library must forget the socket even if the code below panics. Otherwise the socket stays in its rooms
        // for ever.
        struct Deferred(Option<Arc<Socket<Adapter>>>, fn(Arc<Socket<Adapter>>));
        impl Drop for Deferred {
            fn drop(&mut self) {
                if let Some(socket) = self.0.take() {
                    (self.1)(socket);
                }
            }
        }
        let ours = connection(&socket).is_some_and(|connection| connection.is_closing());
        let _deferred = Deferred(Some(socket), defer);
        // The library only sees that the connection broke, so it cannot know that this node closed it.
        self.slot.end(if ours { CLOSED_BY_US } else { reason_text(reason) });
    }
}

/// The disconnect reason, in the words of Socket.IO's own server.
fn reason_text(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::TransportClose => "transport close",
        DisconnectReason::TransportError => "transport error",
        DisconnectReason::HeartbeatTimeout => "ping timeout",
        DisconnectReason::ClientNSDisconnect => "client namespace disconnect",
        DisconnectReason::ServerNSDisconnect => "server namespace disconnect",
        DisconnectReason::ClosingServer => "server shutting down",
        DisconnectReason::PacketParsingError => "parse error",
        DisconnectReason::MultipleHttpPollingError => "parallel polling",
    }
}

/// Converts the library's value to an event. Returns `None` if it is not an event.
fn event(value: Value) -> Option<Event> {
    let Value::Str(text, attachments) = value else { return None };
    let attachments: Vec<Bytes> = attachments.unwrap_or_default().into();
    let text = ByteString::try_from(Bytes::from(text)).ok()?;
    Event::from_wire(text, attachments).ok()
}

fn connection(socket: &Socket<Adapter>) -> Option<&Arc<EngineSession>> {
    socket.req_parts().extensions.get()
}

fn peer(socket: &Socket<Adapter>) -> ClientFacts {
    match connection(socket) {
        Some(connection) => connection.peer().clone(),
        // A socket has no connection only if its request did not pass through `engine::edge`.
        None => ClientFacts {
            ip: IpAddr::from([0, 0, 0, 0]),
            transport: "unknown",
            protocol: 4,
            user_agent: None,
            handshake: None,
        },
    }
}

fn handshake(socket: &Socket<Adapter>, auth: Option<&Value>) -> Result<Handshake, Refusal> {
    let auth = match auth {
        Some(Value::Str(text, _)) => Some(
            crate::json::read(text)
                .map_err(|_| Refusal::new(Code::InvalidPayload, "the payload of CONNECT is not JSON"))?,
        ),
        _ => None,
    };
    // No session is recoverable, because the library cannot send a client its secret.
    Ok(match connection(socket) {
        Some(connection) => connection.handshake(auth, false),
        None => Handshake { auth, ..Handshake::default() },
    })
}
