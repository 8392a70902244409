//! `POST /api/v1/join`, `leave`, `disconnect`: changes clients on all nodes.

use schemars::JsonSchema;
use serde::Serialize;

use super::access;
use super::answer::{ApiError, ApiResponse};
use super::events::RemoteStatus;
use super::fields::{List, body};
use super::route::ApiCall;
use super::text::{NameText, NamespaceText, RoomText};
use crate::directory::{ActionResult, Selection};

body! {
    /// The clients of the request, selected in at least one way. An empty selection is a mistake; it never means all
    /// clients.
    pub struct Clients one_of(users, sockets, rooms) {
        /// The namespace's path.
        namespace: NamespaceText,
        /// Users by id.
        users: Option<List<NameText>>,
        /// Sockets by id.
        sockets: Option<List<NameText>>,
        /// Selects all clients in these rooms.
        rooms: Option<List<RoomText>>,
    }
}

body! {
    /// The clients of the request, selected in at least one way, and the room that they join or leave.
    #[schemars(rename = "Membership")]
    pub struct MembershipRequest {
        ..clients: Clients,
        /// The room.
        room: RoomText,
    }
}

body! {
    /// The clients of the request, selected in at least one way.
    #[schemars(rename = "Disconnect")]
    pub struct DisconnectRequest {
        ..clients: Clients,
        /// `true` closes the whole connection, and the official client reconnects by itself; `false` ends only the
        /// namespace, and the official client does not reconnect.
        close: Option<bool>,
    }
}

/// The result of an action on clients.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Acted")]
pub struct ActionResponse {
    /// Whether the action was valid and is done on this node.
    #[schemars(extend("const" = true))]
    accepted: bool,
    /// Number of clients of this node that were selected.
    local: usize,
    /// Whether the other nodes received the action.
    remote: RemoteStatus,
    /// The reason why the other nodes did not receive the action.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Puts clients into a room.
pub async fn join(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let MembershipRequest { clients, room } = call.read()?;
    let selection = clients.select(&call)?;
    acted(call.api.actions.join(&selection, &room.0).await?)
}

/// Takes clients out of a room.
pub async fn leave(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let MembershipRequest { clients, room } = call.read()?;
    let selection = clients.select(&call)?;
    acted(call.api.actions.leave(&selection, &room.0).await?)
}

/// Disconnects clients.
pub async fn disconnect(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let DisconnectRequest { clients, close } = call.read()?;
    let selection = clients.select(&call)?;
    acted(call.api.actions.disconnect(&selection, close.unwrap_or_default()).await?)
}

impl Clients {
    /// The selection.
    ///
    /// # Errors
    /// Returns 404 if the node does not serve the namespace.
    pub(super) fn select(self, call: &ApiCall) -> Result<Selection, ApiError> {
        access::namespace(&call.api, &self.namespace.0)?;
        let (users, sockets) = (List::strings(self.users), List::strings(self.sockets));
        Ok(Selection { namespace: self.namespace.0, users, sockets, rooms: List::strings(self.rooms) })
    }
}

fn acted(done: ActionResult) -> Result<ApiResponse, ApiError> {
    let (remote, reason) = RemoteStatus::of(done.remote);
    ApiResponse::accepted(&ActionResponse { accepted: true, local: done.local, remote, reason })
}
