//! Subscribes to the channels of the rooms that have members on this node.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{ClusterAdapter, has_channel};
use crate::cluster::socketio;
use crate::redis::{SocketIoKeys, SubscriptionKind};
use crate::room::RoomObserver;
use crate::session::RoomName;

impl ClusterAdapter {
    /// The channels of a room, with the kind of this node's subscription to each channel.
    fn channels(&self, namespace: &str, room: &str) -> impl Iterator<Item = (SubscriptionKind, String)> {
        let frames = has_channel(room).then(|| (SubscriptionKind::Sharded, self.keys.room_channel(namespace, room)));
        let outside = |keys: &SocketIoKeys| (SubscriptionKind::Plain, keys.room(namespace, socketio::outside(room)));
        frames.into_iter().chain(self.socketio.as_ref().map(outside))
    }
}

impl RoomObserver for ClusterAdapter {
    fn began(&self, namespace: &Arc<str>, room: &RoomName) {
        let Some(space) = self.spaces.get(namespace) else { return };
        for (kind, channel) in self.channels(namespace, room) {
            self.redis.subscriber().follow(kind, channel.into(), space.intake.clone());
        }
    }

    fn ended(&self, namespace: &Arc<str>, room: &RoomName) {
        for (kind, channel) in self.channels(namespace, room) {
            self.redis.subscriber().unfollow(kind, &channel);
            self.pubsub.gaps().lock().expect("no thread panics while it holds this lock").unfollow(&channel);
        }
    }

    fn settled<'a>(&'a self, namespace: &Arc<str>, room: &RoomName) -> Option<BoxFuture<'a, bool>> {
        let subscriber = self.redis.subscriber();
        let open: Vec<_> =
            self.channels(namespace, room).filter(|(kind, channel)| !subscriber.is_settled(*kind, channel)).collect();
        // In addition to the room's channels, this node must receive events for the whole namespace and requests
        // between nodes.
        if open.is_empty() && self.redis.hearing().is_some() {
            return None;
        }
        Some(Box::pin(async move {
            let patience: Duration = self.redis.command_timeout();
            let all = async {
                for (kind, channel) in &open {
                    subscriber.settled(*kind, channel).await;
                }
                subscriber.completed().await;
            };
            if tokio::time::timeout(patience, all).await.is_err() {
                self.metrics.cluster_unconfirmed_joins_total.with_label_values::<&str>(&[]).inc();
            }
            let confirmed = open.iter().all(|(kind, channel)| subscriber.is_settled(*kind, channel));
            confirmed && self.redis.hearing().is_some()
        }))
    }
}
