//! Stops a node: the node becomes not ready, hands its clients over, and then sends the events and notices that wait.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::build::NodeParts;

/// The longest time for sending the throttled events that wait. A Redis that does not answer must not delay the
/// shutdown.
const HELD: Duration = Duration::from_millis(500);

/// The longest time for announcing the node's end while Redis does not answer.
const UNREACHABLE: Duration = Duration::from_millis(100);

/// Hands the clients over to other nodes, sends the events and notices that wait, cancels `stop`, and waits for
/// `tasks`.
pub(super) async fn leave(parts: &NodeParts, stop: &CancellationToken, tasks: &TaskTracker) {
    tracing::info!("leaving");
    // Throttled events that wait are sent while all clients are still connected: without a delay before the drain, the
    // first clients are disconnected at once. Events that are throttled later are sent at the end.
    let _ = timeout(HELD, parts.publisher.say_held()).await;
    parts.drain.begin(true);
    parts.drain.finished().await;
    let by = parts.drain.ends_by();
    let half = || by - by.saturating_duration_since(Instant::now()) / 2;
    // All clients have left, or the deadline for the sockets has passed, so the remaining sockets are closed. Requests
    // that are being answered may finish.
    parts.engine.close_all();
    parts.forwarding.forwarder.tunnels().close(usize::MAX);
    stop.cancel();
    if timeout_at(half(), tasks.wait()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    // The leaves of the last clients have to be announced before the announcements that wait are sent.
    let _ = timeout(HELD, parts.presence.settle()).await;
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
        tracing::info!(
            "the node's end is not announced, because Redis does not answer; the other nodes will notice within seconds"
        );
    }
    tracing::info!("the node has left the cluster");
}

/// Removes the node's data from Redis, tells the other nodes that it leaves, and closes the connections to Redis.
async fn say_goodbye(parts: &NodeParts) {
    parts.presence.stop().await;
    if let Some(inbound) = &parts.inbound {
        inbound.leave().await;
    }
    parts.cluster.leave().await;
    if let Some(redis) = &parts.redis {
        redis.close().await;
    }
}

async fn is_reachable(parts: &NodeParts) -> bool {
    match &parts.redis {
        Some(redis) => redis.answers(HELD).await,
        None => true,
    }
}
