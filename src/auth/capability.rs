//! One-room capabilities: a second, short-lived token that a backend signs and a client sends in a payload.
//!
//! The claims of a capability:
//! `{ "use": "room", "room": "<the room's exact name>", "exp": …, "sub"?: "<the only user>" }`

use serde_json::Value;

use super::claim_set::ClaimSet;
use super::claims::{issued_at, token_id};
use super::{AuthError, Authenticator};
use crate::contract::scope::Capabilities;
use crate::telemetry::audit::{self, AuditEvent, AuditRecord};

/// The value of the claim `use` that marks a capability.
pub(super) const USE: &str = "room";

/// Whether the claims are those of a capability, and not those of a user's token.
pub(super) fn is_capability(claims: &ClaimSet) -> bool {
    claims.get("use").and_then(Value::as_str) == Some(USE)
}

impl Capabilities for Authenticator {
    fn grants(&self, token: &str, room: &str, user_id: &str) -> bool {
        let (reason, granted) = match self.verify(token) {
            Err(error) => (error.reason(), false),
            Ok(claims) => match refused(&claims, room, user_id) {
                Some(reason) => (reason, false),
                None if self.is_capability_revoked(&claims, token) => (AuthError::Revoked.reason(), false),
                None => ("ok", true),
            },
        };
        self.metrics.capabilities_total.with_label_values(&[reason]).inc();
        if !granted {
            let user = Some(user_id).filter(|id| !id.is_empty());
            let about = AuditRecord { user, room: Some(room), reason: Some(reason), ..AuditRecord::default() };
            audit::record(AuditEvent::CapabilityRejected, about);
        }
        granted
    }
}

impl Authenticator {
    fn is_capability_revoked(&self, claims: &ClaimSet, token: &str) -> bool {
        let user = claims.get("sub").and_then(Value::as_str);
        self.revocations.refuse(user, Some(&token_id(claims, token)), issued_at(claims.get("iat")))
    }
}

fn refused(claims: &ClaimSet, room: &str, user_id: &str) -> Option<&'static str> {
    if !is_capability(claims) {
        return Some("wrong_use");
    }
    if claims.get("room").and_then(Value::as_str) != Some(room) {
        return Some("other_room");
    }
    match claims.get("sub") {
        None => None,
        // A capability never names the anonymous user, whose id is empty.
        Some(Value::String(sub)) if !sub.is_empty() && sub == user_id => None,
        Some(_) => Some("other_user"),
    }
}
