//! Revocations: users, tokens and sockets that nodes refuse although the tokens have not expired.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DirectoryFuture, Page, PageRequest, SendOutcome, iso};
use crate::time::{millis, unix_millis};

/// Maximum number of revocations at a time, over the whole cluster.
pub const MAX_REVOCATIONS: usize = 100_000;

/// How long a revocation lasts if the caller gives no duration. This is longer than most tokens are valid.
pub const DEFAULT_REVOCATION: Duration = Duration::from_secs(24 * 3600);

/// The longest time that a revocation may last.
pub const MAX_REVOCATION: Duration = Duration::from_secs(30 * 24 * 3600);

/// The user, token or socket that a revocation applies to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// Every token of a user, by the user's id.
    User(Arc<str>),
    /// One token, by its `jti`, or by its fingerprint if it has no `jti`.
    Token(Arc<str>),
    /// One socket, by its id.
    Socket(Arc<str>),
}

/// A revocation. Times are Unix time in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When the revocation was made.
    pub since: u64,
    /// When the revocation ends.
    pub until: u64,
    /// For a user only: tokens issued after `since` stay valid.
    #[serde(default)]
    pub spares_newer: bool,
}

/// A revocation, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationInfo {
    /// The user, token or socket.
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
    /// Only for a user: whether tokens that were issued after `since` stay valid.
    pub spares_newer: bool,
}

/// The result of making or lifting revocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// Number of revocations that were made or lifted.
    pub changed: usize,
    /// Number of sockets of this node that were disconnected.
    pub local: usize,
    /// Whether the change was sent to the other nodes, and is stored in Redis.
    pub remote: SendOutcome,
}

/// Revokes over the whole cluster.
pub trait Revoker: Send + Sync {
    /// Revokes the subjects until the revocation ends, and disconnects their sockets, those of this node at once.
    ///
    /// While Redis is unavailable, a revocation applies to this node at once, and to the other nodes when Redis is
    /// back.
    ///
    /// # Errors
    /// Returns [`super::DirectoryError::Full`] at [`MAX_REVOCATIONS`]; nothing was revoked then.
    fn revoke<'a>(&'a self, subjects: Vec<Subject>, revocation: Revocation) -> DirectoryFuture<'a, Revoked>;

    /// Lifts revocations.
    fn lift<'a>(&'a self, subjects: Vec<Subject>) -> DirectoryFuture<'a, Revoked>;

    /// A page of the revocations in the memory of this node.
    fn revocations<'a>(&'a self, page: PageRequest) -> DirectoryFuture<'a, Page<RevocationInfo>>;
}

// === impl Subject ===

impl Subject {
    /// Returns the word for the kind of subject.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Token(_) => "token",
            Self::Socket(_) => "socket",
        }
    }

    /// The subject's id.
    pub fn id(&self) -> &Arc<str> {
        match self {
            Self::User(id) | Self::Token(id) | Self::Socket(id) => id,
        }
    }

    /// Returns kind and id of the subject as one text, for Redis and for cursors.
    pub fn key(&self) -> String {
        format!("{}:{}", self.kind(), self.id())
    }

    /// Parses a text that [`Subject::key`] made.
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
    /// Creates a revocation that begins now and lasts for `ttl`.
    pub fn lasting(ttl: Duration) -> Self {
        let since = unix_millis(SystemTime::now());
        let ttl = ttl.clamp(Duration::from_secs(1), MAX_REVOCATION);
        Self { since, until: since + millis(ttl), spares_newer: false }
    }

    /// Whether the revocation has ended.
    pub fn has_ended(&self, now: SystemTime) -> bool {
        self.until <= unix_millis(now)
    }

    /// Whether a token that was issued at this time (in seconds of Unix time) stays valid. A token without `iat`, or
    /// issued in the same second as the revocation, does not.
    pub fn spares(&self, issued_at: Option<u64>) -> bool {
        self.spares_newer && issued_at.is_some_and(|at| at > self.since / 1000)
    }
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
