//! Presence of nodes that share a Redis.
//!
//! Every node writes its sessions under an *incarnation*, an id of its own with a lease. Reads count only incarnations
//! whose lease has not ended, so a dead node is no longer counted once its lease ends. The first node that notices the
//! end of the lease removes what the dead node has written.
//!
//! A node may be unable to know which of its data Redis has: a write failed, the node's lease had ended, its queue was
//! full, or Redis was emptied. In these cases the node writes everything from the index under a new incarnation, which
//! replaces the old one in one step.
//!
//! ```text
//! every change of the index                                    questions
//!          │                                                      │
//!          ▼                                                      ▼
//!      `changes` ──► `queue` ──► `writer` ───┐              `directory`: asks scripts, which
//!                       │           ▲        │               count only incarnations with a
//!      full, or a write │           │        ▼               lease; answers from this node's
//!      failed, or the   ▼           │      Redis ──────────► index while Redis is away
//!      lease ended   rewrite: everything     ▲
//!                    from the index, under   │
//!                    a new incarnation    `lease`: renews this node's lease, and removes
//!                                          the data of nodes whose lease has ended
//! ```

mod change;
mod changes;
mod directory;
mod lease;
mod queue;
mod script;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use fred::error::Error;
use fred::types::Value;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::change::{PresenceChange, WriterItem};
use self::changes::ChangeRecorder;
use self::lease::Leases;
use self::script::{PresenceScripts, ReplyHeader, ScriptReply};
use super::announce::{self, ChangeSender};
use super::local::LocalPresence;
use super::member::user_id;
use super::users::TimedStatus;
use super::{
    MAX_ROSTER_BYTES, MAX_SHARED_ROOMS, MemberChange, Policies, Presence, PresenceRecorder, RoomMember, Roster,
    SharedRooms, UserStatus, may_have_status,
};
use crate::config;
use crate::directory::{DirectoryError, DirectoryFuture};
use crate::redis::Redis;
use crate::redis::script::Script;
use crate::room::Rooms;
use crate::session::{RoomName, Session};
use crate::telemetry::metrics::Metrics;

/// How long a key lives at most after its node has died, even if no other node removes it. A running node renews its
/// keys four times in that time. The time is longer if `presence.heartbeat` is longer than an eighth of it.
pub const KEY_TTL: Duration = Duration::from_secs(60 * 60);

/// How long a read waits at most until this node's own latest changes are written.
const MAX_SETTLE: Duration = Duration::from_millis(250);

