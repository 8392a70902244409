//! Clients that come back soon get their session back: its id, its rooms, and what they missed.
//!
//! As Socket.IO's official client asks for it: CONNECT tells it a secret (`pid`) and events carry a place as their last argument; it hands both
//! back when it returns. Nothing is recovered that is not proven whole by the histories of all the session's rooms:
//! `docs/recovery.md`.
//!
//! Sessions are kept in memory on a node alone, from their end on; in Redis from their beginning on, so that another node finds
//! them after this one was killed.

mod kept;
mod memory;
mod missed;
mod redis;
mod secret;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};
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

pub use kept::Kept;
pub use missed::{Cursor, Missed, Shown};
pub use secret::{Pid, Ticket};

use crate::redis::Redis;
use memory::Memory;
use redis::{RedisStore, Writing};

/// How often it is looked after sessions whose rooms have changed, and the node says that it is there.
const TICK: Duration = Duration::from_secs(1);

/// As often Redis is asked for at the start, until it is there.
const SOON: Duration = Duration::from_millis(20);

/// So long a session that is still connected is waited for to end, when its client returns.
const PATIENCE: Duration = Duration::from_secs(1);

/// The state of a connected session is written again so often.
const RENEW: Duration = Duration::from_secs(20 * 60);

/// Why a client gets a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Never there, forgotten, or used.
    #[error("the session is not known")]
    Unknown,
    /// Its node has been silent longer than the window.
    #[error("the session has expired")]
    Expired,
    /// Another user's, or the user has other claims now.
    #[error("the session is another user's")]
    Refused,
    /// It is not proven what was missed.
    #[error("what was missed is not known")]
    Incomplete,
    /// More was missed than is given.
    #[error("too much was missed")]
    TooMuch,
    /// Redis is away.
    #[error("the session cannot be looked up")]
    Unavailable,
}

impl Failure {
    /// The label in metrics.
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

/// A session that another node had, and may still take for connected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Taken {
    /// The namespace's path.
    pub namespace: Arc<str>,
    /// The session's id.
    pub id: String,
    /// That of the session which took over: older ones have ended.
    pub generation: u64,
}

/// A session that its client gets back.
#[derive(Debug)]
pub struct Returned {
    /// The secret, as before.
    pub ticket: Ticket,
    /// What it was.
    pub kept: Kept,
    /// Its rooms: what it has had of each when it left, and how far they were read.
    pub cursors: Vec<Cursor>,
    /// What it missed until then.
    pub missed: Vec<Missed>,
    /// What it was shown.
    pub shown: Shown,
}

/// The sessions that can be recovered.
pub struct Recovery {
    store: Store,
    history: Arc<History>,
    most_events: usize,
    hearing: Hearing,
    live: Mutex<HashMap<Arc<str>, Live>>,
    tell: OnceLock<Box<dyn Fn(Taken) + Send + Sync>>,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
}

enum Store {
    Memory(Memory),
    Redis(Box<RedisStore>),
}

/// A session that is connected here.
struct Live {
    session: Weak<Session>,
    window: Duration,
    renewed: Instant,
}

impl Recovery {
    /// For a node alone.
    pub fn in_memory(config: &config::Recovery, history: Arc<History>, metrics: Arc<Metrics>) -> Arc<Self> {
        let store = Store::Memory(Memory::new(config.sessions, metrics.clone()));
        // There is nobody else to hear.
        Self::start(store, config, history, metrics, Duration::ZERO, Arc::new(|| Some(0)))
    }

