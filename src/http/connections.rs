//! `GET /api/v1/connections`: the connections of all nodes.

use super::answer::{ApiError, ApiResponse};
use super::route::ApiCall;
use crate::directory::{ConnectionInfo, Page, Slowness};
use crate::error::Code;

/// A page of connections.
pub type ConnectionPage = Page<ConnectionInfo>;

/// Lists connections.
pub async fn list(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let (namespace, directory) = (call.namespace()?, &call.api.directory);
    match call.params.get("sort").and_then(Slowness::parse) {
        None => ApiResponse::ok(&directory.connections(namespace, call.params.page()).await?),
        Some(_) if call.params.get("cursor").is_some() => {
            let error = ApiError::new(Code::InvalidPayload, "a parameter is invalid; see details");
            Err(error.at("?cursor", "cannot be combined with ?sort, whose result has only one page"))
        }
        Some(by) => ApiResponse::ok(&call.api.survey.slowest_connections(namespace, by, call.params.limit()).await?),
    }
}

/// Describes one connection.
pub async fn one(call: ApiCall) -> Result<ApiResponse, ApiError> {
    match call.api.directory.connection(call.namespace()?, call.segment("socketId")).await? {
        Some(connection) => ApiResponse::ok(&connection),
        None => Err(ApiError::not_found("no such socket is connected to the namespace")),
    }
}
