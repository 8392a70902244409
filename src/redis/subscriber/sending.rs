//! Sends the requested subscriptions to Redis, and waits until Redis has made them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::sink::SubscriptionKind;
use super::wanted::{self, SubscriptionChange};
use super::{RETRY, SubscriberState};
use crate::redis::cause::{Cause, CauseKind};
use crate::redis::health::RedisPart;

/// How often some confirmed subscriptions are sent again although no failure is known. When a slot of a Redis Cluster
/// moves to another server, its subscriptions are lost without an error.
const REFRESH: Duration = Duration::from_secs(10);

/// Maximum number of confirmed channels that are subscribed again at each [`REFRESH`].
const REFRESH_AT_ONCE: usize = 512;

/// Maximum number of channels in one command to subscribe or unsubscribe.
const BATCH: usize = 512;

/// Makes the subscriptions that are requested, and makes all subscriptions again after each reconnection.
pub(super) async fn keep_subscribed(shared: Arc<SubscriberState>) {
    let mut reconnects = shared.client.reconnect_rx();
    let mut changes = shared.client.cluster_change_rx();
    let mut refresh = tokio::time::interval(REFRESH);
    let mut settled = true;
    loop {
        let mut again = false;
        tokio::select! {
            () = shared.state.stopped() => return,
            server = reconnects.recv() => match server {
                Err(RecvError::Closed) => return,
                _ => shared.forget_confirmations(),
            },
            Ok(_) = changes.recv() => shared.forget_confirmations(),
            _ = refresh.tick() => again = true,
            () = shared.changed.notified() => {}
            () = tokio::time::sleep(RETRY), if !settled => {}
        }
        // Without a connection no change is sent, and this task tries again until the connection is made.
        let list = {
            let mut wanted = shared.wanted.lock().expect("no thread panics while it holds this lock");
            if again { wanted.changes_and(REFRESH_AT_ONCE) } else { wanted.changes() }
        };
        settled = shared.client.is_connected() && shared.settle(list, &mut reconnects).await;
        if again && !settled {
            shared.forget_confirmations();
        }
    }
}

impl SubscriberState {
    /// Sends the changes in their order and waits until Redis has made the changes. Returns false if a change failed.
    async fn settle(&self, changes: Vec<SubscriptionChange>, reconnects: &mut Receiver<Server>) -> bool {
        // In a Redis Cluster each sharded channel has its own slot, and needs a command of its own.
        let alone = self.client.is_clustered();
        let mut sent = Vec::new();
        for group in wanted::groups(changes, |kind| if alone && kind == SubscriptionKind::Sharded { 1 } else { BATCH })
        {
            match self.send_permitted(group).await {
                Ok(group) => sent.extend(group),
                Err(error) => {
                    tracing::debug!(redis.error = %error, "subscribing failed");
                    self.state.failed(RedisPart::Subscriptions, Cause::of(&error).about("subscribing"));
                    self.confirm(&sent, reconnects).await;
                    return false;
                }
            }
            if sent.len() >= BATCH {
                if !self.confirm(&sent, reconnects).await {
                    return false;
                }
                sent.clear();
            }
        }
        let confirmed = self.confirm(&sent, reconnects).await;
        if confirmed && !self.wanted.lock().expect("no thread panics while it holds this lock").has_refused() {
            self.state.mended(RedisPart::Subscriptions);
        }
        confirmed
    }

