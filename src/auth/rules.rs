//! What the claims of a token must say: when it holds, who made it, whom it is for (RFC 7519, 4.1).
//!
//! As `jsonwebtoken` judges them, with which the tests compare it; but the claims are read once, and not twice.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::AuthError;
use super::claim_set::ClaimSet;
use crate::config;

/// What a token's claims must say.
#[derive(Debug)]
pub(super) struct Rules {
    issuer: Vec<String>,
    audience: Vec<String>,
    leeway_seconds: u64,
}

impl Rules {
    pub(super) fn new(config: &config::Auth) -> Self {
        let leeway_seconds = config.leeway.as_secs();
        Self { issuer: config.issuer.clone(), audience: config.audience.clone(), leeway_seconds }
    }

    /// How far clocks may be apart.
    pub(super) fn leeway(&self) -> Duration {
        Duration::from_secs(self.leeway_seconds)
    }

    /// Whether claims hold at a time.
    pub(super) fn judge(&self, claims: &ClaimSet, now: SystemTime) -> Result<(), AuthError> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let ends = claims.get("exp").and_then(seconds).ok_or(AuthError::Claim)?;
        let is_ours = accepted(claims.get("iss"), &self.issuer).ok_or(AuthError::Issuer)?;
        let is_for_us = accepted(claims.get("aud"), &self.audience).ok_or(AuthError::Audience)?;
        if matches!(claims.get("sub"), Some(Value::Array(_) | Value::Object(_))) {
            return Err(AuthError::TokenMalformed);
        }
        let begins = match claims.get("nbf") {
            Some(begins) => seconds(begins).ok_or(AuthError::Claim)?,
            None => 0,
        };
        if ends < now.saturating_sub(self.leeway_seconds) {
            return Err(AuthError::TokenExpired);
        }
        if begins > now.saturating_add(self.leeway_seconds) {
            return Err(AuthError::TokenNotYetValid);
        }
        match (is_ours, is_for_us) {
            (false, _) => Err(AuthError::Issuer),
            (_, false) => Err(AuthError::Audience),
            _ => Ok(()),
        }
    }
}

/// The claims in a token's second part.
pub(super) fn read(part: &str) -> Result<ClaimSet, AuthError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::TokenMalformed)?;
    serde_json::from_slice(&json).map_err(|_| AuthError::TokenMalformed)
}

/// A time in s of Unix time (RFC 7519, 2, NumericDate).
fn seconds(value: &Value) -> Option<u64> {
    // The bound is 2^64: a cast rounds and cannot overflow.
    let of_float = |time: f64| (time >= 0.0 && time < u64::MAX as f64).then(|| time.round() as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(of_float))
}

/// Whether a claim, a text or a list of them, has one that is accepted. `None`: it is missing or malformed. Where nothing is
/// configured everything is accepted.
fn accepted(claim: Option<&Value>, accepted: &[String]) -> Option<bool> {
    let is_accepted = |value: &Value| accepted.iter().any(|one| value == one.as_str());
    match claim {
        _ if accepted.is_empty() => Some(true),
        Some(one @ Value::String(_)) => Some(is_accepted(one)),
        Some(Value::Array(all)) if all.iter().all(Value::is_string) => Some(all.iter().any(is_accepted)),
        _ => None,
    }
}
