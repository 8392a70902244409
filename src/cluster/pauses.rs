//! Detects that this process did not run for a while (`SIGSTOP`, a suspended machine), and logs how many messages the
//! process missed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::redis::Redis;
use crate::telemetry::metrics::Metrics;

/// How often the clock is checked for a jump.
const TICK: Duration = Duration::from_millis(500);

/// Pauses of at least this length are logged.
const PAUSE: Duration = Duration::from_secs(5);

/// Maximum time to wait after a pause until messages of other nodes arrive again. After this time the node logs the
/// number of missed messages that it has counted so far.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait after messages arrive again. In this time the other nodes report their newest message numbers
/// twice, so that the missing messages are counted.
const SETTLED: Duration = Duration::from_secs(4);

/// Watches for pauses of this process until the connections to Redis are closed.
pub(super) async fn watch(redis: Redis, metrics: Arc<Metrics>) {
    let mut lost_before = lost(&metrics);
    while !redis.is_closed() {
        let began = Instant::now();
        tokio::time::sleep(TICK).await;
        let paused = began.elapsed().saturating_sub(TICK);
        if paused >= PAUSE {
            let paused_seconds = paused.as_secs();
            tracing::warn!(
                paused_seconds,
                "this node did not run for a while: the process or its machine was suspended"
            );
            wait_for_messages(&redis).await;
            let missed = lost(&metrics) - lost_before;
            tracing::warn!(
                paused_seconds,
                missed,
                "this node runs again; `missed` messages of other nodes never reached it"
            );
        }
        lost_before = lost(&metrics);
    }
}

async fn wait_for_messages(redis: &Redis) {
    let until = Instant::now() + PATIENCE;
    while redis.hearing().is_none() && Instant::now() < until {
        tokio::time::sleep(TICK).await;
    }
    tokio::time::sleep(SETTLED).await;
}

/// How many messages of other nodes this node has missed so far.
fn lost(metrics: &Metrics) -> u64 {
    metrics.cluster_missed_total.with_label_values::<&str>(&[]).get()
}
