//! A client's Engine.IO connection, from its handshake to its end, on any transport.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytestring::ByteString;

use super::binding::ClientFingerprint;
use super::hub::{ConnectionPermit, Hub};
use crate::auth::Handshake;
use crate::session::ClientFacts;

/// The engine's side of a client's connection.
pub trait Connection: Any + Send + Sync {
    /// The number of packets that wait for the client, and their total size in bytes, as far as the engine knows.
    fn waiting(&self) -> (usize, usize);

    /// Whether messages to the client may be compressed.
    fn compresses(&self) -> bool;

    /// Whether the client uses a WebSocket. A WebSocket whose upgrade is not complete does not count.
    fn is_websocket(&self) -> bool;

    /// Sends the queued packets, and then closes the connection. The official client sees `transport close` and
    /// reconnects.
    fn close(self: Arc<Self>, session: &Arc<EngineSession>);

    /// The Socket.IO id of a polling client, if it has one yet. The audit log may show it.
    fn public_id(&self) -> Option<ByteString>;
}

/// A client's connection. It counts as one of the node's connections until it ends or is dropped.
pub struct EngineSession {
    peer: ClientFacts,
    number: u64,
    hub: Arc<Hub>,
    /// The handshake's tokens and headers, which every namespace needs when the client connects to it. Dropped when
    /// the session ends.
    handshake: Mutex<Option<Box<Handshake>>>,
    /// The engine's side. Unset until the engine has opened the connection: the edge counts a client and may close its
    /// session before that.
    connection: OnceLock<Arc<dyn Connection>>,
    /// The session's id; unset for a session that begins with a WebSocket, because no request names such a session.
    named: OnceLock<Box<SessionName>>,
    closing: AtomicBool,
    /// Whether the client is sending a body.
    posts: AtomicBool,
    /// Whether the session has ended and is no longer counted.
    over: AtomicBool,
}

/// The id by which requests name a session, and the fingerprint that they must have.
struct SessionName {
    sid: Box<str>,
    fingerprint: ClientFingerprint,
}

impl EngineSession {
    pub(super) fn new(peer: ClientFacts, handshake: Handshake, permit: ConnectionPermit) -> Arc<Self> {
        let hub = permit.keep();
        let session = Arc::new(Self {
            peer,
            number: hub.next_number(),
            hub: hub.clone(),
            handshake: Mutex::new(Some(handshake).filter(|handshake| !handshake.is_empty()).map(Box::new)),
            connection: OnceLock::new(),
            named: OnceLock::new(),
            closing: AtomicBool::new(false),
            posts: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        hub.enter(session.number, &session);
        session
    }

    /// The client's address, transport and user agent, as its handshake gave them.
    pub fn peer(&self) -> &ClientFacts {
        &self.peer
    }

    /// The handshake that opened the session, together with the payload of the client's CONNECT.
    pub fn handshake(&self, auth: Option<serde_json::Value>, recoverable: bool) -> Handshake {
        let opened = self
            .handshake
            .lock()
            .expect("no thread panics while it holds this lock")
            .as_deref()
            .cloned()
            .unwrap_or_default();
        Handshake { auth, recoverable, ..opened }
    }

    /// Sets the engine's side of the connection. The engine calls this once, when it has opened the connection.
    pub(in crate::engine) fn serve_by(self: &Arc<Self>, connection: Arc<dyn Connection>) {
        let connection = self.connection.get_or_init(|| connection);
        // The session was closed before the engine had opened its connection.
        if self.is_closing() {
            connection.clone().close(self);
        }
    }

    /// The engine's side of the connection.
    pub(super) fn connection(&self) -> Option<&Arc<dyn Connection>> {
        self.connection.get()
    }

    /// The engine's side of the connection, if it is of type `C`.
    pub(in crate::engine) fn connection_as<C: Connection>(&self) -> Option<Arc<C>> {
        let any: Arc<dyn Any + Send + Sync> = self.connection.get()?.clone();
        any.downcast().ok()
    }

    /// Makes the id by which the client's requests name the session. Only requests with this mark may use it.
    pub(in crate::engine) fn assign_sid(self: &Arc<Self>, fingerprint: ClientFingerprint) -> &str {
        let naming = self.named.get_or_init(|| Box::new(SessionName { sid: self.hub.enter_sid(self), fingerprint }));
        &naming.sid
    }

    /// Whether a request with this fingerprint may use the session.
    pub(super) fn permits(&self, request: ClientFingerprint, websocket: bool) -> bool {
        self.named.get().is_some_and(|naming| naming.fingerprint.permits(request, websocket))
    }

    /// The client's Socket.IO id, for the audit log.
    pub(super) fn public_id(&self) -> Option<ByteString> {
        self.connection.get()?.public_id()
    }

    /// Marks that the client is sending a body, until the returned guard is dropped. A client may send only one body at
    /// a time, because each may be as large as a message and may come slowly.
    pub(super) fn posting(self: &Arc<Self>) -> Result<SendingBody, Overlap> {
        if self.posts.swap(true, Ordering::AcqRel) { Err(Overlap) } else { Ok(SendingBody(self.clone())) }
    }

    /// Whether this node is closing the session.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Sends the queued packets, and then closes the connection. The official client sees `transport close` and
    /// reconnects. Must be called within a Tokio runtime.
    pub fn close(self: &Arc<Self>) {
        if self.closing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.hub.begin_closing();
        if let Some(connection) = self.connection.get() {
            connection.clone().close(self);
        }
    }

    /// Remembers the session's id as closed, so that later polls are answered with a close packet. With `untold`, a
    /// drain waits until the client has been told.
    pub(in crate::engine) fn remember_closed(&self, untold: bool) {
        if let Some(naming) = self.named.get() {
            self.hub.sids().close(&naming.sid, untold);
        }
    }

    /// Stops counting the session among the node's connections. An engine may keep the session itself longer than its
    /// connection lives.
    pub(in crate::engine) fn end(&self) {
        if self.over.swap(true, Ordering::AcqRel) {
            return;
        }
        self.handshake.lock().expect("no thread panics while it holds this lock").take();
        self.hub.leave(self.number, self.peer.ip, self.is_closing());
        if let Some(naming) = self.named.get() {
            self.hub.sids().remove(&naming.sid);
        }
    }
}

impl Drop for EngineSession {
    fn drop(&mut self) {
        self.end();
    }
}

/// A guard that exists while the client sends a body.
pub(super) struct SendingBody(Arc<EngineSession>);

/// The client is already sending a body.
#[derive(Debug)]
pub(super) struct Overlap;

impl Drop for SendingBody {
    fn drop(&mut self) {
        self.0.posts.store(false, Ordering::Release);
    }
}
