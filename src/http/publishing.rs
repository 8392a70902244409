//! What the API publishes through.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::Refusal;
use crate::publish::{NotCarried, PlainEmit};
use crate::session::RoomName;

/// A publish by contract and event name.
#[derive(Debug)]
pub struct ContractPublish {
    /// The contract's name.
    pub contract: String,
    /// One of its server events.
    pub event: String,
    /// The payload, undecoded. `None`: the event has no argument.
    pub data: Option<Box<RawValue>>,
    /// Routing data that clients never see.
    pub params: Value,
    /// Makes the publish idempotent.
    pub id: Option<String>,
}

/// What happened to a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The event's name.
    pub event: String,
    /// The rooms it went to; empty: the whole namespace.
    pub rooms: Vec<RoomName>,
    /// Clients of this node that it was queued for.
    pub local: usize,
    /// Clients of this node whose queue was full.
    pub dropped: usize,
    /// What became of it for the other nodes.
    pub remote: RemoteOutcome,
    /// A throttle holds it back.
    pub held: bool,
    /// The id was published before: nothing was sent now.
    pub duplicate: bool,
    /// Whether the promise of an id could be kept; `None`: there was no id.
    pub idempotent: Option<bool>,
}

/// What became of a publish for the other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemoteOutcome {
    /// There are none.
    Alone,
    /// Redis took it.
    Carried,
    /// It did not reach them, and was counted.
    NotCarried(NotCarried),
    /// The answer of a duplicate's first publish is not at hand.
    Unknown,
}

/// The one way out, as far as the API needs it.
pub trait Publishing: Send + Sync {
    /// Publishes an event of a contract.
    fn contract_event(&self, publish: ContractPublish) -> BoxFuture<'_, Result<Published, Refusal>>;

    /// Publishes what no contract describes.
    fn plain(&self, emit: PlainEmit) -> BoxFuture<'_, Result<Published, Refusal>>;
}
