//! The interface between a session and its engine, and the interface for observers of sessions.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::oneshot;

use super::{RoomName, Session};
use crate::event::{Args, Event};

/// The engine's side of a session. A session reaches its connection only through this trait.
///
/// Every call returns at once, without waiting for the client, and the order of the calls is kept.
pub trait Link: Send + Sync {
    /// Queues an event for the client.
    ///
    /// # Errors
    /// [`SendError::Full`] when the client's write queue is full, [`SendError::Closed`] when the client is gone.
    fn send(&self, event: &Event) -> Result<(), SendError>;

    /// Queues an event that the client must acknowledge.
    ///
    /// # Errors
    /// As [`Link::send`]; also [`SendError::Full`] when [`MAX_ASKED`] acknowledgements are outstanding.
    fn ask(&self, event: &Event, reply: AckSender) -> Result<(), SendError>;

    /// The data that waits to be written to the client, and when the last bytes were written.
    fn backlog(&self) -> Backlog {
        Backlog::default()
    }

    /// Whether the client currently reads the data that is written to its connection. Volatile events skip a client
    /// that does not read.
    fn is_writable(&self) -> bool {
        true
    }

    /// Prefetches the memory that [`Link::send`] will read. Takes no lock. See [`Session::warm`].
    fn warm(&self) {}

    /// Sends the acknowledgement that the client asked for.
    ///
    /// # Errors
    /// As [`Link::send`].
    fn ack(&self, id: AckId, args: &Args) -> Result<(), SendError>;

    /// Closes the session.
    fn close(&self, how: Close);
}

/// Observes every session, membership and change of metadata. The room index calls the methods, except
/// [`Watcher::changed`], in order and while the index's lock is held. So an implementation must not wait and must not
/// call the index.
pub trait Watcher: Send + Sync {
    /// A session was added.
    fn opened(&self, session: &Session);
    /// The session joined a room. This includes its own room and its user's.
    fn joined(&self, session: &Session, room: &RoomName);
    /// The session left a room.
    fn left(&self, session: &Session, room: &RoomName);
    /// The session ended, and thereby left these rooms.
    fn closed(&self, session: &Session, rooms: &[RoomName]);
    /// The session's metadata changed.
    fn changed(&self, _session: &Session) {}
}

/// The id of an acknowledgement that the client asked for.
pub type AckId = i64;

/// Receives the arguments of a client's acknowledgement. The engine drops the sender when the client has gone and no
/// acknowledgement will come.
pub type AckSender = oneshot::Sender<Args>;

/// Maximum number of outstanding acknowledgements of one client.
pub const MAX_ASKED: usize = 256;

/// Why an event was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The client's write queue is full.
    #[error("the client's queue is full")]
    Full,
    /// The client is gone.
    #[error("the client is gone")]
    Closed,
}

/// How the server closes a session. The way decides whether the official client reconnects by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The client reports `io server disconnect` and does not reconnect.
    Namespace,
    /// The client reports `transport close` and reconnects.
    Transport,
}

/// The data that waits to be written to a connection. All namespaces of a connection share it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The number of bytes that wait.
    pub bytes: usize,
    /// The number of packets that wait; `None` where the engine does not count packets.
    pub packets: Option<usize>,
    /// When the kernel last accepted bytes for the client, as Unix time in ms; 0 if it never has.
    pub written_at_ms: u64,
}

/// Facts about a client's connection.
#[derive(Debug, Clone)]
pub struct ClientFacts {
    /// The client's address, as reported by trusted proxies where there are any.
    pub ip: IpAddr,
    /// The transport when the session opened: `websocket` or `polling`.
    pub transport: &'static str,
    /// The version of Engine.IO that the client speaks: 4, or 3 for clients of Socket.IO 2.
    pub protocol: u8,
    /// The handshake's `User-Agent` header, cut to 256 bytes.
    pub user_agent: Option<Arc<str>>,
    /// The parts of the handshake that the namespace's contracts use.
    pub handshake: Option<Arc<Value>>,
}
