//! `/api/v1/revocations`: revokes tokens, users and sockets.

use schemars::JsonSchema;
use serde::Serialize;

use super::answer::{ApiError, ApiResponse};
use super::events::RemoteStatus;
use super::fields::{List, body};
use super::route::ApiCall;
use super::text::{NameText, PeriodText};
use crate::directory::{DEFAULT_REVOCATION, MAX_REVOCATION, Page, Revocation, RevocationInfo, Revoked, Subject};
use crate::telemetry::audit::{self, AuditEvent, AuditRecord};

body! {
    /// The users, tokens and sockets whose revocation is lifted, named in at least one way.
    #[schemars(rename = "Lift")]
    pub struct LiftRequest one_of(users, tokens, sockets) {
        /// The users by id: all tokens of these users.
        users: Option<List<NameText>>,
        /// The tokens by their `jti`, or by their fingerprint.
        tokens: Option<List<NameText>>,
        /// The sockets by id: the token of each socket.
        sockets: Option<List<NameText>>,
    }
}

body! {
    /// The users, tokens and sockets to revoke, named in at least one way, and for how long.
    #[schemars(rename = "Revoke")]
    pub struct RevokeRequest {
        ..subjects: LiftRequest,
        /// How long the revocation applies, such as `90s`, `15m`, `24h`, `7d`: at most 30 days, 24 hours by default.
        ttl: Option<PeriodText<{ MAX_REVOCATION.as_secs() }>>,
        /// Only for users: whether tokens that are issued from now on stay valid.
        spare_newer: Option<bool>,
    }
}

/// A page of revocations.
pub type RevocationPage = Page<RevocationInfo>;

/// The result.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Outcome")]
pub struct RevocationResponse {
    /// Whether the request was valid and is applied on this node.
    #[schemars(extend("const" = true))]
    accepted: bool,
    /// Number of revocations that were made, changed or lifted.
    changed: usize,
    /// Number of sockets of this node that were disconnected.
    local: usize,
    /// Whether Redis has recorded the revocation and the other nodes received it.
    remote: RemoteStatus,
    /// The reason why the other nodes did not receive the revocation. This node tries again until it succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Revokes.
pub async fn revoke(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let RevokeRequest { subjects, ttl, spare_newer } = call.read()?;
    let (subjects, ttl) = (subjects.list(), ttl.map_or(DEFAULT_REVOCATION, |PeriodText(ttl)| ttl));
    let revocation = Revocation { spares_newer: spare_newer.unwrap_or_default(), ..Revocation::lasting(ttl) };
    note(&call, &subjects, "revoked");
    outcome(call.api.revoker.revoke(subjects, revocation).await?)
}

/// Lifts revocations. It is no error if there was none.
pub async fn lift(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let subjects = call.read::<LiftRequest>()?.list();
    note(&call, &subjects, "lifted");
    outcome(call.api.revoker.lift(subjects).await?)
}

/// Lists revocations.
pub async fn list(call: ApiCall) -> Result<ApiResponse, ApiError> {
    ApiResponse::ok(&call.api.revoker.revocations(call.params.page()).await?)
}

impl LiftRequest {
    fn list(self) -> Vec<Subject> {
        let users = List::strings(self.users).into_iter().map(|id| Subject::User(id.into()));
        let tokens = List::strings(self.tokens).into_iter().map(|id| Subject::Token(id.into()));
        let sockets = List::strings(self.sockets).into_iter().map(|id| Subject::Socket(id.into()));
        users.chain(tokens).chain(sockets).collect()
    }
}

/// Writes the request to the audit log. Ids of tokens are not secret: they do not suffice to make a token.
fn note(call: &ApiCall, subjects: &[Subject], reason: &'static str) {
    let key = Some(call.caller.name.as_str());
    for subject in subjects {
        let mut about = AuditRecord { key, reason: Some(reason), ..AuditRecord::default() };
        match subject {
            Subject::User(id) => about.user = Some(id),
            Subject::Token(id) => about.token = Some(id),
            Subject::Socket(id) => about.socket = Some(id),
        }
        audit::record(AuditEvent::Revoked, about);
    }
}

fn outcome(revoked: Revoked) -> Result<ApiResponse, ApiError> {
    let (remote, reason) = RemoteStatus::of(revoked.remote);
    ApiResponse::accepted(&RevocationResponse {
        accepted: true,
        changed: revoked.changed,
        local: revoked.local,
        remote,
        reason,
    })
}
