//! Recovery: a client that returns soon gets its session back, with its id, its rooms and the events it missed.
//!
//! This is the connection state recovery of Socket.IO's official client. CONNECT tells the client a secret (`pid`), and
//! events carry a position as their last argument; the client sends both back when it returns. A session is recovered
//! only if the histories of all its rooms prove that no event is missing: `docs/recovery.md`.
//!
//! A single node stores a session in memory when the session ends. A cluster stores a session in Redis when the session
//! begins, so that another node finds the session after its own node was killed.

mod claim;
mod forbidden;
mod memory;
mod missed;
mod redis;
mod secret;
mod stored;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::contract::model::RecoveryPolicy;
use crate::history::{History, HistoryError, HistoryQuery, PageOrder, RoomKey};
use crate::session::offsets::{ClientOffset, HistoryPoint, OffsetsSnapshot, ReceptionRun};
use crate::session::{Close, Session};
use crate::store::{MemoryOrRedis, on_store};
use crate::telemetry::metrics::Metrics;
use crate::user::User;

pub use claim::SessionClaim;
pub use memory::MemorySessionStore;
pub use missed::{HistoryCursor, MissedEvent, ShownEvents};
pub use redis::RedisSessionStore;
pub use secret::{Pid, RecoveryTicket};
pub use stored::{EndedSession, StoredSession};

use crate::redis::Redis;

/// How often the node stores sessions whose rooms have changed, and reports that it is alive.
const TICK: Duration = Duration::from_secs(1);

/// How often the node tries to report that it is alive, before the first report has succeeded.
const SOON: Duration = Duration::from_millis(20);

/// How long a returning client waits for its earlier session on this node to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the stored state of a connected session is renewed.
const RENEW: Duration = Duration::from_secs(20 * 60);

/// Why a client gets a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryFailure {
    /// The session never existed, was removed, or was recovered already.
    #[error("the session is not known")]
    Unknown,
    /// The session's node has not reported that it is alive for longer than the recovery window.
    #[error("the session has expired")]
    Expired,
    /// The session belongs to another user, or the user's claims have changed.
    #[error("the session is another user's")]
    Refused,
    /// The histories do not prove which events the client missed.
    #[error("the missed events are not known")]
    Incomplete,
    /// The client missed more events than the limit.
    #[error("too many events were missed")]
    TooMuch,
    /// Redis or a history is unavailable, or this node does not receive the other nodes' messages.
    #[error("the session cannot be looked up")]
    Unavailable,
}

impl RecoveryFailure {
    /// The failure's label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Incomplete => "incomplete",
            Self::TooMuch => "too_much",
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<HistoryError> for RecoveryFailure {
    fn from(_: HistoryError) -> Self {
        Self::Unavailable
    }
}

/// A session that moved to this node from another node, which may still regard the session as connected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MovedSession {
    /// The namespace's path.
    pub namespace: Arc<str>,
    /// The session's id.
    pub id: String,
    /// The generation of the recovered session. Sessions of an earlier generation have ended.
    pub generation: u64,
}

/// A session that was recovered.
#[derive(Debug)]
pub struct RecoveredSession {
    /// The client's secret, unchanged.
    pub ticket: RecoveryTicket,
    /// Stores the session again if the client does not get it.
    pub claim: SessionClaim,
    /// The stored state of the session.
    pub kept: StoredSession,
    /// The session's rooms, each with the client's position when it left and how far the history was read.
    pub cursors: Vec<HistoryCursor>,
    /// The events that the client missed, up to the point that `cursors` name.
    pub missed: Vec<MissedEvent>,
    /// The events that the client was shown.
    pub shown: ShownEvents,
}

/// Stores sessions for clients that return.
pub trait SessionStore: Send + Sync {
    /// Stores the state of a connected session, so that other nodes can recover the session after this node was killed.
    /// In memory nothing is stored before the session ends, because the memory is gone with the node.
    fn save(
        &self,
        session: &Session,
        snapshot: OffsetsSnapshot,
    ) -> impl Future<Output = Result<(), HistoryError>> + Send;

