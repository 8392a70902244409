//! Sends events to the other nodes and receives their events.
//!
//! A node subscribes to the channel of every namespace, and to the channels of the rooms that have members on this
//! node. An event for one room is published on that room's channel, every other event on the channel of the namespace.
//! All channels of a namespace share one queue, so that events of one node are delivered in the order in which that
//! node published the events.
//!
//! A node reads two formats: roomcast's own frames over sharded pub/sub, and Socket.IO's format (unless
//! `redis.socketio_key` is empty). `redis.wire` selects the format that the node writes.

mod library;
mod names;
mod peer;
mod receive;
mod receive_queue;
mod servers;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};

use super::bridge::Bridge;
use super::emitter_lease::EmitterLease;
use super::frame::{Frame, now_us};
use super::socketio::{self, Broadcast};
use super::{Leaver, PubSub, event};
use crate::config;
use crate::event::Event;
use crate::protocol::is_reserved_room;
use crate::publish::{DeliveryResult, DeliveryScope, Outgoing, Publisher, RemoteDelivery};
use crate::redis::{Budget, Keys, MAX_RECEIVE_BYTES, Redis, SocketIoKeys, SubscriptionKind};
use crate::room::{RoomObserver, Rooms};
use crate::session::RoomName;
use crate::telemetry::metrics::Metrics;
pub use library::{AnswerFormat, Inquiry, InquiryAnswer, LibraryCodec, LibraryRequest};
use names::ForeignNames;
use receive_queue::{ReceiveQueue, ReceivedItem};
use servers::ServerQuestions;

/// Delivers an event to the clients of this node.
type Deliver = dyn Fn(&Outgoing) -> DeliveryResult + Send + Sync;

/// Sends events to the other nodes and receives their events.
pub struct ClusterAdapter {
    pubsub: Arc<PubSub>,
    redis: Redis,
    rooms: Arc<Rooms>,
    metrics: Arc<Metrics>,
    keys: Keys,
    socketio: Option<SocketIoKeys>,
    speaks: config::WireFormat,
    spaces: HashMap<Arc<str>, NamespaceChannels>,
    /// Permits for questions of other servers to this node's clients.
    answering: Arc<Semaphore>,
    asking: ServerQuestions,
    bridge: OnceLock<Arc<Bridge>>,
    /// The largest lease number in an event that this node has published or received; see [`ClusterAdapter::is_outdated`].
    newest_lease: AtomicU64,
    leaver: OnceLock<Leaver>,
    /// Parses requests from processes that use the library socketioxide.
    library: OnceLock<Arc<dyn LibraryCodec>>,
}

/// The channels and the queue of one namespace.
struct NamespaceChannels {
    namespace: Arc<str>,
    /// The sender id of this node in Socket.IO's messages.
    uid: String,
    frames: Arc<str>,
    broadcasts: Arc<str>,
    requests: Arc<str>,
    /// Channels on which socketioxide's adapter and emitter send requests: under `redis.socketio_key`, and under our
    /// own prefix. Empty if `redis.socketio_key` is empty.
    library: Vec<Arc<str>>,
    responses: Arc<str>,
    /// Channel on which servers may send answers to this node only.
    own_responses: Arc<str>,
    intake: Arc<ReceiveQueue>,
    incoming: Mutex<Option<mpsc::Receiver<ReceivedItem>>>,
}

impl ClusterAdapter {
    pub(super) fn new(
        pubsub: Arc<PubSub>,
        redis: Redis,
        rooms: Arc<Rooms>,
        metrics: Arc<Metrics>,
        config: &config::RedisSettings,
    ) -> Arc<Self> {
        let keys = redis.keys().clone();
        let socketio = (!config.socketio_key.is_empty()).then(|| SocketIoKeys::new(&config.socketio_key));
        let received = Budget::new(MAX_RECEIVE_BYTES);
        let space = |path: &Arc<str>| {
            let (intake, incoming) = ReceiveQueue::new(
                config.receive_buffer,
                pubsub.gaps().clone(),
                metrics.clone(),
                redis.subscriber().losses().clone(),
                received.clone(),
            );
            (path.clone(), NamespaceChannels::new(path, &keys, socketio.as_ref(), intake, incoming))
        };
        let spaces = rooms.namespaces().map(space).collect();
        Arc::new(Self {
            pubsub,
            redis,
            rooms,
            metrics,
            keys,
            socketio,
            speaks: config.wire,
            spaces,
            answering: Arc::new(Semaphore::new(peer::MAX_ASKING)),
            asking: ServerQuestions::default(),
            bridge: OnceLock::new(),
            newest_lease: AtomicU64::new(0),
            leaver: OnceLock::new(),
            library: OnceLock::new(),
        })
    }

