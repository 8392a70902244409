//! Socket.IO's own messages over Redis: what `@socket.io/redis-adapter` (classic) and `@socket.io/redis-emitter` send.
//!
//! Everything here is pure, and everything that comes in is foreign: it is read with bounds, and refused with a reason.

mod answer;
mod broadcast;
mod msgpack;
mod question;
mod request;
mod write;

pub use answer::{Answer, outside};
pub use broadcast::{Broadcast, Envelope, close, decode, encode, is_reserved, open, packed_event};
pub use question::{Question, Response};
pub use request::{Act, Request, Targets, parse};

/// The largest message that is read, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// At most so many rooms and exceptions together.
pub const MAX_TARGETS: usize = 4000;

/// At most so many binary attachments in an event.
pub const MAX_ATTACHMENTS: usize = 1024;

/// Values may be nested so deeply.
pub const MAX_DEPTH: usize = 100;

/// Why a message is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not what a Socket.IO server or emitter writes.
    #[error("the message is malformed")]
    Malformed,
    /// More than [`MAX_MESSAGE_BYTES`], [`MAX_TARGETS`], [`MAX_ATTACHMENTS`] or [`MAX_DEPTH`].
    #[error("the message is larger than what is read")]
    TooLarge,
    /// A name that clients keep for themselves.
    #[error("the event's name is reserved by Socket.IO")]
    ReservedEvent,
    /// A request of a type that this node does not know.
    #[error("the request is of an unknown type")]
    UnknownType,
}

impl Unusable {
    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::ReservedEvent => "reserved_event",
            Self::UnknownType => "unknown_type",
        }
    }
}
