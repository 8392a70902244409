//! The one way out: every event that reaches a client in a room leaves through here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::event::Event;
pub use crate::event::Stamp;
use crate::session::RoomName;

/// An event on its way to rooms: permitted, filled in, encoded.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The namespace's path.
    pub namespace: Arc<str>,
    /// Encoded once, for everybody.
    pub event: Event,
    /// Members of any of these get it once; empty: the whole namespace.
    pub rooms: Vec<RoomName>,
    /// Members of any of these do not.
    pub except: Vec<RoomName>,
    /// May be dropped for a client that is not ready.
    pub volatile: bool,
    /// Its place in the history of those of its rooms that have one.
    pub stamps: Vec<Stamp>,
}

/// What became of an event.
pub struct Carried {
    /// Clients of this node that it was queued for.
    pub local: usize,
    /// Clients of this node whose queue was full.
    pub dropped: usize,
    /// What became of it for the other nodes.
    pub remote: Remote,
}

/// What became of an event for the other nodes.
pub enum Remote {
    /// There are none: this node runs on the in-memory adapter.
    Alone,
    /// Handed to Redis; the receipt tells whether Redis took it.
    Handed(Receipt),
    /// Not handed to Redis, and counted.
    NotCarried(NotCarried),
}

/// Resolves when Redis has taken the event, or has not in time.
pub type Receipt = Pin<Box<dyn Future<Output = Result<(), NotCarried>> + Send>>;

/// Why an event did not reach the other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotCarried {
    /// Redis is away.
    #[error("Redis is away")]
    Away,
    /// The outgoing buffer is at its bound.
    #[error("the buffer towards Redis is full")]
    Full,
    /// Redis did not confirm in time; other nodes may or may not have it.
    #[error("Redis did not confirm in time")]
    Timeout,
    /// Redis refused it.
    #[error("Redis refused it")]
    Refused,
    /// Redis has taken it, but not every node that is known was listening.
    #[error("a node was not listening")]
    Unheard,
}

impl NotCarried {
    /// The label in metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Full => "full",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Unheard => "unheard",
        }
    }
}

/// Brings events to local clients and to the other nodes. Engines implement it.
///
/// Synchronous, so that the order of calls is the order of deliveries: local clients first,
/// whatever Redis does.
pub trait Carrier: Send + Sync {
    /// Delivers to local clients, then hands the event to the cluster.
    fn carry(&self, outgoing: &Outgoing) -> Carried;
}
