//! `POST /api/v1/ask`: sends clients an event and answers with their acknowledgements.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::actions::Clients;
use super::answer::{ApiError, ApiResponse};
use super::events::RemoteStatus;
use super::fields::body;
use super::route::ApiCall;
use super::text::{EventText, PeriodText};
use crate::directory::{AckQuestion, Acknowledged, Acknowledgement};
use crate::error::Code;
use crate::event::Event;

/// How long clients have to acknowledge, if the request does not say.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest time that clients may have to acknowledge, well below [`super::serve::WORK_TIME`].
const MAX_PATIENCE: Duration = Duration::from_secs(30);

body! {
    /// An event for clients that have to acknowledge it. Clients are selected in at least one way.
    #[schemars(rename = "Ask")]
    pub struct AskRequest {
        ..clients: Clients,
        /// The event's name; not one that Socket.IO reserves.
        event: EventText,
        /// The event's arguments. Clients receive the same bytes.
        #[schemars(with = "Option<Vec<Value>>")]
        args: Option<Vec<Box<RawValue>>>,
        /// How long the clients have to acknowledge: at most 30 seconds, 5 seconds by default.
        timeout: Option<PeriodText<{ MAX_PATIENCE.as_secs() }>>,
    }
}

/// The acknowledgements of the clients.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Answers")]
pub struct AskResponse {
    /// Number of clients for which the event was queued.
    asked: usize,
    /// Number of selected clients that were not asked: beyond 1,000 per node, gone, or with a full write queue.
    not_asked: usize,
    /// Number of clients that did not answer in time.
    unanswered: usize,
    /// Number of clients whose answers exceeded the limit of 8 MiB for all answers of a node.
    too_large: usize,
    /// The acknowledgements of the clients that answered, in any order.
    answers: Vec<ClientAnswer>,
    /// Whether the other nodes received the event.
    remote: RemoteStatus,
    /// The reason why the other nodes did not receive the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Nodes that did not report their clients' answers in time.
    missing_nodes: Vec<String>,
    /// Number of Node.js servers that did not report in time how many clients they asked.
    missing_servers: usize,
}

/// The acknowledgement of one client.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Said")]
pub struct ClientAnswer {
    /// The client's Socket.IO id. Absent for clients of Node.js servers, which do not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<String>,
    /// The arguments of the acknowledgement. Binary arguments are placeholders: `{"_placeholder": true, "num": 0}`.
    #[schemars(with = "Vec<Value>")]
    args: Box<RawValue>,
    /// The binary arguments in base64, by the numbers of their placeholders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<String>,
}

/// Sends the event and waits for the acknowledgements.
pub async fn ask(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let AskRequest { clients, event, args, timeout } = call.read()?;
    let selection = clients.select(&call)?;
    let event = Event::encode(&event.0, args.unwrap_or_default())
        .map_err(|error| ApiError::new(Code::InvalidPayload, error.to_string()))?;
    let patience = timeout.map_or(PATIENCE, |PeriodText(timeout)| timeout);
    let namespace = selection.namespace.clone();
    let done = call.api.actions.ask(AckQuestion { selection, event, patience }).await?;
    let answers = AskResponse::from(done);
    let count = |result: &str, clients: usize| {
        call.api.metrics.clients_asked_total.with_label_values(&[&namespace, result]).inc_by(clients as u64);
    };
    count("answered", answers.answers.len());
    count("unanswered", answers.unanswered);
    count("too_large", answers.too_large);
    count("not_asked", answers.not_asked);
    ApiResponse::ok(&answers)
}

impl From<Acknowledged> for AskResponse {
    fn from(done: Acknowledged) -> Self {
        let (remote, reason) = RemoteStatus::of(done.remote);
        let answers: Vec<_> = done.said.into_iter().filter_map(ClientAnswer::read).collect();
        Self {
            asked: done.asked,
            not_asked: done.not_asked,
            unanswered: done.asked.saturating_sub(answers.len() + done.too_large),
            too_large: done.too_large,
            answers,
            remote,
            reason,
            missing_nodes: done.missing_nodes,
            missing_servers: done.missing_servers,
        }
    }
}

impl ClientAnswer {
    /// The arguments; `None` if the acknowledgement is not JSON, which engines do not let pass.
    fn read(said: Acknowledgement) -> Option<Self> {
        let Acknowledgement { socket_id, args } = said;
        let attachments = args.attachments().iter().map(|bytes| STANDARD.encode(bytes)).collect();
        Some(Self { socket_id, args: RawValue::from_string(args.text().to_string()).ok()?, attachments })
    }
}
