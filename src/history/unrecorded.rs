//! Namespaces in which an event was published live that the histories may lack.
//!
//! Offsets do not show the missing event, so every proof that a client has missed nothing must ask this module.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::time::Instant;

use super::HistoryError;
use crate::redis::Redis;

/// Time to wait after a failure before Redis is asked again to store the note.
const RETRY: Duration = Duration::from_millis(200);

/// The namespaces with unrecorded events: those of this node, and those that other nodes have noted in Redis.
pub(super) struct Unrecorded {
    redis: Redis,
    noted: Arc<Mutex<HashMap<Arc<str>, UnrecordedNamespace>>>,
}

struct UnrecordedNamespace {
    until: Instant,
    being_told: bool,
}

impl Unrecorded {
    pub(super) fn new(redis: Redis) -> Self {
        Self { redis, noted: Arc::default() }
    }

    pub(super) fn note(&self, namespace: &Arc<str>, life: Duration) {
        let tell = {
            let mut all = self.noted.lock().expect("no thread panics while it holds this lock");
            let until = Instant::now() + life;
            let noted = all.entry(namespace.clone()).or_insert(UnrecordedNamespace { until, being_told: false });
            noted.until = until;
            !std::mem::replace(&mut noted.being_told, true)
        };
        if tell {
            tokio::spawn(tell_others(self.redis.clone(), self.noted.clone(), namespace.clone(), life));
        }
    }

    pub(super) async fn is_noted(&self, namespace: &str) -> Result<bool, HistoryError> {
        let now = Instant::now();
        if self
            .noted
            .lock()
            .expect("no thread panics while it holds this lock")
            .get(namespace)
            .is_some_and(|noted| noted.until > now)
        {
            return Ok(true);
        }
        let redis = &self.redis;
        let command = CustomCommand::new_static("EXISTS", ClusterHash::FirstKey, false);
        let key: Value = redis.keys().recovery_unrecorded(namespace).into();
        let about = || format!("EXISTS {}", redis.keys().recovery_unrecorded(namespace));
        let noticed = redis.noticed(about, redis.client().custom(command, vec![key]));
        let count: i64 = redis.when_up(noticed).await?;
        Ok(count > 0)
    }
}

/// Notes the namespace in Redis for the other nodes. Ends when Redis has stored the note. An unrecorded event after
/// that starts a new task.
async fn tell_others(
    redis: Redis,
    noted: Arc<Mutex<HashMap<Arc<str>, UnrecordedNamespace>>>,
    namespace: Arc<str>,
    life: Duration,
) {
    while !redis.is_closed() {
        if redis.is_up() {
            if let Some(noted) = noted.lock().expect("no thread panics while it holds this lock").get_mut(&namespace) {
                noted.being_told = false;
            }
            let command = CustomCommand::new_static("SET", ClusterHash::FirstKey, false);
            let args: Vec<Value> = vec![
                redis.keys().recovery_unrecorded(&namespace).into(),
                "1".into(),
                "PX".into(),
                life.as_millis().to_string().into(),
            ];
            let about = || format!("SET {}", redis.keys().recovery_unrecorded(&namespace));
            if redis.noticed(about, redis.client().custom::<Value, _>(command, args)).await.is_ok() {
                return;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}
