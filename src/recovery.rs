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
mod kept;
mod memory;
mod missed;
mod redis;
mod secret;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::contract::model::RecoveryPolicy;
use crate::history::{History, HistoryError, Order, Query, RoomKey};
use crate::session::trail::{Hearing, Point, Tail};
use crate::session::{Close, Session};
use crate::telemetry::metrics::Metrics;
use crate::user::User;

pub use claim::Claim;
pub use kept::Kept;
pub use missed::{Cursor, Missed, Shown};
pub use secret::{Pid, Ticket};

use crate::redis::Redis;
use memory::Memory;
use redis::{RedisStore, Writing};

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
pub enum Failure {
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

impl Failure {
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

impl From<HistoryError> for Failure {
    fn from(_: HistoryError) -> Self {
        Self::Unavailable
    }
}

/// A session that moved to this node from another node, which may still regard the session as connected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Taken {
    /// The namespace's path.
    pub namespace: Arc<str>,
    /// The session's id.
    pub id: String,
    /// The generation of the recovered session. Sessions of an earlier generation have ended.
    pub generation: u64,
}

/// A session that was recovered.
#[derive(Debug)]
pub struct Returned {
    /// The client's secret, unchanged.
    pub ticket: Ticket,
    /// Stores the session again if the client does not get it.
    pub claim: Claim,
    /// The stored state of the session.
    pub kept: Kept,
    /// The session's rooms, each with the client's position when it left and how far the history was read.
    pub cursors: Vec<Cursor>,
    /// The events that the client missed, up to the point that `cursors` name.
    pub missed: Vec<Missed>,
    /// The events that the client was shown.
    pub shown: Shown,
}

/// Stores sessions and recovers them.
pub struct Recovery {
    store: Store,
    history: Arc<History>,
    most_events: usize,
    hearing: Hearing,
    live: Mutex<HashMap<Arc<str>, Live>>,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
}

enum Store {
    Memory(Memory),
    Redis(Box<RedisStore>),
}

/// A session that is connected to this node and can be recovered.
struct Live {
    session: Weak<Session>,
    window: Duration,
    renewed: Instant,
}

impl Recovery {
    /// Creates the recovery of a single node. Sessions are stored in memory.
    pub fn in_memory(config: &config::Recovery, history: Arc<History>, metrics: Arc<Metrics>) -> Arc<Self> {
        let store = Store::Memory(Memory::new(config.sessions, metrics.clone()));
        // A single node receives no messages from other nodes, so no message can be lost.
        Self::start(store, config, history, metrics, Duration::ZERO, Arc::new(|| Some(0)))
    }

    /// Creates the recovery of a cluster's node. Sessions are stored in Redis. `longest` is the longest window of all
    /// namespaces; zero when no namespace recovers sessions. `tell` notifies the other nodes of a session that has
    /// moved to this node; it must not block.
    pub fn in_redis(
        config: &config::Recovery,
        (redis, node): (Redis, &str),
        longest: Duration,
        history: Arc<History>,
        metrics: Arc<Metrics>,
        tell: impl Fn(Taken) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let ears = redis.clone();
        let hearing: Hearing = Arc::new(move || ears.hearing());
        let store = Store::Redis(Box::new(RedisStore::new(redis, node, metrics.clone(), tell)));
        Self::start(store, config, history, metrics, longest, hearing)
    }

    fn start(
        store: Store,
        config: &config::Recovery,
        history: Arc<History>,
        metrics: Arc<Metrics>,
        longest: Duration,
        hearing: Hearing,
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
        tokio::spawn(care(Arc::downgrade(&recovery), longest));
        recovery
    }

    /// Returns whether this node receives the other nodes' messages; see [`Hearing`].
    pub fn hearing(&self) -> &Hearing {
        &self.hearing
    }

    // === when a client returns ===

    /// Recovers a client's session, if every event that the client missed is known. The result is counted. `window` is
    /// how long the session is stored again if the client does not get it (see [`Claim`]).
    ///
    /// # Errors
    /// [`Failure`]. The client then gets a new session.
    pub async fn claim(
        self: &Arc<Self>,
        namespace: &Arc<str>,
        (pid, offset): (&str, Option<&str>),
        user: &User,
        window: Duration,
    ) -> Result<Returned, Failure> {
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
    ) -> Result<Returned, Failure> {
        let pid = Pid::read(pid).ok_or(Failure::Unknown)?;
        let ticket = Ticket::of(pid, namespace);
        let tail = Tail::read(offset).ok_or(Failure::Incomplete)?;
        // A node that does not receive the other nodes' messages could send the missed events, but would lose the
        // following ones.
        if (self.hearing)().is_none() {
            return Err(Failure::Unavailable);
        }
        let digest = secret::digest(user);
        self.end_here(&ticket.key, &digest).await?;
        let kept = match &self.store {
            Store::Memory(memory) => memory.take(&ticket.key, &digest)?.next_generation(),
            Store::Redis(redis) => redis.take(namespace, &ticket.key, &digest).await?,
        };
        let mut cursors = Vec::with_capacity(kept.rooms.len());
        for (room, base) in &kept.rooms {
            let position = tail.position(room, *base).ok_or(Failure::Incomplete)?;
            cursors.push(Cursor::new(room.clone(), position, tail.unsure(room)));
        }
        let mut shown = Shown::had(&cursors);
        let missed = self.read_on(namespace, &mut cursors, &mut shown).await?;
        let claim = Claim::new(self, &ticket.key, digest, &kept, window);
        Ok(Returned { ticket, claim, kept, cursors, missed, shown })
    }

