//! `GET /api/v1/connections`: who is connected, over the cluster.

use super::answer::{Answer, ApiError};
use super::route::Call;
use crate::directory::{ConnectionInfo, Page};

/// A page of connections.
pub type Connections = Page<ConnectionInfo>;

/// Lists connections.
pub async fn list(call: Call) -> Result<Answer, ApiError> {
    Answer::ok(&call.api.directory.connections(call.namespace()?, call.params.page()).await?)
}

/// Tells of one connection.
pub async fn one(call: Call) -> Result<Answer, ApiError> {
    match call.api.directory.connection(call.namespace()?, call.segment("socketId")).await? {
        Some(connection) => Answer::ok(&connection),
        None => Err(ApiError::not_found("no such socket is connected to the namespace")),
    }
}
