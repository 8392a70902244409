//! Verifies a token's signature and times.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Validation;
use jsonwebtoken::errors::ErrorKind;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::AuthError;
use super::claim_set::ClaimSet;
use super::key::{KeySet, VerificationKey};
use crate::config::{self, Algorithm};

/// Maximum length of a token, in bytes. Longer ones are refused without being decoded.
pub(super) const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Maximum number of keys tried for a token that does not name its key.
const MAX_KEYS_TRIED: usize = 8;

/// The claims that a token must have, for each algorithm. Built once, not for each token.
#[derive(Debug)]
pub(super) struct Rules {
    validations: Vec<(Algorithm, Validation)>,
    leeway: Duration,
}

impl Rules {
    pub(super) fn new(config: &config::AuthSettings) -> Self {
        let validations = Algorithm::ALL.map(|algorithm| (algorithm, validation(config, algorithm)));
        Self { validations: validations.into(), leeway: Duration::from_secs(config.leeway.as_secs()) }
    }

    /// How far the clocks of issuer and node may differ.
    pub(super) fn leeway(&self) -> Duration {
        self.leeway
    }

    fn of(&self, algorithm: Algorithm) -> Option<&Validation> {
        self.validations.iter().find(|(known, _)| *known == algorithm).map(|(_, validation)| validation)
    }
}

fn validation(config: &config::AuthSettings, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm.into());
    validation.leeway = config.leeway.as_secs();
    validation.validate_nbf = true;
    validation.validate_aud = !config.audience.is_empty();
    if !config.audience.is_empty() {
        validation.set_audience(&config.audience);
        validation.required_spec_claims.insert("aud".into());
    }
    if !config.issuer.is_empty() {
        validation.set_issuer(&config.issuer);
        validation.required_spec_claims.insert("iss".into());
    }
    validation
}

/// The parts of a token's header that select a key (RFC 7515, 4.1).
#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    kid: Option<String>,
    /// The extensions in a token's header that a verifier must understand (`crit`). The node understands none.
    crit: Option<IgnoredAny>,
}

/// The claims of a token that one of the keys signed, and whose times, issuer and audience are valid.
pub(super) fn verify(token: &str, sets: &[&KeySet], rules: &Rules) -> Result<ClaimSet, AuthError> {
    let header = read_header(token)?;
    let algorithm = algorithm(&header.alg).ok_or(AuthError::Algorithm)?;
    let mut fault = None;
    for key in candidates(&header, algorithm, sets)?.into_iter().take(MAX_KEYS_TRIED) {
        let validation = rules.of(key.algorithm).ok_or(AuthError::Algorithm)?;
        match jsonwebtoken::decode(token, &key.decoding, validation) {
            Ok(data) => return Ok(data.claims),
            Err(error) => match explain(error.kind()) {
                // Another key may have signed the token.
                AuthError::SignatureInvalid => fault = Some(AuthError::SignatureInvalid),
                other => return Err(other),
            },
        }
    }
    Err(fault.unwrap_or(AuthError::KeyUnknown))
}

fn read_header(token: &str) -> Result<TokenHeader, AuthError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(AuthError::TokenTooLong);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(AuthError::TokenMalformed);
    };
    let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| AuthError::TokenMalformed)?;
    let header: TokenHeader = serde_json::from_slice(&json).map_err(|_| AuthError::TokenMalformed)?;
    if header.crit.is_some() { Err(AuthError::TokenMalformed) } else { Ok(header) }
}

/// The algorithm with exactly this name. `none` is not an algorithm.
fn algorithm(name: &str) -> Option<Algorithm> {
    Algorithm::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name)).ok()
}

/// The keys of the token's algorithm that may have signed the token: those with the `kid` that the token names, or, if
/// no key has this `kid`, those without a `kid`. If the token names no `kid`, all of them.
fn candidates<'k>(
    header: &TokenHeader,
    algorithm: Algorithm,
    sets: &[&'k KeySet],
) -> Result<Vec<&'k VerificationKey>, AuthError> {
    let keys = || sets.iter().flat_map(|set| set.iter());
    let is_named = |key: &&VerificationKey| header.kid.is_some() && key.kid == header.kid;
    let mut found: Vec<&VerificationKey> = keys().filter(is_named).collect();
    if found.is_empty() {
        found = keys().filter(|key| header.kid.is_none() || key.kid.is_none()).collect();
    }
    if found.is_empty() {
        return Err(AuthError::KeyUnknown);
    }
    found.retain(|key| key.algorithm == algorithm);
    match (found.is_empty(), &header.kid) {
        (false, _) => Ok(found),
        // A key with this `kid` may be published soon.
        (true, Some(_)) if !keys().any(|key| is_named(&key)) => Err(AuthError::KeyUnknown),
        _ => Err(AuthError::Algorithm),
    }
}

fn explain(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::InvalidSignature => AuthError::SignatureInvalid,
        ErrorKind::ExpiredSignature => AuthError::TokenExpired,
        ErrorKind::ImmatureSignature => AuthError::TokenNotYetValid,
        ErrorKind::InvalidIssuer => AuthError::Issuer,
        ErrorKind::InvalidAudience => AuthError::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => AuthError::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => AuthError::Audience,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => AuthError::Claim,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            AuthError::Algorithm
        }
        _ => AuthError::TokenMalformed,
    }
}
