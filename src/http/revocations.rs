//! `/api/v1/revocations`: revokes tokens, users and sockets.

use schemars::JsonSchema;
use serde::Serialize;

use super::answer::{Answer, ApiError};
use super::emit::Names;
use super::events::RemoteWord;
use super::fields::Object;
use super::route::Call;
use super::text;
use crate::directory::{DEFAULT_REVOCATION, MAX_REVOCATION, Page, Revocation, RevocationInfo, Revoked, Subject, Told};
use crate::telemetry::audit::{self, Kind, Record};

/// The users, tokens and sockets to revoke, named in at least one way, and for how long.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("anyOf" = named()))]
#[expect(dead_code, reason = "describes what `revoke` takes")]
pub struct Revoke {
    /// Users by id: all of their tokens are revoked.
    users: Option<Names>,
    /// Tokens by their `jti`, or by their fingerprint.
    tokens: Option<Names>,
    /// Sockets by id: the token of each is revoked.
    sockets: Option<Names>,
    /// How long the revocation applies, such as `90s`, `15m`, `24h`, `7d`: at most 30 days, 24 hours by default.
    #[schemars(regex(pattern = text::PERIOD_PATTERN))]
    ttl: Option<String>,
    /// Only for users: whether tokens that are issued from now on stay valid.
    spare_newer: Option<bool>,
}

/// The users, tokens and sockets whose revocation is lifted, named in at least one way.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("anyOf" = named()))]
#[expect(dead_code, reason = "describes what `lift` takes")]
pub struct Lift {
    /// Users by id.
    users: Option<Names>,
    /// Tokens by their `jti`, or by their fingerprint.
    tokens: Option<Names>,
    /// Sockets by id.
    sockets: Option<Names>,
}

/// A page of revocations.
pub type RevocationPage = Page<RevocationInfo>;

fn named() -> serde_json::Value {
    let named = |list: &str| serde_json::json!({ "required": [list], "properties": { list: { "type": "array", "minItems": 1 } } });
    [named("users"), named("tokens"), named("sockets")].into_iter().collect()
}

/// The result.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Outcome {
    /// The request was valid and is applied on this node.
    #[schemars(extend("const" = true))]
    accepted: bool,
    /// Number of revocations that were made, changed or lifted.
    changed: usize,
    /// Number of sockets of this node that were disconnected.
    local: usize,
    /// Whether Redis has recorded it and the other nodes received it.
    remote: RemoteWord,
    /// The reason why not. This node tries again until it succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Revokes.
pub async fn revoke(call: Call) -> Result<Answer, ApiError> {
    let mut object = call.object()?;
    let ttl = object.period("ttl", DEFAULT_REVOCATION, MAX_REVOCATION);
    let spares_newer = object.flag("spare_newer");
    let subjects = subjects(&mut object);
    object.finish()?;
    let revocation = Revocation { spares_newer, ..Revocation::lasting(ttl) };
    note(&call, &subjects, "revoked");
    outcome(call.api.revoker.revoke(subjects, revocation).await?)
}

/// Lifts revocations. It is no error if there was none.
pub async fn lift(call: Call) -> Result<Answer, ApiError> {
    let mut object = call.object()?;
    let subjects = subjects(&mut object);
    object.finish()?;
    note(&call, &subjects, "lifted");
    outcome(call.api.revoker.lift(subjects).await?)
}

/// Lists revocations.
pub async fn list(call: Call) -> Result<Answer, ApiError> {
    Answer::ok(&call.api.revoker.revocations(call.params.page()).await?)
}

fn subjects(object: &mut Object<'_>) -> Vec<Subject> {
    let users = object.strings("users").into_iter().map(|id| Subject::User(id.into()));
    let tokens = object.strings("tokens").into_iter().map(|id| Subject::Token(id.into()));
    let sockets = object.strings("sockets").into_iter().map(|id| Subject::Socket(id.into()));
    let subjects: Vec<_> = users.chain(tokens).chain(sockets).collect();
    if subjects.is_empty() {
        object.note("users", "is empty, and so are tokens and sockets");
    }
    subjects
}

/// Writes the request to the audit log. Ids of tokens are not secret: they do not suffice to make a token.
fn note(call: &Call, subjects: &[Subject], reason: &'static str) {
    let key = Some(call.caller.name.as_str());
    for subject in subjects {
        let mut about = Record { key, reason: Some(reason), ..Record::default() };
        match subject {
            Subject::User(id) => about.user = Some(id),
            Subject::Token(id) => about.token = Some(id),
            Subject::Socket(id) => about.socket = Some(id),
        }
        audit::record(Kind::Revoked, about);
    }
}

fn outcome(revoked: Revoked) -> Result<Answer, ApiError> {
    let (remote, reason) = match revoked.remote {
        Told::Alone => (RemoteWord::Alone, None),
        Told::Carried => (RemoteWord::Carried, None),
        Told::NotCarried(reason) => (RemoteWord::NotCarried, Some(reason)),
    };
    Answer::accepted(&Outcome { accepted: true, changed: revoked.changed, local: revoked.local, remote, reason })
}
