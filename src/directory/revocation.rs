//! What is no longer to hold before its time: users, tokens, sockets.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Page, PageRequest, Told, iso};

/// At most so many revocations are kept at once, over the cluster.
pub const MAX_REVOCATIONS: usize = 100_000;

/// How long a revocation lasts where the caller does not say: longer than most tokens.
pub const DEFAULT_REVOCATION: Duration = Duration::from_secs(24 * 3600);

/// No revocation lasts longer.
pub const MAX_REVOCATION: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// Every token of a user, by the user's id.
    User(Arc<str>),
    /// One token, by its `jti`, or by its fingerprint where it has none.
    Token(Arc<str>),
    /// One socket, by its id.
    Socket(Arc<str>),
}

/// A revocation. Times are Unix time in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When it was made.
    pub since: u64,
    /// When it ends.
    pub until: u64,
    /// Of a user: tokens that were issued after `since` hold.
    #[serde(default)]
    pub spares_newer: bool,
}

/// A revocation, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationInfo {
    /// What is revoked.
    #[schemars(extend("enum" = ["user", "token", "socket"]))]
    pub kind: &'static str,
    /// The id of the user, token or socket.
    pub id: String,
    /// When it was revoked: ISO 8601 in UTC with milliseconds.
    #[serde(serialize_with = "iso")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: SystemTime,
    /// When the revocation ends.
    #[serde(serialize_with = "iso")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub until: SystemTime,
    /// Of a user: whether tokens that were issued after `since` hold.
    pub spares_newer: bool,
}

/// What became of revoking, or of taking it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// Revocations made or taken back.
    pub changed: usize,
    /// Sockets of this node that were disconnected.
    pub local: usize,
    /// Whether the other nodes were told, and Redis keeps it.
    pub remote: Told,
}

/// Revokes over the whole cluster.
pub trait Revoker: Send + Sync {
    /// Revokes: sockets that it concerns are disconnected, here at once, and what it names is refused until it ends.
    ///
    /// While Redis is away it holds on this node at once, and for the others when Redis is back.
    ///
    /// # Errors
    /// [`super::DirectoryError::Full`] at [`MAX_REVOCATIONS`]; nothing was revoked then.
    fn revoke<'a>(&'a self, subjects: Vec<Subject>, revocation: Revocation) -> Answer<'a, Revoked>;

    /// Takes revocations back.
    fn lift<'a>(&'a self, subjects: Vec<Subject>) -> Answer<'a, Revoked>;

    /// A page of what is revoked, as far as this node knows.
    fn revocations<'a>(&'a self, page: PageRequest) -> Answer<'a, Page<RevocationInfo>>;
}

// === impl Subject ===

impl Subject {
    /// The word for its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Token(_) => "token",
            Self::Socket(_) => "socket",
        }
    }

    /// Its id.
    pub fn id(&self) -> &Arc<str> {
        match self {
            Self::User(id) | Self::Token(id) | Self::Socket(id) => id,
        }
    }

    /// One text for both, for Redis and for cursors.
    pub fn key(&self) -> String {
        format!("{}:{}", self.kind(), self.id())
    }

    /// The way back.
    pub fn of_key(key: &str) -> Option<Self> {
        let (kind, id) = key.split_once(':')?;
        match kind {
            "user" => Some(Self::User(id.into())),
            "token" => Some(Self::Token(id.into())),
            "socket" => Some(Self::Socket(id.into())),
            _ => None,
        }
    }
}

// === impl Revocation ===

impl Revocation {
    /// From now on, for so long.
    pub fn lasting(ttl: Duration) -> Self {
        let since = unix_ms(SystemTime::now());
        let ttl = ttl.clamp(Duration::from_secs(1), MAX_REVOCATION);
        Self { since, until: since + ttl.as_millis() as u64, spares_newer: false }
    }

    /// Whether it has ended.
    pub fn has_ended(&self, now: SystemTime) -> bool {
        self.until <= unix_ms(now)
    }

    /// Whether a token that was issued then (Unix time in s) is spared. One without a time is not, nor one of the same second.
    pub fn spares(&self, issued_at: Option<u64>) -> bool {
        self.spares_newer && issued_at.is_some_and(|at| at > self.since / 1000)
    }
}

/// Unix time in ms; what lies before 1970 is 1970.
pub fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_have_one_text_each() {
        for subject in [Subject::User("a:b".into()), Subject::Token("".into()), Subject::Socket("x".into())] {
            assert_eq!(Subject::of_key(&subject.key()), Some(subject));
        }
        assert_eq!((Subject::of_key("role:x"), Subject::of_key("user")), (None, None));
    }

    #[test]
    fn newer_tokens_are_spared_only_where_it_is_said() {
        let mut revocation = Revocation { since: 5_500, until: 9_000, spares_newer: true };
        assert!(revocation.spares(Some(6)));
        assert!(!revocation.spares(Some(5)) && !revocation.spares(None));
        revocation.spares_newer = false;
        assert!(!revocation.spares(Some(6)));
    }
}
