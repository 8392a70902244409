//! `POST /api/v1/ask`: sends clients an event and answers with what they say to it.

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

/// How long clients have, where the request does not say it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest that they can be given: a request is worked on for a minute at most.
const MAX_PATIENCE: Duration = Duration::from_secs(30);

/// An event for clients, named in at least one way, that they are to acknowledge.
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
    /// Everybody in these rooms.
    rooms: Option<Rooms>,
    /// The event's name; not one that Socket.IO reserves.
    #[schemars(length(min = 1, max = text::MAX_NAME), extend("not" = { "enum": RESERVED_EVENTS }))]
    event: String,
    /// Its arguments; their bytes reach the clients as they are.
    args: Option<Vec<Value>>,
    /// How long the clients have, up to 30 seconds; 5 seconds where it is not said.
    #[schemars(regex(pattern = text::PERIOD_PATTERN))]
    timeout: Option<String>,
}

/// What clients have said.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answers {
    /// Clients that the event was queued for.
    asked: usize,
    /// Clients that were meant and not asked: beyond 1,000 on a node, gone, or with a full queue.
    not_asked: usize,
    /// Clients that said nothing in time.
    unanswered: usize,
    /// Clients whose answers did not fit into 8 MiB on their node, together with the others'.
    too_large: usize,
    /// What the others said, in no order.
    answers: Vec<Said>,
    /// What became of the question for the other nodes.
    remote: RemoteWord,
    /// Why it was not carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Nodes that did not tell in time what their clients said.
    missing_nodes: Vec<String>,
    /// Servers of Node.js that did not tell in time how many clients they asked.
    missing_servers: usize,
}

/// What a client has said.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// Its Socket.IO id. Absent for a client of a server of Node.js, which does not tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<String>,
    /// The arguments of its acknowledgement. Binary ones are placeholders: `{"_placeholder": true, "num": 0}`.
    #[schemars(with = "Vec<Value>")]
    args: Box<RawValue>,
    /// The binary arguments in base64, by the numbers of their placeholders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<String>,
}

/// Asks.
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
    /// `None` for what is no JSON, which engines do not let pass.
    fn read(said: Acknowledgement) -> Option<Self> {
        let Acknowledgement { socket_id, args } = said;
        let attachments = args.attachments().iter().map(|bytes| STANDARD.encode(bytes)).collect();
        Some(Self { socket_id, args: RawValue::from_string(args.text().to_string()).ok()?, attachments })
    }
}
