//! Tests authentication with valid and invalid tokens of every kind, as a gateway would present them.

mod algorithms;
mod capabilities;
mod confusion;
mod jwks;
mod tokens;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::*;
use crate::config::{Algorithm, AuthKeySettings, AuthSettings, Period, Secret};
use crate::contract::model::{RejectPolicy, TokenSource};

const SECRET: &str = "a shared secret of the tests, 48 bytes or longer, as it should be: HS512 wants 64";

const RSA: &str = include_str!("../../tests/keys/tokens/rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../tests/keys/tokens/rsa.pub.pem");
const RSA_OTHER: &str = include_str!("../../tests/keys/tokens/rsa-other.pem");
const RSA_WEAK_PUBLIC: &str = include_str!("../../tests/keys/tokens/rsa-weak.pub.pem");
const EC256: &str = include_str!("../../tests/keys/tokens/ec256.pem");
const EC256_PUBLIC: &str = include_str!("../../tests/keys/tokens/ec256.pub.pem");
const EC384: &str = include_str!("../../tests/keys/tokens/ec384.pem");
const EC384_PUBLIC: &str = include_str!("../../tests/keys/tokens/ec384.pub.pem");
const ED25519: &str = include_str!("../../tests/keys/tokens/ed25519.pem");
const ED25519_PUBLIC: &str = include_str!("../../tests/keys/tokens/ed25519.pub.pem");

const ALGORITHMS: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The key that signs tokens with an algorithm.
fn signing(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(EC256.as_bytes()).unwrap(),
        Algorithm::ES384 => EncodingKey::from_ec_pem(EC384.as_bytes()).unwrap(),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED25519.as_bytes()).unwrap(),
        symmetric if symmetric.is_symmetric() => EncodingKey::from_secret(SECRET.as_bytes()),
        _ => EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap(),
    }
}

/// The key that verifies tokens of an algorithm.
fn verifying(algorithm: Algorithm, kid: Option<&str>) -> AuthKeySettings {
    let public = match algorithm {
        Algorithm::ES256 => EC256_PUBLIC,
        Algorithm::ES384 => EC384_PUBLIC,
        Algorithm::EdDSA => ED25519_PUBLIC,
        _ => RSA_PUBLIC,
    };
    let (secret, public_key) =
        if algorithm.is_symmetric() { (Some(Secret::new(SECRET)), None) } else { (None, Some(public.to_owned())) };
    AuthKeySettings { kid: kid.map(str::to_owned), algorithm, secret, public_key }
}

fn keys(keys: Vec<AuthKeySettings>) -> AuthSettings {
    AuthSettings { keys, ..AuthSettings::default() }
}

fn shared() -> AuthSettings {
    keys(vec![verifying(Algorithm::HS256, None)])
}

async fn authenticator(config: &AuthSettings) -> Arc<Authenticator> {
    Authenticator::new(config, Arc::default()).await.unwrap()
}

/// A time in the future, in seconds of Unix time.
fn soon(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + seconds
}

/// A token signed with the key of an algorithm.
fn token(algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    let mut header = jsonwebtoken::Header::new(algorithm.into());
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, &signing(algorithm)).unwrap()
}

/// A token, signed with the shared secret and valid for an hour, with these claims added. `null` removes a claim.
fn with(claims: Value) -> String {
    let mut all = json!({ "sub": "alice", "exp": soon(3600) });
    for (name, value) in claims.as_object().unwrap() {
        match value {
            Value::Null => _ = all.as_object_mut().unwrap().remove(name),
            value => all[name] = value.clone(),
        }
    }
    token(Algorithm::HS256, None, &all)
}

/// A token with an arbitrary header, claims and signature.
fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

fn policy(mode: AuthMode) -> AuthPolicy {
    AuthPolicy {
        mode,
        tokens: vec![TokenSource::Auth("token".into()), TokenSource::Header, TokenSource::Query("token".into())],
        reject: RejectPolicy::ConnectError,
        user: "sub".into(),
        roles: "roles".into(),
        expiry: Default::default(),
    }
}

fn bearing(token: &str) -> Handshake {
    Handshake { auth: Some(json!({ "token": token })), ..Handshake::default() }
}

/// Authenticates with a token against a contract that requires one.
fn result(authenticator: &Authenticator, token: &str) -> Result<User, AuthError> {
    authenticator.authenticate(&policy(AuthMode::Required), &bearing(token))
}

fn reason(authenticator: &Authenticator, token: &str) -> &'static str {
    result(authenticator, token).map_or_else(AuthError::reason, |_| "ok")
}
