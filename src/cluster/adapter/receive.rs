//! Delivers events of other nodes, servers and emitters to the clients of this node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::receive_queue::ReceivedItem;
use super::space::NamespaceChannels;
use super::{ClusterAdapter, Inbound, LibraryRequest, names};
use crate::cluster::event::{self, EventExtras};
use crate::cluster::pubsub::FrameReceiver;
use crate::cluster::socketio::{Broadcast, ReceivedBroadcast, UnusableMessage};
use crate::publish::Outgoing;
use crate::redis::{ChannelMessage, SubscriptionKind};
use crate::session::RoomName;
use crate::telemetry::log_limit::log_seldom;

/// Handles the messages of a namespace, in their order.
pub(super) async fn run(inbound: Arc<Inbound>, namespace: Arc<str>, mut incoming: mpsc::Receiver<ReceivedItem>) {
    let wire = &inbound.wire;
    let Some(space) = wire.spaces.get(&namespace) else { return };
    let receiver = Receiver { inbound: &inbound, wire, space, reader: wire.pubsub.reader() };
    while let Some(item) = incoming.recv().await {
        // The message's share of the byte limit is released when the message is delivered.
        let (message, _taken) = match item {
            ReceivedItem::Message(message, taken) => (message, taken),
            ReceivedItem::Mark(mark) => {
                // The task that waited for the mark may have ended already.
                let _ = mark.send(());
                continue;
            }
        };
        match message.kind {
            _ if wire.hears_again(space, &message) => {}
            _ if space.is_of_library(&message) => receiver.library(&message).await,
            SubscriptionKind::Sharded => receiver.frame(&message).await,
            SubscriptionKind::Below => receiver.for_one(message),
            _ if message.channel == space.requests => inbound.request(space, &message.body),
            _ if ClusterAdapter::is_response(space, &message.channel) => wire.response(&message.body),
            _ => receiver.broadcast(message).await,
        }
    }
}

struct Receiver<'a> {
    inbound: &'a Arc<Inbound>,
    wire: &'a ClusterAdapter,
    space: &'a NamespaceChannels,
    reader: FrameReceiver,
}

