//! The user behind a client, as its token identifies it.

mod claims;

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

pub use claims::Claims;

/// The user behind a session. Shared by every session that one token opened.
#[derive(Clone)]
pub struct User {
    /// The user's id: the claim that the contract names (`sub`), empty for anonymous users.
    pub id: Arc<str>,
    /// The user's roles, from the claim that the contract names.
    pub roles: Arc<[String]>,
    /// All claims of the verified token.
    pub claims: Claims,
    /// Whether the client gave no token, and the contract permits that.
    pub anonymous: bool,
    /// When the token expires (`exp`).
    pub expires_at: Option<SystemTime>,
    /// The token's id (`jti`, or else a fingerprint), by which the token can be revoked.
    pub token_id: Option<Arc<str>>,
}

static NOBODY: LazyLock<Arc<User>> = LazyLock::new(|| {
    Arc::new(User {
        id: "".into(),
        roles: Arc::new([]),
        claims: Claims::default(),
        anonymous: true,
        expires_at: None,
        token_id: None,
    })
});

impl User {
    /// The user of a client without a token.
    pub fn anonymous() -> Self {
        Self::clone(&NOBODY)
    }

    /// The user of clients without a token, as one shared value.
    pub fn nobody() -> Arc<Self> {
        NOBODY.clone()
    }

    /// Creates a user with nothing but an id, for tests and tools.
    pub fn named(id: &str) -> Self {
        Self { id: id.into(), anonymous: false, ..Self::anonymous() }
    }
}

// Claims may hold personal data: only the id is shown.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("anonymous", &self.anonymous).finish_non_exhaustive()
    }
}
