//! The connection of a client that the library serves. This module counts the bytes that wait and closes the
//! connection, because the library has no functions for these two tasks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use futures_util::future::BoxFuture;

use crate::engine::closable_stream::KillSwitch;
use crate::engine::edge::{Connection, EngineSession};
use crate::engine::queue_estimate::{QueueEstimate, WriteQueueLimits};

/// How long a polling client between two polls may take to fetch what is queued, before its session is closed.
const LAST_POLL: Duration = Duration::from_secs(2);

/// The maximum time until a poll is answered if packets are queued. A closing session is checked this often.
const ANSWERED: Duration = Duration::from_millis(50);

/// The time within which the packets queued for a WebSocket must be written when the WebSocket is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A writable connection that has written nothing for this long has flushed its queue.
const WRITTEN: Duration = Duration::from_millis(10);

/// Closes a polling session of the library, by the library's id and the version of Engine.IO.
pub(super) type Closer = Arc<dyn Fn(&str, u8) -> BoxFuture<'static, ()> + Send + Sync>;

/// The library's connection to one client. The [`EngineSession`] in the handshake's extensions holds it, so that both
/// live exactly as long as the library's own session.
pub(super) struct LibraryConnection {
    closer: Closer,
    bounds: WriteQueueLimits,
    // A weak reference to the switch, which shows whether the connection still exists, because the connection owns the
    // switch.
    websocket: Mutex<Option<Weak<KillSwitch>>>,
    /// The counter of waiting bytes; unset until the client joins a namespace, because nothing waits for it before.
    estimate: OnceLock<Arc<QueueEstimate>>,
    /// The id that the library gave a session which began with polling. Unset until the library has answered the
    /// handshake, and for a session that began with a WebSocket. It is also the session's Socket.IO id.
    inner: OnceLock<Box<str>>,
    /// The number of polls of the client that wait now. `polled` is the number of all polls so far.
    polls: AtomicU64,
    polled: AtomicU64,
}

impl LibraryConnection {
    pub(super) fn new(closer: Closer, bounds: WriteQueueLimits, websocket: Option<&Arc<KillSwitch>>) -> Arc<Self> {
        Arc::new(Self {
            closer,
            bounds,
            websocket: Mutex::new(websocket.map(Arc::downgrade)),
            estimate: OnceLock::new(),
            inner: OnceLock::new(),
            polls: AtomicU64::new(0),
            polled: AtomicU64::new(0),
        })
    }

    /// Records the id that the library gave a session which began with polling.
    pub(super) fn set_inner(&self, inner: &str) {
        let _ = self.inner.set(inner.into());
    }

    /// The id that the library gave a session which began with polling.
    pub(super) fn inner(&self) -> Option<&str> {
        self.inner.get().map(|inner| &**inner)
    }

    /// Records that the session moves to a WebSocket whose handshake has been answered.
    pub(super) fn upgrading(&self, kill: &Arc<KillSwitch>, session: &Arc<EngineSession>) {
        *self.websocket() = Some(Arc::downgrade(kill));
        end_with(kill, session);
        self.close_with(kill, session.peer().protocol);
        // A WebSocket that opens while the node closes the session must close, too.
        if session.is_closing() {
            kill.close();
        }
        if let Some(estimate) = self.estimate.get() {
            kill.count_for(estimate);
        }
    }

    /// Closes the library's session when its WebSocket is gone. The library does so itself, except for a translated
    /// WebSocket that breaks during the upgrade.
    fn close_with(&self, websocket: &KillSwitch, protocol: u8) {
        let (gone, closer) = (websocket.gone(), self.closer.clone());
        if let Some(inner) = self.inner().filter(|_| protocol == 3).map(str::to_owned) {
            tokio::spawn(async move {
                gone.cancelled().await;
                closer(&inner, protocol).await;
            });
        }
    }

