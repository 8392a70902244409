//! The table that finds a session by its Engine.IO session id. [`crate::forward`] makes these ids. Each is a secret
//! that only the client learns, in the answer to its handshake, and it names the session's node.
//!
//! A session that began with a WebSocket is not in the table, because no later request names it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::session::EngineSession;

/// How long the id of a polling session that we closed is remembered. Within this time its polls are answered with a
/// close packet; later ones with "Session ID unknown".
const REMEMBER_CLOSED: Duration = Duration::from_secs(30);

/// How long a drain waits for a polling client to learn that its session is closed.
const NEWS: Duration = Duration::from_secs(3);

/// The maximum number of closed sessions that are remembered.
const MAX_CLOSED: usize = 65_536;

/// The table from session id to session.
#[derive(Default)]
pub(super) struct Sids {
    open: Mutex<HashMap<Box<str>, Weak<EngineSession>>>,
    closed: Mutex<HashMap<Box<str>, ClosedSession>>,
}

/// The result of looking up a session id.
pub(super) enum SidLookup {
    /// The session is open.
    Open(Arc<EngineSession>),
    /// The node closed the session at most [`REMEMBER_CLOSED`] ago, so its client may not know it yet.
    Closed,
    /// No session of this node has the id.
    Unknown,
}

/// A polling session that the node has closed.
struct ClosedSession {
    at: Instant,
    /// Whether the client polls and has not yet been told that its session is closed.
    untold: bool,
}

impl Sids {
    /// Adds a session under its id.
    pub(super) fn enter(&self, sid: &str, session: &Arc<EngineSession>) {
        self.open().insert(sid.into(), Arc::downgrade(session));
    }

    /// Looks up the session that a request names.
    pub(super) fn find(&self, sid: &str) -> SidLookup {
        let open = self.open().get(sid).and_then(Weak::upgrade);
        match open {
            Some(session) => SidLookup::Open(session),
            None if self.closed().get(sid).is_some_and(|closed| closed.at.elapsed() < REMEMBER_CLOSED) => {
                SidLookup::Closed
            }
            None => SidLookup::Unknown,
        }
    }

    /// Removes a session that has ended.
    pub(super) fn remove(&self, sid: &str) {
        self.open().remove(sid);
    }

    /// Remembers that the node closed a session. `untold`: the client has not yet been told that its session is closed.
    pub(super) fn close(&self, sid: &str, untold: bool) {
        self.remove(sid);
        let mut closed = self.closed();
        if closed.len() >= MAX_CLOSED {
            closed.retain(|_, closed| closed.at.elapsed() < REMEMBER_CLOSED);
        }
        if closed.len() < MAX_CLOSED {
            closed.insert(sid.into(), ClosedSession { at: Instant::now(), untold });
        }
    }

    /// Records that the client of a closed session has been told that its session is closed.
    pub(super) fn told(&self, sid: &str) {
        if let Some(closed) = self.closed().get_mut(sid) {
            closed.untold = false;
        }
    }

    /// How many polling clients have not been told yet that their sessions are closed, and may still poll before a
    /// drain stops waiting for them.
    pub(super) fn untold(&self) -> usize {
        self.closed().values().filter(|closed| closed.untold && closed.at.elapsed() < NEWS).count()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Box<str>, Weak<EngineSession>>> {
        self.open.lock().expect("no thread panics while it holds this lock")
    }

    fn closed(&self) -> MutexGuard<'_, HashMap<Box<str>, ClosedSession>> {
        self.closed.lock().expect("no thread panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_sessions_are_remembered_until_their_clients_are_told() {
        let sids = Sids::default();
        assert!(matches!(sids.find("a"), SidLookup::Unknown));
        sids.close("a", true);
        sids.close("b", false);
        assert!(matches!(sids.find("a"), SidLookup::Closed));
        assert_eq!(sids.untold(), 1);
        sids.told("a");
        assert_eq!(sids.untold(), 0);
        assert!(matches!(sids.find("a"), SidLookup::Closed), "a client that asks again hears it again");
    }
}
