//! `POST /api/v1/join`, `leave`, `disconnect`: changes clients on all nodes.

use schemars::JsonSchema;
use serde::Serialize;

use super::answer::{Answer, ApiError};
use super::emit::{Names, Rooms};
use super::events::RemoteWord;
use super::fields::Object;
use super::route::Call;
use super::{access, text};
use crate::directory::{Done, Selection, Told};

/// Clients, selected in at least one way, and the room that they join or leave.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("anyOf" = named()))]
#[expect(dead_code, reason = "describes what `join` and `leave` take")]
pub struct Membership {
    /// The namespace's path.
    #[schemars(length(max = text::MAX_NAME), regex(pattern = r"^/"))]
    namespace: String,
    /// Users by id.
    users: Option<Names>,
    /// Sockets by id.
    sockets: Option<Names>,
    /// All clients in these rooms.
    rooms: Option<Rooms>,
    /// The room.
    #[schemars(length(min = 1, max = text::MAX_NAME), regex(pattern = r"^[^$]"))]
    room: String,
}

/// Clients, selected in at least one way.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("anyOf" = named()))]
#[expect(dead_code, reason = "describes what `disconnect` takes")]
pub struct Disconnect {
    /// The namespace's path.
    #[schemars(length(max = text::MAX_NAME), regex(pattern = r"^/"))]
    namespace: String,
    /// Users by id.
    users: Option<Names>,
    /// Sockets by id.
    sockets: Option<Names>,
    /// All clients in these rooms.
    rooms: Option<Rooms>,
    /// `true` closes the whole connection, and the official client reconnects by itself; `false` ends only the
    /// namespace, and the official client does not reconnect.
    close: Option<bool>,
}

/// Requires that at least one of the lists is not empty.
pub(super) fn named() -> serde_json::Value {
    let named = |list: &str| serde_json::json!({ "required": [list], "properties": { list: { "type": "array", "minItems": 1 } } });
    [named("users"), named("sockets"), named("rooms")].into_iter().collect()
}

/// The result of an action.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Acted {
    /// The action was valid and is done on this node.
    #[schemars(extend("const" = true))]
    accepted: bool,
    /// Number of clients of this node that were selected.
    local: usize,
    /// Whether the other nodes received the action.
    remote: RemoteWord,
    /// The reason why they did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Puts clients into a room.
pub async fn join(call: Call) -> Result<Answer, ApiError> {
    let (selection, room) = membership(&call)?;
    acted(call.api.actions.join(&selection, &room).await?)
}

/// Takes clients out of a room.
pub async fn leave(call: Call) -> Result<Answer, ApiError> {
    let (selection, room) = membership(&call)?;
    acted(call.api.actions.leave(&selection, &room).await?)
}

/// Disconnects clients.
pub async fn disconnect(call: Call) -> Result<Answer, ApiError> {
    let mut object = call.object()?;
    let close = object.flag("close");
    let selection = selection(&mut object);
    object.finish()?;
    access::namespace(&call.api, &selection.namespace)?;
    acted(call.api.actions.disconnect(&selection, close).await?)
}

fn membership(call: &Call) -> Result<(Selection, String), ApiError> {
    let mut object = call.object()?;
    let room = object.room("room");
    let selection = selection(&mut object);
    object.finish()?;
    access::namespace(&call.api, &selection.namespace)?;
    Ok((selection, room))
}

/// Reads the selected clients. An empty selection is a mistake; it never means all clients.
pub(super) fn selection(object: &mut Object<'_>) -> Selection {
    let selection = Selection {
        namespace: object.namespace(),
        users: object.strings("users"),
        sockets: object.strings("sockets"),
        rooms: object.rooms("rooms"),
    };
    if selection.users.is_empty() && selection.sockets.is_empty() && selection.rooms.is_empty() {
        object.note("users", "is empty, and so are sockets and rooms");
    }
    selection
}

fn acted(done: Done) -> Result<Answer, ApiError> {
    let (remote, reason) = match done.remote {
        Told::Alone => (RemoteWord::Alone, None),
        Told::Carried => (RemoteWord::Carried, None),
        Told::NotCarried(reason) => (RemoteWord::NotCarried, Some(reason)),
    };
    Answer::accepted(&Acted { accepted: true, local: done.local, remote, reason })
}
