//! Sends events to the other nodes and receives their events.
//!
//! A node subscribes to the channel of every namespace, and to the channels of the rooms that have members on this
//! node. An event for one room is published on that room's channel, every other event on the channel of the namespace.
//! All channels of a namespace share one queue, so that events of one node are delivered in the order in which that
//! node published the events.
//!
//! A node reads two formats: roomcast's own frames over sharded pub/sub, and Socket.IO's format (unless
//! `redis.socketio_key` is empty). `redis.wire` selects the format that the node writes.

mod inbound;
mod interest;
mod library;
mod names;
mod peer;
mod receive;
mod receive_queue;
mod servers;
mod space;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;

use super::frame::{Frame, now_us};
use super::socketio::{self, Broadcast};
use super::{PubSub, event};
use crate::config;
use crate::event::Event;
use crate::protocol::is_reserved_room;
use crate::publish::{DeliveryScope, Outgoing, RemoteDelivery};
use crate::redis::{Budget, Keys, MAX_RECEIVE_BYTES, Redis, SocketIoKeys, SubscriptionKind};
use crate::telemetry::metrics::Metrics;
pub(super) use inbound::EventInbox;
pub use inbound::Inbound;
pub use library::{AnswerFormat, Inquiry, InquiryAnswer, LibraryCodec, LibraryRequest};
use names::ForeignNames;
use receive_queue::ReceiveQueue;
use servers::ServerQuestions;
use space::NamespaceChannels;

/// Sends events to the other nodes, and subscribes to the channels of rooms. [`Inbound`] receives events.
pub struct ClusterAdapter {
    pubsub: Arc<PubSub>,
    redis: Redis,
    metrics: Arc<Metrics>,
    keys: Keys,
    socketio: Option<SocketIoKeys>,
    speaks: config::WireFormat,
    spaces: HashMap<Arc<str>, NamespaceChannels>,
    asking: ServerQuestions,
    /// The largest lease number in an event that this node has published or received; see
    /// [`ClusterAdapter::is_outdated`].
    newest_lease: AtomicU64,
}

impl ClusterAdapter {
    pub(super) fn new(
        pubsub: Arc<PubSub>,
        redis: Redis,
        namespaces: impl IntoIterator<Item = Arc<str>>,
        metrics: Arc<Metrics>,
        config: &config::RedisSettings,
    ) -> (Arc<Self>, EventInbox) {
        let keys = redis.keys().clone();
        let socketio = (!config.socketio_key.is_empty()).then(|| SocketIoKeys::new(&config.socketio_key));
        let received = Budget::new(MAX_RECEIVE_BYTES);
        let (mut spaces, mut queues) = (HashMap::new(), Vec::new());
        for path in namespaces {
            let (intake, incoming) = ReceiveQueue::new(
                config.receive_buffer,
                pubsub.gaps().clone(),
                metrics.clone(),
                redis.subscriber().losses().clone(),
                received.clone(),
            );
            spaces.insert(path.clone(), NamespaceChannels::new(&path, &keys, socketio.as_ref(), intake));
            queues.push((path, incoming));
        }
        let wire = Arc::new(Self {
            pubsub,
            redis,
            metrics,
            keys,
            socketio,
            speaks: config.wire,
            spaces,
            asking: ServerQuestions::default(),
            newest_lease: AtomicU64::new(0),
        });
        (wire.clone(), EventInbox { wire, queues })
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

    /// How many received messages wait to be delivered.
    pub(super) fn waiting(&self) -> usize {
        self.spaces.values().map(|space| space.intake.waiting()).sum()
    }
}

/// Whether a room has a channel. Returns false for reserved rooms, most of which contain only one client or one user:
/// one channel for each would be too many, and an event for these rooms is rarely for only one of them.
fn has_channel(room: &str) -> bool {
    !is_reserved_room(room)
}
