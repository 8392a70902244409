//! The probe of a node: the node sends messages to itself through Redis and writes a key, at intervals of
//! `redis.probe_interval`. A connection alone does not prove that messages arrive, and a server that answers may still
//! refuse writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::error::ErrorKind;
use fred::interfaces::{ClientLike, KeysInterface, PubsubInterface};
use fred::types::Expiration;
use tokio::sync::watch;

use super::Redis;
use super::cause::{Cause, CauseKind};
use super::health::RedisPart;

/// If this many messages in a row do not arrive, the node reconnects the receiving connection, because that connection
/// may be half open.
const PATIENCE: u32 = 3;

/// If this many commands in a row are not answered within `redis.command_timeout`, the node reconnects both
/// connections, because the connections may be stuck.
const TIME_OUTS: u32 = 2;

/// Maximum pause of the probe after a message that did not arrive.
const SOON: Duration = Duration::from_millis(100);

/// The shortest time to live of the key that the probe writes.
const KEY_LIFE: Duration = Duration::from_secs(10);

/// The shortest time between two reconnections while the server is a replica.
const FOLLOW: Duration = Duration::from_secs(1);

/// The command that [`super::proof`] sends.
pub(super) const PROOF: &str = "DEL";

/// Starts the probe of a node.
pub(super) fn start(redis: &Redis, node: &str, every: Duration) {
    let channel: Arc<str> = redis.keys().probe_channel(node).into();
    let (echo, heard) = watch::channel(0);
    redis.subscriber().subscribe(channel.clone(), move |message| {
        if let Ok(bytes) = <[u8; 8]>::try_from(&*message.body) {
            echo.send_replace(u64::from_be_bytes(bytes));
        }
    });
    let key = redis.keys().probe_write(node);
    let renewing = Arc::new(AtomicBool::new(false));
    redis.tasks().spawn(run(redis.clone(), (channel, key), every, heard, renewing.clone()));
    redis.tasks().spawn(follow_primary(redis.clone(), renewing));
}

/// The result of sending a message to this node itself.
enum Probe {
    Back(Duration),
    /// Redis accepted the message, but the message did not arrive.
    Lost,
    /// Redis did not accept the message: there is no connection or no subscription yet, or Redis refused it.
    Unsent,
    /// The message was sent, but Redis did not answer within `redis.command_timeout`.
    Unanswered,
}

impl Probe {
    /// The label in metrics.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Back(_) => "back",
            Self::Lost => "lost",
            Self::Unsent | Self::Unanswered => "unsent",
        }
    }
}

async fn run(
    redis: Redis,
    (channel, key): (Arc<str>, String),
    every: Duration,
    mut heard: watch::Receiver<u64>,
    renewing: Arc<AtomicBool>,
) {
    let state = redis.state().clone();
    let (mut lost, mut unanswered) = (0, 0);
    for number in 1.. {
        let both =
            async { tokio::join!(send(&redis, &channel, number, &mut heard), write(&redis, &key, number, every)) };
        let (probe, ()) = tokio::select! {
            () = state.stopped() => return,
            both = both => both,
        };
        let is_well = matches!(probe, Probe::Back(_)) && !state.is_read_only();
        let pause = if is_well { every } else { every.min(SOON) };
        state.count_probe(probe.as_str());
        unanswered = if matches!(probe, Probe::Unanswered) { unanswered + 1 } else { 0 };
        lost = if matches!(probe, Probe::Lost) { lost + 1 } else { 0 };
        if let Probe::Back(round_trip) = probe {
            state.heard(round_trip);
        }
        state.tell(&redis.health());
        if lost >= PATIENCE || unanswered >= TIME_OUTS {
            renew(&redis, unanswered >= TIME_OUTS, &renewing);
            (lost, unanswered) = (0, 0);
        }
        // While no message arrives, the pauses are short, so that the node soon notices when Redis works.
        tokio::select! {
            () = state.stopped() => return,
            () = state.lost() => tokio::time::sleep(SOON.min(every)).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Reconnects the receiving connection and, if `both` is true, the connection for commands. Does nothing while an
/// earlier call is still reconnecting.
fn renew(redis: &Redis, both: bool, renewing: &Arc<AtomicBool>) {
    if renewing.swap(true, Ordering::SeqCst) {
        return;
    }
    let (task, renewing) = (redis.clone(), renewing.clone());
    redis.tasks().spawn(async move {
        let commands = async {
            if both {
                let _ = task.commands().force_reconnection().await;
            }
        };
        tokio::select! {
            () = task.state().stopped() => {}
            _ = async { tokio::join!(commands, task.listener().force_reconnection()) } => {}
        }
        renewing.store(false, Ordering::SeqCst);
    });
}

/// Sends one message from this node to itself and waits until the message arrives. If the message does not arrive,
/// records the reason.
async fn send(redis: &Redis, channel: &Arc<str>, number: u64, heard: &mut watch::Receiver<u64>) -> Probe {
    let state = redis.state();
    if !redis.is_connected() || !redis.is_listening() || !redis.subscriber().is_complete() {
        state.unheard();
        return Probe::Unsent;
    }
    let started = Instant::now();
    let body = Bytes::copy_from_slice(&number.to_be_bytes());
    let sent: Result<i64, _> = redis.client().spublish(&**channel, body).await;
    let timed_out = matches!(&sent, Err(error) if *error.kind() == ErrorKind::Timeout);
    state.set_answers(!timed_out);
    if let Err(error) = sent {
        state.unheard();
        state.failed(RedisPart::Echo, Cause::of(&error).about(&format!("SPUBLISH {channel}")));
        return if timed_out { Probe::Unanswered } else { Probe::Unsent };
    }
    state.answered(started.elapsed());
    let back = heard.wait_for(|last| *last == number);
    match tokio::time::timeout(redis.command_timeout(), back).await {
        Ok(Ok(_)) => Probe::Back(started.elapsed()),
        _ => {
            state.failed(RedisPart::Echo, Cause::new(CauseKind::Deaf));
            Probe::Lost
        }
    }
}

/// Writes the node's key. A server may answer commands and deliver messages, and still refuse writes.
async fn write(redis: &Redis, key: &str, number: u64, every: Duration) {
    if !redis.is_connected() {
        return;
    }
    let life = i64::try_from(KEY_LIFE.max(every * 2).as_millis()).unwrap_or(i64::MAX);
    let life = Some(Expiration::PX(life));
    match redis.client().set::<(), _, _>(key, number.to_string(), life, None, false).await {
        Ok(()) => redis.state().wrote(),
        Err(error) => redis.notice(&error, &format!("SET {key}")),
    }
}

/// Reconnects when the server has refused a command because the server is a replica. The host name, or the sentinels,
/// lead to the new primary now or soon.
async fn follow_primary(redis: Redis, renewing: Arc<AtomicBool>) {
    let state = redis.state().clone();
    loop {
        tokio::select! {
            () = state.stopped() => return,
            () = state.demoted() => {}
        }
        tracing::debug!("Redis is a replica: reconnecting to find the primary");
        renew(&redis, true, &renewing);
        tokio::select! {
            () = state.stopped() => return,
            () = tokio::time::sleep(FOLLOW) => {}
        }
    }
}
