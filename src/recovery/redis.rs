//! Sessions in Redis: written when a session begins and changes, and readable by every node.

use std::sync::Arc;
use std::time::Duration;

use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};
use futures_util::future::join_all;
use uuid::Uuid;

use super::forbidden::Forbidden;
use super::{MovedSession, RecoveryFailure, StoredSession};
use crate::history::HistoryError;
use crate::redis::Redis;
use crate::redis::script::Script;
use crate::session::offsets::SessionOffsets;
use crate::telemetry::metrics::Metrics;

/// How long Redis keeps a connected session after the last write.
const CONNECTED: Duration = Duration::from_secs(60 * 60);

/// Maximum number of sessions that Redis is asked to remove at the same time.
const REMOVING: usize = 200;

/// Stores sessions in Redis.
pub(super) struct RedisSessionStore {
    redis: Redis,
    /// The id of this process, which is different after each start of the node.
    incarnation: String,
    save: Script,
    take: Script,
    forbidden: Forbidden,
    forget: Script,
    /// Notifies the other nodes of a session that has moved to this node.
    tell: Box<dyn Fn(MovedSession) + Send + Sync>,
}

/// Describes how a session is written.
pub(super) struct Writing {
    pub(super) key: Arc<str>,
    digest: String,
    /// Whether the session was stored before.
    saved: bool,
    /// For an ended session, how long it can be recovered; `None` while it is connected.
    end: Option<Duration>,
}

impl Writing {
    pub(super) fn of(offsets: &SessionOffsets, digest: String, end: Option<Duration>) -> Self {
        Self { key: offsets.key().clone(), digest, saved: offsets.was_saved(), end }
    }

    /// Describes how a session that was taken from Redis is written again.
    pub(super) fn again(key: Arc<str>, digest: String, window: Duration) -> Self {
        Self { key, digest, saved: false, end: Some(window) }
    }
}

impl RedisSessionStore {
    pub(super) fn new(
        redis: Redis,
        node: &str,
        metrics: Arc<Metrics>,
        tell: impl Fn(MovedSession) + Send + Sync + 'static,
    ) -> Self {
        Self {
            redis,
            incarnation: format!("{node}~{}", Uuid::new_v4().simple()),
            save: Script::new(include_str!("redis/save.lua")),
            take: Script::new(include_str!("redis/take.lua")),
            forbidden: Forbidden::new(CONNECTED, metrics),
            forget: Script::new(include_str!("redis/forget.lua")),
            tell: Box::new(tell),
        }
    }

    /// Writes a session, unless the client has recovered it on another node.
    pub(super) async fn save(&self, what: &Writing, kept: &StoredSession) -> Result<(), HistoryError> {
        let state = serde_json::to_string(kept).map_err(|error| HistoryError::Refused(error.to_string()))?;
        let ttl = what.end.unwrap_or(CONNECTED).as_millis().to_string();
        let flag = |set: bool| Value::from(if set { "1" } else { "0" });
        let args: Vec<Value> = vec![
            format!("{}~{}", self.incarnation, kept.generation).into(),
            what.digest.as_str().into(),
            kept.version.to_string().into(),
            flag(what.end.is_some()),
            state.into(),
            ttl.into(),
            flag(!what.saved),
        ];
        self.run(&self.save, &what.key, args).await.map(drop)
    }

    /// Takes the session, which can be taken only once, and begins its next generation. Notifies the other nodes if one
    /// of them may still regard the session as connected.
    pub(super) async fn take(
        &self,
        namespace: &Arc<str>,
        key: &Arc<str>,
        digest: &str,
    ) -> Result<StoredSession, RecoveryFailure> {
        if self.forbidden.contains(key) {
            return Err(RecoveryFailure::Unknown);
        }
        let answer = self.run(&self.take, key, vec![digest.into()]).await?;
        let mut parts = answer.into_array().into_iter().map(|part| part.into_string().unwrap_or_default());
        match parts.next().as_deref() {
            Some("refused") => return Err(RecoveryFailure::Refused),
            Some("taken") => {}
            _ => return Err(RecoveryFailure::Unknown),
        }
        let (owner, ended, state) = (parts.next(), parts.next(), parts.next());
        let owner = owner.unwrap_or_default();
        let incarnation = owner.rsplit_once('~').map_or("", |(incarnation, _)| incarnation);
        let connected = ended.as_deref() != Some("1");
        if connected && incarnation != self.incarnation && !self.was_there(incarnation).await? {
            return Err(RecoveryFailure::Expired);
        }
        let kept: StoredSession =
            serde_json::from_str(&state.unwrap_or_default()).map_err(|_| RecoveryFailure::Unknown)?;
        let kept = kept.next_generation();
        if connected && incarnation != self.incarnation {
            let (namespace, id) = (namespace.clone(), kept.id.clone());
            (self.tell)(MovedSession { namespace, id, generation: kept.generation });
        }
        Ok(kept)
    }

    /// Forbids that a session is recovered, because its client left, the server disconnected it, or Redis does not have
    /// its last rooms. The session is remembered until Redis has removed it.
    pub(super) fn forbid(&self, key: &Arc<str>) {
        self.forbidden.add(key);
    }

    /// Lifts [`RedisSessionStore::forbid`], because Redis has stored how the session has ended.
    pub(super) fn allow(&self, key: &Arc<str>) {
        self.forbidden.remove(key);
    }

    /// Removes the forbidden sessions from Redis. Stops at the first error and keeps the rest for the next call.
    pub(super) async fn forget_forbidden(&self) {
        let forget = async |key: &Arc<str>| {
            let forgotten = self.run(&self.forget, key, vec![self.incarnation.as_str().into()]).await.is_ok();
            if forgotten {
                self.allow(key);
            }
            forgotten
        };
        for keys in self.forbidden.all().chunks(REMOVING) {
            if join_all(keys.iter().map(forget)).await.contains(&false) {
                return;
            }
        }
    }

    /// Reports in Redis that this node is alive. Nodes that find its sessions later read the report. Returns whether
    /// Redis took it.
    pub(super) async fn say_there(&self, window: Duration) -> bool {
        let command = CustomCommand::new_static("SET", ClusterHash::FirstKey, false);
        let key = self.redis.keys().recovery_node(&self.incarnation);
        let args: Vec<Value> = vec![key.into(), "1".into(), "PX".into(), window.as_millis().to_string().into()];
        let said = self.redis.client().custom::<Value, _>(command, args);
        let noticed = self.redis.noticed(|| "SET recovery:node".to_owned(), said);
        self.redis.when_up(noticed).await.is_ok()
    }

    async fn was_there(&self, incarnation: &str) -> Result<bool, RecoveryFailure> {
        let command = CustomCommand::new_static("EXISTS", ClusterHash::FirstKey, false);
        let key: Value = self.redis.keys().recovery_node(incarnation).into();
        let count = self.redis.client().custom::<i64, _>(command, vec![key]);
        let count = self.redis.noticed(|| "EXISTS recovery:node".to_owned(), count).await;
        Ok(count.map_err(|_| RecoveryFailure::Unavailable)? > 0)
    }

    async fn run(&self, script: &Script, key: &str, args: Vec<Value>) -> Result<Value, HistoryError> {
        let key = self.redis.keys().recovery_session(key);
        Ok(self.redis.when_up(script.run(&self.redis, vec![key], args)).await?)
    }
}