    /// Stores a session that has ended, as long as its client may return. A session whose client may not return can no
    /// longer be taken.
    fn keep(&self, ended: EndedSession) -> impl Future<Output = Result<(), HistoryError>> + Send;

    /// Takes the session for a user with this digest, and begins its next generation. A session can be taken only once.
    fn take(
        &self,
        namespace: &Arc<str>,
        key: &Arc<str>,
        digest: &str,
    ) -> impl Future<Output = Result<StoredSession, RecoveryFailure>> + Send;

    /// Reports that this node is alive, which holds for `longest`, and repeats what has failed. To be called every
    /// second. Returns false if the report has failed.
    fn tend(&self, longest: Duration) -> impl Future<Output = bool> + Send;
}

/// Stores sessions and recovers them.
pub struct Recovery {
    store: MemoryOrRedis<MemorySessionStore, RedisSessionStore>,
    history: Arc<History>,
    most_events: usize,
    hearing: ReceptionRun,
    live: Mutex<HashMap<Arc<str>, LiveSession>>,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
}

/// A session that is connected to this node and can be recovered.
struct LiveSession {
    session: Weak<Session>,
    window: Duration,
    renewed: Instant,
    /// Whether the session has ended. The entry stays until the store has answered whether it stored the end, because a
    /// client that returns earlier would not find its session there.
    ended: bool,
}

impl Recovery {
    /// Creates the recovery of a single node. Sessions are stored in memory.
    pub fn in_memory(config: &config::RecoverySettings, history: Arc<History>, metrics: Arc<Metrics>) -> Arc<Self> {
        let store = MemoryOrRedis::Memory(MemorySessionStore::new(config.sessions, metrics.clone()));
        // A single node receives no messages from other nodes, so no message can be lost.
        Self::start(store, config, history, metrics, Duration::ZERO, Arc::new(|| Some(0)))
    }

    /// Creates the recovery of a cluster's node. Sessions are stored in Redis. `longest` is the longest window of all
    /// namespaces; zero when no namespace recovers sessions. `tell` notifies the other nodes of a session that has
    /// moved to this node; it must not block.
    pub fn in_redis(
        config: &config::RecoverySettings,
        (redis, node): (Redis, &str),
        longest: Duration,
        history: Arc<History>,
        metrics: Arc<Metrics>,
        tell: impl Fn(MovedSession) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let ears = redis.clone();
        let hearing: ReceptionRun = Arc::new(move || ears.hearing());
        let store = MemoryOrRedis::Redis(RedisSessionStore::new(redis, node, metrics.clone(), tell));
        Self::start(store, config, history, metrics, longest, hearing)
    }

    fn start(
        store: MemoryOrRedis<MemorySessionStore, RedisSessionStore>,
        config: &config::RecoverySettings,
        history: Arc<History>,
        metrics: Arc<Metrics>,
        longest: Duration,
        hearing: ReceptionRun,
    ) -> Arc<Self> {
        let recovery = Arc::new(Self {
            store,
            history,
            most_events: config.events,
            hearing,
            live: Mutex::default(),
            tasks: TaskTracker::new(),
            metrics,
        });
        tokio::spawn(keep_storing(Arc::downgrade(&recovery), longest));
        recovery
    }

    /// Returns whether this node receives the other nodes' messages; see [`ReceptionRun`].
    pub fn hearing(&self) -> &ReceptionRun {
        &self.hearing
    }

    // === when a client returns ===

    /// Recovers a client's session, if every event that the client missed is known. The result is counted. `window` is
    /// how long the session is stored again if the client does not get it (see [`SessionClaim`]).
    ///
    /// # Errors
    /// [`RecoveryFailure`]. The client then gets a new session.
    pub async fn claim(
        self: &Arc<Self>,
        namespace: &Arc<str>,
        (pid, offset): (&str, Option<&str>),
        user: &User,
        window: Duration,
    ) -> Result<RecoveredSession, RecoveryFailure> {
        let claimed = self.try_claim(namespace, (pid, offset), user, window).await;
        let result = claimed.as_ref().map_or_else(|failure| failure.as_str(), |_| "recovered");
        self.metrics.recoveries_total.with_label_values(&[&**namespace, result]).inc();
        claimed
    }

