//! `POST /api/v1/events`: publishes events of contracts, one or many.

use std::time::{Duration, Instant};

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::answer::{ApiError, ApiResponse, ErrorBody};
use super::fields::{self, ObjectReader, Payload, body};
use super::publishing::BackendPublished;
use super::route::ApiCall;
use super::text::{IdText, NameText};
use super::{access, body};
use crate::directory::SendOutcome;
use crate::error::Code;
use crate::publish::{ContractPublish, RemoteOutcome};

/// Time limit of a batch. Events that have not begun by then are refused.
pub const BATCH_TIME: Duration = Duration::from_secs(30);

body! {
    /// An event of a contract.
    #[schemars(rename = "Event", extend("not" = { "required": ["data", "args"] }))]
    pub struct EventRequest {
        /// The contract's name.
        contract: NameText,
        /// The name of one of the contract's server events.
        event: NameText,
        /// The payload. Clients receive the same bytes, unless the contract fills in members. Without it the event has
        /// no argument.
        #[schemars(with = "Option<Value>", extend("default" = null))]
        data: Payload,
        /// The arguments, if the event has several or none; cannot be combined with `data`. The first is the payload
        /// that the contract checks and completes.
        #[schemars(with = "Option<Vec<Value>>")]
        args: Option<Vec<Box<RawValue>>>,
        /// Values for the names of the contract's rooms. Clients never receive them.
        params: Option<Map<String, Value>>,
        /// Makes the publish idempotent: within `api.idempotency_ttl`, a request with the same id, contract and content
        /// gets the first answer again, with `duplicate`, and sends nothing. Printable ASCII without spaces.
        id: Option<IdText>,
    }
}

/// The result of a publish.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Accepted")]
pub struct PublishResponse {
    /// Whether the event was valid, and was sent or waits for its throttle.
    #[schemars(extend("const" = true))]
    accepted: bool,
    /// The event's name.
    event: String,
    /// The rooms that received the event. Empty: the whole namespace.
    rooms: Vec<String>,
    /// Number of clients of this node for which the event was queued.
    local: usize,
    /// Number of clients of this node that do not get the event, because their write queue was full.
    dropped: usize,
    /// Whether the other nodes received the event.
    remote: RemoteStatus,
    /// The reason why the other nodes did not receive the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Whether the id was published before. Nothing was sent now; the rest is the first answer.
    duplicate: bool,
    /// Whether the node could check the `id`. Absent without an id. False: Redis was away, and the event was sent
    /// although it may be a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotent: Option<bool>,
    /// Whether a throttle holds the event back. It, or a newer event in its place, is sent within the throttle's time.
    held: bool,
}

/// Whether the other nodes received a publish or an action.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RemoteWord")]
pub enum RemoteStatus {
    /// There are no other nodes: this node runs without Redis.
    Alone,
    /// Redis accepted it. Other nodes get it at most once.
    Carried,
    /// The other nodes do not get the publish or the action. This was counted; `reason` gives the reason.
    NotCarried,
    /// The answer of the first publish is not known, because it is not complete yet or was too long to keep. Only for
    /// duplicates.
    Unknown,
}

/// An event of a batch that was refused.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Refused")]
pub struct RefusedItem {
    #[schemars(extend("const" = false))]
    accepted: bool,
    error: ErrorBody,
}

/// The result of one event of a batch.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Outcome")]
pub enum BatchItem {
    /// The event was sent.
    Accepted(PublishResponse),
    /// The event was refused.
    Refused(RefusedItem),
}

/// The results of a batch of events.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Batch")]
pub struct BatchResponse {
    /// One result per event, in the order of the events.
    results: Vec<BatchItem>,
}

/// The schema of the body: one event, an array of events, or `{ "events": […] }`.
pub fn request(generator: &mut SchemaGenerator) -> Schema {
    let one = generator.subschema_for::<EventRequest>();
    let many = json_schema!({ "type": "array", "items": one.clone(), "minItems": 1, "maxItems": MAX_ITEMS });
    json_schema!({ "anyOf": [one, many.clone(), {
        "type": "object", "properties": { "events": many }, "required": ["events"], "additionalProperties": false,
    }] })
}

/// Placeholder in the schema, which is replaced by `api.max_batch` when the document is served.
pub const MAX_ITEMS: usize = 1000;

