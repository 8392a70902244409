//! The interface through which the API publishes.

use futures_util::future::BoxFuture;

use crate::error::Refusal;
use crate::publish::{ContractPublish, PlainEmit, Published};

/// The result of a backend's publish.
#[derive(Debug)]
pub struct BackendPublished {
    /// The result. For a duplicate it is that of the first publish.
    pub published: Published,
    /// The id was published before. Nothing was sent now.
    pub duplicate: bool,
    /// Whether the id could be checked. `None`: there was no id.
    pub idempotent: Option<bool>,
}

/// The part of the publisher that the API uses.
pub trait Publishing: Send + Sync {
    /// Publishes a server event of a contract. An id makes the publish idempotent.
    fn contract_event(
        &self,
        publish: ContractPublish,
        id: Option<String>,
    ) -> BoxFuture<'_, Result<BackendPublished, Refusal>>;

    /// Publishes an event that no contract declares.
    fn plain(&self, emit: PlainEmit) -> BoxFuture<'_, Result<BackendPublished, Refusal>>;
}

impl From<Published> for BackendPublished {
    fn from(published: Published) -> Self {
        Self { published, duplicate: false, idempotent: None }
    }
}
