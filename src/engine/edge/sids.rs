//! The one table that finds a session by its id on the wire. Ids are made by [`crate::forward`]: each is a secret that only the
//! client is told, in the answer to its handshake, and names its node.
//!
//! A session that opened with a WebSocket is in no table: no later request belongs to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::session::EngineSession;

/// How long the id of a polling session that we closed is remembered. Within this time its polls are answered with a close
/// packet; later ones with "Session ID unknown".
const REMEMBER_CLOSED: Duration = Duration::from_secs(30);

/// How long a drain waits for a polling client to come for the news that its session is closed.
const NEWS: Duration = Duration::from_secs(3);

/// The most closed sessions that are remembered.
const MAX_CLOSED: usize = 65_536;

/// The table from session id to session.
#[derive(Default)]
pub(super) struct Sids {
    open: Mutex<HashMap<Box<str>, Weak<EngineSession>>>,
    closed: Mutex<HashMap<Box<str>, Closed>>,
}

/// A session that a request names.
pub(super) enum Named {
    /// It is open.
    Open(Arc<EngineSession>),
    /// The node closed it a short while ago, and its client may not know.
    Closed,
    /// No session of this node has this id.
    Unknown,
}

/// A polling session that the node has closed.
struct Closed {
    at: Instant,
    /// The client polls, and does not know it yet.
    untold: bool,
}

impl Sids {
    /// Enters a session under an id by which requests find it.
    pub(super) fn enter(&self, sid: &str, session: &Arc<EngineSession>) {
        self.open().insert(sid.into(), Arc::downgrade(session));
    }

    /// The session that a request names.
    pub(super) fn find(&self, sid: &str) -> Named {
        let open = self.open().get(sid).and_then(Weak::upgrade);
        match open {
            Some(session) => Named::Open(session),
            None if self.closed().get(sid).is_some_and(|closed| closed.at.elapsed() < REMEMBER_CLOSED) => Named::Closed,
            None => Named::Unknown,
        }
    }

    /// Forgets a session that is over.
    pub(super) fn remove(&self, sid: &str) {
        self.open().remove(sid);
    }

    /// Remembers that the node closed a session; with `untold`, that its client has to hear of it.
    pub(super) fn close(&self, sid: &str, untold: bool) {
        self.remove(sid);
        let mut closed = self.closed();
        if closed.len() >= MAX_CLOSED {
            closed.retain(|_, closed| closed.at.elapsed() < REMEMBER_CLOSED);
        }
        if closed.len() < MAX_CLOSED {
            closed.insert(sid.into(), Closed { at: Instant::now(), untold });
        }
    }

    /// The client of a closed session was told.
    pub(super) fn told(&self, sid: &str) {
        if let Some(closed) = self.closed().get_mut(sid) {
            closed.untold = false;
        }
    }

    /// How many polling clients do not know yet that their sessions are closed, and may still come for the news.
    pub(super) fn untold(&self) -> usize {
        self.closed().values().filter(|closed| closed.untold && closed.at.elapsed() < NEWS).count()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Box<str>, Weak<EngineSession>>> {
        self.open.lock().expect("no panic while held")
    }

    fn closed(&self) -> MutexGuard<'_, HashMap<Box<str>, Closed>> {
        self.closed.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_sessions_are_remembered_until_their_clients_are_told() {
        let sids = Sids::default();
        assert!(matches!(sids.find("a"), Named::Unknown));
        sids.close("a", true);
        sids.close("b", false);
        assert!(matches!(sids.find("a"), Named::Closed));
        assert_eq!(sids.untold(), 1);
        sids.told("a");
        assert_eq!(sids.untold(), 0);
        assert!(matches!(sids.find("a"), Named::Closed), "a client that asks again hears it again");
    }
}