    /// Closes the connection if the client has no session after this time.
    pub(super) fn must_join_within(self: &Arc<Self>, time: Duration, session: &Arc<EngineSession>) {
        let (connection, session) = (Arc::downgrade(self), Arc::downgrade(session));
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let has_joined = |connection: Arc<Self>| connection.estimate.get().is_some();
            if let (Some(connection), Some(session)) = (connection.upgrade(), session.upgrade())
                && !has_joined(connection)
            {
                session.close();
            }
        });
    }

    /// The counter of the bytes that wait for the client. Counting begins with the first call, when the client joins
    /// its first namespace.
    pub(super) fn estimate(&self) -> Arc<QueueEstimate> {
        let estimate = self.estimate.get_or_init(|| Arc::new(QueueEstimate::new(self.bounds)));
        let websocket = self.websocket().clone();
        if let Some(kill) = websocket.as_ref().and_then(Weak::upgrade) {
            kill.count_for(estimate);
        }
        estimate.clone()
    }

    /// Records that the client has fetched a body. `bytes` is its length, if that is known.
    pub(super) fn fetched(&self, bytes: Option<u64>) {
        match (self.estimate.get(), bytes) {
            (Some(estimate), Some(bytes)) => estimate.left(bytes),
            (Some(estimate), None) => estimate.drained(),
            (None, _) => {}
        }
    }

    /// Counts a poll of the client as waiting, until the returned guard is dropped.
    pub(super) fn polling(self: &Arc<Self>) -> PollGuard {
        self.polls.fetch_add(1, Ordering::AcqRel);
        self.polled.fetch_add(1, Ordering::AcqRel);
        PollGuard(self.clone())
    }

    /// Whether a poll waits now, or another poll has come since there were `polled` polls. In both cases the queued
    /// packets are on their way.
    fn is_fetched(&self, polled: u64) -> bool {
        self.polls.load(Ordering::Acquire) > 0 || self.polled.load(Ordering::Acquire) > polled
    }

    fn websocket(&self) -> MutexGuard<'_, Option<Weak<KillSwitch>>> {
        self.websocket.lock().expect("no thread panics while it holds this lock")
    }
}

impl Connection for LibraryConnection {
    fn waiting(&self) -> (usize, usize) {
        (0, self.estimate.get().map_or(0, |estimate| estimate.waiting()))
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
        match (&kill, self.estimate.get()) {
            (Some(kill), Some(estimate)) => {
                tokio::spawn(close_after(estimate.clone(), Arc::downgrade(kill)));
            }
            (Some(kill), None) => kill.close(),
            (None, _) => {}
        }
        let websocket = websocket.filter(|_| kill.is_some());
        // The task gets weak references, so that it does not keep alive a session that ends by itself.
        tokio::spawn(ensure_end(Arc::downgrade(session), Arc::downgrade(&self), websocket));
    }

    fn public_id(&self) -> Option<ByteString> {
        self.inner().map(ByteString::from)
    }
}

/// Stops counting the client as soon as its WebSocket is gone. The library keeps a session that is in no namespace
/// until `server.connect_timeout`, even if its connection is gone.
pub(super) fn end_with(websocket: &KillSwitch, session: &Arc<EngineSession>) {
    let (gone, session) = (websocket.gone(), Arc::downgrade(session));
    tokio::spawn(async move {
        gone.cancelled().await;
        if let Some(session) = session.upgrade() {
            session.end();
        }
    });
}

/// Makes sure that a session which the node is closing ends.
async fn ensure_end(
    session: Weak<EngineSession>,
    connection: Weak<LibraryConnection>,
    websocket: Option<Weak<KillSwitch>>,
) {
    let protocol = session.upgrade().map_or(4, |session| session.peer().protocol);
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
        // If the session has moved to its WebSocket, the library refuses this request and nothing happens.
        closer(&inner, protocol).await;
    }
    while websocket.as_ref().is_some_and(|websocket| websocket.strong_count() > 0) {
        tokio::time::sleep(ANSWERED).await;
    }
    if let Some(session) = session.upgrade() {
        session.end();
    }
}

/// Closes a client's WebSocket when the queued packets have been written, or cannot be written. The library stops
/// writing as soon as it sees the end of the stream, so this must wait.
async fn close_after(estimate: Arc<QueueEstimate>, websocket: Weak<KillSwitch>) {
    let by = Instant::now() + LAST_WORDS;
    let mut left = None;
    // The written bytes include frame headers, so the counter reaches zero slightly too early. Wait until nothing
    // more is written.
    while !estimate.is_blocked() && Instant::now() < by {
        let now = estimate.departed();
        if estimate.waiting() == 0 && left == Some(now) {
            break;
        }
        left = Some(now);
        tokio::time::sleep(WRITTEN).await;
    }
    if let Some(kill) = websocket.upgrade() {
        kill.close();
    }
}

/// A guard that exists while a poll waits.
pub(super) struct PollGuard(Arc<LibraryConnection>);

impl Drop for PollGuard {
    fn drop(&mut self) {
        let waiting = self.0.polls.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(waiting > 0, "a poll that was not counted has ended");
    }
}
