//! Requests from servers and emitters that use the library socketioxide. The engine parses them, because that library's
//! types stay there.

use std::sync::Arc;

use super::{Space, Wire};
use crate::cluster::socketio::{Act, Broadcast, Targets, Unusable};
use crate::config;
use crate::redis::{Kind, Message};

/// The first byte of a list of up to 15 items in MessagePack. The requests of Node.js on the same channel are JSON or
/// maps.
const LIST: std::ops::RangeInclusive<u8> = 0x90..=0x9f;

/// A request from another process that uses the library.
#[derive(Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Send an event to clients.
    Broadcast(Box<Broadcast>),
    /// Act on clients.
    Act(Targets, Act),
    /// A question. The reader that returned this has answered it.
    Question,
    /// This node sent the request itself. Nothing is to be done.
    Own,
}

/// Parses requests of the library, and answers those that are questions.
pub trait Requests: Send + Sync {
    /// Reads a request.
    ///
    /// # Errors
    /// Says why the request is not used.
    fn read(&self, message: &Message) -> Result<Foreign, Unusable>;
}

impl Wire {
    /// Sets the parser of the library's requests. To be called once, before [`Wire::receive`].
    pub fn read_requests_by(&self, requests: Arc<dyn Requests>) {
        let _ = self.library.set(requests);
    }

    /// The prefix of the library's channels. `None` if this node does not listen to other servers.
    pub fn library_prefix(&self) -> Option<&str> {
        self.socketio.as_ref().map(|keys| keys.key())
    }

    /// Whether this copy of a request is to be ignored because it arrives through a second subscription, too. With
    /// `wire = "socketio"` a node has a plain subscription, so that servers of Node.js count it, and ends it when it
    /// leaves. Its pattern subscription, through which it takes the library's requests, lasts until the node stops.
    pub(super) fn hears_again(&self, space: &Space, message: &Message) -> bool {
        let twice = self.speaks == config::Wire::Socketio && message.channel == space.requests;
        twice && message.kind == if is_list(message) { Kind::Plain } else { Kind::Unseen }
    }

    /// Subscribes to one more channel of requests: the one for requests to this node alone.
    pub fn hear_requests(&self, channel: &Arc<str>) {
        let is_of = |space: &&Space| self.socketio.is_some() && space.is_library(channel);
        let Some(space) = self.spaces.values().find(is_of).filter(|space| !space.library.contains(channel)) else {
            return;
        };
        for kind in [Kind::Plain, Kind::Sharded] {
            self.redis.subscriber().listen(kind, channel.clone(), space.intake.clone());
        }
    }
}

impl Space {
    fn is_library(&self, channel: &str) -> bool {
        self.library.iter().any(|name| channel.starts_with(&**name))
    }

    /// Whether a message is a request of the library. Servers of Node.js send theirs on a channel of the same name.
    pub(super) fn is_of_library(&self, message: &Message) -> bool {
        let may_be_of_node = message.channel == self.requests && message.kind != Kind::Sharded;
        self.is_library(&message.channel) && (is_list(message) || !may_be_of_node)
    }
}

fn is_list(message: &Message) -> bool {
    message.body.first().is_some_and(|first| LIST.contains(first))
}
