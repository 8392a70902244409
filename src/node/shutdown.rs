//! Leaving: first not ready, then the clients, then what must not be lost.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::build::Parts;

/// Events that are held are said within this, or with the last words: a Redis that does not answer keeps nobody.
const HELD: Duration = Duration::from_millis(500);

/// Hands the clients over to other nodes, says what must not be lost, and ends what `stop` and `tasks` hold.
pub(super) async fn leave(parts: &Parts, stop: &CancellationToken, tasks: &TaskTracker) {
    tracing::info!("leaving");
    // While everybody is still here: without a delay, the first go at once. What comes later is said at the end.
    let _ = timeout(HELD, parts.publisher.say_held()).await;
    parts.drain.begin(true);
    parts.drain.finished().await;
    let by = parts.drain.ends_by();
    let half = || by - by.saturating_duration_since(Instant::now()) / 2;
    // Nobody is left, or it is time: whoever is, goes with the listeners. Requests that are being answered are waited for.
    parts.engine.close_all();
    stop.cancel();
    if timeout_at(half(), tasks.wait()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    let _ = timeout_at(half(), parts.publisher.say_held()).await;
    let lost = parts.gateway.close(by.saturating_duration_since(Instant::now())).await;
    if lost > 0 {
        tracing::warn!(lost, "notices to backends are lost");
    }
    parts.presence.stop().await;
    parts.cluster.leave().await;
    if let Some(redis) = &parts.redis {
        redis.close().await;
    }
    tracing::info!("the node has left");
}