    /// Publishes an event to the other nodes and servers, without waiting for Redis.
    pub fn publish(&self, outgoing: &Outgoing, reach: DeliveryScope) -> RemoteDelivery {
        let Some(space) = self.spaces.get(&outgoing.namespace) else { return RemoteDelivery::Alone };
        // Events that need a lease are sent to roomcast nodes only, so only roomcast's own format contains the lease's
        // number.
        debug_assert!(outgoing.event.fence().is_none() || reach == DeliveryScope::Nodes);
        self.is_outdated(&outgoing.event);
        let handed = match (self.speaks, &self.socketio, reach) {
            (config::WireFormat::Socketio, Some(keys), DeliveryScope::Everyone) => {
                self.publish_socketio(space, keys, outgoing)
            }
            _ => {
                let channel = match &outgoing.rooms[..] {
                    [room] if has_channel(room) => self.keys.room_channel(&outgoing.namespace, room).into(),
                    _ => space.frames.clone(),
                };
                self.pubsub.publish(&channel, || event::encode(outgoing))
            }
        };
        match handed {
            Ok(receipt) => RemoteDelivery::Handed(receipt),
            Err(why) => RemoteDelivery::NotCarried(why),
        }
    }

    /// Whether an event was published under a lease that another node has got since. Records the number of the event's
    /// lease. An outdated event was delayed, and would be delivered after events of the lease's next holder.
    fn is_outdated(&self, event: &Event) -> bool {
        event.fence().is_some_and(|fence| self.newest_lease.fetch_max(fence, Ordering::AcqRel) > fence)
    }

    fn publish_socketio(
        &self,
        space: &NamespaceChannels,
        keys: &SocketIoKeys,
        outgoing: &Outgoing,
    ) -> Result<crate::publish::Receipt, crate::publish::RemoteFailure> {
        let (rooms, except) = (ForeignNames::of(&outgoing.rooms), ForeignNames::of(&outgoing.except));
        let channel = match &rooms.names[..] {
            [room] => keys.room(&outgoing.namespace, room).into(),
            _ => space.broadcasts.clone(),
        };
        let body = || {
            let marks = event::encode_marks(outgoing, [&rooms.kinds, &except.kinds]);
            let broadcast = Broadcast {
                namespace: outgoing.namespace.to_string(),
                event: outgoing.event.clone(),
                rooms: rooms.names,
                except: except.names,
                volatile: outgoing.volatile,
                ours: None,
            };
            Some((socketio::open(&space.uid, &broadcast).ok()?, marks))
        };
        self.pubsub.publish_as(
            SubscriptionKind::Plain,
            &channel,
            body,
            |origin, number, (open, marks): (BytesMut, BytesMut)| {
                socketio::close(open, &Frame::encode(origin, number, now_us(), &marks))
            },
        )
    }

    /// Subscribes to the node's channels, delivers the events that arrive, and from now on also subscribes to the
    /// channels of the rooms that have members on this node. To be called once; needs a Tokio runtime.
    pub fn receive(self: &Arc<Self>, deliver: impl Fn(&Outgoing) -> DeliveryResult + Send + Sync + 'static) {
        let deliver: Arc<Deliver> = Arc::new(deliver);
        self.rooms.set_interest(self.clone());
        for space in self.spaces.values() {
            let Some(incoming) = space.incoming.lock().expect("no panic while held").take() else { continue };
            let subscriber = self.redis.subscriber();
            if self.socketio.is_some() {
                subscriber.listen(SubscriptionKind::Plain, space.broadcasts.clone(), space.intake.clone());
                for (kind, channel) in self.request_channels(space) {
                    subscriber.listen(kind, channel.clone(), space.intake.clone());
                }
                for channel in self.own_request_channels(space) {
                    for kind in [SubscriptionKind::Plain, SubscriptionKind::Sharded] {
                        subscriber.listen(kind, channel.clone(), space.intake.clone());
                    }
                }
                if self.speaks == config::WireFormat::Socketio {
                    subscriber.listen(SubscriptionKind::Plain, space.requests.clone(), space.intake.clone());
                    subscriber.listen(SubscriptionKind::Plain, space.responses.clone(), space.intake.clone());
                    subscriber.listen(SubscriptionKind::Plain, space.own_responses.clone(), space.intake.clone());
                }
            }
            self.pubsub.gaps().lock().expect("no panic while held").listen(&space.frames);
            subscriber.listen(SubscriptionKind::Sharded, space.frames.clone(), space.intake.clone());
            tokio::spawn(receive::run(self.clone(), space.namespace.clone(), incoming, deliver.clone()));
        }
    }

    /// Sets the function that removes a session from a room and announces that the session left. To be called once.
    pub(super) fn leave_by(&self, leave: Leaver) {
        let _ = self.leaver.set(leave);
    }

