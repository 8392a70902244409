//! `[auth]`

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Period, Secret, Url};

/// Keys that tokens are verified with. Contracts say whether a token is needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Keys, several at once so that they can be rotated.
    pub keys: Vec<AuthKey>,
    /// A published key set (RFC 7517).
    pub jwks: Option<Jwks>,
    /// Accepted values of `iss`; empty: any, and none is needed.
    pub issuer: Vec<String>,
    /// Accepted values of `aud`; empty: `aud` is not looked at.
    pub audience: Vec<String>,
    /// How far the clocks of issuer and node may be apart, for `exp` and `nbf`.
    pub leeway: Period,
}

impl Default for Auth {
    fn default() -> Self {
        Self { keys: Vec::new(), jwks: None, issuer: Vec::new(), audience: Vec::new(), leeway: Period::from_secs(30) }
    }
}

/// One key, bound to one algorithm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthKey {
    /// The name that a token's header gives; a token that names one is only tried with keys of that name, or without a name.
    pub kid: Option<String>,
    /// The only algorithm that this key verifies.
    pub algorithm: Algorithm,
    /// The shared secret of HS256, HS384 and HS512; at least 32, 48 or 64 bytes are advised, 16 are needed.
    pub secret: Option<Secret>,
    /// The public key of the other algorithms, as PEM.
    pub public_key: Option<String>,
}

/// A published key set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jwks {
    /// Where it is fetched; `https`, or `http` on loopback.
    pub url: Option<Url>,
    /// Or the file that it is read from.
    #[schemars(with = "Option<String>")]
    pub file: Option<PathBuf>,
    /// How often it is fetched again. The last good set is kept when that fails.
    pub refresh: Period,
    /// How long an answer is waited for.
    pub timeout: Period,
    /// The algorithms that keys of the set may have; a key that names none has the first of these that fits it.
    pub algorithms: Vec<Algorithm>,
}

impl Default for Jwks {
    fn default() -> Self {
        Self {
            url: None,
            file: None,
            refresh: Period::from_secs(300),
            timeout: Period::from_secs(5),
            algorithms: vec![Algorithm::RS256],
        }
    }
}

/// A signature algorithm of RFC 7518 or RFC 8037.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are those of the RFCs")]
pub enum Algorithm {
    #[default]
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// Whether it signs with a shared secret.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}
