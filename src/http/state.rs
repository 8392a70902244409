//! What the API is made of.

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

/// At most so many API requests are worked on at once; more are answered 503.
pub const MAX_REQUESTS: usize = 256;

/// Everything that the API's routes use.
pub struct Parts {
    /// The one way out.
    pub publisher: Arc<dyn Publishing>,
    /// Who owns which room.
    pub owners: Arc<Owners>,
    /// Who is connected, over the cluster.
    pub directory: Arc<dyn Directory>,
    /// Asks every node about its own connections.
    pub survey: Arc<dyn Survey>,
    /// Acts on clients, over the cluster.
    pub actions: Arc<dyn Actions>,
    /// Revokes users, tokens and sockets, over the cluster.
    pub revoker: Arc<dyn Revoker>,
    /// What rooms keep.
    pub history: Arc<History>,
    /// The contracts, by namespace.
    pub contracts: Vec<Arc<Namespace>>,
    /// Who may use the API.
    pub keys: Arc<ApiKeys>,
    /// How the node is.
    pub ready: Arc<dyn ReadySource>,
    /// The node's way out.
    pub drain: Arc<Drain>,
    /// The rooms of this node.
    pub rooms: Arc<Rooms>,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// How much at once.
    pub limits: ApiLimits,
}

/// The API, ready to be asked.
pub struct Api {
    parts: Parts,
    turns: Arc<Semaphore>,
    document: Value,
}

/// How much the API takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiLimits {
    /// A body, in bytes (`api.max_body`).
    pub max_body: usize,
    /// Events in a batch (`api.max_batch`).
    pub max_batch: usize,
}

impl From<&config::Api> for ApiLimits {
    fn from(api: &config::Api) -> Self {
        Self { max_body: api.max_body.as_usize(), max_batch: api.max_batch }
    }
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self::from(&config::Api::default())
    }
}

// === impl Api ===

impl Api {
    /// An API of these parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let document = openapi::document(&route::table(), parts.limits);
        Arc::new(Self { parts, turns: Arc::new(Semaphore::new(MAX_REQUESTS)), document })
    }

    /// A permit to work on a request, if one is free.
    pub fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone().try_acquire_owned().ok()
    }

    /// The OpenAPI document.
    pub fn document(&self) -> &Value {
        &self.document
    }
}

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}