    async fn try_claim(
        self: &Arc<Self>,
        namespace: &Arc<str>,
        (pid, offset): (&str, Option<&str>),
        user: &User,
        window: Duration,
    ) -> Result<RecoveredSession, RecoveryFailure> {
        let pid = Pid::read(pid).ok_or(RecoveryFailure::Unknown)?;
        let ticket = RecoveryTicket::of(pid, namespace);
        let client_offset = ClientOffset::read(offset).ok_or(RecoveryFailure::Incomplete)?;
        // A node that does not receive the other nodes' messages could send the missed events, but would lose the
        // following ones.
        if (self.hearing)().is_none() {
            return Err(RecoveryFailure::Unavailable);
        }
        let digest = secret::digest(user);
        self.end_here(&ticket.key, &digest).await?;
        let kept = on_store!(&self.store, store => store.take(namespace, &ticket.key, &digest).await)?;
        let mut cursors = Vec::with_capacity(kept.rooms.len());
        for (room, base) in &kept.rooms {
            let position = client_offset.position(room, *base).ok_or(RecoveryFailure::Incomplete)?;
            cursors.push(HistoryCursor::new(room.clone(), position, client_offset.unsure(room)));
        }
        let mut shown = ShownEvents::from_cursors(&cursors);
        let missed = self.read_on(namespace, &mut cursors, &mut shown).await?;
        let claim = SessionClaim::new(self, EndedSession::again(&ticket.key, digest, &kept, window));
        Ok(RecoveredSession { ticket, claim, kept, cursors, missed, shown })
    }

    /// Reads the events that were added to the rooms since the last read: each event once, in the order of each room.
    ///
    /// # Errors
    /// [`RecoveryFailure`], when the events cannot be proven complete.
    pub async fn read_on(
        &self,
        namespace: &Arc<str>,
        cursors: &mut [HistoryCursor],
        shown: &mut ShownEvents,
    ) -> Result<Vec<MissedEvent>, RecoveryFailure> {
        let pages = join_all(cursors.iter().map(|cursor| async {
            let room = RoomKey { namespace: namespace.clone(), room: cursor.room.clone() };
            self.history.read(&room, cursor.query()).await
        }));
        let pages = pages.await.into_iter().collect::<Result<Vec<_>, _>>()?;
        // `lacks_events` is asked last, because an event that no history has is noted before it is published live.
        if self.history.lacks_events(namespace).await? {
            return Err(RecoveryFailure::Incomplete);
        }
        missed::merge(cursors, pages, self.most_events, shown)
    }

