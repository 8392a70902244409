//! Subscribes to the channels of the namespaces, and keeps what is needed to act on the messages that arrive.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::receive_queue::ReceivedItem;
use super::space::NamespaceChannels;
use super::{ClusterAdapter, LibraryCodec, peer, receive};
use crate::cluster::bridge::Bridge;
use crate::cluster::emitter_lease::EmitterLease;
use crate::config;
use crate::publish::Publisher;
use crate::redis::SubscriptionKind;
use crate::room::Rooms;

/// The events and requests of other processes that wait until this node can deliver them.
#[must_use]
pub(in crate::cluster) struct EventInbox {
    pub(super) wire: Arc<ClusterAdapter>,
    /// The queue of each namespace.
    pub(super) queues: Vec<(Arc<str>, mpsc::Receiver<ReceivedItem>)>,
}

/// Delivers the events of other nodes, servers and emitters, and carries out the requests of servers and emitters.
pub struct Inbound {
    pub(super) wire: Arc<ClusterAdapter>,
    pub(super) rooms: Arc<Rooms>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) bridge: Bridge,
    /// Parses requests from processes that use the library socketioxide.
    pub(super) library: Arc<dyn LibraryCodec>,
    /// Permits for questions of other servers to this node's clients.
    pub(super) answering: Arc<Semaphore>,
}

impl EventInbox {
    /// Subscribes to the node's channels, and delivers the events that arrive to the members of `rooms`. Needs a Tokio
    /// runtime.
    pub(in crate::cluster) fn start(
        self,
        rooms: Arc<Rooms>,
        publisher: Arc<Publisher>,
        library: Arc<dyn LibraryCodec>,
    ) -> Arc<Inbound> {
        let Self { wire, queues } = self;
        let emitter_lease = (wire.socketio.is_some() && publisher.has_rules()).then(|| start_emitter_lease(&wire));
        let bridge = Bridge::start(publisher.clone(), wire.spaces.keys(), emitter_lease, wire.metrics.clone());
        let answering = Arc::new(Semaphore::new(peer::MAX_ASKING));
        let inbound = Arc::new(Inbound { wire, rooms, publisher, bridge, library, answering });
        for (namespace, incoming) in queues {
            if let Some(space) = inbound.wire.spaces.get(&namespace) {
                inbound.subscribe(space);
                tokio::spawn(receive::run(inbound.clone(), namespace, incoming));
            }
        }
        inbound
    }
}

impl Inbound {
    fn subscribe(&self, space: &NamespaceChannels) {
        let wire = &self.wire;
        let subscriber = wire.redis.subscriber();
        if wire.socketio.is_some() {
            subscriber.listen(SubscriptionKind::Plain, space.broadcasts.clone(), space.intake.clone());
            for (kind, channel) in request_channels(space) {
                subscriber.listen(kind, channel.clone(), space.intake.clone());
            }
            for channel in self.own_request_channels(space) {
                for kind in [SubscriptionKind::Plain, SubscriptionKind::Sharded] {
                    subscriber.listen(kind, channel.clone(), space.intake.clone());
                }
            }
            if wire.speaks == config::WireFormat::Socketio {
                subscriber.listen(SubscriptionKind::Plain, space.requests.clone(), space.intake.clone());
                subscriber.listen(SubscriptionKind::Plain, space.responses.clone(), space.intake.clone());
                subscriber.listen(SubscriptionKind::Plain, space.own_responses.clone(), space.intake.clone());
            }
        }
        wire.pubsub.gaps().lock().expect("no thread panics while it holds this lock").listen(&space.frames);
        subscriber.listen(SubscriptionKind::Sharded, space.frames.clone(), space.intake.clone());
    }

    /// Stops answering other servers, and gives up the lease, so that another node publishes events of emitters.
    pub async fn leave(&self) {
        let wire = &self.wire;
        if wire.socketio.is_some() && wire.speaks == config::WireFormat::Socketio {
            for space in wire.spaces.values() {
                wire.redis.subscriber().unfollow(SubscriptionKind::Plain, &space.requests);
            }
        }
        self.bridge.resign().await;
    }
}

/// Starts to ask for the lease to publish emitters' events. Only the node that holds the lease subscribes to the
/// channels of all rooms.
fn start_emitter_lease(wire: &Arc<ClusterAdapter>) -> Arc<EmitterLease> {
    let name = format!("{}:{}", wire.pubsub.origin().node, wire.pubsub.origin().incarnation);
    let follower = wire.clone();
    let change = move |ours| {
        let subscriber = follower.redis.subscriber();
        for space in follower.spaces.values() {
            if ours {
                subscriber.follow(SubscriptionKind::Below, space.broadcasts.clone(), space.intake.clone());
            } else {
                subscriber.unfollow(SubscriptionKind::Below, &space.broadcasts);
            }
        }
    };
    EmitterLease::start(wire.redis.clone(), name, change)
}

/// The channels on which servers and emitters send requests, with the kind of this node's subscription to each channel.
/// A Node.js server counts the plain subscribers of its request channel and waits for an answer from each, so this node
/// subscribes to that channel by a pattern, which is not counted. Servers of socketioxide do not wait for answers of
/// nodes, so under roomcast's own prefix a plain subscription is enough.
fn request_channels(space: &NamespaceChannels) -> impl Iterator<Item = (SubscriptionKind, &Arc<str>)> {
    let unseen = |channel: &Arc<str>| {
        if *channel == space.requests { SubscriptionKind::Unseen } else { SubscriptionKind::Plain }
    };
    space.library.iter().flat_map(move |channel| [(unseen(channel), channel), (SubscriptionKind::Sharded, channel)])
}
