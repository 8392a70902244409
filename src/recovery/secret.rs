//! The secret with which a client recovers its session, and the digest of its user.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::user::User;

/// Length of a secret, in characters.
const LENGTH: usize = 43;

/// Claims that describe the token and not its user.
const OF_THE_TOKEN: [&str; 4] = ["iat", "exp", "nbf", "jti"];

/// A client's secret. A client that presents the secret, and is the same user, gets the session.
#[derive(Clone, PartialEq, Eq)]
pub struct Pid(Arc<str>);

/// A secret, and the key under which its session is stored.
#[derive(Debug, Clone)]
pub struct RecoveryTicket {
    /// The secret, which is sent to the client only.
    pub pid: Pid,
    /// The key: a digest of the namespace and the secret.
    pub key: Arc<str>,
}

impl Pid {
    /// Creates a secret with 244 random bits.
    fn random() -> Self {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(Uuid::new_v4().as_bytes());
        bytes[16..].copy_from_slice(Uuid::new_v4().as_bytes());
        Self(URL_SAFE_NO_PAD.encode(bytes).into())
    }

    /// Reads the secret that a client sends back; `None` when it is malformed.
    pub fn read(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (text.len() == LENGTH && text.bytes().all(plain)).then(|| Self(text.into()))
    }

    /// The secret as text, for the client.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl RecoveryTicket {
    /// Creates a ticket for a new session.
    pub fn new(namespace: &str) -> Self {
        Self::of(Pid::random(), namespace)
    }

    /// Creates the ticket of a secret.
    pub fn of(pid: Pid, namespace: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(namespace.as_bytes());
        digest.update([0]);
        digest.update(pid.0.as_bytes());
        let key = URL_SAFE_NO_PAD.encode(digest.finalize()).into();
        Self { pid, key }
    }
}

/// A digest of the user. Two tokens with the same id, roles and claims of the user give the same digest.
pub(super) fn digest(user: &User) -> String {
    let claims: BTreeMap<String, Value> =
        user.claims.to_map().into_iter().filter(|(name, _)| !OF_THE_TOKEN.contains(&name.as_str())).collect();
    let text = serde_json::json!([&*user.id, user.anonymous, &*user.roles, claims]).to_string();
    URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::Claims;

    fn user(claims: Value) -> User {
        let Value::Object(claims) = claims else { unreachable!() };
        User { claims: Claims::of(&claims), ..User::named("u") }
    }

    #[test]
    fn secret_is_long_not_shown_and_of_one_namespace() {
        let ticket = RecoveryTicket::new("/a");
        assert_eq!(Pid::read(ticket.pid.expose()), Some(ticket.pid.clone()));
        assert_ne!(RecoveryTicket::of(ticket.pid.clone(), "/b").key, ticket.key);
        assert!(!format!("{ticket:?}").contains(ticket.pid.expose()));
        assert!(!ticket.key.contains(ticket.pid.expose()));
        for rubbish in ["", "x", &"é".repeat(22), &"x".repeat(44)] {
            assert_eq!(Pid::read(rubbish), None);
        }
    }

    #[test]
    fn fresh_token_is_the_same_user_and_other_claims_are_not() {
        let json = |text: &str| user(serde_json::from_str(text).unwrap());
        let first = digest(&json(r#"{"sub":"u","org":1,"iat":1,"exp":2,"jti":"x"}"#));
        assert_eq!(first, digest(&json(r#"{"exp":9,"org":1,"sub":"u"}"#)));
        assert_ne!(first, digest(&json(r#"{"sub":"u","org":2}"#)));
        assert_ne!(digest(&User::named("a")), digest(&User::named("b")));
    }
}
