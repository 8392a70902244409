//! `GET /api/v1/rooms`: rooms and their members on all nodes.

use super::access;
use super::answer::{ApiError, ApiResponse};
use super::route::ApiCall;
use crate::directory::{MemberInfo, Page, RoomInfo};

/// A page of rooms.
pub type RoomPage = Page<RoomInfo>;

/// A page of members.
pub type MemberPage = Page<MemberInfo>;

/// Lists rooms.
pub async fn list(call: ApiCall) -> Result<ApiResponse, ApiError> {
    ApiResponse::ok(&call.api.directory.rooms(call.namespace()?, call.params.page()).await?)
}

/// Describes one room.
pub async fn one(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let (namespace, room) = (call.namespace()?, call.segment("room"));
    access::room(&call, namespace, room)?;
    match call.api.directory.room(namespace, room).await? {
        Some(room) => ApiResponse::ok(&room),
        None => Err(ApiError::not_found("the namespace has no room of this name with members")),
    }
}

/// Lists members.
pub async fn members(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let (namespace, room) = (call.namespace()?, call.segment("room"));
    access::room(&call, namespace, room)?;
    ApiResponse::ok(&call.api.directory.members(namespace, room, call.params.page()).await?)
}
