//! Sends a message to ourselves through Redis, again and again: connected is not subscribed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::interfaces::{ClientLike, PubsubInterface};
use tokio::sync::watch;

use super::Redis;

/// After so many messages that did not come back, the listening connection is made anew: it may be half open.
const PATIENCE: u32 = 3;

/// Starts the probe of a node.
pub(super) fn start(redis: &Redis, node: &str, every: Duration) {
    let channel: Arc<str> = redis.keys().probe_channel(node).into();
    let (echo, heard) = watch::channel(0);
    redis.subscriber().subscribe(channel.clone(), move |message| {
        if let Ok(bytes) = <[u8; 8]>::try_from(&*message.body) {
            echo.send_replace(u64::from_be_bytes(bytes));
        }
    });
    redis.tasks().spawn(run(redis.clone(), channel, every, heard));
}

/// What became of a message to ourselves.
enum Probe {
    Back(Duration),
    /// Redis took it, and it did not come back.
    Lost,
    /// It was not taken: there is no connection, or no subscription yet.
    Unsent,
}

impl Probe {
    /// The label in metrics.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Back(_) => "back",
            Self::Lost => "lost",
            Self::Unsent => "unsent",
        }
    }
}

async fn run(redis: Redis, channel: Arc<str>, every: Duration, mut heard: watch::Receiver<u64>) {
    let state = redis.state().clone();
    let mut lost = 0;
    for number in 1.. {
        let probe = tokio::select! {
            () = state.stopped() => return,
            probe = send(&redis, &channel, number, &mut heard) => probe,
        };
        let pause = if matches!(probe, Probe::Back(_)) { every } else { every.min(SOON) };
        state.count_probe(probe.as_str());
        match probe {
            Probe::Back(round_trip) => {
                lost = 0;
                state.heard(round_trip);
            }
            Probe::Lost => lost += 1,
            // Connections that come back by themselves must not be broken again.
            Probe::Unsent => lost = 0,
        }
        if lost >= PATIENCE {
            lost = 0;
            let _ = redis.listener().force_reconnection().await;
        }
        // Until a message is back, the next follows soon: a node should not wait to be ready.
        tokio::select! {
            () = state.stopped() => return,
            () = state.lost() => tokio::time::sleep(SOON.min(every)).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// How soon a message that did not come back is followed by another.
const SOON: Duration = Duration::from_millis(100);

/// Sends one message and waits for it; notes why it did not come back.
async fn send(redis: &Redis, channel: &Arc<str>, number: u64, heard: &mut watch::Receiver<u64>) -> Probe {
    let state = redis.state();
    if !redis.is_connected() {
        state.unheard("not connected");
        return Probe::Unsent;
    }
    if !redis.is_listening() || !redis.subscriber().is_complete() {
        state.unheard("not subscribed yet");
        return Probe::Unsent;
    }
    let started = Instant::now();
    let body = Bytes::copy_from_slice(&number.to_be_bytes());
    let sent: Result<i64, _> = redis.client().spublish(&**channel, body).await;
    state.set_answers(!matches!(&sent, Err(error) if *error.kind() == fred::error::ErrorKind::Timeout));
    if let Err(error) = sent {
        state.unheard(&error.to_string());
        return Probe::Unsent;
    }
    state.answered(started.elapsed());
    let back = heard.wait_for(|last| *last == number);
    match tokio::time::timeout(redis.command_timeout(), back).await {
        Ok(Ok(_)) => Probe::Back(started.elapsed()),
        _ => {
            state.unheard("a message to ourselves did not come back");
            Probe::Lost
        }
    }
}
