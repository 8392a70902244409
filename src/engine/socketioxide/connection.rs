//! A connection of a client that the library serves: what waits for it, and how it is closed. The library tells neither.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytestring::ByteString;

use super::front::Closer;
use crate::engine::conn::KillSwitch;
use crate::engine::edge::{Connection, EngineSession};
use crate::engine::outstanding::{Bounds, Outstanding};

/// How long a polling client that is between two polls may take to fetch what is queued, before its session is closed.
const LAST_POLL: Duration = Duration::from_secs(2);

/// A poll that finds something queued is answered within this; how often a session that closes is looked at.
const ANSWERED: Duration = Duration::from_millis(50);

/// How long what is queued for a WebSocket of the library may take to leave when it is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A writable connection that has written nothing for this long has flushed its queue.
const WRITTEN: Duration = Duration::from_millis(10);

/// The library's connection to one client. The [`EngineSession`] among the handshake's extensions keeps it, so that both live
/// exactly as long as the library's own session.
pub(super) struct LibraryConnection {
    closer: Closer,
    bounds: Bounds,
    // Weak: the connection itself keeps it, so that one that is gone can be told from one that is there.
    websocket: Mutex<Option<Weak<KillSwitch>>>,
    outstanding: OnceLock<Arc<Outstanding>>,
    /// The library's id of a session that began by polling, which is its Socket.IO id.
    inner: OnceLock<Box<str>>,
    /// Polls that wait now, and all that ever came.
    polls: AtomicU64,
    polled: AtomicU64,
}

impl LibraryConnection {
    pub(super) fn new(closer: Closer, bounds: Bounds, websocket: Option<&Arc<KillSwitch>>) -> Arc<Self> {
        Arc::new(Self {
            closer,
            bounds,
            websocket: Mutex::new(websocket.map(Arc::downgrade)),
            outstanding: OnceLock::new(),
            inner: OnceLock::new(),
            polls: AtomicU64::new(0),
            polled: AtomicU64::new(0),
        })
    }

    /// Notes the library's id of a session that began by polling.
    pub(super) fn set_inner(&self, inner: &str) {
        let _ = self.inner.set(inner.into());
    }

    /// The library's id of a session that began by polling.
    pub(super) fn inner(&self) -> Option<&str> {
        self.inner.get().map(|inner| &**inner)
    }

    /// Notes that the session moves to a WebSocket, which has answered its handshake.
    pub(super) fn upgrading(&self, kill: &Arc<KillSwitch>, session: &Arc<EngineSession>) {
        *self.websocket() = Some(Arc::downgrade(kill));
        end_with(kill, session);
        // One that opens while the node closes the session closes with it.
        if session.is_closing() {
            kill.close();
        }
        if let Some(outstanding) = self.outstanding.get() {
            kill.count_for(outstanding);
        }
    }

    /// What waits for the client, counted from the first call on.
    pub(super) fn outstanding(&self) -> Arc<Outstanding> {
        let outstanding = self.outstanding.get_or_init(|| Arc::new(Outstanding::new(self.bounds)));
        let websocket = self.websocket().clone();
        if let Some(kill) = websocket.as_ref().and_then(Weak::upgrade) {
            kill.count_for(outstanding);
        }
        outstanding.clone()
    }

    /// The client has fetched a body of so many bytes, if that is known.
    pub(super) fn fetched(&self, bytes: Option<u64>) {
        match (self.outstanding.get(), bytes) {
            (Some(outstanding), Some(bytes)) => outstanding.left(bytes),
            (Some(outstanding), None) => outstanding.drained(),
            (None, _) => {}
        }
    }

    /// Notes that the client polls, for as long as what is returned lives.
    pub(super) fn polling(self: &Arc<Self>) -> Poll {
        self.polls.fetch_add(1, Ordering::AcqRel);
        self.polled.fetch_add(1, Ordering::AcqRel);
        Poll(self.clone())
    }

    /// Whether a poll waits, or one has come since: then what was queued is on its way.
    fn is_fetched(&self, polled: u64) -> bool {
        self.polls.load(Ordering::Acquire) > 0 || self.polled.load(Ordering::Acquire) > polled
    }