    /// How many received messages wait to be delivered.
    pub(super) fn waiting(&self) -> usize {
        self.spaces.values().map(|space| space.intake.waiting()).sum()
    }

    /// Publishes events of emitters and other servers through `publisher`. To be called once; needs a Tokio runtime.
    pub fn bridge(self: &Arc<Self>, publisher: Arc<Publisher>) {
        if self.socketio.is_none() {
            return;
        }
        let name = format!("{}:{}", self.pubsub.origin().node, self.pubsub.origin().incarnation);
        let (wire, subscriber) = (self.clone(), self.redis.subscriber().clone());
        // Only the node that holds the lease to publish emitters' events subscribes to the channels of all rooms.
        let change = move |ours| {
            for space in wire.spaces.values() {
                if ours {
                    subscriber.follow(SubscriptionKind::Below, space.broadcasts.clone(), space.intake.clone());
                } else {
                    subscriber.unfollow(SubscriptionKind::Below, &space.broadcasts);
                }
            }
        };
        let emitter_lease = || EmitterLease::start(self.redis.clone(), name, change);
        let bridge = Bridge::start(publisher, self.spaces.keys(), emitter_lease, self.metrics.clone());
        let _ = self.bridge.set(bridge);
    }

    /// Stops answering other servers, and gives up the lease so that another node publishes events of emitters.
    pub(super) async fn leave(&self) {
        if self.socketio.is_some() && self.speaks == config::WireFormat::Socketio {
            for space in self.spaces.values() {
                self.redis.subscriber().unfollow(SubscriptionKind::Plain, &space.requests);
            }
        }
        if let Some(bridge) = self.bridge.get() {
            bridge.resign().await;
        }
    }

    /// The channels on which servers and emitters send requests, with the kind of this node's subscription to each
    /// channel. A Node.js server counts the plain subscribers of its request channel and waits for an answer from each,
    /// so this node subscribes to that channel by a pattern, which is not counted. Servers of socketioxide do not wait
    /// for answers of nodes, so under roomcast's own prefix a plain subscription is enough.
    fn request_channels<'s>(
        &self,
        space: &'s NamespaceChannels,
    ) -> impl Iterator<Item = (SubscriptionKind, &'s Arc<str>)> {
        let unseen = |channel: &Arc<str>| {
            if *channel == space.requests { SubscriptionKind::Unseen } else { SubscriptionKind::Plain }
        };
        space.library.iter().flat_map(move |channel| [(unseen(channel), channel), (SubscriptionKind::Sharded, channel)])
    }

    /// The channels of a room, with the kind of this node's subscription to each channel.
    fn channels(&self, namespace: &str, room: &str) -> impl Iterator<Item = (SubscriptionKind, String)> {
        let frames = has_channel(room).then(|| (SubscriptionKind::Sharded, self.keys.room_channel(namespace, room)));
        let outside = |keys: &SocketIoKeys| (SubscriptionKind::Plain, keys.room(namespace, socketio::outside(room)));
        frames.into_iter().chain(self.socketio.as_ref().map(outside))
    }
}

/// Whether a room has a channel. Returns false for reserved rooms, most of which contain only one client or one user:
/// one channel for each would be too many, and an event for these rooms is rarely for only one of them.
fn has_channel(room: &str) -> bool {
    !is_reserved_room(room)
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
            self.pubsub.gaps().lock().expect("no panic while held").unfollow(&channel);
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

// === impl Space ===

impl NamespaceChannels {
    fn new(
        path: &Arc<str>,
        keys: &Keys,
        socketio: Option<&SocketIoKeys>,
        intake: ReceiveQueue,
        incoming: mpsc::Receiver<ReceivedItem>,
    ) -> Self {
        let name =
            |of: fn(&SocketIoKeys, &str) -> String| socketio.map_or_else(String::new, |keys| of(keys, path)).into();
        let uid = uuid::Uuid::new_v4().simple().to_string()[..6].to_owned();
        let own_responses = socketio.map_or_else(String::new, |keys| keys.responses_to(path, &uid)).into();
        let requests: Arc<str> = name(SocketIoKeys::requests);
        let mut library = Vec::new();
        if socketio.is_some() {
            library.extend([requests.clone(), keys.socketio().requests(path).into()]);
            library.dedup();
        }
        Self {
            namespace: path.clone(),
            uid,
            own_responses,
            frames: keys.events_channel(path).into(),
            broadcasts: name(SocketIoKeys::broadcast),
            requests,
            library,
            responses: name(SocketIoKeys::responses),
            intake: Arc::new(intake),
            incoming: Mutex::new(Some(incoming)),
        }
    }
}
