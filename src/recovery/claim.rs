//! A session that was taken from the store for a client whose handshake is not complete yet.

use std::sync::Arc;
use std::time::Duration;

use super::redis::Writing;
use super::{Recovery, SessionStore, StoredSession};

/// A session that was taken from the store. Dropping this value stores the session again, unless the client got the
/// session: a connect hook may refuse the client, or the client may disconnect while the hook is asked.
pub struct SessionClaim {
    recovery: Arc<Recovery>,
    session: Option<ClaimedParts>,
}

/// Everything that is needed to store the session again.
struct ClaimedParts {
    key: Arc<str>,
    digest: String,
    kept: StoredSession,
    window: Duration,
}

impl SessionClaim {
    pub(super) fn new(
        recovery: &Arc<Recovery>,
        key: &Arc<str>,
        digest: String,
        kept: &StoredSession,
        window: Duration,
    ) -> Self {
        let session = ClaimedParts { key: key.clone(), digest, kept: kept.clone(), window };
        Self { recovery: recovery.clone(), session: Some(session) }
    }

    /// Notes that the client got the session.
    pub fn accept(&mut self) {
        self.session = None;
    }

    /// Stores the session again, for its whole recovery window from now on. Waits until the session is stored, so that
    /// the client can return at once.
    pub async fn give_back(mut self) {
        if let Some(session) = self.session.take() {
            self.recovery.store_again(session).await;
        }
    }
}

impl Drop for SessionClaim {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let recovery = self.recovery.clone();
            self.recovery.tasks.spawn(async move { recovery.store_again(session).await });
        }
    }
}

impl Recovery {
    async fn store_again(&self, session: ClaimedParts) {
        let ClaimedParts { key, digest, kept, window } = session;
        match &self.store {
            SessionStore::Memory(memory) => memory.keep(key, digest, kept, window),
            SessionStore::Redis(redis) => {
                if redis.save(&Writing::again(key, digest, window), &kept).await.is_err() {
                    self.metrics.recovery_errors_total.with_label_values(&["end"]).inc();
                }
            }
        }
    }
}

impl std::fmt::Debug for SessionClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("accepted", &self.session.is_none()).finish_non_exhaustive()
    }
}
