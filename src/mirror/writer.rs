//! Writes the mirrored changes to Redis.

use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use futures_util::future::join_all;
use indexmap::IndexMap;
use tokio::sync::mpsc;

use super::{MirrorChange, MirrorWrite};
use crate::redis::Redis;
use crate::redis::script::Script;
use crate::telemetry::metrics::Metrics;

/// Maximum number of changes that are taken from the queue and written to Redis at a time.
const MAX_BATCH: usize = 256;

/// Maximum life of a key after its last change: ten years.
const MAX_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Writes changes until every sender is dropped. Different sockets are written concurrently, the changes of one socket
/// one after the other.
pub(super) async fn run(redis: Redis, mut changes: mpsc::Receiver<MirrorChange>, metrics: Arc<Metrics>) {
    let script = Script::new(include_str!("write.lua"));
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while changes.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let mut sockets: IndexMap<Arc<str>, Vec<MirrorChange>> = IndexMap::new();
        for change in batch.drain(..) {
            sockets.entry(change.socket.clone()).or_default().push(change);
        }
        join_all(sockets.into_values().map(|changes| write_all(&redis, &script, &metrics, changes))).await;
    }
}

async fn write_all(redis: &Redis, script: &Script, metrics: &Metrics, changes: Vec<MirrorChange>) {
    for change in changes {
        let reason = match redis.is_up() {
            true => write(redis, script, change).await.err().map(|error| {
                tracing::debug!(redis.error = %error, "a mirrored key was not written");
                "failed"
            }),
            false => Some("away"),
        };
        if let Some(reason) = reason {
            metrics.mirror_dropped_total.with_label_values(&[reason]).inc();
        }
    }
}

async fn write(redis: &Redis, script: &Script, change: MirrorChange) -> Result<Value, fred::error::Error> {
    let mut args: Vec<Value> = vec![change.ttl.min(MAX_LIFE).as_millis().to_string().into()];
    match change.what {
        MirrorWrite::Client(fields) => {
            args.push("HSET".into());
            args.extend(fields.into_iter().flat_map(|(field, value)| [field.into(), value.into()]));
        }
        MirrorWrite::Joined(room) => args.extend(["SADD".into(), room.to_string().into()]),
        MirrorWrite::Left(room) => args.extend(["SREM".into(), room.to_string().into()]),
    }
    script.run(redis, vec![change.key], args).await
}
