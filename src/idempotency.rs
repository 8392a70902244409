//! A publish with an id happens once, whichever node receives it, for a configured time.
//!
//! A publisher *claims* an id before it acts, and *completes* the claim with its answer. A later publish with the same
//! id then gets the same answer again. When a node dies between the claim and its completion, the id becomes free again
//! after [`CLAIM_LIFE`]; the publish can then happen a second time, which is better than never. A publish that is
//! refused *releases* its claim, so that a corrected publish can be sent with the same id.

mod memory;
mod redis;

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::redis::Redis;
use crate::store::{MemoryOrRedis, on_store};
use crate::telemetry::metrics::Metrics;

pub use memory::{MAX_MEMORY_IDS, MemoryIds};
pub use redis::RedisIds;

/// How long a claim lives when it is neither completed nor released.
pub const CLAIM_LIFE: Duration = Duration::from_secs(30);

/// Maximum length of an id, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// Maximum size of a stored answer, in bytes. A larger answer is not stored: a duplicate of that publish is told that
/// it is a duplicate, but not the answer.
pub const MAX_RESULT_BYTES: usize = 16 * 1024;

/// The result of claiming an id.
#[derive(Debug)]
pub enum ClaimResult {
    /// The id was free: the caller must act, and then complete or release the claim.
    New(ClaimedId),
    /// The id was used for the same publish, with this answer (JSON). `None` when there is no answer yet, or the answer
    /// was too large to be stored.
    Seen(Option<String>),
    /// The id was used for a different publish.
    Conflict,
}

/// The claim of an id. Until it is completed or released, no other publish can use the id.
#[derive(Debug)]
#[must_use = "a claim is to be completed or released"]
pub struct ClaimedId {
    key: PublishKey,
    fingerprint: String,
}

/// An id within its scope, which is a contract.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishKey {
    /// The name of the contract.
    pub scope: String,
    /// The id that the publisher chose.
    pub id: String,
}

/// Why an id could not be claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdempotencyError {
    /// Redis is unavailable, or did not answer. The publish can continue, but it may be a duplicate.
    #[error("Redis did not answer; whether the id was used is not known")]
    Unavailable,
    /// The id is empty or longer than [`MAX_ID_BYTES`].
    #[error("an id must have 1 to {MAX_ID_BYTES} bytes; this one has {0}")]
    Length(usize),
}

/// Stores the ids of publishes, each with an entry: a text that only [`Idempotency`] reads.
pub trait IdStore: Send + Sync {
    /// Returns the stored entry of an id. If there is none, stores this one for `life` and returns `None`. Of
    /// concurrent claims, on any node, only one gets `None`.
    fn claim(
        &self,
        key: &PublishKey,
        entry: &str,
        life: Duration,
    ) -> impl Future<Output = Result<Option<String>, IdempotencyError>> + Send;

    /// Replaces the stored entry of an id, and keeps the new entry for `ttl`.
    fn complete(
        &self,
        key: &PublishKey,
        entry: &str,
        ttl: Duration,
    ) -> impl Future<Output = Result<(), IdempotencyError>> + Send;

    /// Removes the stored entry of an id.
    fn release(&self, key: &PublishKey) -> impl Future<Output = Result<(), IdempotencyError>> + Send;
}

/// The ids of recent publishes.
pub struct Idempotency {
    backend: MemoryOrRedis<MemoryIds, RedisIds>,
    ttl: Duration,
    metrics: Arc<Metrics>,
}

impl Idempotency {
    /// Creates the ids of a single node, in memory. `ttl` is how long an id is remembered.
    pub fn in_memory(ttl: Duration, metrics: Arc<Metrics>) -> Self {
        Self { backend: MemoryOrRedis::Memory(MemoryIds::default()), ttl, metrics }
    }

    /// Creates the ids of a cluster, in Redis. `ttl` is how long an id is remembered.
    pub fn in_redis(redis: Redis, ttl: Duration, metrics: Arc<Metrics>) -> Self {
        Self { backend: MemoryOrRedis::Redis(RedisIds::new(redis)), ttl, metrics }
    }

    /// Claims an id. `scope` separates the ids of different contracts. `body` is the published content, so that an id
    /// used twice for different content is detected.
    ///
    /// # Errors
    /// Returns [`IdempotencyError::Length`] for an empty or too long id. [`IdempotencyError::Unavailable`] while Redis
    /// cannot be asked: publish anyway, and report that duplicates are not detected.
    pub async fn claim(&self, scope: &str, id: &str, body: &[u8]) -> Result<ClaimResult, IdempotencyError> {
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(IdempotencyError::Length(id.len()));
        }
        let claimed = ClaimedId {
            key: PublishKey { scope: scope.to_owned(), id: id.to_owned() },
            fingerprint: fingerprint(body),
        };
        let life = CLAIM_LIFE.min(self.ttl);
        let found = on_store!(&self.backend, store => store.claim(&claimed.key, &claimed.fingerprint, life).await);
        let found = found.inspect_err(|error| self.failed("claim", error))?;
        Ok(match found {
            None => ClaimResult::New(claimed),
            Some(found) => self.seen(scope, &claimed, &found),
        })
    }

    /// Stores the answer (JSON) for later publishes with the same id.
    pub async fn complete(&self, claimed: ClaimedId, result: &str) {
        let result = Some(result).filter(|result| result.len() <= MAX_RESULT_BYTES);
        let entry = entry(&claimed, result);
        let done = on_store!(&self.backend, store => store.complete(&claimed.key, &entry, self.ttl).await);
        let _ = done.inspect_err(|error| self.failed("complete", error));
    }

    /// Frees the id, because nothing was published.
    pub async fn release(&self, claimed: ClaimedId) {
        let done = on_store!(&self.backend, store => store.release(&claimed.key).await);
        let _ = done.inspect_err(|error| self.failed("release", error));
    }

    fn seen(&self, scope: &str, claimed: &ClaimedId, found: &str) -> ClaimResult {
        let (fingerprint, result) = found.split_once(' ').unwrap_or((found, ""));
        if fingerprint != claimed.fingerprint {
            return ClaimResult::Conflict;
        }
        self.metrics.idempotent_duplicates_total.with_label_values(&[scope]).inc();
        ClaimResult::Seen(Some(result).filter(|result| !result.is_empty()).map(str::to_owned))
    }

    fn failed(&self, op: &str, error: &IdempotencyError) {
        self.metrics.idempotent_errors_total.with_label_values(&[op]).inc();
        tracing::debug!(idempotency.op = op, error = %error, "an id of a publish could not be checked or recorded");
    }
}

impl std::fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idempotency").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// The stored value: the publish's fingerprint, followed by its answer when the claim is completed.
fn entry(claimed: &ClaimedId, result: Option<&str>) -> String {
    match result {
        Some(result) => format!("{} {result}", claimed.fingerprint),
        None => claimed.fingerprint.clone(),
    }
}

fn fingerprint(body: &[u8]) -> String {
    Sha256::digest(body).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}
