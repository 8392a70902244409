//! Socket.IO's own messages over Redis: the messages that `@socket.io/redis-adapter` (classic) and
//! `@socket.io/redis-emitter` send.
//!
//! The functions of this module only convert between bytes and values, and do no input or output. Messages come from
//! other programs, so each message is either read within limits or refused with a reason.

mod answer;
mod broadcast;
mod question;
mod request;

pub use crate::msgpack::MAX_DEPTH;
use crate::msgpack::Unreadable;
pub use crate::protocol::{MAX_ATTACHMENTS, MAX_TARGETS};
pub use answer::{RequestAnswer, outside};
pub use broadcast::{Broadcast, ReceivedBroadcast, close, decode, encode, is_reserved, open, packed_event};
pub use question::{ServerQuestion, ServerResponse};
pub use request::{ServerAction, ServerRequest, Targets, parse};

/// Maximum size of a message that is read, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Why a message is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableMessage {
    /// No Socket.IO server or emitter writes such a message.
    #[error("the message is malformed")]
    Malformed,
    /// The message exceeds [`MAX_MESSAGE_BYTES`], [`MAX_TARGETS`], [`MAX_ATTACHMENTS`] or [`MAX_DEPTH`].
    #[error("the message is larger than the limit")]
    TooLarge,
    /// The event has a name that Socket.IO's clients use for themselves, such as `connect`.
    #[error("the event's name is reserved by Socket.IO")]
    ReservedEvent,
    /// The type of the request is unknown to this node.
    #[error("the request is of an unknown type")]
    UnknownType,
}

impl From<Unreadable> for UnusableMessage {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::TooLarge => Self::TooLarge,
            Unreadable::Malformed | Unreadable::Extension | Unreadable::NotANumber => Self::Malformed,
        }
    }
}

impl UnusableMessage {
    /// The label of the reason in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::ReservedEvent => "reserved_event",
            Self::UnknownType => "unknown_type",
        }
    }
}
