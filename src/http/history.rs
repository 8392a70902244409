//! `GET /api/v1/rooms/{room}/history`: reads a room's history.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::access;
use super::answer::{ApiError, ApiResponse};
use super::route::ApiCall;
use crate::error::Code;
use crate::event::Event;
use crate::history::{HistoryError, HistoryPage, HistoryQuery, HistoryStart, PageOrder, RoomKey};
use crate::telemetry::log_limit::log_seldom;

/// A part of a room's history.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "History")]
pub struct HistoryResponse {
    /// The namespace's path.
    namespace: String,
    /// The room.
    room: String,
    /// A number that changes when the history was deleted and begins again: offsets of different epochs cannot be
    /// compared. 0: there is no history now.
    epoch: u64,
    /// The offset of the oldest event in the history. 0: there is none.
    first_offset: u64,
    /// The offset of the newest event in the history. 0: there is none.
    last_offset: u64,
    /// With `since` and its epoch: whether it is proven that no event is missing between `since` and the oldest of the
    /// items. Without `since`: no event is known to be missing between the items.
    complete: bool,
    /// The events, in the requested order.
    items: Vec<HistoryItem>,
}

/// An event of a history.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HistoryItem")]
struct HistoryItem {
    /// The event's number in the history, without gaps within the epoch. The first is 1.
    offset: u64,
    /// The event's name.
    event: String,
    /// The event's arguments, as clients received them.
    #[schemars(with = "Vec<Value>")]
    args: Vec<Box<RawValue>>,
}

/// Reads a history.
pub async fn read(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let (namespace, room) = (call.namespace()?, call.segment("room"));
    access::room(&call, namespace, room)?;
    if !access::rooms_like(&call.api, namespace, room).any(|def| def.history.is_some()) {
        return Err(ApiError::not_found("no contract keeps a history of such a room"));
    }
    let key = RoomKey { namespace: namespace.into(), room: room.into() };
    let HistoryPage { epoch, first_offset, last_offset, complete, events } =
        call.api.history.read(&key, query(&call)?).await?;
    let items = events.iter().map(item).collect::<Result<_, _>>()?;
    let (namespace, room) = (namespace.to_owned(), room.to_owned());
    ApiResponse::ok(&HistoryResponse { namespace, room, epoch, first_offset, last_offset, complete, items })
}

fn query(call: &ApiCall) -> Result<HistoryQuery, ApiError> {
    let (since, epoch) = (call.params.number("since"), call.params.number("epoch"));
    if since.is_none() && epoch.is_some() {
        let error = ApiError::new(Code::InvalidPayload, "a parameter is invalid; see details");
        return Err(error.at("?epoch", "has no effect without ?since"));
    }
    let order = if call.params.get("order") == Some("desc") { PageOrder::Desc } else { PageOrder::Asc };
    Ok(HistoryQuery { limit: call.params.limit(), since: since.map(|offset| HistoryStart { epoch, offset }), order })
}

fn item((offset, event): &(u64, Event)) -> Result<HistoryItem, ApiError> {
    let args = event.args().map_err(|error| {
        log_seldom!(error, %error, "a history holds an event that is not JSON");
        ApiError::new(Code::InternalError, "the history contains an event that cannot be read")
    })?;
    let args = args.into_iter().map(ToOwned::to_owned).collect();
    Ok(HistoryItem { offset: *offset, event: event.name().to_owned(), args })
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        let message = match error {
            HistoryError::Refused(_) => "the history cannot be used now; the node's log says more".to_owned(),
            other => other.to_string(),
        };
        Self::new(Code::Unavailable, message)
    }
}
