//! Subscriptions that survive: what is asked for while Redis is away takes effect when it comes, and every
//! channel is subscribed again after each reconnection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use tokio::sync::Notify;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::task::TaskTracker;

use super::health::State;
use crate::telemetry::metrics::Metrics;

/// How soon a failed subscription is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How often every subscription is sent again although nothing seems wrong: a slot of a Redis Cluster that
/// moves takes its subscriptions away without an error.
const REFRESH: Duration = Duration::from_secs(10);

/// A message of a channel.
#[derive(Debug)]
pub struct Message {
    /// The channel.
    pub channel: Arc<str>,
    /// What was published.
    pub body: Bytes,
}

/// Takes the messages of a channel, in order. Called on one task for all channels: it must only hand over.
type Sink = Arc<dyn Fn(Message) + Send + Sync>;

/// The subscriptions of this node (sharded pub/sub).
#[derive(Clone)]
pub struct Subscriber {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    state: Arc<State>,
    metrics: Arc<Metrics>,
    sinks: RwLock<HashMap<Arc<str>, Sink>>,
    /// Channels, and whether the present connection has them.
    wanted: Mutex<HashMap<Arc<str>, Wanted>>,
    changed: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Asked,
    Confirmed,
    Unwanted,
}

impl Subscriber {
    pub(super) fn start(client: &Client, state: Arc<State>, metrics: Arc<Metrics>, tasks: &TaskTracker) -> Self {
        let shared = Arc::new(Shared {
            client: client.clone(),
            state,
            metrics,
            sinks: RwLock::default(),
            wanted: Mutex::default(),
            changed: Notify::new(),
        });
        // Both receivers exist before the client connects, so that nothing is missed.
        tasks.spawn(dispatch(shared.clone(), client.message_rx()));
        tasks.spawn(keep_subscribed(shared.clone()));
        Self { shared }
    }

    /// Subscribes now, or as soon as Redis is there; `sink` gets the messages in order. It replaces an earlier one.
    pub fn subscribe(&self, channel: impl Into<Arc<str>>, sink: impl Fn(Message) + Send + Sync + 'static) {
        let channel = channel.into();
        self.shared.sinks.write().expect("no panic while held").insert(channel.clone(), Arc::new(sink));
        self.shared.want(channel, Wanted::Asked);
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, channel: &str) {
        self.shared.sinks.write().expect("no panic while held").remove(channel);
        self.shared.want(channel.into(), Wanted::Unwanted);
    }

    /// Whether the present connection has every channel that was asked for.
    pub fn is_complete(&self) -> bool {
        self.shared.client.is_connected() && self.shared.pending().is_empty()
    }

    pub(super) fn stop(&self) {
        self.shared.sinks.write().expect("no panic while held").clear();
        self.shared.wanted.lock().expect("no panic while held").clear();
    }
}

// === impl Shared ===

impl Shared {
    fn want(&self, channel: Arc<str>, wanted: Wanted) {
        self.wanted.lock().expect("no panic while held").insert(channel, wanted);
        self.changed.notify_one();
    }

    fn pending(&self) -> Vec<(Arc<str>, Wanted)> {
        self.list(|wanted| wanted != Wanted::Confirmed)
    }

    fn list(&self, which: impl Fn(Wanted) -> bool) -> Vec<(Arc<str>, Wanted)> {
        let wanted = self.wanted.lock().expect("no panic while held");
        wanted
            .iter()
            .filter(|(_, wanted)| which(**wanted))
            .map(|(channel, wanted)| (channel.clone(), *wanted))
            .collect()
    }

    /// A new connection has no subscriptions.
    fn forget_confirmations(&self) {
        for wanted in self.wanted.lock().expect("no panic while held").values_mut() {
            if *wanted == Wanted::Confirmed {
                *wanted = Wanted::Asked;
            }
        }
    }

    fn confirm(&self, channel: &Arc<str>, was: Wanted) {
        let mut all = self.wanted.lock().expect("no panic while held");
        // Asked for again, or given up, in the meantime: that stands.
        if all.get(channel) == Some(&was) {
            if was == Wanted::Unwanted {
                all.remove(channel);
            } else {
                all.insert(channel.clone(), Wanted::Confirmed);
            }
        }
    }

    /// Sends these, one at a time: fred answers a subscription with the first frame that comes. False when something
    /// failed.
    async fn settle(
        &self,
        channels: Vec<(Arc<str>, Wanted)>,
        reconnects: &mut Receiver<fred::types::config::Server>,
    ) -> bool {
        for (channel, wanted) in channels {
            let done = match wanted {
                Wanted::Unwanted => self.client.sunsubscribe(&*channel).await,
                _ => self.client.ssubscribe(&*channel).await,
            };
            // A reconnection in between may have lost it.
            if reconnects.try_recv().is_ok() {
                self.forget_confirmations();
                return false;
            }
            match done {
                Ok(()) => self.confirm(&channel, wanted),
                Err(error) => {
                    tracing::debug!(redis.channel = %channel, redis.error = %error, "subscribing failed");
                    self.state.unheard(&format!("subscribing failed: {error}"));
                    return false;
                }
            }
        }
        true
    }
}

/// Subscribes what is asked for, after each reconnection everything.
async fn keep_subscribed(shared: Arc<Shared>) {
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
        // While it is away, wait for the connection instead of failing.
        let channels = shared.list(|wanted| again || wanted != Wanted::Confirmed);
        settled = shared.client.is_connected() && shared.settle(channels, &mut reconnects).await;
        if again && !settled {
            shared.forget_confirmations();
        }
    }
}

/// Hands every message to its channel's sink.
async fn dispatch(shared: Arc<Shared>, mut messages: Receiver<fred::types::Message>) {
    loop {
        let message = tokio::select! {
            () = shared.state.stopped() => return,
            message = messages.recv() => message,
        };
        match message {
            Ok(message) => {
                let sinks = shared.sinks.read().expect("no panic while held");
                let known =
                    sinks.get_key_value(&*message.channel).map(|(channel, sink)| (channel.clone(), sink.clone()));
                drop(sinks);
                if let (Some((channel, sink)), Some(body)) = (known, message.value.into_bytes()) {
                    sink(Message { channel, body });
                }
            }
            Err(RecvError::Lagged(lost)) => {
                shared.metrics.cluster_dropped_total.with_label_values(&["lagged"]).inc_by(lost);
                tracing::warn!(lost, "messages from Redis were lost: this node is too slow to read them");
            }
            Err(RecvError::Closed) => return,
        }
    }
}
