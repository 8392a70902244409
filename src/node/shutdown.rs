//! Leaving: first not ready, then the clients, then what must not be lost.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::build::Parts;

/// Events that are held are said within this, or with the last words: a Redis that does not answer keeps nobody.
const HELD: Duration = Duration::from_millis(500);

/// How long a Redis that does not answer is given for all that is to be said to it.
const UNREACHABLE: Duration = Duration::from_millis(100);

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
    parts.forwarding.forwarder.tunnels().close(usize::MAX);
    stop.cancel();
    if timeout_at(half(), tasks.wait()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    let _ = timeout_at(half(), parts.publisher.say_held()).await;
    let reachable = is_reachable(parts).await;
    let left = by.saturating_duration_since(Instant::now());
    let lost = parts.gateway.close(if reachable { left } else { left.min(HELD) }, left).await;
    if lost > 0 {
        tracing::warn!(lost, "notices to backends are lost");
    }
    let goodbye = say_goodbye(parts);
    if reachable {
        goodbye.await;
    } else if timeout(UNREACHABLE, goodbye).await.is_err() {
        tracing::info!("the other nodes are not told, because Redis does not answer: they will see it within seconds");
    }
    tracing::info!("the node has left");
}

/// Takes back what the node has in Redis, tells the other nodes, and closes the connections.
async fn say_goodbye(parts: &Parts) {
    parts.presence.stop().await;
    parts.cluster.leave().await;
    if let Some(redis) = &parts.redis {
        redis.close().await;
    }
}

async fn is_reachable(parts: &Parts) -> bool {
    match &parts.redis {
        Some(redis) => redis.answers(HELD).await,
        None => true,
    }
}