    fn websocket(&self) -> MutexGuard<'_, Option<Weak<KillSwitch>>> {
        self.websocket.lock().expect("no panic while held")
    }
}

impl Connection for LibraryConnection {
    fn waiting(&self) -> (usize, usize) {
        (0, self.outstanding.get().map_or(0, |outstanding| outstanding.waiting()))
    }

    fn compresses(&self) -> bool {
        false
    }

    fn is_websocket(&self) -> bool {
        self.websocket().is_some()
    }

    fn close(self: Arc<Self>, session: &Arc<EngineSession>) {
        let websocket = self.websocket().clone();
        let kill = websocket.as_ref().and_then(Weak::upgrade);
        match (&kill, self.outstanding.get()) {
            (Some(kill), Some(outstanding)) => {
                tokio::spawn(close_after(outstanding.clone(), Arc::downgrade(kill)));
            }
            (Some(kill), None) => kill.close(),
            (None, _) => {}
        }
        let websocket = websocket.filter(|_| kill.is_some());
        // Weak: what ends by itself is not kept for this.
        tokio::spawn(see_off(Arc::downgrade(session), Arc::downgrade(&self), websocket));
    }

    fn public_id(&self) -> Option<ByteString> {
        self.inner().map(ByteString::from)
    }
}

/// Gives the client's place back as soon as its WebSocket is gone. The library keeps a session that is in no namespace until
/// `server.connect_timeout`, whatever has become of its connection.
pub(super) fn end_with(websocket: &KillSwitch, session: &Arc<EngineSession>) {
    let (gone, session) = (websocket.gone(), Arc::downgrade(session));
    tokio::spawn(async move {
        gone.cancelled().await;
        if let Some(session) = session.upgrade() {
            session.end();
        }
    });
}

/// Sees to it that a session that the node closes comes to its end.
async fn see_off(
    session: Weak<EngineSession>,
    connection: Weak<LibraryConnection>,
    websocket: Option<Weak<KillSwitch>>,
) {
    let ids = |connection: Arc<LibraryConnection>| Some((connection.closer.clone(), connection.inner()?.to_owned()));
    if let Some((closer, inner)) = connection.upgrade().and_then(ids) {
        if websocket.is_none() {
            let by = Instant::now() + LAST_POLL;
            let polled = connection.upgrade().map_or(0, |connection| connection.polled.load(Ordering::Acquire));
            while connection.upgrade().is_some_and(|connection| !connection.is_fetched(polled)) && Instant::now() < by {
                tokio::time::sleep(ANSWERED).await;
            }
        }
        if let Some(session) = session.upgrade() {
            session.remember_closed(websocket.is_none());
        }
        // If the session has moved to its WebSocket, the library refuses this, and nothing happens.
        closer(&inner).await;
    }
    while websocket.as_ref().is_some_and(|websocket| websocket.strong_count() > 0) {
        tokio::time::sleep(ANSWERED).await;
    }
    if let Some(session) = session.upgrade() {
        session.end();
    }
}

/// Closes a client's WebSocket in the library when what is queued has left, or cannot leave. As soon as the library sees the
/// end of what it reads, it writes no more.
async fn close_after(outstanding: Arc<Outstanding>, websocket: Weak<KillSwitch>) {
    let by = Instant::now() + LAST_WORDS;
    let mut left = None;
    // What leaves has frames around it, so nothing waits a little earlier than everything has left.
    while !outstanding.is_blocked() && Instant::now() < by {
        let now = outstanding.departed();
        if outstanding.waiting() == 0 && left == Some(now) {
            break;
        }
        left = Some(now);
        tokio::time::sleep(WRITTEN).await;
    }
    if let Some(kill) = websocket.upgrade() {
        kill.close();
    }
}

/// A request of a client that waits for what is queued.
pub(super) struct Poll(Arc<LibraryConnection>);

impl Drop for Poll {
    fn drop(&mut self) {
        self.0.polls.fetch_sub(1, Ordering::AcqRel);
    }
}
