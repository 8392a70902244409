//! `POST /api/v1/ask`: sends clients an event and answers with their acknowledgements.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::actions::{named, selection};
use super::answer::{Answer, ApiError};
use super::emit::{Names, Rooms};
use super::events::RemoteWord;
use super::route::Call;
use super::{access, text};
use crate::directory::{Acknowledged, Acknowledgement, Question, Told};
use crate::error::Code;
use crate::event::Event;
use crate::protocol::RESERVED_EVENTS;
use crate::publish::plain::check_name;

/// How long clients have, if the request does not say.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest time that clients may have, well below [`super::serve::WORK_TIME`].
const MAX_PATIENCE: Duration = Duration::from_secs(30);

/// An event for clients that have to acknowledge it. Clients are selected in at least one way.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("anyOf" = named()))]
#[expect(dead_code, reason = "describes what `ask` takes")]
pub struct Ask {
    /// The namespace's path.
    #[schemars(length(max = text::MAX_NAME), regex(pattern = r"^/"))]
    namespace: String,
    /// Users by id.
    users: Option<Names>,
    /// Sockets by id.
    sockets: Option<Names>,
    /// All clients in these rooms.
    rooms: Option<Rooms>,
    /// The event's name; not one that Socket.IO reserves.
    #[schemars(length(min = 1, max = text::MAX_NAME), extend("not" = { "enum": RESERVED_EVENTS }))]
    event: String,
    /// The event's arguments. Clients receive the same bytes.
    args: Option<Vec<Value>>,
    /// How long the clients have: at most 30 seconds, 5 seconds by default.
    #[schemars(regex(pattern = text::PERIOD_PATTERN))]
    timeout: Option<String>,
}

/// The acknowledgements of the clients.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answers {
    /// Number of clients for which the event was queued.
    asked: usize,
    /// Number of selected clients that were not asked: beyond 1,000 per node, gone, or with a full write queue.
    not_asked: usize,
    /// Number of clients that did not answer in time.
    unanswered: usize,
    /// Number of clients whose answers exceeded the limit of 8 MiB for all answers of a node.
    too_large: usize,
    /// The answers of the other clients, in any order.
    answers: Vec<Said>,
    /// Whether the other nodes received the event.
    remote: RemoteWord,
    /// The reason why they did not.
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
pub struct Said {
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
pub async fn ask(call: Call) -> Result<Answer, ApiError> {
    let mut object = call.object()?;
    let (name, args) = (object.string("event", text::MAX_NAME), object.raws("args"));
    let patience = object.period("timeout", PATIENCE, MAX_PATIENCE);
    let selection = selection(&mut object);
    object.finish()?;
    access::namespace(&call.api, &selection.namespace)?;
    check_name(&name)?;
    let event = Event::encode(&name, &args).map_err(|error| ApiError::new(Code::InvalidPayload, error.to_string()))?;
    let namespace = selection.namespace.clone();
    let done = call.api.actions.ask(Question { selection, event, patience }).await?;
    let answers = Answers::from(done);
    let count = |result: &str, clients: usize| {
        call.api.metrics.clients_asked_total.with_label_values(&[&namespace, result]).inc_by(clients as u64);
    };
    count("answered", answers.answers.len());
    count("unanswered", answers.unanswered);
    count("too_large", answers.too_large);
    count("not_asked", answers.not_asked);
    Answer::ok(&answers)
}

impl From<Acknowledged> for Answers {
    fn from(done: Acknowledged) -> Self {
        let (remote, reason) = match done.remote {
            Told::Alone => (RemoteWord::Alone, None),
            Told::Carried => (RemoteWord::Carried, None),
            Told::NotCarried(reason) => (RemoteWord::NotCarried, Some(reason)),
        };
        let answers: Vec<_> = done.said.into_iter().filter_map(Said::read).collect();
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

impl Said {
    /// `None` if the acknowledgement is not JSON, which engines do not let pass.
    fn read(said: Acknowledgement) -> Option<Self> {
        let Acknowledgement { socket_id, args } = said;
        let attachments = args.attachments().iter().map(|bytes| STANDARD.encode(bytes)).collect();
        Some(Self { socket_id, args: RawValue::from_string(args.text().to_string()).ok()?, attachments })
    }
}
