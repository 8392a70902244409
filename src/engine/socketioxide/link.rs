//! The link from a session to its socket.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytestring::ByteString;
use socketioxide::socket::Socket;
use socketioxide_core::packet::Packet;
use socketioxide_core::{Sid, Str, Value};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::Adapter;
use super::adapter::PacketPort;
use super::connection::LibraryConnection;
use crate::engine::edge::EngineSession;
use crate::engine::queue_estimate::QueueEstimate;
use crate::event::{Args, Event};
use crate::session::{AckId, AckSender, Backlog, Close, Link, MAX_ASKED, SendError};

/// The link from a session to its socket. References are weak, because the socket's handlers hold the session, and
/// the session holds this link.
pub(super) struct SocketLink {
    sid: Sid,
    port: Arc<dyn PacketPort>,
    socket: Weak<Socket<Adapter>>,
    connection: Weak<EngineSession>,
    estimate: Option<Arc<QueueEstimate>>,
    /// Limits how many acknowledgements may be awaited, because the library has no such limit.
    askable: Arc<Semaphore>,
    runtime: Handle,
}

impl SocketLink {
    /// Creates the link to a socket. Must be called within a Tokio runtime.
    pub(super) fn new(
        socket: &Arc<Socket<Adapter>>,
        port: Arc<dyn PacketPort>,
        connection: Option<&Arc<EngineSession>>,
    ) -> Self {
        Self {
            sid: socket.id,
            port,
            socket: Arc::downgrade(socket),
            connection: connection.map(Arc::downgrade).unwrap_or_default(),
            estimate: connection.and_then(estimate),
            askable: Arc::new(Semaphore::new(MAX_ASKED)),
            runtime: Handle::current(),
        }
    }

    fn connected(&self) -> Option<Arc<Socket<Adapter>>> {
        self.socket.upgrade().filter(|socket| socket.connected())
    }

    /// Counts `bytes` and calls `send` to queue the packet, if it fits.
    fn queue(&self, bytes: usize, send: impl FnOnce() -> Result<(), SendError>) -> Result<(), SendError> {
        self.connected().ok_or(SendError::Closed)?;
        let Some(estimate) = &self.estimate else { return send() };
        if !estimate.take(bytes) {
            return Err(SendError::Full);
        }
        send().inspect_err(|_| estimate.give_back(bytes))
    }

    fn event(&self, event: &Event) -> Packet {
        Packet::event(self.port.path(), value(event.text(), event.attachments()))
    }

    fn close_connection(connection: &Weak<EngineSession>) {
        if let Some(connection) = connection.upgrade() {
            connection.close();
        }
    }
}

/// The counter of the bytes that wait for the client.
fn estimate(connection: &Arc<EngineSession>) -> Option<Arc<QueueEstimate>> {
    Some(connection.connection_as::<LibraryConnection>()?.estimate())
}

impl Link for SocketLink {
    fn send(&self, event: &Event) -> Result<(), SendError> {
        self.queue(event.size_bytes(), || self.port.send(self.sid, self.event(event)))
    }

    fn ask(&self, event: &Event, reply: AckSender) -> Result<(), SendError> {
        let _runtime = self.runtime.enter();
        let permit = self.askable.clone().try_acquire_owned().map_err(|_| SendError::Full)?;
        self.queue(event.size_bytes(), || self.port.ask(self.sid, self.event(event), reply, permit))
    }

    fn ack(&self, id: AckId, args: &Args) -> Result<(), SendError> {
        let value = value(args.text(), args.attachments());
        self.queue(args.size_bytes(), || self.port.send(self.sid, Packet::ack(self.port.path(), value, id)))
    }

    fn backlog(&self) -> Backlog {
        self.estimate.as_ref().map_or_else(Backlog::default, |estimate| Backlog {
            bytes: estimate.waiting(),
            packets: None,
            written_at_ms: estimate.left_at_ms(),
        })
    }

    fn is_writable(&self) -> bool {
        self.estimate.as_ref().is_none_or(|estimate| !estimate.is_blocked())
    }

    fn close(&self, how: Close) {
        let (socket, connection) = (self.connected(), self.connection.clone());
        // `disconnect` runs in another task, because it reports the end of the session before it returns.
        self.runtime.spawn(async move {
            match (how, socket) {
                (Close::Namespace, Some(socket)) => {
                    // If the client's queue is full, DISCONNECT cannot be queued, so the connection is closed.
                    if socket.disconnect().is_err() {
                        Self::close_connection(&connection);
                    }
                }
                (Close::Namespace, None) => {}
                (Close::Transport, _) => Self::close_connection(&connection),
            }
        });
    }
}

/// Converts arguments to the library's type. The bytes are shared, not copied.
#[expect(unsafe_code, reason = "the type has no other constructor that shares bytes")]
fn value(text: &ByteString, attachments: &[bytes::Bytes]) -> Value {
    // SAFETY: a ByteString is always UTF-8.
    let text = unsafe { Str::from_bytes_unchecked(text.clone().into_bytes()) };
    let attachments: VecDeque<_> = attachments.iter().cloned().collect();
    Value::Str(text, (!attachments.is_empty()).then_some(attachments))
}
