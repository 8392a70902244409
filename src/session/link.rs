//! What a session and its engine say to each other, and what watches sessions.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{RoomName, Session};
use crate::event::{Args, Event};

/// The engine's side of a session: the only way to its connection.
///
/// Calls are synchronous and keep their order; none of them waits for the client.
pub trait Link: Send + Sync {
    /// Queues an event for the client.
    ///
    /// # Errors
    /// [`SendError::Full`] when the client's queue is at its bound, [`SendError::Closed`] when it is gone.
    fn send(&self, event: &Event) -> Result<(), SendError>;

    /// Queues an event that the client is to acknowledge.
    ///
    /// # Errors
    /// As [`Link::send`]; [`SendError::Full`] also when [`MAX_ASKED`] acknowledgements are awaited.
    fn ask(&self, event: &Event, reply: Reply) -> Result<(), SendError>;

    /// What waits for the client, and when something was written to it.
    fn backlog(&self) -> Backlog {
        Backlog::default()
    }

    /// Whether the client takes what it is sent: what is volatile is not sent to one that does not.
    fn is_writable(&self) -> bool {
        true
    }

    /// Looks at what [`Link::send`] will need, without a lock: see [`Session::warm`].
    fn warm(&self) {}

    /// Answers the client's request for an acknowledgement.
    ///
    /// # Errors
    /// As [`Link::send`].
    fn ack(&self, id: AckId, args: &Args) -> Result<(), SendError>;

    /// Whether an event of this many bytes may be queued for this client together with others. It is then counted as
    /// queued.
    fn share(&self, _bytes: usize) -> bool {
        true
    }

    /// An event that was to be queued for several clients was perhaps not queued for this one.
    fn unshare(&self, _bytes: usize) {}

    /// Tells the engine of a room, for engines that keep rooms of their own.
    fn joined(&self, room: &RoomName);

    /// Tells the engine that the room was left.
    fn left(&self, room: &RoomName);

    /// Ends the session.
    fn close(&self, how: Close);
}

/// Told of every session and membership, in order; called by the index, and so must not wait or call it back.
pub trait Watcher: Send + Sync {
    /// A session came.
    fn opened(&self, session: &Session);
    /// It joined a room, its own ones among them.
    fn joined(&self, session: &Session, room: &RoomName);
    /// It left a room.
    fn left(&self, session: &Session, room: &RoomName);
    /// It is gone, and with it from these rooms.
    fn closed(&self, session: &Session, rooms: &[RoomName]);
    /// Its metadata has changed.
    fn changed(&self, _session: &Session) {}
}

/// The number of an acknowledgement that the client asked for.
pub type AckId = i64;

/// Where a client's acknowledgement goes. Dropped when there will be none, because the client is gone.
pub type Reply = oneshot::Sender<Args>;

/// At most this many acknowledgements of one client are awaited.
pub const MAX_ASKED: usize = 256;

/// Why an event was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The client's outgoing queue is at its bound.
    #[error("the client's queue is full")]
    Full,
    /// The client is gone.
    #[error("the client is gone")]
    Closed,
}

/// How a session ends, and so whether the official client returns by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// `io server disconnect`: the client does not return.
    Namespace,
    /// `transport close`: the client returns.
    Transport,
}

/// What waits to be written to a connection. Its namespaces share it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many bytes wait.
    pub bytes: usize,
    /// How many packets wait; `None` where the engine cannot tell.
    pub packets: Option<usize>,
    /// When the kernel last took bytes for the client, as Unix time in ms; 0: never.
    pub written_at_ms: u64,
}

/// What is known of the connection itself.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client's address, as far as trusted proxies say.
    pub ip: IpAddr,
    /// `websocket` or `polling`, as the session opened.
    pub transport: &'static str,
    /// The handshake's `User-Agent`, cut to 256 bytes.
    pub user_agent: Option<Arc<str>>,
}
