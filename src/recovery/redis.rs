//! Sessions in Redis: written when a session begins and changes, and readable by every node.

use std::sync::Arc;
use std::time::Duration;

use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};
use futures_util::future::join_all;
use uuid::Uuid;

use super::forbidden::Forbidden;
use super::{EndedSession, MovedSession, RecoveryFailure, SessionStore, StoredSession, secret};
use crate::history::HistoryError;
use crate::redis::Redis;
use crate::redis::script::Script;
use crate::session::Session;
use crate::session::offsets::OffsetsSnapshot;
use crate::telemetry::metrics::Metrics;

/// How long Redis keeps a connected session after the last write.
const CONNECTED: Duration = Duration::from_secs(60 * 60);

/// Maximum number of sessions that Redis is asked to remove at the same time.
const REMOVING: usize = 200;

/// Stores sessions in Redis.
pub struct RedisSessionStore {
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

/// How a session is written.
struct SessionWrite<'a> {
    key: &'a str,
    digest: &'a str,
    state: &'a StoredSession,
    /// Whether a state of the session was stored before.
    was_saved: bool,
    /// For an ended session, how long it can be recovered; `None` while it is connected.
    end: Option<Duration>,
}

impl RedisSessionStore {
    /// Creates the store on the node's connection to Redis. `tell` notifies the other nodes of a session that has moved
    /// to this node; it must not block.
    pub fn new(
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
    async fn write(&self, what: SessionWrite<'_>) -> Result<(), HistoryError> {
        let state = serde_json::to_string(what.state).map_err(|error| HistoryError::Refused(error.to_string()))?;
        let ttl = what.end.unwrap_or(CONNECTED).as_millis().to_string();
        let flag = |set: bool| Value::from(if set { "1" } else { "0" });
        let args: Vec<Value> = vec![
            format!("{}~{}", self.incarnation, what.state.generation).into(),
            what.digest.into(),
            what.state.version.to_string().into(),
            flag(what.end.is_some()),
            state.into(),
            ttl.into(),
            flag(!what.was_saved),
        ];
        self.run(&self.save, what.key, args).await.map(drop)
    }

    /// Removes the forbidden sessions from Redis. Stops at the first error and keeps the rest for the next call.
    async fn forget_forbidden(&self) {
        let forget = async |key: &Arc<str>| {
            let forgotten = self.run(&self.forget, key, vec![self.incarnation.as_str().into()]).await.is_ok();
            if forgotten {
                self.forbidden.remove(key);
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
    async fn say_there(&self, window: Duration) -> bool {
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

impl SessionStore for RedisSessionStore {
    async fn save(&self, session: &Session, snapshot: OffsetsSnapshot) -> Result<(), HistoryError> {
        let Some(offsets) = session.offsets() else { return Ok(()) };
        let (digest, state) = (secret::digest(&session.user()), StoredSession::of(session, snapshot));
        let was_saved = offsets.was_saved();
        self.write(SessionWrite { key: offsets.key(), digest: &digest, state: &state, was_saved, end: None }).await
    }

    async fn keep(&self, ended: EndedSession) -> Result<(), HistoryError> {
        let EndedSession { key, digest, state, window, was_saved, is_whole } = &ended;
        // Forbidden sessions are remembered until Redis has removed them.
        if window.is_zero() {
            self.forbidden.add(key);
        }
        let written = self.write(SessionWrite { key, digest, state, was_saved: *was_saved, end: Some(*window) }).await;
        match &written {
            Ok(()) => self.forbidden.remove(key),
            // If the last joins were not stored, Redis would recover the session without these rooms.
            Err(_) if !is_whole => self.forbidden.add(key),
            Err(_) => {}
        }
        written
    }

    /// Notifies the other nodes if one of them may still regard the session as connected.
    async fn take(&self, namespace: &Arc<str>, key: &Arc<str>, digest: &str) -> Result<StoredSession, RecoveryFailure> {
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

    async fn tend(&self, longest: Duration) -> bool {
        let said = longest.is_zero() || self.say_there(longest).await;
        self.forget_forbidden().await;
        said
    }
}
