//! The API's shared state.

use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::publishing::Publishing;
use super::ready::ReadySource;
use super::{openapi, route};
use crate::auth::api_keys::ApiKeys;
use crate::config;
use crate::contract::model::Namespace;
use crate::directory::{Actions, Directory, Revoker, Survey};
use crate::drain::Drain;
use crate::history::History;
use crate::owners::Owners;
use crate::room::Rooms;
use crate::telemetry::metrics::Metrics;

/// Maximum number of API requests that are worked on at once. Further requests are answered with 503.
pub const MAX_REQUESTS: usize = 256;

/// The components that the API's routes use.
pub struct ApiParts {
    /// Publishes events.
    pub publisher: Arc<dyn Publishing>,
    /// The owners of rooms.
    pub owners: Arc<Owners>,
    /// The connections of all nodes.
    pub directory: Arc<dyn Directory>,
    /// Asks every node about its own connections.
    pub survey: Arc<dyn Survey>,
    /// Changes clients on all nodes.
    pub actions: Arc<dyn Actions>,
    /// Revokes users, tokens and sockets on all nodes.
    pub revoker: Arc<dyn Revoker>,
    /// The histories of rooms.
    pub history: Arc<History>,
    /// The contracts, by namespace.
    pub contracts: Vec<Arc<Namespace>>,
    /// The API keys.
    pub keys: Arc<ApiKeys>,
    /// The node's status.
    pub ready: Arc<dyn ReadySource>,
    /// The node's drain.
    pub drain: Arc<Drain>,
    /// The members of rooms on this node.
    pub rooms: Arc<Rooms>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// The API's limits.
    pub limits: ApiLimits,
}

/// Creates the API's shared state, complete.
pub struct ApiState {
    parts: ApiParts,
    turns: Arc<Semaphore>,
    document: Value,
}

/// The limits of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiLimits {
    /// Maximum size of a body, in bytes (`api.max_body`).
    pub max_body: usize,
    /// Maximum number of events in a batch (`api.max_batch`).
    pub max_batch: usize,
}

impl From<&config::ApiSettings> for ApiLimits {
    fn from(api: &config::ApiSettings) -> Self {
        Self { max_body: api.max_body.as_usize(), max_batch: api.max_batch }
    }
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self::from(&config::ApiSettings::default())
    }
}

// === impl Api ===

impl ApiState {
    /// Completes the state.
    pub fn new(parts: ApiParts) -> Arc<Self> {
        let document = openapi::document(&route::table(), parts.limits);
        Arc::new(Self { parts, turns: Arc::new(Semaphore::new(MAX_REQUESTS)), document })
    }

    /// Returns a permit to work on a request, if one is free.
    pub fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone().try_acquire_owned().ok()
    }

    /// The OpenAPI document.
    pub fn document(&self) -> &Value {
        &self.document
    }
}

impl Deref for ApiState {
    type Target = ApiParts;

    fn deref(&self) -> &ApiParts {
        &self.parts
    }
}
