//! Reads and checks the answers of backends.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::DecisionKey;
use super::error::{Denial, HookError};

/// Maximum size of an answer's body, in bytes.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Maximum number of entries in each list of an answer.
pub const MAX_ANSWER_ENTRIES: usize = 256;

/// The longest time for which an answer is remembered, whatever the backend asks for.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

const MAX_CODE_BYTES: usize = 64;
const MAX_MESSAGE_BYTES: usize = 512;

/// The answer of a backend that agrees, with the actions that the answer asks for.
///
/// Values of an answer stay encoded: they pass through to clients as the backend wrote them.
#[derive(Debug, Clone, Default)]
pub struct HookAnswer {
    /// The arguments of the client's acknowledgement. `None`: the contract says them.
    pub ack: Option<Vec<Box<RawValue>>>,
    /// Events for the calling client alone, in order.
    pub reply: Vec<HookReply>,
    /// Rooms that the calling client's socket is to join, by name.
    pub join: Vec<String>,
    /// Rooms that the calling client's socket is to leave, by name.
    pub leave: Vec<String>,
    /// Server events of the contract that are to be published.
    pub publish: Vec<HookPublish>,
    /// Members that are merged into the session's metadata.
    pub metadata: Map<String, Value>,
    /// How long the agreement may be remembered. `None`: the agreement must not be remembered.
    pub ttl: Option<Duration>,
    /// Whether the agreement may be remembered only after everything else that the answer asks for has been performed
    /// ([`super::Hooks::remember`]).
    pub(super) unremembered: Option<Box<(DecisionKey, Duration)>>,
}

/// An event for the calling client.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "ReplyBody")]
pub struct HookReply {
    /// The event's name.
    pub event: String,
    /// The event's arguments.
    pub args: Vec<Box<RawValue>>,
}

/// A server event of the contract.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "PublishBody")]
pub struct HookPublish {
    /// The event's name.
    pub event: String,
    /// The event's arguments. The first is the payload that the contract checks.
    pub args: Vec<Box<RawValue>>,
    /// Routing data that clients never see.
    pub params: Option<Value>,
}

/// An event for the calling client, as a backend writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyBody {
    event: String,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    args: Option<Vec<Box<RawValue>>>,
}

/// A server event as a backend writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishBody {
    event: String,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    args: Option<Vec<Box<RawValue>>>,
    #[serde(default)]
    params: Option<Value>,
}

impl TryFrom<ReplyBody> for HookReply {
    type Error = &'static str;

    fn try_from(ReplyBody { event, data, args }: ReplyBody) -> Result<Self, Self::Error> {
        Ok(Self { event, args: one_or_several(data, args)? })
    }
}

impl TryFrom<PublishBody> for HookPublish {
    type Error = &'static str;

    fn try_from(PublishBody { event, data, args, params }: PublishBody) -> Result<Self, Self::Error> {
        Ok(Self { event, args: one_or_several(data, args)?, params })
    }
}

