//! A client's connection below Socket.IO, from its handshake to its end, whatever transport it uses.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytestring::ByteString;

use super::binding::Mark;
use super::hub::{Hub, Place};
use crate::auth::Handshake;
use crate::session::Peer;

/// An engine's side of a client's connection: its state, and how to close it.
pub trait Connection: Any + Send + Sync {
    /// Packets that wait for the client, as far as that can be known, and their bytes.
    fn waiting(&self) -> (usize, usize);

    /// Whether compression was agreed on with the client.
    fn compresses(&self) -> bool;

    /// Whether the client is on a WebSocket. One that is only being tried does not count.
    fn is_websocket(&self) -> bool;

    /// Closes the connection, so that the official client sees `transport close` and returns. What is queued is sent before.
    fn close(self: Arc<Self>, session: &Arc<EngineSession>);

    /// A Socket.IO id by which others may know a client that polls, once it has one.
    fn public_id(&self) -> Option<ByteString>;
}

/// A client's connection. It is counted among the node's connections for as long as it lives, or until it is over.
pub struct EngineSession {
    peer: Peer,
    number: u64,
    hub: Arc<Hub>,
    /// What the request said that opened it: every namespace asks for it. Forgotten when the session is over.
    handshake: Mutex<Option<Box<Handshake>>>,
    connection: OnceLock<Arc<dyn Connection>>,
    named: OnceLock<Box<Naming>>,
    closing: AtomicBool,
    /// A body is on its way.
    posts: AtomicBool,
    /// It is over: its place was given back.
    over: AtomicBool,
}

/// How requests name a session, and which of them may use it.
struct Naming {
    sid: Box<str>,
    mark: Mark,
}

impl EngineSession {
    pub(super) fn new(peer: Peer, handshake: Handshake, place: Place) -> Arc<Self> {
        let hub = place.keep();
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

    /// The client, as its handshake described it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What the client said as it opened the session, with what it says as it connects to a namespace.
    pub fn handshake(&self, auth: Option<serde_json::Value>, recoverable: bool) -> Handshake {
        let opened = self.handshake.lock().expect("no panic while held").as_deref().cloned().unwrap_or_default();
        Handshake { auth, recoverable, ..opened }
    }

    /// Sets the engine's side of the connection. Called once, when the engine has opened the connection.
    pub(in crate::engine) fn serve_by(self: &Arc<Self>, connection: Arc<dyn Connection>) {
        let connection = self.connection.get_or_init(|| connection);
        // It was closed before it was open.
        if self.is_closing() {
            connection.clone().close(self);
        }
    }

    /// The engine's side of the connection.
    pub(super) fn connection(&self) -> Option<&Arc<dyn Connection>> {
        self.connection.get()
    }

    /// The engine's side of the connection, where it is of this engine's type.
    pub(in crate::engine) fn connection_as<C: Connection>(&self) -> Option<Arc<C>> {
        let any: Arc<dyn Any + Send + Sync> = self.connection.get()?.clone();
        any.downcast().ok()
    }

    /// Gives the session an id under which its client's requests find it: those that have this mark.
    pub(in crate::engine) fn assign_sid(self: &Arc<Self>, mark: Mark) -> &str {
        let naming = self.named.get_or_init(|| Box::new(Naming { sid: self.hub.enter_sid(self), mark }));
        &naming.sid
    }

    /// Whether a request with this mark may use the session.
    pub(super) fn permits(&self, request: Mark, websocket: bool) -> bool {
        self.named.get().is_some_and(|naming| naming.mark.permits(request, websocket))
    }

    /// The Socket.IO id that others may know it by, for the audit log.
    pub(super) fn public_id(&self) -> Option<ByteString> {
        self.connection.get()?.public_id()
    }

    /// Notes that the client sends a body, for as long as what is returned lives. A client has one on its way at a time: each
    /// may be as long as a message, and come slowly.
    pub(super) fn posting(self: &Arc<Self>) -> Result<Posting, Overlap> {
        if self.posts.swap(true, Ordering::AcqRel) { Err(Overlap) } else { Ok(Posting(self.clone())) }
    }

    /// Whether the node is closing it.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Closes the connection, so that the official client sees `transport close` and returns. What is queued is sent before.
    /// Needs a Tokio runtime.
    pub fn close(self: &Arc<Self>) {
        if self.closing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.hub.begin_closing();
        if let Some(connection) = self.connection.get() {
            connection.clone().close(self);
        }
    }

    /// Remembers the session as closed, so that a client that polls later is told so. With `untold` a drain waits for it.
    pub(in crate::engine) fn remember_closed(&self, untold: bool) {
        if let Some(naming) = self.named.get() {
            self.hub.sids().close(&naming.sid, untold);
        }
    }

    /// Gives the place among the connections back. An engine may keep a session longer than its connection lives.
    pub(in crate::engine) fn end(&self) {
        if self.over.swap(true, Ordering::AcqRel) {
            return;
        }
        self.handshake.lock().expect("no panic while held").take();
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

/// A body of a client that is on its way.
pub(super) struct Posting(Arc<EngineSession>);

/// There is one already.
#[derive(Debug)]
pub(super) struct Overlap;

impl Drop for Posting {
    fn drop(&mut self) {
        self.0.posts.store(false, Ordering::Release);
    }
}