impl Receiver<'_> {
    /// Delivers a frame in roomcast's own format.
    async fn frame(&self, message: &ChannelMessage) {
        let Some(frame) = self.reader.read(message) else { return };
        let age = frame.age();
        let namespace = &self.space.namespace;
        let outgoing = event::concerns(&frame.body, |room| self.inbound.rooms.has_members(namespace, room))
            .and_then(|concerns| concerns.then(|| event::decode(namespace, frame.body.clone())).transpose());
        match outgoing {
            Ok(Some(outgoing)) if self.wire.is_outdated(&outgoing.event) => self.wire.drop_foreign("fenced"),
            Ok(Some(outgoing)) => self.receive_from_node(&outgoing, age).await,
            Ok(None) => self.wire.metrics.cluster_unneeded_total.with_label_values(&[namespace]).inc(),
            Err(error) => {
                log_seldom!(warn, node = %frame.origin.node, %error, "ignored an event of another node");
                self.wire.metrics.cluster_dropped_total.with_label_values(&["unreadable"]).inc();
            }
        }
    }

    async fn receive_from_node(&self, outgoing: &Outgoing, age: Duration) {
        self.wire.metrics.cluster_received_total.with_label_values(&[&self.space.namespace]).inc();
        // The next message is handled only when this one is in the write queues of all recipients, so that waiting
        // messages stay in the bounded queue of the namespace.
        self.inbound.publisher.deliver_published(outgoing).served().await;
        self.wire.metrics.cluster_delay_seconds.with_label_values::<&str>(&[]).observe(age.as_secs_f64());
    }

    /// Handles a broadcast in Socket.IO's format.
    async fn broadcast(&self, message: ChannelMessage) {
        match self.read(message.body) {
            Ok(Some(mut broadcast)) => match broadcast.ours.take() {
                Some(ours) => self.marked(&message.channel, &broadcast, ours).await,
                None => self.foreign(&broadcast).await,
            },
            Ok(None) => {}
            Err(why) => self.wire.drop_foreign(why.as_str()),
        }
    }

    /// Reads a broadcast. Returns `None` if this node is the sender.
    fn read(&self, body: Bytes) -> Result<Option<Broadcast>, UnusableMessage> {
        let envelope = ReceivedBroadcast::open(body)?;
        if envelope.uid == self.space.uid { Ok(None) } else { envelope.read().map(Some) }
    }

    /// Delivers a broadcast of another roomcast node. `ours` is the additional element that only roomcast nodes read.
    async fn marked(&self, channel: &Arc<str>, broadcast: &Broadcast, ours: Bytes) {
        let Some(frame) = self.reader.read_frame(channel, ours) else { return };
        let age = frame.age();
        let Some(outgoing) = self.exactly(broadcast, frame.body) else {
            return self.wire.drop_foreign("malformed");
        };
        self.receive_from_node(&outgoing, age).await;
    }

    /// The event exactly as another roomcast node sent it. If the sender is a node of an earlier version, which does
    /// not send which names are rooms and which are ids, this node looks the names up. `None` if the event is malformed
    /// or not for this node.
    fn exactly(&self, broadcast: &Broadcast, marks: Bytes) -> Option<Outgoing> {
        let EventExtras { stamps, order, kinds } = event::decode_marks(marks).ok()?;
        let outgoing = match &kinds {
            Some([rooms, except]) if broadcast.namespace == *self.space.namespace => {
                let rooms = names::meant(&broadcast.rooms, rooms)?;
                let except = names::meant(&broadcast.except, except)?;
                outgoing(&self.space.namespace, broadcast.clone(), rooms, except)
            }
            _ => self.local(broadcast)?,
        };
        Some(Outgoing { stamps, order, ..outgoing })
    }

    async fn foreign(&self, broadcast: &Broadcast) {
        self.count("broadcast");
        let Some(outgoing) = self.local(broadcast) else { return };
        self.inbound.bridge.take(&outgoing).await;
    }

    /// Publishes a broadcast that arrived through the pattern subscription to all rooms. Only the node that holds the
    /// lease to publish emitters' events has this subscription. Broadcasts that cannot be read are not counted here:
    /// the nodes with members of the room count them.
    fn for_one(&self, message: ChannelMessage) {
        if !self.inbound.bridge.is_the_one() {
            return;
        }
        match self.read(message.body) {
            Ok(Some(broadcast)) if broadcast.ours.is_none() => self.publish(broadcast),
            _ => {}
        }
    }

    /// Handles a request of the library socketioxide. Every node receives these requests, so the node that publishes
    /// needs no pattern subscription for them.
    async fn library(&self, message: &ChannelMessage) {
        match self.inbound.library.read(message) {
            Ok(LibraryRequest::Broadcast(broadcast)) => {
                self.foreign(&broadcast).await;
                self.publish(*broadcast);
            }
            Ok(LibraryRequest::Act(targets, act)) => {
                self.count("act");
                self.inbound.act(&self.inbound.members(self.space, &targets), &act);
            }
            Ok(LibraryRequest::Inquiry(targets, question, answers)) => {
                self.count("question");
                self.inbound.answer_library(self.space, message, (&targets, question), answers);
            }
            Err(why) => self.wire.drop_foreign(why.as_str()),
        }
    }

    /// Publishes a broadcast to all nodes if only one node may publish the event and this node holds the lease to do
    /// that.
    fn publish(&self, broadcast: Broadcast) {
        let namespace = &self.space.namespace;
        if !self.inbound.bridge.is_the_one() || broadcast.namespace != **namespace {
            return;
        }
        let rooms = names::everywhere(&broadcast.rooms);
        let except = names::everywhere(&broadcast.except);
        self.inbound.bridge.publish(outgoing(namespace, broadcast, rooms, except));
    }

    fn count(&self, kind: &str) {
        self.wire.metrics.socketio_received_total.with_label_values(&[&*self.space.namespace, kind]).inc();
    }

    /// Converts a broadcast to an event for the clients of this node. Returns `None` and counts the broadcast as
    /// dropped if the broadcast is for another namespace, or if none of its rooms is allowed.
    fn local(&self, broadcast: &Broadcast) -> Option<Outgoing> {
        if broadcast.namespace != *self.space.namespace {
            self.wire.drop_foreign("namespace");
            return None;
        }
        let here = |names: &[String]| names::here(&self.inbound.rooms, &self.space.namespace, names);
        let rooms = here(&broadcast.rooms);
        // All rooms of the broadcast may have reserved names. An empty list of rooms would mean every client.
        if rooms.is_empty() && !broadcast.rooms.is_empty() {
            self.wire.drop_foreign("reserved_room");
            return None;
        }
        let except = here(&broadcast.except);
        Some(outgoing(&self.space.namespace, broadcast.clone(), rooms, except))
    }
}

fn outgoing(namespace: &Arc<str>, broadcast: Broadcast, rooms: Vec<RoomName>, except: Vec<RoomName>) -> Outgoing {
    let Broadcast { event, volatile, .. } = broadcast;
    Outgoing::new(namespace.clone(), event, rooms).except(except).volatile(volatile)
}

impl ClusterAdapter {
    pub(super) fn drop_foreign(&self, reason: &str) {
        self.metrics.socketio_dropped_total.with_label_values(&[reason]).inc();
    }
}
