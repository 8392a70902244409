//! Keys, each of which is bound to one algorithm.

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};

use super::AuthSetupError;
use crate::config::{Algorithm, AuthKeySettings};

/// Minimum size of an RSA modulus, in bytes. Shorter ones (below 2048 bits) can be factored (RFC 7518, 3.3).
const MIN_RSA_BYTES: usize = 256;

/// A key that verifies signatures of one algorithm only.
pub(super) struct VerificationKey {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// The keys of one source.
#[derive(Default)]
pub(super) struct KeySet(Vec<VerificationKey>);

impl KeySet {
    /// Reads the keys of the configuration.
    pub(super) fn configured(keys: &[AuthKeySettings]) -> Result<Self, AuthSetupError> {
        let read = |(index, key): (usize, &AuthKeySettings)| {
            configured(key).map_err(|problem| AuthSetupError::Key { index, problem })
        };
        keys.iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn published(keys: Vec<VerificationKey>) -> Self {
        Self(keys)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &VerificationKey> {
        self.0.iter()
    }
}

fn configured(key: &AuthKeySettings) -> Result<VerificationKey, String> {
    let pem = || key.public_key.as_deref().map(str::as_bytes).ok_or_else(|| "`public_key` is missing".to_owned());
    let decoding = match key.algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            let secret = key.secret.as_ref().ok_or("`secret` is missing")?;
            Ok(DecodingKey::from_secret(secret.expose().as_bytes()))
        }
        Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem()?),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(pem()?),
        _ => DecodingKey::from_rsa_pem(pem()?),
    };
    let problem = || format!("is not a public key for {:?}, as PEM (BEGIN PUBLIC KEY)", key.algorithm);
    let key =
        VerificationKey { kid: key.kid.clone(), algorithm: key.algorithm, decoding: decoding.map_err(|_| problem())? };
    try_out(&key).map_err(|fault| format!("{}: {fault}", problem()))?;
    Ok(key)
}

/// Reads a key of a published set. `Err` says why the key is skipped.
pub(super) fn published(jwk: &Jwk, accepted: &[Algorithm]) -> Result<VerificationKey, &'static str> {
    let common = &jwk.common;
    if matches!(&common.public_key_use, Some(other) if *other != PublicKeyUse::Signature) {
        return Err("not for signatures");
    }
    if common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
        return Err("not for verifying");
    }
    let named = common.key_algorithm.map(|algorithm| algorithm.to_string());
    let fits = |algorithm: &&Algorithm| {
        suits(**algorithm, &jwk.algorithm) && named.as_ref().is_none_or(|named| *named == format!("{algorithm:?}"))
    };
    let algorithm = *accepted.iter().find(fits).ok_or("of no accepted algorithm")?;
    let decoding = DecodingKey::from_jwk(jwk).map_err(|_| "malformed")?;
    let key = VerificationKey { kid: common.key_id.clone(), algorithm, decoding };
    try_out(&key).map(|()| key)
}

/// Whether a key of this type can be used with the algorithm. Symmetric algorithms are refused: a published secret is
/// no secret.
fn suits(algorithm: Algorithm, parameters: &AlgorithmParameters) -> bool {
    match (algorithm, parameters) {
        (Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512, _) => false,
        (Algorithm::ES256, AlgorithmParameters::EllipticCurve(key)) => key.curve == EllipticCurve::P256,
        (Algorithm::ES384, AlgorithmParameters::EllipticCurve(key)) => key.curve == EllipticCurve::P384,
        (Algorithm::EdDSA, AlgorithmParameters::OctetKeyPair(key)) => key.curve == EllipticCurve::Ed25519,
        (Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA, _) => false,
        (_, parameters) => matches!(parameters, AlgorithmParameters::RSA(_)),
    }
}

/// Finds keys that can be parsed but could never verify a signature.
fn try_out(key: &VerificationKey) -> Result<(), &'static str> {
    jsonwebtoken::crypto::verify("", b"", &key.decoding, key.algorithm.into())
        .map_err(|_| "of another curve or type")?;
    if let AlgorithmParameters::RSA(rsa) =
        Jwk::from_decoding_key(&key.decoding, None).map_err(|_| "malformed")?.algorithm
    {
        // Four characters of base64 encode three bytes.
        if rsa.n.len() * 3 / 4 < MIN_RSA_BYTES {
            return Err("shorter than 2048 bits");
        }
    }
    Ok(())
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HS256 => Self::HS256,
            Algorithm::HS384 => Self::HS384,
            Algorithm::HS512 => Self::HS512,
            Algorithm::RS256 => Self::RS256,
            Algorithm::RS384 => Self::RS384,
            Algorithm::RS512 => Self::RS512,
            Algorithm::PS256 => Self::PS256,
            Algorithm::PS384 => Self::PS384,
            Algorithm::PS512 => Self::PS512,
            Algorithm::ES256 => Self::ES256,
            Algorithm::ES384 => Self::ES384,
            Algorithm::EdDSA => Self::EdDSA,
        }
    }
}