    /// Closes an earlier session of the client on this node, and waits until it has ended. A client can return before
    /// its node notices that its connection has ended.
    async fn end_here(&self, key: &Arc<str>, digest: &str) -> Result<(), RecoveryFailure> {
        let until = Instant::now() + PATIENCE;
        let mut closed = false;
        loop {
            let session = match self.live().get(key) {
                None => return Ok(()),
                Some(live) => live.session.upgrade(),
            };
            match session {
                Some(session) if secret::digest(&session.user()) != digest => return Err(RecoveryFailure::Refused),
                Some(session) if !std::mem::replace(&mut closed, true) => session.close(Close::Transport),
                _ if Instant::now() >= until => return Err(RecoveryFailure::Unknown),
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Counts a recovered client that could not be sent the last of its missed events.
    pub fn note_failed(&self, namespace: &str) {
        self.metrics.recoveries_total.with_label_values(&[namespace, "failed"]).inc();
    }

    /// Counts the missed events that a recovered client was sent.
    pub fn count_given(&self, namespace: &str, events: usize) {
        self.metrics.recovery_events_total.with_label_values(&[namespace]).inc_by(events as u64);
    }

    // === while a session is connected, and when it ends ===

    /// Registers a connected session that can be recovered.
    pub fn opened(&self, session: &Arc<Session>, policy: &RecoveryPolicy) {
        let Some(offsets) = session.offsets() else { return };
        let live = LiveSession {
            session: Arc::downgrade(session),
            window: policy.window,
            renewed: Instant::now(),
            ended: false,
        };
        self.live().insert(offsets.key().clone(), live);
    }

    /// Reads the point at which the session began in new rooms, and stores the session's rooms. Wait for this before
    /// the client is sent the names of its rooms.
    pub async fn settle(&self, session: &Session) {
        let Some(offsets) = session.offsets() else { return };
        let heads = offsets.unknown().into_iter().map(|room| async move {
            let key = RoomKey { namespace: session.namespace().clone(), room: room.clone() };
            match self.history.read(&key, HistoryQuery { limit: 1, since: None, order: PageOrder::Desc }).await {
                Ok(page) => offsets.begin(&room, HistoryPoint { epoch: page.epoch, offset: page.last_offset }),
                Err(_) => offsets.give_up(&room),
            }
        });
        join_all(heads).await;
        let Some(snapshot) = offsets.to_save() else { return };
        let version = snapshot.version;
        let saved = on_store!(&self.store, store => store.save(session, snapshot).await);
        if saved.is_err() {
            self.metrics.recovery_errors_total.with_label_values(&["save"]).inc();
        }
        offsets.note_saved(version, saved.is_ok());
    }

    /// Handles the end of a session. If `may_return`, its state is stored for the client's return; otherwise the
    /// session cannot be recovered.
    pub fn ended(self: &Arc<Self>, session: &Session, may_return: bool) {
        let Some(offsets) = session.offsets() else { return };
        let key = offsets.key().clone();
        let Some(window) = self.note_ended(&key) else { return };
        let ended = EndedSession::of(session, offsets, if may_return { window } else { Duration::ZERO });
        let recovery = self.clone();
        self.tasks.spawn(async move {
            recovery.keep(ended).await;
            recovery.live().remove(&key);
        });
    }

    async fn keep(&self, ended: EndedSession) {
        if on_store!(&self.store, store => store.keep(ended).await).is_err() {
            self.metrics.recovery_errors_total.with_label_values(&["end"]).inc();
        }
    }

    /// Notes that a session has ended. Returns its recovery window, or `None` if the session cannot be recovered or has
    /// ended before.
    fn note_ended(&self, key: &str) -> Option<Duration> {
        let mut live = self.live();
        let live = live.get_mut(key).filter(|live| !live.ended)?;
        live.ended = true;
        Some(live.window)
    }

    /// Waits until the ended sessions are stored, for at most `patience`.
    pub async fn close(&self, patience: Duration) {
        self.tasks.close();
        let _ = tokio::time::timeout(patience, self.tasks.wait()).await;
    }

    /// The sessions that must be stored now: their rooms have changed outside the gateway, or the stored state is older
    /// than [`RENEW`].
    fn neglected(&self) -> Vec<Arc<Session>> {
        let now = Instant::now();
        let mut live = self.live();
        live.retain(|_, live| live.ended || live.session.strong_count() > 0);
        let sessions = live.values_mut().filter(|live| !live.ended).filter_map(|live| {
            let session = live.session.upgrade()?;
            let offsets = session.offsets()?;
            if now - live.renewed > RENEW {
                live.renewed = now;
                offsets.touch();
            }
            (offsets.to_save().is_some() || !offsets.unknown().is_empty()).then_some(session)
        });
        sessions.collect()
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, LiveSession>> {
        self.live.lock().expect("no thread panics while it holds this lock")
    }
}

/// Stores sessions and reports that the node is alive. Ends when the [`Recovery`] is dropped.
async fn keep_storing(recovery: Weak<Recovery>, longest: Duration) {
    let mut known = false;
    while let Some(recovery) = recovery.upgrade() {
        let said = on_store!(&recovery.store, store => store.tend(longest).await);
        known |= said;
        if known && !said {
            recovery.metrics.recovery_errors_total.with_label_values(&["node"]).inc();
        }
        for session in recovery.neglected() {
            recovery.settle(&session).await;
        }
        drop(recovery);
        // Before the first report, other nodes regard this node as dead and its sessions as expired.
        tokio::time::sleep(if known { TICK } else { SOON }).await;
    }
}

impl std::fmt::Debug for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recovery").field("live", &self.live().len()).finish_non_exhaustive()
    }
}
