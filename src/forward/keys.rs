//! The keys that nodes share. The keys are derived from `cluster.secret` and, while that secret is being replaced, from
//! the previous secret.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::config;

/// HMAC-SHA256 with its key.
pub(super) type KeyedHmac = Hmac<Sha256>;

/// The keys of each secret, the newest first. Without any secret, the node forwards no requests.
#[derive(Clone, Default)]
pub struct ClusterKeys(Vec<SecretKeys>);

/// One key for each purpose, so that a code made for one purpose is not valid for another purpose.
#[derive(Clone)]
pub(super) struct SecretKeys {
    /// Hides which node a session id names.
    pub(super) hide: KeyedHmac,
    /// Proves that a node made a session id.
    pub(super) prove: KeyedHmac,
    /// Signs a request.
    pub(super) sign: KeyedHmac,
    /// Signs the answer to a request.
    pub(super) answer: KeyedHmac,
}

impl ClusterKeys {
    /// Derives the keys from the configured secrets.
    pub fn new(config: &config::ClusterSettings) -> Self {
        let secrets = [&config.secret, &config.previous_secret].into_iter().flatten();
        Self(secrets.map(|secret| SecretKeys::derive(secret.expose().as_bytes())).collect())
    }

    /// The keys with which this node makes session ids and signs requests.
    pub(super) fn newest(&self) -> Option<&SecretKeys> {
        self.0.first()
    }

    /// The keys with which other nodes may have made session ids and signed requests.
    pub(super) fn all(&self) -> &[SecretKeys] {
        &self.0
    }
}

impl SecretKeys {
    fn derive(secret: &[u8]) -> Self {
        let key = |purpose: &str| {
            let derived = keyed(secret).chain_update(purpose).finalize().into_bytes();
            keyed(&derived)
        };
        Self {
            hide: key("roomcast session id, hide, 1"),
            prove: key("roomcast session id, prove, 1"),
            sign: key("roomcast forwarded request, 1"),
            answer: key("roomcast forwarded answer, 1"),
        }
    }
}

// The debug output shows no keys, because keys must not appear in logs.
impl std::fmt::Debug for ClusterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ClusterKeys").field(&self.0.len()).finish()
    }
}

fn keyed(key: &[u8]) -> KeyedHmac {
    KeyedHmac::new_from_slice(key).expect("a key of any length will do")
}
