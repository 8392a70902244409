//! Creates tokens for development and tests. In production, an identity service creates the tokens.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};

use super::capability;
use crate::config::Algorithm;

/// The claims of a token to be created.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// The user's id.
    pub subject: Option<String>,
    /// The user's roles.
    pub roles: Vec<String>,
    /// The room that a one-room capability grants. `None`: the token is a user's token.
    pub room: Option<String>,
    /// `iss`, which nodes with a configured issuer require.
    pub issuer: Option<String>,
    /// `aud`, which nodes with a configured audience require.
    pub audience: Option<String>,
    /// Further claims. They replace those above.
    pub others: Map<String, Value>,
}

/// The key that signs a token.
pub struct TokenSigner<'k> {
    /// The algorithm of the signature: HS256, HS384 or HS512.
    pub algorithm: Algorithm,
    /// The name of the signing key (`kid`).
    pub kid: Option<&'k str>,
    /// The shared secret.
    pub secret: &'k str,
}

/// Why no token was created.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The algorithm needs a private key; a node has public keys only.
    #[error("{0:?} needs a private key, which a node does not have: sign with a key of HS256, HS384 or HS512")]
    Asymmetric(Algorithm),
    /// The token cannot be encoded or signed.
    #[error("the token cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// Creates a signed token that is valid from now on for `ttl`.
///
/// # Errors
/// Returns an error if the key cannot sign.
pub fn mint(claims: &NewToken, ttl: Duration, signer: &TokenSigner<'_>) -> Result<String, MintError> {
    if !signer.algorithm.is_symmetric() {
        return Err(MintError::Asymmetric(signer.algorithm));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut all = Map::new();
    if let Some(room) = &claims.room {
        all.insert("use".into(), capability::USE.into());
        all.insert("room".into(), room.as_str().into());
    }
    for (name, value) in [("sub", &claims.subject), ("iss", &claims.issuer), ("aud", &claims.audience)] {
        if let Some(value) = value {
            all.insert(name.into(), value.as_str().into());
        }
    }
    if !claims.roles.is_empty() {
        all.insert("roles".into(), claims.roles.clone().into());
    }
    all.insert("iat".into(), now.as_secs().into());
    all.insert("exp".into(), now.saturating_add(ttl).as_secs().into());
    all.extend(claims.others.clone());
    let mut header = Header::new(signer.algorithm.into());
    header.kid = signer.kid.map(str::to_owned);
    let key = EncodingKey::from_secret(signer.secret.as_bytes());
    jsonwebtoken::encode(&header, &all, &key).map_err(MintError::Sign)
}
