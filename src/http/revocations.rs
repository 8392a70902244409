//! `/api/v1/revocations`: what is no longer to hold before its time.

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

/// What is revoked, named in at least one way, and for how long.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("anyOf" = named()))]
#[expect(dead_code, reason = "describes what `revoke` takes")]
pub struct Revoke {
    /// Users by id: all their tokens.
    users: Option<Names>,
    /// Tokens by their `jti`, or by their fingerprint.
    tokens: Option<Names>,
    /// Sockets by id, each with the token that it has now.
    sockets: Option<Names>,
    /// How long, such as `90s`, `15m`, `24h`, `7d`; at most 30 days. 24 hours where it is not there.
    #[schemars(regex(pattern = text::PERIOD_PATTERN))]
    ttl: Option<String>,
    /// Of users: tokens that are issued from now on hold.
    spare_newer: Option<bool>,
}

/// What is to hold again, named in at least one way.
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

/// What became of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Outcome {
    /// It was valid, and holds on this node.
    #[schemars(extend("const" = true))]
    accepted: bool,
    /// Revocations that were made, changed or taken back.
    changed: usize,
    /// Sockets of this node that were disconnected.
    local: usize,
    /// Whether Redis keeps it and the other nodes were told.
    remote: RemoteWord,
    /// Why not. This node tries again until it is.
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

/// Takes revocations back; what was not revoked is not an error.
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
        object.note("users", "names nobody, and neither do tokens or sockets");
    }
    subjects
}

/// Who did what to whom, for the audit log. Ids of tokens are no secrets: nobody can make a token of one.
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
