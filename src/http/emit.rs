//! `POST /api/v1/emit`: sends events that no contract declares.

use serde_json::Value;
use serde_json::value::RawValue;

use super::access;
use super::answer::{ApiError, ApiResponse};
use super::events::PublishResponse;
use super::fields::{List, body};
use super::route::ApiCall;
use super::text::{EventText, NameText, NamespaceText, RoomText};
use crate::publish::PlainEmit;

body! {
    /// An event for rooms, users and sockets of a namespace, or for the whole namespace if none is given. A client that
    /// matches several times gets one copy.
    #[schemars(rename = "Emit")]
    pub struct EmitRequest {
        /// The namespace's path.
        namespace: NamespaceText,
        /// Rooms by name.
        rooms: Option<List<RoomText>>,
        /// Users by id.
        users: Option<List<NameText>>,
        /// Sockets by id.
        sockets: Option<List<NameText>>,
        /// Rooms, and sockets by id, that do not receive the event.
        except: Option<List<RoomText>>,
        /// The event's name; not one that Socket.IO reserves.
        event: EventText,
        /// The event's arguments. Clients receive the same bytes.
        #[schemars(with = "Option<Vec<Value>>")]
        args: Option<Vec<Box<RawValue>>>,
        /// Whether only clients that can be written to at once get the event.
        volatile: Option<bool>,
    }
}

/// Sends the event.
pub async fn emit(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let body: EmitRequest = call.read()?;
    let emit = PlainEmit {
        namespace: body.namespace.0,
        rooms: List::strings(body.rooms),
        users: List::strings(body.users),
        sockets: List::strings(body.sockets),
        except: List::strings(body.except),
        event: body.event.0,
        args: body.args.unwrap_or_default(),
        volatile: body.volatile.unwrap_or_default(),
    };
    access::namespace(&call.api, &emit.namespace)?;
    let published = call.api.publisher.plain(emit).await?;
    ApiResponse::accepted(&PublishResponse::from(published))
}