/// The schema of the answer: one result, or the results of a batch.
pub fn response(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [generator.subschema_for::<PublishResponse>(), generator.subschema_for::<BatchResponse>()] })
}

/// Publishes one event or a batch.
pub async fn publish(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let raw = body::parse(&call.body)?;
    if raw.get().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| fields::invalid(Vec::new()))?;
        return batch(&call, &items).await;
    }
    let mut object = ObjectReader::open(raw, "")?;
    if object.has("events") {
        let items = object.array("events");
        object.finish()?;
        return batch(&call, &items).await;
    }
    ApiResponse::accepted(&one(&call, object.read()?).await?)
}

/// Publishes events in order. A refused event does not stop the later ones.
async fn batch(call: &ApiCall, items: &[&RawValue]) -> Result<ApiResponse, ApiError> {
    let max = call.api.limits.max_batch;
    if items.is_empty() {
        return Err(fields::invalid(Vec::new()).at("events", "must not be empty"));
    }
    if items.len() > max {
        let message = format!(
            "the batch has {} events; at most {max} are permitted; send fewer at a time, or raise api.max_batch",
            items.len()
        );
        // The status 413 is only for bodies with too many bytes. A list that is too long is JSON with an invalid value.
        return Err(ApiError::new(Code::TooLarge, message).with_status(StatusCode::UNPROCESSABLE_ENTITY));
    }
    let until = Instant::now() + BATCH_TIME;
    let mut results = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let outcome = if Instant::now() < until { item_outcome(call, at, item).await } else { Err(out_of_time()) };
        results.push(match outcome {
            Ok(accepted) => BatchItem::Accepted(accepted),
            Err(error) => BatchItem::Refused(RefusedItem { accepted: false, error: error.body() }),
        });
    }
    ApiResponse::accepted(&BatchResponse { results })
}

async fn item_outcome(call: &ApiCall, at: usize, item: &RawValue) -> Result<PublishResponse, ApiError> {
    one(call, ObjectReader::open(item, &format!("events[{at}]"))?.read()?).await
}

fn out_of_time() -> ApiError {
    ApiError::new(
        Code::Unavailable,
        format!("the batch took longer than {} s; this event was not tried", BATCH_TIME.as_secs()),
    )
}

async fn one(call: &ApiCall, body: EventRequest) -> Result<PublishResponse, ApiError> {
    let args = match (body.data.0, body.args) {
        (Some(_), Some(_)) => return Err(fields::invalid(Vec::new()).at("args", "must not stand beside data")),
        (data, args) => args.unwrap_or_else(|| data.into_iter().collect()),
    };
    let publish = ContractPublish {
        contract: body.contract.0,
        event: body.event.0,
        args,
        params: body.params.map(Value::Object).unwrap_or_default(),
    };
    if !call.caller.permits(&publish.contract) {
        return Err(access::forbidden(&call.caller, "the contract of this event"));
    }
    Ok(call.api.publisher.contract_event(publish, body.id.map(String::from)).await?.into())
}

impl RemoteStatus {
    /// The word for the result of an action, and the reason if the other nodes did not receive it.
    pub(super) fn of(told: SendOutcome) -> (Self, Option<&'static str>) {
        match told {
            SendOutcome::Alone => (Self::Alone, None),
            SendOutcome::Carried => (Self::Carried, None),
            SendOutcome::NotCarried(reason) => (Self::NotCarried, Some(reason)),
        }
    }
}

impl From<BackendPublished> for PublishResponse {
    fn from(BackendPublished { published, duplicate, idempotent }: BackendPublished) -> Self {
        let (remote, reason) = match published.remote {
            RemoteOutcome::Alone => (RemoteStatus::Alone, None),
            RemoteOutcome::Carried => (RemoteStatus::Carried, None),
            RemoteOutcome::NotCarried(reason) => (RemoteStatus::NotCarried, Some(reason.as_str())),
            RemoteOutcome::Unknown => (RemoteStatus::Unknown, None),
        };
        Self {
            accepted: true,
            event: published.event,
            rooms: published.rooms.iter().map(|room| room.to_string()).collect(),
            local: published.local,
            dropped: published.dropped,
            remote,
            reason,
            duplicate,
            idempotent,
            held: published.held,
        }
    }
}
