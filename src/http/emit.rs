//! `POST /api/v1/emit`: sends events that no contract declares.

use schemars::JsonSchema;
use serde_json::Value;

use super::answer::{Answer, ApiError};
use super::events::Accepted;
use super::route::Call;
use super::{access, text};
use crate::protocol::RESERVED_EVENTS;
use crate::publish::PlainEmit;

/// An event for rooms, users and sockets of a namespace, or for the whole namespace if none is given. A client that
/// matches several times gets one copy.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `emit` takes")]
pub struct Emit {
    /// The namespace's path.
    #[schemars(length(max = text::MAX_NAME), regex(pattern = r"^/"))]
    namespace: String,
    /// Rooms by name.
    rooms: Option<Rooms>,
    /// Users by id.
    users: Option<Names>,
    /// Sockets by id.
    sockets: Option<Names>,
    /// Rooms, and sockets by id, that do not receive it.
    except: Option<Rooms>,
    /// The event's name; not one that Socket.IO reserves.
    #[schemars(length(min = 1, max = text::MAX_NAME), extend("not" = { "enum": RESERVED_EVENTS }))]
    event: String,
    /// The event's arguments. Clients receive the same bytes.
    args: Option<Vec<Value>>,
    /// Whether only clients that can be written to at once get it.
    volatile: Option<bool>,
}

/// Names of users or sockets.
#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "describes a list of names")]
pub struct Names(#[schemars(length(max = text::MAX_LIST), inner(length(min = 1, max = text::MAX_NAME)))] Vec<String>);

/// Names of rooms.
#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "describes a list of rooms")]
pub struct Rooms(
    #[schemars(length(max = text::MAX_LIST), inner(length(min = 1, max = text::MAX_NAME), regex(pattern = r"^[^$]")))]
    Vec<String>,
);

/// Sends the event.
pub async fn emit(call: Call) -> Result<Answer, ApiError> {
    let mut object = call.object()?;
    let emit = PlainEmit {
        namespace: object.namespace(),
        rooms: object.rooms("rooms"),
        users: object.strings("users"),
        sockets: object.strings("sockets"),
        except: object.rooms("except"),
        event: object.string("event", text::MAX_NAME),
        args: object.raws("args"),
        volatile: object.flag("volatile"),
    };
    object.finish()?;
    access::namespace(&call.api, &emit.namespace)?;
    let published = call.api.publisher.plain(emit).await?;
    Answer::accepted(&Accepted::from(published))
}
