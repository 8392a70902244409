//! The interface through which the API publishes.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::Refusal;
use crate::publish::{PlainEmit, RemoteFailure};
use crate::session::RoomName;

/// A publish by contract and event name.
#[derive(Debug)]
pub struct BackendPublish {
    /// The contract's name.
    pub contract: String,
    /// The name of one of the contract's server events.
    pub event: String,
    /// The payload, undecoded. `None`: the event has no argument.
    pub data: Option<Box<RawValue>>,
    /// Values for the names of rooms. Clients never receive them.
    pub params: Value,
    /// Makes the publish idempotent.
    pub id: Option<String>,
}

/// The result of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendPublished {
    /// The event's name.
    pub event: String,
    /// The rooms that received it. Empty: the whole namespace.
    pub rooms: Vec<RoomName>,
    /// Number of clients of this node for which it was queued.
    pub local: usize,
    /// Number of clients of this node whose write queue was full.
    pub dropped: usize,
    /// Whether the other nodes received it.
    pub remote: BackendRemoteOutcome,
    /// A throttle holds it back.
    pub held: bool,
    /// The id was published before. Nothing was sent now.
    pub duplicate: bool,
    /// Whether the id could be checked. `None`: there was no id.
    pub idempotent: Option<bool>,
}

/// Whether the other nodes received a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendRemoteOutcome {
    /// There are no other nodes.
    Alone,
    /// Redis accepted it.
    Carried,
    /// The other nodes do not get it. This was counted.
    NotCarried(RemoteFailure),
    /// The answer of the duplicate's first publish is not available.
    Unknown,
}

/// The part of the publisher that the API uses.
pub trait Publishing: Send + Sync {
    /// Publishes a server event of a contract.
    fn contract_event(&self, publish: BackendPublish) -> BoxFuture<'_, Result<BackendPublished, Refusal>>;

    /// Publishes an event that no contract declares.
    fn plain(&self, emit: PlainEmit) -> BoxFuture<'_, Result<BackendPublished, Refusal>>;
}
