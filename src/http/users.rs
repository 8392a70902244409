//! `GET /api/v1/users` and `GET /api/v1/counts`.

use schemars::JsonSchema;
use serde::Serialize;

use super::access;
use super::answer::{ApiError, ApiResponse};
use super::route::ApiCall;
use crate::directory::{ConnectionInfo, CountOf, Page, UserInfo};
use crate::error::Code;

/// A page of users.
pub type UserPage = Page<UserInfo>;

/// A user, with a page of connections.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "User")]
pub struct UserEntry {
    #[serde(flatten)]
    user: UserInfo,
    /// The user's connections.
    page: Page<ConnectionInfo>,
}

/// Lists users.
pub async fn list(call: ApiCall) -> Result<ApiResponse, ApiError> {
    ApiResponse::ok(&call.api.directory.users(call.namespace()?, call.params.page()).await?)
}

/// Describes one user.
pub async fn one(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let (namespace, id) = (call.namespace()?, call.segment("userId"));
    let Some(user) = call.api.directory.user(namespace, id).await? else {
        return Err(ApiError::not_found("no such user is connected to the namespace"));
    };
    let page = call.api.directory.user_connections(namespace, id, call.params.page()).await?;
    ApiResponse::ok(&UserEntry { user, page })
}

/// Counts connections.
pub async fn count(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let namespace = call.namespace()?;
    let of = match (call.params.get("room"), call.params.get("user")) {
        (Some(_), Some(_)) => {
            let error = ApiError::new(Code::InvalidPayload, "a parameter is invalid; see details");
            return Err(error.at("?user", "cannot be combined with ?room"));
        }
        (Some(room), None) => CountOf::Room(room),
        (None, Some(user)) => CountOf::User(user),
        (None, None) => CountOf::Namespace,
    };
    match of {
        CountOf::Room(room) => access::room(&call, namespace, room)?,
        _ if !call.caller.permits_everything() => return Err(access::forbidden(&call.caller, "everything")),
        _ => {}
    }
    ApiResponse::ok(&call.api.directory.count(namespace, of).await?)
}