/// The arguments of an event that has either one argument, `data`, or a list of arguments, `args`.
fn one_or_several(
    data: Option<Box<RawValue>>,
    args: Option<Vec<Box<RawValue>>>,
) -> Result<Vec<Box<RawValue>>, &'static str> {
    match (data, args) {
        (Some(_), Some(_)) => Err("an event has either `data` or `args`"),
        (data, args) => Ok(args.unwrap_or_else(|| data.into_iter().collect())),
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AnswerBody {
    ok: bool,
    #[serde(deserialize_with = "present")]
    ack: Option<Box<RawValue>>,
    ack_args: Option<Vec<Box<RawValue>>>,
    reply: Vec<HookReply>,
    join: Vec<String>,
    leave: Vec<String>,
    publish: Vec<HookPublish>,
    metadata: Map<String, Value>,
    error: Option<WireError>,
    ttl: Option<Ttl>,
}

impl Default for AnswerBody {
    fn default() -> Self {
        Self {
            ok: true,
            ack: None,
            ack_args: None,
            reply: Vec::new(),
            join: Vec::new(),
            leave: Vec::new(),
            publish: Vec::new(),
            metadata: Map::new(),
            error: None,
            ttl: None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WireError {
    code: Option<String>,
    message: String,
}

/// A time to live: a number of seconds, or a text with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ttl {
    Seconds(u64),
    Text(String),
}

impl HookAnswer {
    /// Reads a hook's answer with a status of 2xx. An empty body means yes.
    ///
    /// # Errors
    /// Returns [`HookError::Refused`] for `ok: false` or an `error`. [`HookError::BadAnswer`] when the body is not
    /// JSON, has an unknown member, or exceeds a limit.
    pub fn parse(body: &[u8]) -> Result<Self, HookError> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let wire = AnswerBody::parse(body)?;
        if !wire.ok || wire.error.is_some() {
            return Err(HookError::Refused(wire.denial()?));
        }
        let ttl = wire.ttl()?;
        let AnswerBody { ack, ack_args, reply, join, leave, publish, metadata, .. } = wire;
        if ack.is_some() && ack_args.is_some() {
            return Err(bad("it has `ack` and `ack_args`".into()));
        }
        let ack = ack_args.or_else(|| ack.map(|ack| vec![ack]));
        Ok(Self { ack, reply, join, leave, publish, metadata, ttl, unremembered: None })
    }

    /// Whether the backend agrees and asks for nothing else.
    pub(super) fn is_bare(&self) -> bool {
        let lists = [self.reply.len(), self.join.len(), self.leave.len(), self.publish.len(), self.metadata.len()];
        lists.into_iter().all(|len| len == 0)
    }

    /// Reads a hook's answer with a status of 4xx. Returns `None` when the body holds no refusal; the status itself is
    /// then the error.
    pub(super) fn parse_refusal(body: &[u8]) -> Option<Denial> {
        let wire = AnswerBody::parse(body).ok()?;
        if wire.error.is_some() { wire.denial().ok() } else { None }
    }
}

impl AnswerBody {
    fn parse(body: &[u8]) -> Result<Self, HookError> {
        // Without this check serde would also accept an array that has the members in their order.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(bad("it is not a JSON object".into()));
        }
        let wire: Self = crate::json::read_slice(body).map_err(|error| bad(error.to_string()))?;
        let lists = [wire.reply.len(), wire.join.len(), wire.leave.len(), wire.publish.len(), wire.metadata.len()];
        if lists.into_iter().any(|len| len > MAX_ANSWER_ENTRIES) {
            return Err(bad(format!("a list has more than {MAX_ANSWER_ENTRIES} entries")));
        }
        Ok(wire)
    }

    fn denial(&self) -> Result<Denial, HookError> {
        let ttl = self.ttl()?;
        let Some(WireError { code, message }) = &self.error else { return Ok(Denial { ttl, ..Denial::default() }) };
        if code.as_deref().is_some_and(|code| !is_code(code)) {
            return Err(bad(format!("error.code is not 1 to {MAX_CODE_BYTES} letters, digits, \"_\", \"-\" or \".\"")));
        }
        Ok(Denial { code: code.clone(), message: cut(message).to_owned(), ttl })
    }

    fn ttl(&self) -> Result<Option<Duration>, HookError> {
        let ttl = match &self.ttl {
            None => return Ok(None),
            Some(Ttl::Seconds(seconds)) => Duration::from_secs(*seconds),
            Some(Ttl::Text(text)) => humantime::parse_duration(text)
                .map_err(|_| bad("ttl is neither a number of seconds nor a time such as \"30s\"".into()))?,
        };
        Ok(Some(ttl.min(MAX_TTL)).filter(|ttl| !ttl.is_zero()))
    }
}

fn bad(problem: String) -> HookError {
    HookError::BadAnswer(problem)
}

fn is_code(text: &str) -> bool {
    let fits = (1..=MAX_CODE_BYTES).contains(&text.len());
    fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)]
}

/// Distinguishes an explicit `null` from a member that is missing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
