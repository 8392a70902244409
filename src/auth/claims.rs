//! Converts verified claims to a user.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::AuthError;
use super::claim_set::ClaimSet;
use crate::contract::model::AuthPolicy;
use crate::user::{Claims, User};

/// Maximum length of a user id, in bytes. User ids become part of room names.
const MAX_USER_ID_BYTES: usize = 256;
/// Maximum length of a token's `jti`, in bytes. A longer one is ignored, and a fingerprint is used instead.
const MAX_TOKEN_ID_BYTES: usize = 256;
/// The prefix of the fingerprint that serves as the id of a token without a `jti`. 16 bytes in base64 follow it.
const FINGERPRINT: &str = "sha256:";
/// Maximum number of roles of a user.
const MAX_ROLES: usize = 256;

/// The user that verified claims name. The contract says which claims hold the id and the roles.
pub(super) fn user(claims: &ClaimSet, token: &str, policy: &AuthPolicy) -> Result<User, AuthError> {
    let id = find(claims, &policy.user).and_then(scalar).ok_or(AuthError::Claim)?;
    if id.is_empty() || id.len() > MAX_USER_ID_BYTES || id.chars().any(char::is_control) {
        return Err(AuthError::Claim);
    }
    let roles = find(claims, &policy.roles).map(roles).unwrap_or_default();
    let expires_at = claims.get("exp").and_then(Value::as_f64).and_then(instant);
    let token_id = Some(token_id(claims, token));
    Ok(User {
        id: id.into(),
        roles: roles.into(),
        claims: Claims::of_members(claims.iter()),
        anonymous: false,
        expires_at,
        token_id,
    })
}

/// The id of a token: its `jti`, or a fingerprint of the signed bytes if it has none.
pub(super) fn token_id(claims: &ClaimSet, token: &str) -> Arc<str> {
    match claims.get("jti").and_then(scalar).filter(|id| !id.is_empty() && id.len() <= MAX_TOKEN_ID_BYTES) {
        Some(id) => id.into(),
        None => {
            // The fingerprint leaves out the signature, because some algorithms permit several signatures of the same
            // bytes.
            let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
            let digest = Sha256::digest(signed.as_bytes());
            let mut id = String::with_capacity(FINGERPRINT.len() + 22);
            id.push_str(FINGERPRINT);
            URL_SAFE_NO_PAD.encode_string(&digest[..16], &mut id);
            id.into()
        }
    }
}

/// When the token was issued (`iat`), in seconds of Unix time.
pub(crate) fn issued_at(iat: Option<&Value>) -> Option<u64> {
    let at = iat?.as_f64()?;
    // The cast limits a number that is too large to the maximum of `u64`.
    (at >= 0.0).then_some(at as u64)
}

/// Finds a claim by its name, or by a dotted path into nested claims, as identity services write them.
fn find<'c>(claims: &'c ClaimSet, name: &str) -> Option<&'c Value> {
    let name = name.strip_prefix("claims.").unwrap_or(name);
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let mut segments = name.split('.');
    let first = claims.get(segments.next()?)?;
    segments.try_fold(first, |value, segment| value.get(segment))
}

fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    }
}

/// The roles in a claim: a string is one role, a list is several. Entries that are not strings are ignored.
fn roles(value: &Value) -> Vec<String> {
    match value {
        Value::String(role) => vec![role.clone()],
        Value::Array(roles) => roles.iter().filter_map(Value::as_str).take(MAX_ROLES).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn instant(seconds: f64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}