    /// For a node of a cluster. `longest` is the longest window of all namespaces; zero: nobody is recovered.
    pub fn in_redis(
        config: &config::Recovery,
        redis: Redis,
        node: &str,
        longest: Duration,
        history: Arc<History>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let ears = redis.clone();
        let hearing: Hearing = Arc::new(move || ears.hearing());
        Self::start(Store::Redis(Box::new(RedisStore::new(redis, node))), config, history, metrics, longest, hearing)
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
            tell: OnceLock::new(),
            tasks: TaskTracker::new(),
            metrics,
        });
        tokio::spawn(care(Arc::downgrade(&recovery), longest));
        recovery
    }

    /// Whoever is to tell other nodes of sessions that have moved here.
    pub fn tell_with(&self, tell: impl Fn(Taken) + Send + Sync + 'static) {
        // A second one changes nothing.
        let _ = self.tell.set(Box::new(tell));
    }

    /// How this node hears the others.
    pub fn hearing(&self) -> &Hearing {
        &self.hearing
    }

    // === coming back ===

    /// Gives a client its session back, if everything that it missed is known. Counted.
    ///
    /// # Errors
    /// [`Failure`]: it gets a new one.
    pub async fn claim(
        &self,
        namespace: &Arc<str>,
        pid: &str,
        offset: Option<&str>,
        user: &User,
    ) -> Result<Returned, Failure> {
        let claimed = self.try_claim(namespace, pid, offset, user).await;
        let result = claimed.as_ref().map_or_else(|failure| failure.as_str(), |_| "recovered");
        self.metrics.recoveries_total.with_label_values(&[&**namespace, result]).inc();
        claimed
    }

    async fn try_claim(
        &self,
        namespace: &Arc<str>,
        pid: &str,
        offset: Option<&str>,
        user: &User,
    ) -> Result<Returned, Failure> {
        let pid = Pid::read(pid).ok_or(Failure::Unknown)?;
        let ticket = Ticket::of(pid, namespace);
        let tail = Tail::read(offset).ok_or(Failure::Incomplete)?;
        // A node that does not hear the others could show what was missed, and would miss what follows.
        if (self.hearing)().is_none() {
            return Err(Failure::Unavailable);
        }
        let digest = secret::digest(user);
        self.end_here(&ticket.key, &digest).await?;
        let (mut kept, elsewhere) = match &self.store {
            Store::Memory(memory) => (memory.take(&ticket.key, &digest)?, false),
            Store::Redis(redis) => redis.take(&ticket.key, &digest).await?,
        };
        kept.generation += 1;
        if let (true, Some(tell)) = (elsewhere, self.tell.get()) {
            tell(Taken { namespace: namespace.clone(), id: kept.id.clone(), generation: kept.generation });
        }
        let mut cursors = Vec::with_capacity(kept.rooms.len());
        for (room, base) in &kept.rooms {
            let position = tail.position(room, *base).ok_or(Failure::Incomplete)?;
            cursors.push(Cursor::new(room.clone(), position));
        }
        let mut shown = Shown::default();
        let missed = self.read_on(namespace, &mut cursors, &mut shown).await?;
        Ok(Returned { ticket, kept, cursors, missed, shown })
    }

    /// What the rooms have had since they were read last, each event once, in the order of each room.
    ///
    /// # Errors
    /// [`Failure`], when that is not proven.
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
        // Asked last: an event that no history has was noted before it went live.
        if self.history.lacks_events(namespace).await? {
            return Err(Failure::Incomplete);
        }
        missed::merge(cursors, pages, self.most_events, shown)
    }

    /// A client may return before its connection is known to have ended. What it left must be settled first.
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

    /// A recovered client could not be given the last part of what it missed.
    pub fn note_failed(&self, namespace: &str) {
        self.metrics.recoveries_total.with_label_values(&[namespace, "failed"]).inc();
    }

    /// A recovered client was given so many events.
    pub fn note_given(&self, namespace: &str, events: usize) {
        self.metrics.recovery_events_total.with_label_values(&[namespace]).inc_by(events as u64);
    }

    // === being there, and going ===

    /// A session that can be recovered is connected.
    pub fn opened(&self, session: &Arc<Session>, policy: &RecoveryPolicy) {
        let Some(trail) = session.trail() else { return };
        let live = Live { session: Arc::downgrade(session), window: policy.window, renewed: Instant::now() };
        self.live().insert(trail.key().clone(), live);
    }

    /// Finds out where the session began in rooms that are new, and keeps its rooms where a return finds them. To be waited for
    /// before the client is told of its rooms.
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

    /// The session has ended; `may_return` says whether its client may get it back.
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
                // Redis may not know of the last joins, and would give the client back without them.
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

    /// Waits until those who left are kept, at most for so long.
    pub async fn close(&self, patience: Duration) {
        self.tasks.close();
        let _ = tokio::time::timeout(patience, self.tasks.wait()).await;
    }

    /// Sessions whose rooms have changed behind the gateway's back, or that were written long ago.
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

/// Ends with the last user of the sessions.
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
        // Sessions of a node that has never said that it is there would be taken for those of a dead one.
        tokio::time::sleep(if known { TICK } else { SOON }).await;
    }
}

impl std::fmt::Debug for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recovery").field("live", &self.live().len()).finish_non_exhaustive()
    }
}
