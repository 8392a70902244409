//! `POST /api/v1/events`: publishes events of contracts, one or many.

use std::time::{Duration, Instant};

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{Answer, ApiError, ErrorBody};
use super::fields::{self, Object};
use super::publishing::{ContractPublish, Published, RemoteOutcome};
use super::route::Call;
use super::{access, body, text};
use crate::error::Code;

/// What a batch has not begun after so long is not tried.
pub const BATCH_TIME: Duration = Duration::from_secs(30);

/// An event of a contract.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Event")]
#[expect(dead_code, reason = "describes what `read` takes")]
pub struct EventRequest {
    /// The contract's name.
    #[schemars(length(min = 1, max = text::MAX_NAME))]
    contract: String,
    /// One of its server events.
    #[schemars(length(min = 1, max = text::MAX_NAME))]
    event: String,
    /// The payload. Its bytes reach the clients as they are, unless the contract fills something in. Without it the
    /// event has no argument.
    #[schemars(default)]
    data: Value,
    /// Routing data for the contract's rooms; clients never see it.
    params: Option<serde_json::Map<String, Value>>,
    /// Makes the publish idempotent: for `api.idempotency_ttl` the same id for the same contract and content gets the first
    /// answer again, with `duplicate`, and sends nothing. Printable ASCII without spaces.
    #[schemars(regex(pattern = text::ID_PATTERN))]
    id: Option<String>,
}

/// What happened to a publish.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Accepted {
    /// The event was valid and went out, or waits for its throttle.
    #[schemars(extend("const" = true))]
    accepted: bool,
    /// The event's name.
    event: String,
    /// The rooms it went to; empty: the whole namespace.
    rooms: Vec<String>,
    /// Clients of this node that it was queued for.
    local: usize,
    /// Clients of this node whose queue was full: they do not get it.
    dropped: usize,
    /// What became of it for the other nodes.
    remote: RemoteWord,
    /// Why it was not carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The id was published before: nothing was sent now, and the rest is the answer of that time.
    duplicate: bool,
    /// Whether the promise of an `id` is kept; not there without an id. False: Redis was away, and the event went out
    /// without anybody knowing whether it is the first of its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotent: Option<bool>,
    /// A throttle holds it back: it, or a newer one in its place, goes out within the throttle's time.
    held: bool,
}

/// What became of a publish or an action for the other nodes.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RemoteWord {
    /// There are no other nodes: this one runs on the in-memory adapter.
    Alone,
    /// Redis took it; other nodes get it at most once.
    Carried,
    /// It did not reach them, and was counted; `reason` says why.
    NotCarried,
    /// Only for a duplicate whose first publish is still worked on, or had too long an answer to be kept.
    Unknown,
}

/// An event of a batch that was refused.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Refused {
    #[schemars(extend("const" = false))]
    accepted: bool,
    error: ErrorBody,
}

/// What happened to one event of a batch.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Outcome {
    /// It went out.
    Accepted(Accepted),
    /// It did not.
    Refused(Refused),
}

/// What happened to a batch.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Batch {
    /// In the order of the events.
    results: Vec<Outcome>,
}

/// One event, an array of them, or `{ "events": […] }`.
pub fn request(generator: &mut SchemaGenerator) -> Schema {
    let one = generator.subschema_for::<EventRequest>();
    let many = json_schema!({ "type": "array", "items": one.clone(), "minItems": 1, "maxItems": MAX_ITEMS });
    json_schema!({ "anyOf": [one, many.clone(), {
        "type": "object", "properties": { "events": many }, "required": ["events"], "additionalProperties": false,
    }] })
}

/// Stands for `api.max_batch` until the document is served.
pub const MAX_ITEMS: usize = 1000;

/// One outcome, or those of a batch.
pub fn response(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [generator.subschema_for::<Accepted>(), generator.subschema_for::<Batch>()] })
}

/// Publishes.
pub async fn publish(call: Call) -> Result<Answer, ApiError> {
    let raw = body::parse(&call.body)?;
    if raw.get().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| fields::invalid(Vec::new()))?;
        return batch(&call, &items).await;
    }
    let mut object = Object::read(raw, "")?;
    if object.has("events") {
        let items = object.array("events").unwrap_or_default();
        object.finish()?;
        return batch(&call, &items).await;
    }
    Answer::accepted(&one(&call, read(object)?).await?)
}

/// Publishes in order. What is refused does not keep the others from going out.
async fn batch(call: &Call, items: &[&RawValue]) -> Result<Answer, ApiError> {
    let max = call.api.limits.max_batch;
    if items.is_empty() {
        return Err(fields::invalid(Vec::new()).at("events", "must not be empty"));
    }
    if items.len() > max {
        let message =
            format!("{} events are more than {max}; send fewer at a time, or raise api.max_batch", items.len());
        // 413 is for bytes; a list that is too long is JSON that the request does not take.
        return Err(ApiError::new(Code::TooLarge, message).with_status(StatusCode::UNPROCESSABLE_ENTITY));
    }
    let until = Instant::now() + BATCH_TIME;
    let mut results = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let outcome = if Instant::now() < until { item_outcome(call, at, item).await } else { Err(late()) };
        results.push(match outcome {
            Ok(accepted) => Outcome::Accepted(accepted),
            Err(error) => Outcome::Refused(Refused { accepted: false, error: error.body() }),
        });
    }
    Answer::accepted(&Batch { results })
}

async fn item_outcome(call: &Call, at: usize, item: &RawValue) -> Result<Accepted, ApiError> {
    one(call, read(Object::read(item, &format!("events[{at}]"))?)?).await
}

fn late() -> ApiError {
    ApiError::new(
        Code::Unavailable,
        format!("the batch took longer than {} s; this event was not tried", BATCH_TIME.as_secs()),
    )
}

fn read(mut object: Object<'_>) -> Result<ContractPublish, ApiError> {
    let publish = ContractPublish {
        contract: object.string("contract", text::MAX_NAME),
        event: object.string("event", text::MAX_NAME),
        data: object.has("data").then(|| object.raw("data")),
        params: object.object("params").unwrap_or_default(),
        id: object.id("id"),
    };
    object.finish()?;
    Ok(publish)
}

async fn one(call: &Call, publish: ContractPublish) -> Result<Accepted, ApiError> {
    if !call.caller.permits(&publish.contract) {
        return Err(access::forbidden(&call.caller, "the contract of this event"));
    }
    Ok(call.api.publisher.contract_event(publish).await?.into())
}

impl From<Published> for Accepted {
    fn from(published: Published) -> Self {
        let (remote, reason) = match published.remote {
            RemoteOutcome::Alone => (RemoteWord::Alone, None),
            RemoteOutcome::Carried => (RemoteWord::Carried, None),
            RemoteOutcome::NotCarried(reason) => (RemoteWord::NotCarried, Some(reason.as_str())),
            RemoteOutcome::Unknown => (RemoteWord::Unknown, None),
        };
        Self {
            accepted: true,
            event: published.event,
            rooms: published.rooms.iter().map(|room| room.to_string()).collect(),
            local: published.local,
            dropped: published.dropped,
            remote,
            reason,
            duplicate: published.duplicate,
            idempotent: published.idempotent,
            held: published.held,
        }
    }
}
