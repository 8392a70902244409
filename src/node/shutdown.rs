//! Leaving: first not ready, then the clients, then what must not be lost.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::build::Parts;

/// How long connections and notices may take to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Resolves at SIGTERM or SIGINT. They are listened for from the call on, not from the first poll: one that came
/// before would end the process at once.
pub(super) fn asked() -> impl Future<Output = ()> {
    let terminate = signal(SignalKind::terminate());
    let interrupt = signal(SignalKind::interrupt());
    async {
        tokio::select! {
            () = received(terminate) => {}
            () = received(interrupt) => {}
        }
    }
}

async fn received(signal: io::Result<Signal>) {
    match signal {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

/// Hands the clients over to other nodes: their transport closes, so that they return by themselves.
pub(super) async fn leave(parts: &Parts, stop: &CancellationToken) {
    tracing::info!("leaving");
    parts.ready.leave();
    parts.engine.hub().refuse_new();
    stop.cancel();
    parts.engine.close_all();
    let lost = parts.gateway.close(PATIENCE).await;
    if lost > 0 {
        tracing::warn!(lost, "notices to backends are lost");
    }
    parts.presence.stop().await;
    parts.cluster.leave().await;
    if let Some(redis) = &parts.redis {
        redis.close().await;
    }
}