/// Creates the recorder of a node that shares its presence with others. `namespaces` lists every namespace.
pub fn in_redis(
    config: &config::PresenceSettings,
    redis: Redis,
    node: &str,
    namespaces: impl IntoIterator<Item = Arc<str>>,
    policies: Policies,
    metrics: Arc<Metrics>,
) -> PresenceRecorder {
    let spaces =
        namespaces.into_iter().map(|path| NamespaceKeys { base: redis.keys().presence(&path), path }).collect();
    let (untold, told) = announce::queue(metrics.clone());
    let (changes, items) = ChangeRecorder::new(spaces, policies, config.queue, metrics);
    let changes = Arc::new(changes);
    let (watcher, node, times) = (changes.clone(), node.to_owned(), Times::new(config));
    let start = move |rooms: Arc<Rooms>| -> (Arc<dyn Presence>, _) {
        let inner = Arc::new(PresenceState {
            redis,
            scripts: PresenceScripts::new(),
            local: LocalPresence::new(&node, rooms, changes.users().clone(), changes.rosters().clone()),
            node: node.into(),
            times,
            changes,
            leases: Leases::default(),
            untold,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let (writer, keeper, reaper) = (inner.clone(), inner.clone(), inner.clone());
        inner.spawn(async move { writer.keep_writing(items).await });
        inner.spawn(async move { keeper.keep_leases().await });
        inner.spawn(async move { reaper.keep_reaping().await });
        (Arc::new(RedisPresence { inner }), told)
    };
    PresenceRecorder { watcher, start: Box::new(start) }
}

/// Presence in Redis, shared by all nodes.
struct RedisPresence {
    inner: Arc<PresenceState>,
}

struct PresenceState {
    redis: Redis,
    scripts: PresenceScripts,
    local: LocalPresence,
    node: Arc<str>,
    times: Times,
    changes: Arc<ChangeRecorder>,
    leases: Leases,
    untold: ChangeSender,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A namespace, and the prefix of its keys.
struct NamespaceKeys {
    path: Arc<str>,
    base: String,
}

/// Durations that follow from the heartbeat. A lease is renewed every half heartbeat and ends after one and three
/// quarters of a heartbeat. Another quarter is left to remove a dead node's data, so that the data is gone within two
/// heartbeats.
struct Times {
    beat: Duration,
    lease: Duration,
    reap: Duration,
    key_ttl: Duration,
    status_ttl: Duration,
}

impl Times {
    fn new(config: &config::PresenceSettings) -> Self {
        let heartbeat = config.heartbeat.get().max(Duration::from_millis(40));
        Self {
            beat: heartbeat / 2,
            lease: heartbeat * 7 / 4,
            reap: heartbeat / 8,
            key_ttl: KEY_TTL.max(heartbeat * 8),
            status_ttl: config.status_ttl.get().max(Duration::from_millis(1)),
        }
    }
}

// === impl Inner ===

impl PresenceState {
    fn new_incarnation(&self) -> String {
        let random = uuid::Uuid::new_v4().simple().to_string();
        format!("{}~{}", self.node, &random[..12])
    }

    async fn run(&self, script: &Script, space: usize, args: Vec<Value>) -> Result<Value, Error> {
        script.run(&self.redis, vec![self.changes.spaces[space].base.clone()], args).await
    }

    /// Runs a script that only reads. Before that, waits at most [`MAX_SETTLE`] until this node's own changes are
    /// written, and returns whether they are.
    async fn read(
        &self,
        script: &Script,
        space: usize,
        args: Vec<Value>,
    ) -> Result<(bool, ScriptReply), DirectoryError> {
        // While Redis refuses writes, leases are not renewed, and running nodes seem to be gone.
        if !self.redis.takes_writes() || self.leases.is_overdue(self.times.lease) {
            return Err(DirectoryError::Unavailable);
        }
        let settled = self.settle(MAX_SETTLE).await;
        match self.run(script, space, args).await {
            Ok(value) => Ok((settled, ScriptReply::of(value))),
            Err(error) => {
                tracing::debug!(redis.error = %error, "presence could not be read");
                Err(DirectoryError::Unavailable)
            }
        }
    }

    async fn settle(&self, within: Duration) -> bool {
        let (answer, written) = oneshot::channel();
        self.changes.queue.push(WriterItem::Barrier(answer), &self.changes.metrics)
            && matches!(tokio::time::timeout(within, written).await, Ok(Ok(())))
    }

    /// Announces the joins and leaves that a script has returned.
    fn tell(&self, space: usize, mut reply: ScriptReply) {
        let path = &self.changes.spaces[space].path;
        while !reply.is_empty() {
            let (joined, room, socket, user) = (reply.text() == "joined", reply.text(), reply.text(), reply.text());
            let (metadata, at) = (reply.text(), reply.millis());
            let Some(each) = self.changes.policies.each(path, &room) else { continue };
            let member = RoomMember::of_script(each, socket, user, &metadata, at);
            let what = if joined { MemberChange::Joined(member) } else { MemberChange::Left(member) };
            self.announce(path, &room, what);
        }
    }

    fn announce(&self, namespace: &Arc<str>, room: &str, what: MemberChange) {
        if let Some(change) = self.changes.policies.change(namespace, room, what) {
            self.untold.push(change);
        }
    }

    async fn roster(&self, space: usize, room: &str, most: usize) -> Result<Roster, DirectoryError> {
        let Some(each) = self.changes.policies.each(&self.changes.spaces[space].path, room) else {
            return Ok(Roster::default());
        };
        let args = texts(&[room, &most.to_string(), &MAX_ROSTER_BYTES.to_string()]);
        let (settled, mut reply) = self.read(&self.scripts.roster, space, args).await?;
        let missing = self.missing(&ReplyHeader::of(reply.list()), settled);
        let count = reply.number();
        let members = reply.list().each(|mut row| {
            let (socket, user, metadata) = (row.text(), row.text(), row.text());
            RoomMember::of_script(each, socket, user, &metadata, row.millis())
        });
        Ok(Roster { count, members, partial: !missing.is_empty() })
    }

    fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Ends this node's leases, and removes the data that was written under them.
    async fn end(&self) -> Result<(), Error> {
        for space in 0..self.changes.spaces.len() {
            for incarnation in self.leases.incarnations() {
                self.lease(space, "end", &incarnation, "").await?;
            }
            self.reap(space, "").await?;
        }
        Ok(())
    }
}

fn texts(parts: &[&str]) -> Vec<Value> {
    parts.iter().map(|part| Value::from(*part)).collect()
}

// === impl Cluster ===

impl Presence for RedisPresence {
    fn set_status(&self, session: &Session, status: &serde_json::Value) -> bool {
        let Some(user) = user_id(session).filter(|_| may_have_status(session, status)) else { return false };
        let status = TimedStatus::now(status);
        let known = self.inner.local.users.set_status(session.namespace(), &user, status.clone());
        if known {
            self.inner.changes.push(session, Some(PresenceChange::Status { user, status }));
        }
        known
    }

    fn status<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> DirectoryFuture<'a, UserStatus> {
        async move {
            let inner = &*self.inner;
            let space = inner.changes.space(namespace).ok_or(DirectoryError::Unavailable)?;
            match inner.read(&inner.scripts.status, space, texts(&[user_id])).await {
                Ok((_, mut reply)) => {
                    let _header = reply.list();
                    let status = serde_json::from_str(&reply.text()).ok();
                    Ok(UserStatus { status, sockets: reply.number() })
                }
                Err(error) => {
                    let here = inner.local.users.status(namespace, user_id);
                    if here.status.is_some() { Ok(here) } else { Err(error) }
                }
            }
        }
        .boxed()
    }

    fn shared_rooms<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> BoxFuture<'a, SharedRooms> {
        async move {
            let inner = &*self.inner;
            let mut here = inner.local.shared_rooms(namespace, user_id);
            let most = MAX_SHARED_ROOMS.to_string();
            let answer = match inner.changes.space(namespace) {
                Some(space) => inner.read(&inner.scripts.shared, space, texts(&[user_id, &most])).await.ok(),
                None => None,
            };
            let Some((settled, mut reply)) = answer else { return SharedRooms { partial: true, ..here } };
            let missing = inner.missing(&ReplyHeader::of(reply.list()), settled);
            here.partial |= !missing.is_empty() || reply.text() == "1";
            here.rooms.extend(reply.list().texts().into_iter().map(RoomName::from));
            here.rooms.sort_unstable();
            here.rooms.dedup();
            here
        }
        .boxed()
    }

    fn roster<'a>(&'a self, namespace: &'a str, room: &'a str, most: usize) -> BoxFuture<'a, Roster> {
        async move {
            let inner = &*self.inner;
            let here = || Roster { partial: true, ..inner.local.roster(namespace, room, most) };
            let Some(space) = inner.changes.space(namespace) else { return here() };
            inner.roster(space, room, most).await.unwrap_or_else(|_| here())
        }
        .boxed()
    }

    fn settle(&self) -> BoxFuture<'_, bool> {
        async move {
            let written = self.inner.settle(self.inner.redis.command_timeout()).await;
            self.inner.untold.announced().await;
            written
        }
        .boxed()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        async move {
            self.inner.stop.cancel();
            self.inner.tasks.close();
            self.inner.tasks.wait().await;
            match tokio::time::timeout(self.inner.redis.command_timeout(), self.inner.end()).await {
                Ok(Ok(())) => {}
                _ => tracing::debug!("presence was not removed in time; it ends with its lease"),
            }
            let _ = tokio::time::timeout(self.inner.redis.command_timeout(), self.inner.untold.announced()).await;
        }
        .boxed()
    }
}
