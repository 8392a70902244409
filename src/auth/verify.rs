//! The signature of a token, and which key it is of. What its claims must say stands in `rules`.

use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::Jwk;
use serde::de::{IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};

use super::AuthError;
use super::claim_set::ClaimSet;
use super::key::{Key, KeySet};
use super::rules::{self, Rules};
use crate::config::Algorithm;

/// Longer tokens are refused unread.
pub(super) const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// So many keys are tried for a token that does not say which one signed it.
const MAX_KEYS_TRIED: usize = 8;

/// A token's header (RFC 7515, 4.1). What chooses among keys is looked at; the others must only be of their types.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood: none is.
    crit: Option<IgnoredAny>,
    #[serde(rename = "typ")]
    _type: Option<Text>,
    #[serde(rename = "cty")]
    _content: Option<Text>,
    #[serde(rename = "jku")]
    _key_set: Option<Text>,
    #[serde(rename = "jwk")]
    _key: Option<Box<Jwk>>,
    #[serde(rename = "x5u")]
    _certificate: Option<Text>,
    #[serde(rename = "x5c")]
    _certificates: Option<Vec<Text>>,
    #[serde(rename = "x5t")]
    _thumbprint: Option<Text>,
    #[serde(rename = "x5t#S256")]
    _thumbprint_256: Option<Text>,
    #[serde(rename = "enc")]
    _encryption: Option<Text>,
    #[serde(rename = "zip")]
    _compression: Option<Text>,
    #[serde(rename = "url")]
    _url: Option<Text>,
    #[serde(rename = "nonce")]
    _nonce: Option<Text>,
}

/// A text that is not kept.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Self)
    }
}

impl Visitor<'_> for Text {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}

/// A token in its parts (RFC 7515, 7.1).
struct Parts<'t> {
    header: Header,
    /// What was signed: the header and the claims, as they came.
    signed: &'t str,
    claims: &'t str,
    signature: &'t str,
}

/// The claims of a token that one of the keys signed, and whose times, issuer and audience hold at a time.
pub(super) fn verify(token: &str, sets: &[&KeySet], rules: &Rules, now: SystemTime) -> Result<ClaimSet, AuthError> {
    let parts = Parts::of(token)?;
    let algorithm = algorithm(&parts.header.alg).ok_or(AuthError::Algorithm)?;
    let mut fault = AuthError::KeyUnknown;
    for key in candidates(&parts.header, algorithm, sets)?.into_iter().take(MAX_KEYS_TRIED) {
        let signed = parts.signed.as_bytes();
        match jsonwebtoken::crypto::verify(parts.signature, signed, &key.decoding, key.algorithm.into()) {
            Ok(true) => {
                let claims = rules::read(parts.claims)?;
                return rules.judge(&claims, now).map(|()| claims);
            }
            // Another key may have signed it.
            Ok(false) => fault = AuthError::SignatureInvalid,
            Err(error) => return Err(explain(error.kind())),
        }
    }
    Err(fault)
}

impl<'t> Parts<'t> {
    fn of(token: &'t str) -> Result<Self, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TokenTooLong);
        }
        let malformed = AuthError::TokenMalformed;
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(malformed)?;
        if claims.contains('.') {
            return Err(malformed);
        }
        let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| malformed)?;
        let header: Header = serde_json::from_slice(&json).map_err(|_| malformed)?;
        if header.crit.is_some() { Err(malformed) } else { Ok(Self { header, signed, claims, signature }) }
    }
}

/// The algorithm of that very name; `none` is not one.
fn algorithm(name: &str) -> Option<Algorithm> {
    Algorithm::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name)).ok()
}

/// The keys that may have signed it: of its algorithm, and of its `kid` if it names one. A key without a name may
/// have any.
fn candidates<'k>(header: &Header, algorithm: Algorithm, sets: &[&'k KeySet]) -> Result<Vec<&'k Key>, AuthError> {
    let keys = || sets.iter().flat_map(|set| set.iter());
    let is_named = |key: &&Key| header.kid.is_some() && key.kid == header.kid;
    let mut found: Vec<&Key> = keys().filter(is_named).collect();
    if found.is_empty() {
        found = keys().filter(|key| header.kid.is_none() || key.kid.is_none()).collect();
    }
    if found.is_empty() {
        return Err(AuthError::KeyUnknown);
    }
    found.retain(|key| key.algorithm == algorithm);
    match (found.is_empty(), &header.kid) {
        (false, _) => Ok(found),
        // The one that it names may be published any moment.
        (true, Some(_)) if !keys().any(|key| is_named(&key)) => Err(AuthError::KeyUnknown),
        _ => Err(AuthError::Algorithm),
    }
}

fn explain(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            AuthError::Algorithm
        }
        _ => AuthError::TokenMalformed,
    }
}