    /// Sends a group of changes, and returns the changes that Redis has accepted. Redis refuses a whole command if the
    /// user has no right to one of its channels. After a refusal the group is halved and sent again, until each refused
    /// channel is alone. Refused channels are recorded, reported, and tried again at the next [`REFRESH`].
    async fn send_permitted(&self, group: Vec<SubscriptionChange>) -> Result<Vec<SubscriptionChange>, Error> {
        let mut taken = Vec::with_capacity(group.len());
        let mut left = vec![group];
        while let Some(mut group) = left.pop() {
            match self.send(&group).await {
                Ok(()) => taken.append(&mut group),
                Err(error) if lacks_channel(&error) && group.len() > 1 => {
                    let rest = group.split_off(group.len() / 2);
                    left.extend([rest, group]);
                }
                Err(error) if lacks_channel(&error) => {
                    let SubscriptionChange { kind, channel, .. } = &group[0];
                    let cause = Cause::of(&error).about(&format!("{} {}", kind.command(), spelled(*kind, channel)));
                    self.state.failed(RedisPart::Subscriptions, cause);
                    self.wanted.lock().expect("no thread panics while it holds this lock").refuse(&group[0]);
                    self.settled.notify_waiters();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Records that Redis has made the changes. Returns false if a reconnection has undone the changes.
    async fn confirm(&self, changes: &[SubscriptionChange], reconnects: &mut Receiver<Server>) -> bool {
        self.catch_up(changes).await;
        // A reconnection since the changes were sent may have lost the subscriptions.
        if reconnects.try_recv().is_ok() {
            self.forget_confirmations();
            return false;
        }
        self.wanted
            .lock()
            .expect("no thread panics while it holds this lock")
            .confirm(changes, |change| self.tell(change));
        self.settled.notify_waiters();
        true
    }

    fn tell(&self, SubscriptionChange { kind, channel, .. }: &SubscriptionChange) {
        if let Some(sink) = self.sinks(*kind).read().expect("no thread panics while it holds this lock").get(channel) {
            sink.confirmed(*kind, channel);
        }
    }

    /// Sends one command for a group of changes of the same kind.
    async fn send(&self, group: &[SubscriptionChange]) -> Result<(), Error> {
        let Some(first) = group.first() else { return Ok(()) };
        let names: Vec<String> = group.iter().map(|change| spelled(change.kind, &change.channel)).collect();
        match (first.kind, first.wanted) {
            (SubscriptionKind::Sharded, true) => self.client.ssubscribe(names).await,
            (SubscriptionKind::Sharded, false) => self.client.sunsubscribe(names).await,
            (SubscriptionKind::Plain, true) => self.client.subscribe(names).await,
            (SubscriptionKind::Plain, false) => self.client.unsubscribe(names).await,
            (SubscriptionKind::Unseen | SubscriptionKind::Below, true) => self.client.psubscribe(names).await,
            (SubscriptionKind::Unseen | SubscriptionKind::Below, false) => self.client.punsubscribe(names).await,
        }?;
        // In a Redis Cluster, fred waits for the answer to a sharded subscription itself, and follows redirections.
        if first.wanted && !(self.client.is_clustered() && first.kind == SubscriptionKind::Sharded) {
            self.pass_barrier().await?;
        }
        Ok(())
    }

    /// Waits until Redis has answered a command that was sent after all other commands. fred may return a confirmation
    /// as the answer, so only the echo of this barrier, or of a later barrier, counts. fred does not wait for answers
    /// to SUBSCRIBE and PSUBSCRIBE, so the answer to this command may be the refusal of an earlier subscription.
    ///
    /// The command is ECHO, because Redis never refuses ECHO, but refuses PING after a failed snapshot (MISCONF).
    async fn pass_barrier(&self) -> Result<(), Error> {
        let mark = self.barrier.fetch_add(1, Ordering::Relaxed) + 1;
        // In a Redis Cluster, fred sends plain subscriptions to the server of this slot.
        let slot = fred::util::redis_keyslot(self.client.id().as_bytes());
        let mut refusal = None;
        for _ in 0..=2 * BATCH {
            let echo = CustomCommand::new_static("ECHO", ClusterHash::Custom(slot), false);
            let number = self.barrier.fetch_add(1, Ordering::Relaxed) + 1;
            match self.client.custom::<fred::types::Value, _>(echo, vec![number.to_string()]).await {
                Ok(echo) if echo.as_u64().is_some_and(|echo| echo >= mark) => return refusal.map_or(Ok(()), Err),
                Ok(_) => {}
                // This answer belongs to an earlier subscription; the answer to ECHO follows.
                Err(error) if lacks_channel(&error) => refusal = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(fred::error::ErrorKind::Protocol, "an echo behind the subscriptions is not answered"))
    }
}

/// Whether the user has no right to one of the command's channels.
fn lacks_channel(error: &Error) -> bool {
    Cause::of(error).kind == CauseKind::NoRight && error.details().contains("channel")
}

/// The channel as written in the command. In a pattern the special characters are escaped, so that the pattern matches
/// only this name.
fn spelled(kind: SubscriptionKind, channel: &str) -> String {
    match kind {
        SubscriptionKind::Plain | SubscriptionKind::Sharded => channel.to_owned(),
        SubscriptionKind::Unseen => escaped(channel),
        SubscriptionKind::Below => escaped(channel) + "*",
    }
}

fn escaped(channel: &str) -> String {
    channel.chars().fold(String::with_capacity(channel.len()), |mut out, character| {
        if matches!(character, '*' | '?' | '[' | '\\') {
            out.push('\\');
        }
        out.push(character);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_one_channel_only() {
        assert_eq!(spelled(SubscriptionKind::Plain, "a#/*#"), "a#/*#");
        assert_eq!(spelled(SubscriptionKind::Below, "a#/*#"), r"a#/\*#*");
        assert_eq!(spelled(SubscriptionKind::Unseen, "a-b#/x[*]#"), r"a-b#/x\[\*]#");
    }
}