    /// Reads the events that were added to the rooms since the last read: each event once, in the order of each room.
    ///
    /// # Errors
    /// [`Failure`], when the events cannot be proven complete.
    pub async fn read_on(
        &self,
        namespace: &Arc<str>,
        cursors: &mut [Cursor],
        shown: &mut Shown,
    ) -> Result<Vec<Missed>, Failure> {
        let pages = join_all(cursors.iter().map(|cursor| async {
            let room = RoomKey { namespace: namespace.clone(), room: cursor.room.clone() };
            self.history.read(&room, cursor.query()).await
        }));
        let pages = pages.await.into_iter().collect::<Result<Vec<_>, _>>()?;
        // `lacks_events` is asked last, because an event that no history has is noted before it is published live.
        if self.history.lacks_events(namespace).await? {
            return Err(Failure::Incomplete);
        }
        missed::merge(cursors, pages, self.most_events, shown)
    }

    /// Closes an earlier session of the client on this node, and waits until it has ended. A client can return before
    /// its node notices that its connection has ended.
    async fn end_here(&self, key: &Arc<str>, digest: &str) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        let mut closed = false;
        loop {
            let session = match self.live().get(key) {
                None => return Ok(()),
                Some(live) => live.session.upgrade(),
            };
            match session {
                Some(session) if secret::digest(&session.user()) != digest => return Err(Failure::Refused),
                Some(session) if !std::mem::replace(&mut closed, true) => session.close(Close::Transport),
                _ if Instant::now() >= until => return Err(Failure::Unknown),
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
    pub fn note_given(&self, namespace: &str, events: usize) {
        self.metrics.recovery_events_total.with_label_values(&[namespace]).inc_by(events as u64);
    }

    // === while a session is connected, and when it ends ===

    /// Registers a connected session that can be recovered.
    pub fn opened(&self, session: &Arc<Session>, policy: &RecoveryPolicy) {
        let Some(trail) = session.trail() else { return };
        let live = Live { session: Arc::downgrade(session), window: policy.window, renewed: Instant::now() };
        self.live().insert(trail.key().clone(), live);
    }

    /// Reads the point at which the session began in new rooms, and stores the session's rooms. Wait for this before
    /// the client is sent the names of its rooms.
    pub async fn settle(&self, session: &Session) {
        let Some(trail) = session.trail() else { return };
        let heads = trail.unknown().into_iter().map(|room| async move {
            let key = RoomKey { namespace: session.namespace().clone(), room: room.clone() };
            match self.history.read(&key, Query { limit: 1, since: None, order: Order::Desc }).await {
                Ok(page) => trail.begin(&room, Point { epoch: page.epoch, offset: page.last_offset }),
                Err(_) => trail.give_up(&room),
            }
        });
        join_all(heads).await;
        let Some(snapshot) = trail.to_save() else { return };
        let version = snapshot.version;
        let kept = match &self.store {
            Store::Memory(_) => true,
            Store::Redis(redis) => {
                let what = Writing::of(trail, secret::digest(&session.user()), None);
                let saved = redis.save(&what, &Kept::of(session, snapshot)).await;
                saved.inspect_err(|_| self.metrics.recovery_errors_total.with_label_values(&["save"]).inc()).is_ok()
            }
        };
        trail.note_saved(version, kept);
    }

    /// Handles the end of a session. If `may_return`, its state is stored for the client's return; otherwise the
    /// session cannot be recovered.
    pub fn ended(self: &Arc<Self>, session: &Session, may_return: bool) {
        let Some(trail) = session.trail() else { return };
        let key = trail.key().clone();
        let Some(window) = self.live().get(&key).map(|live| live.window) else { return };
        let kept = Kept::of(session, trail.snapshot());
        let digest = secret::digest(&session.user());
        match &self.store {
            Store::Memory(memory) if may_return => memory.keep(key.clone(), digest, kept, window),
            Store::Memory(_) => {}
            Store::Redis(redis) => {
                // If the last joins were not stored, Redis would recover the session without these rooms.
                let whole = may_return && trail.to_save().is_none();
                if !may_return {
                    redis.forbid(&key);
                }
                let end = if may_return { window } else { Duration::ZERO };
                let what = Writing::of(trail, digest, Some(end));
                let recovery = self.clone();
                self.tasks.spawn(async move {
                    let Store::Redis(redis) = &recovery.store else { return };
                    match redis.save(&what, &kept).await {
                        Ok(()) => redis.allow(&what.key),
                        Err(_) => {
                            recovery.metrics.recovery_errors_total.with_label_values(&["end"]).inc();
                            if !whole {
                                redis.forbid(&what.key);
                            }
                        }
                    }
                });
            }
        }
        self.live().remove(&key);
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
        live.retain(|_, live| live.session.strong_count() > 0);
        let sessions = live.values_mut().filter_map(|live| {
            let session = live.session.upgrade()?;
            let trail = session.trail()?;
            if now - live.renewed > RENEW {
                live.renewed = now;
                trail.touch();
            }
            (trail.to_save().is_some() || !trail.unknown().is_empty()).then_some(session)
        });
        sessions.collect()
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Live>> {
        self.live.lock().expect("no panic while held")
    }
}

/// Stores sessions and reports that the node is alive. Ends when the [`Recovery`] is dropped.
async fn care(recovery: Weak<Recovery>, longest: Duration) {
    let mut known = false;
    while let Some(recovery) = recovery.upgrade() {
        let said = match &recovery.store {
            Store::Redis(redis) if !longest.is_zero() => redis.say_there(longest).await,
            _ => true,
        };
        known |= said;
        if known && !said {
            recovery.metrics.recovery_errors_total.with_label_values(&["node"]).inc();
        }
        if let Store::Redis(redis) = &recovery.store {
            redis.forget_forbidden().await;
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
