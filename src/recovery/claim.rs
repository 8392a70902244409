//! A session that was taken from the store for a client whose handshake is not complete yet.

use std::sync::Arc;

use super::{EndedSession, Recovery};

/// A session that was taken from the store. Dropping this value stores the session again, unless the client got the
/// session: a connect hook may refuse the client, or the client may disconnect while the hook is asked.
pub struct SessionClaim {
    recovery: Arc<Recovery>,
    /// The session as it is stored again.
    session: Option<EndedSession>,
}

impl SessionClaim {
    pub(super) fn new(recovery: &Arc<Recovery>, session: EndedSession) -> Self {
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
            self.recovery.keep(session).await;
        }
    }
}

impl Drop for SessionClaim {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let recovery = self.recovery.clone();
            self.recovery.tasks.spawn(async move { recovery.keep(session).await });
        }
    }
}

impl std::fmt::Debug for SessionClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("accepted", &self.session.is_none()).finish_non_exhaustive()
    }
}
