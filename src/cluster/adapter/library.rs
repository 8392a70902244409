//! Requests from servers and emitters that use the library socketioxide. The engine parses these requests, because only
//! the engine uses that library's types.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::space::NamespaceChannels;
use super::{ClusterAdapter, Inbound};
use crate::cluster::asked::AskedClients;
use crate::cluster::socketio::{Broadcast, ServerAction, Targets, UnusableMessage};
use crate::config;
use crate::event::{Args, Event};
use crate::protocol::is_reserved_room;
use crate::redis::{ChannelMessage, SubscriptionKind};
use crate::session::RoomName;

/// The first byte of a list of up to 15 items in MessagePack. Requests of Node.js servers on the same channel are JSON
/// or MessagePack maps.
const LIST: std::ops::RangeInclusive<u8> = 0x90..=0x9f;

/// A request from another process that uses the library.
pub enum LibraryRequest {
    /// The request sends an event to clients.
    Broadcast(Box<Broadcast>),
    /// Act on clients.
    Act(Targets, ServerAction),
    /// The request asks a question about clients, which this node answers.
    Inquiry(Targets, Inquiry, Box<dyn AnswerFormat>),
}

/// A question about clients, which the library's servers send to every server.
#[derive(Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// The question asks for the rooms that the clients are in.
    Rooms,
    /// The question asks for the ids of the clients.
    Ids,
    /// The question asks for the clients' acknowledgements of this event that arrive within this time.
    Acknowledge(Event, Duration),
}

/// An answer to an [`Inquiry`], or one client's part of it.
pub enum InquiryAnswer<'a> {
    /// The answer is the names of rooms.
    Rooms(Vec<String>),
    /// The answer is the ids of clients.
    Ids(Vec<&'a str>),
    /// The answer is the number of clients that were asked.
    Asked(usize),
    /// The answer is a client's id, and the arguments of its acknowledgement.
    Acknowledged(&'a str, &'a Args),
}

/// Writes the answers to one question.
pub trait AnswerFormat: Send + Sync {
    /// The channel on which the asker waits for answers.
    fn channel(&self) -> Arc<str>;

    /// Writes an answer in the library's format. Returns `None` if the format has no such answer.
    fn write(&self, said: &InquiryAnswer<'_>) -> Option<Bytes>;
}

/// Reads and writes the library's format.
pub trait LibraryCodec: Send + Sync {
    /// The id of this node among the library's servers. Requests to this node only arrive on channels whose names end
    /// in this id.
    fn own_id(&self) -> String;

    /// Reads a request.
    ///
    /// # Errors
    /// Returns the reason for which the request is ignored.
    fn read(&self, message: &ChannelMessage) -> Result<LibraryRequest, UnusableMessage>;
}

impl Inbound {
    /// The channels on which the library sends requests to this node only.
    pub(super) fn own_request_channels(&self, space: &NamespaceChannels) -> Vec<Arc<str>> {
        space.library.iter().map(|channel| format!("{channel}{}#", self.library.own_id()).into()).collect()
    }

    /// Answers a question of another server, if that server waits for this node's answer.
    pub(super) fn answer_library(
        self: &Arc<Self>,
        space: &NamespaceChannels,
        message: &ChannelMessage,
        (targets, question): (&Targets, Inquiry),
        answers: Box<dyn AnswerFormat>,
    ) {
        // A server counts the subscribers of its channel and accepts that number of answers. A subscription by a
        // pattern is not counted, so if this node answered, the server would ignore the answer of another server.
        if self.wire.speaks == config::WireFormat::Compact && message.kind == SubscriptionKind::Unseen {
            return;
        }
        // Servers subscribe to answers in the same way as to requests.
        let kind =
            if message.kind == SubscriptionKind::Sharded { SubscriptionKind::Sharded } else { SubscriptionKind::Plain };
        let channel = answers.channel();
        let wire = self.wire.clone();
        let say = move |said: InquiryAnswer<'_>| {
            let Some(answer) = answers.write(&said) else { return };
            if let Err(why) = wire.pubsub.send_as(kind, &channel, answer) {
                tracing::debug!(reason = why.as_str(), "an answer to another server was not carried");
            }
        };
        let members = self.members(space, targets);
        match question {
            Inquiry::Rooms => {
                let all = members.iter().flat_map(|session| session.rooms());
                let rooms: std::collections::BTreeSet<RoomName> = all.filter(|room| !is_reserved_room(room)).collect();
                say(InquiryAnswer::Rooms(rooms.iter().map(|room| room.to_string()).collect()));
            }
            Inquiry::Ids => say(InquiryAnswer::Ids(members.iter().map(|session| session.id()).collect())),
            Inquiry::Acknowledge(event, patience) => {
                let Ok(permit) = self.answering.clone().try_acquire_owned() else {
                    self.wire.drop_foreign("full");
                    return say(InquiryAnswer::Asked(0));
                };
                let mut asked = AskedClients::of(&members, &event);
                say(InquiryAnswer::Asked(asked.count()));
                tokio::spawn(async move {
                    let _permit = permit;
                    let until = Instant::now() + patience;
                    while let Ok(Some(said)) = tokio::time::timeout_at(until, asked.next()).await {
                        say(InquiryAnswer::Acknowledged(said.socket_id.as_deref().unwrap_or_default(), &said.args));
                    }
                });
            }
        }
    }
}

impl ClusterAdapter {
    /// Whether this copy of a request must be ignored because the request also arrives through a second subscription.
    /// With `wire = "socketio"` a node has a plain subscription, so that servers of Node.js count the node, and ends
    /// this subscription when the node leaves the cluster. The node's pattern subscription, through which it accepts
    /// the library's requests, lasts until the node stops.
    pub(super) fn hears_again(&self, space: &NamespaceChannels, message: &ChannelMessage) -> bool {
        let twice = self.speaks == config::WireFormat::Socketio && message.channel == space.requests;
        twice && message.kind == if is_list(message) { SubscriptionKind::Plain } else { SubscriptionKind::Unseen }
    }
}

impl NamespaceChannels {
    fn is_library(&self, channel: &str) -> bool {
        self.library.iter().any(|name| channel.starts_with(&**name))
    }

    /// Whether a message is a request of the library. Servers of Node.js send their requests on a channel of the same
    /// name.
    pub(super) fn is_of_library(&self, message: &ChannelMessage) -> bool {
        let may_be_of_node = message.channel == self.requests && message.kind != SubscriptionKind::Sharded;
        self.is_library(&message.channel) && (is_list(message) || !may_be_of_node)
    }
}

fn is_list(message: &ChannelMessage) -> bool {
    message.body.first().is_some_and(|first| LIST.contains(first))
}
