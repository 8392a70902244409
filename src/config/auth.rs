//! `[auth]`

use std::time::Duration;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::SectionCheck;
use super::{Period, Secret, Url};

/// Minimum length of a shared secret that signs tokens, in bytes. RFC 7518 asks for the length of the hash; the
/// documentation advises that.
const SHORTEST_SECRET: usize = 16;
/// Maximum of `leeway`. Clocks that differ by more should be corrected instead.
const LONGEST_LEEWAY: std::time::Duration = std::time::Duration::from_secs(600);

/// The keys that verify tokens. Contracts say whether a token is needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Auth")]
pub struct AuthSettings {
    /// The keys. Several may be valid at once, so that a key can be replaced without a gap.
    pub keys: Vec<AuthKeySettings>,
    /// A published key set (RFC 7517), from which further keys come.
    pub jwks: Option<JwksSettings>,
    /// Accepted values of `iss`. Empty: every value is accepted, and `iss` may be absent.
    pub issuer: Vec<String>,
    /// Accepted values of `aud`. Empty: `aud` is not checked.
    pub audience: Vec<String>,
    /// How far the clocks of the issuer and the node may differ, for `exp` and `nbf`.
    pub leeway: Period,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self { keys: Vec::new(), jwks: None, issuer: Vec::new(), audience: Vec::new(), leeway: Period::from_secs(30) }
    }
}

/// One key, bound to one algorithm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "AuthKey")]
pub struct AuthKeySettings {
    /// The name of the key. A token whose header names a key is checked only with keys of that name and keys without a
    /// name.
    pub kid: Option<String>,
    /// The only algorithm that this key verifies.
    pub algorithm: Algorithm,
    /// The shared secret of HS256, HS384 and HS512: at least 16 bytes; 32, 48 and 64 bytes are advised.
    pub secret: Option<Secret>,
    /// The public key of the other algorithms, as PEM.
    #[schemars(extend("format" = "pem"))]
    pub public_key: Option<String>,
}

/// A published key set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Jwks")]
pub struct JwksSettings {
    /// The URL from which the key set is fetched: `https`, or `http` on loopback only.
    pub url: Option<Url>,
    /// The file from which the key set is read, instead of `url`.
    #[schemars(with = "Option<String>")]
    pub file: Option<PathBuf>,
    /// How often the key set is fetched again. If that fails, the node keeps the last valid set.
    pub refresh: Period,
    /// How long the node waits for the key set.
    pub timeout: Period,
    /// The algorithms that keys of the set may use. A key that names none uses the first of these that fits its type.
    pub algorithms: Vec<Algorithm>,
}

impl Default for JwksSettings {
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
    /// All algorithms.
    pub const ALL: [Self; 12] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// Whether the algorithm signs with a shared secret.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

impl AuthSettings {
    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
        for (index, key) in self.keys.iter().enumerate() {
            let same = |earlier: &AuthKeySettings| earlier.kid.is_some() && earlier.kid == key.kid;
            let is_repeated = self.keys[..index].iter().any(same);
            check.entry("keys", index, |check| {
                key.check(check);
                if is_repeated {
                    check.refuse("kid", "another key has the same kid", "give each key a kid of its own");
                }
            });
        }
        if let Some(jwks) = &self.jwks {
            check.within("jwks", |check| jwks.check(check));
        }
        check.must(*self.leeway <= LONGEST_LEEWAY, "leeway", "must be at most 10m");
    }
}

impl AuthKeySettings {
    fn check(&self, check: &mut SectionCheck<'_>) {
        let Self { algorithm, secret, public_key, .. } = self;
        match (algorithm.is_symmetric(), secret, public_key) {
            (true, Some(secret), None) => check.secret("secret", secret, SHORTEST_SECRET),
            (true, ..) if public_key.is_some() => {
                let remedy = "set `secret`, or an algorithm such as RS256, ES256 or EdDSA";
                check.refuse("public_key", &format!("{algorithm:?} uses a shared secret, not a public key"), remedy);
            }
            (true, ..) => check.refuse("secret", "is missing", "set `secret` or `secret_file`"),
            (false, None, Some(pem)) => check_pem(pem, check),
            (false, Some(_), _) => {
                let remedy = "set `public_key`, or the algorithm HS256, HS384 or HS512";
                check.refuse("secret", &format!("{algorithm:?} uses a public key, not a shared secret"), remedy);
            }
            (false, None, None) => check.refuse("public_key", "is missing", "set `public_key` or `public_key_file`"),
        }
    }
}

fn check_pem(pem: &str, check: &mut SectionCheck<'_>) {
    if pem.contains("PRIVATE KEY") {
        check.refuse("public_key", "is a private key: a node must not have it", "give it only the public key");
    } else if !pem.contains("-----BEGIN ") {
        let remedy = "write what lies between -----BEGIN PUBLIC KEY----- and -----END PUBLIC KEY-----, both included";
        check.refuse("public_key", "is not PEM", remedy);
    }
}

impl JwksSettings {
    fn check(&self, check: &mut SectionCheck<'_>) {
        match (&self.url, &self.file) {
            (Some(url), None) if url.scheme() == Some("http") && !is_loopback(url) => {
                let problem = "keys that are fetched over http can be replaced by an attacker";
                check.refuse("url", problem, "use https; http is permitted on loopback only");
            }
            (Some(url), None) => check.url("url", url, &["https", "http"]),
            (None, Some(file)) => check.readable("file", Some(file)),
            (Some(_), Some(_)) => check.refuse("file", "both `url` and `file` are set", "remove one of them"),
            (None, None) => check.refuse("", "has neither `url` nor `file`", "set one of them"),
        }
        check.at_least("refresh", *self.refresh, Duration::from_secs(1));
        check.at_least("timeout", *self.timeout, Duration::from_millis(10));
        if self.algorithms.is_empty() {
            check.refuse("algorithms", "without an algorithm no key could be used", "");
        }
        for (index, algorithm) in self.algorithms.iter().enumerate() {
            let problem = "a published key cannot be a shared secret";
            check.must(!algorithm.is_symmetric(), &format!("algorithms.{index}"), problem);
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    let rest = url.expose().trim_start_matches("http://");
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = if host.starts_with('[') { host.split_inclusive(']').next() } else { host.split(':').next() };
    let host = host.unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for near in ["http://localhost/x", "http://127.0.0.1:80", "http://[::1]:80/k", "http://LOCALHOST"] {
            assert!(is_loopback(&Url::new(near)), "{near}");
        }
        for far in
            ["http://example.com", "http://localhost@example.com", "http://localhost.example.com", "http://10.0.0.1"]
        {
            assert!(!is_loopback(&Url::new(far)), "{far}");
        }
    }
}
