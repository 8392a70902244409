//! Publishes with an id happen once, on whichever nodes they arrive, for a configured time.
//!
//! A publisher *claims* an id before it acts, and *completes* the claim with its answer; the same id then gets that
//! answer again. A claim whose node dies in between is free again after [`CLAIM_LIFE`]: the publish may then happen a second
//! time, which is better than never. A publish that is refused *releases* its claim, so that it can be sent again,
//! corrected.

mod memory;
mod redis;

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::redis::Redis;
use crate::telemetry::metrics::Metrics;

pub use memory::MAX_MEMORY_IDS;

/// A claim that is neither completed nor released is free again after this.
pub const CLAIM_LIFE: Duration = Duration::from_secs(30);

/// Longer ids are refused.
pub const MAX_ID_BYTES: usize = 256;

/// A larger answer is not kept: a duplicate then hears only that it is one.
pub const MAX_RESULT_BYTES: usize = 16 * 1024;

/// What an id was found to be.
#[derive(Debug)]
pub enum Claim {
    /// It was free: act, then complete or release it.
    New(Claimed),
    /// It was used for the same publish: this was the answer (JSON). `None`: there is none yet, or it was too large.
    Seen(Option<String>),
    /// It was used for another publish.
    Conflict,
}

/// An id that is ours to act for.
#[derive(Debug)]
#[must_use = "a claim is to be completed or released"]
pub struct Claimed {
    key: Key,
    fingerprint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    scope: String,
    id: String,
}

/// Why an id could not be claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdempotencyError {
    /// Redis is away, or did not answer: the publish can go on, but nobody can say whether it is the first.
    #[error("Redis did not answer; whether the id was used is not known")]
    Unavailable,
    /// The id is not usable.
    #[error("an id has 1 to {MAX_ID_BYTES} bytes, this one has {0}")]
    Length(usize),
}

/// The ids of the publishes of the last time.
pub struct Idempotency {
    backend: Backend,
    ttl: Duration,
    metrics: Arc<Metrics>,
}

enum Backend {
    Memory(memory::Memory),
    Redis(Redis),
}

impl Idempotency {
    /// For a node alone. `ttl` is how long an id is remembered.
    pub fn in_memory(ttl: Duration, metrics: Arc<Metrics>) -> Self {
        Self { backend: Backend::Memory(memory::Memory::default()), ttl, metrics }
    }

    /// For a cluster.
    pub fn in_redis(redis: Redis, ttl: Duration, metrics: Arc<Metrics>) -> Self {
        Self { backend: Backend::Redis(redis), ttl, metrics }
    }

    /// Claims an id. `scope` keeps the ids of different contracts apart; `body` is what is published, so that
    /// an id used twice for different things is noticed.
    ///
    /// # Errors
    /// [`IdempotencyError::Unavailable`]: go on, and say that the promise is not kept.
    pub async fn claim(&self, scope: &str, id: &str, body: &[u8]) -> Result<Claim, IdempotencyError> {
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(IdempotencyError::Length(id.len()));
        }
        let claimed =
            Claimed { key: Key { scope: scope.to_owned(), id: id.to_owned() }, fingerprint: fingerprint(body) };
        let life = CLAIM_LIFE.min(self.ttl);
        let found = match &self.backend {
            Backend::Memory(memory) => Ok(memory.claim(&claimed.key, &entry(&claimed, None), life)),
            Backend::Redis(redis) => redis::claim(redis, &claimed.key, entry(&claimed, None), life).await,
        };
        let found = found.inspect_err(|error| self.failed("claim", error))?;
        Ok(match found {
            None => Claim::New(claimed),
            Some(found) => self.seen(scope, &claimed, &found),
        })
    }

    /// Remembers the answer (JSON) for those who use the id again.
    pub async fn complete(&self, claimed: Claimed, result: &str) {
        let result = Some(result).filter(|result| result.len() <= MAX_RESULT_BYTES);
        let entry = entry(&claimed, result);
        match &self.backend {
            Backend::Memory(memory) => memory.complete(&claimed.key, entry, self.ttl),
            Backend::Redis(redis) => {
                let done = redis::complete(redis, &claimed.key, entry, self.ttl).await;
                let _ = done.inspect_err(|error| self.failed("complete", error));
            }
        }
    }

    /// Frees the id: nothing was done.
    pub async fn release(&self, claimed: Claimed) {
        match &self.backend {
            Backend::Memory(memory) => memory.release(&claimed.key),
            Backend::Redis(redis) => {
                let done = redis::release(redis, &claimed.key).await;
                let _ = done.inspect_err(|error| self.failed("release", error));
            }
        }
    }

    fn seen(&self, scope: &str, claimed: &Claimed, found: &str) -> Claim {
        let (fingerprint, result) = found.split_once(' ').unwrap_or((found, ""));
        if fingerprint != claimed.fingerprint {
            return Claim::Conflict;
        }
        self.metrics.idempotent_duplicates_total.with_label_values(&[scope]).inc();
        Claim::Seen(Some(result).filter(|result| !result.is_empty()).map(str::to_owned))
    }

    fn failed(&self, op: &str, error: &IdempotencyError) {
        self.metrics.idempotent_errors_total.with_label_values(&[op]).inc();
        tracing::debug!(idempotency.op = op, error = %error, "an id could not be looked up or kept");
    }
}

impl std::fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idempotency").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// What is kept: the publish's fingerprint, and its answer once there is one.
fn entry(claimed: &Claimed, result: Option<&str>) -> String {
    match result {
        Some(result) => format!("{} {result}", claimed.fingerprint),
        None => claimed.fingerprint.clone(),
    }
}

fn fingerprint(body: &[u8]) -> String {
    Sha256::digest(body).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}
