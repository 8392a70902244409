//! The ids of a cluster: one Redis STRING for each id.

use std::time::Duration;

use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::{IdempotencyError, PublishKey};
use crate::redis::Redis;

/// Returns the stored value of the id. If there is no value, claims the id and returns `None`. Atomic: when several
/// nodes claim the same id, only one node gets it.
pub(super) async fn claim(
    redis: &Redis,
    key: &PublishKey,
    entry: String,
    life: Duration,
) -> Result<Option<String>, IdempotencyError> {
    let args = vec![name(redis, key), entry.into(), "NX".into(), "GET".into(), "PX".into(), millis(life)];
    Ok(run(redis, "SET", args).await?.into_string())
}

pub(super) async fn complete(
    redis: &Redis,
    key: &PublishKey,
    entry: String,
    ttl: Duration,
) -> Result<(), IdempotencyError> {
    let args = vec![name(redis, key), entry.into(), "PX".into(), millis(ttl)];
    run(redis, "SET", args).await.map(drop)
}

pub(super) async fn release(redis: &Redis, key: &PublishKey) -> Result<(), IdempotencyError> {
    run(redis, "DEL", vec![name(redis, key)]).await.map(drop)
}

async fn run(redis: &Redis, command: &'static str, args: Vec<Value>) -> Result<Value, IdempotencyError> {
    let about = || format!("{command} {}", args[0].as_string().unwrap_or_default());
    let call = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    let noticed = redis.noticed(about, redis.client().custom(call, args.clone()));
    redis.when_up(noticed).await.map_err(|error| {
        tracing::debug!(redis.error = %error, "an id of a publish could not be checked or recorded");
        IdempotencyError::Unavailable
    })
}

fn name(redis: &Redis, key: &PublishKey) -> Value {
    redis.keys().publish_id(&key.scope, &key.id).into()
}

/// A duration in ms, at least 1, because Redis refuses a time to live of zero.
fn millis(duration: Duration) -> Value {
    duration.as_millis().max(1).to_string().into()
}
