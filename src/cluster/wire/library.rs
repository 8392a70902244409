//! What servers and emitters of the library socketioxide send. Its own types stay in the engine, which reads it for us.

use std::sync::Arc;

use super::{Space, Wire};
use crate::cluster::socketio::{Act, Broadcast, Targets, Unusable};
use crate::config;
use crate::redis::{Kind, Message};

/// The first bytes of a list of up to 15 items in MessagePack. The requests of Node.js on the same channel are JSON or maps.
const LIST: std::ops::RangeInclusive<u8> = 0x90..=0x9f;

/// What another process of the library asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Foreign {
    /// To send an event to clients.
    Broadcast(Box<Broadcast>),
    /// To act on clients.
    Act(Targets, Act),
    /// To be answered, which whoever has read it sees to.
    Question,
    /// Nothing: this node has sent it.
    Own,
}

/// Reads what processes of the library ask, and answers what is a question.
pub trait Requests: Send + Sync {
    /// Reads a request.
    ///
    /// # Errors
    /// Why it is not used.
    fn read(&self, message: &Message) -> Result<Foreign, Unusable>;
}

impl Wire {
    /// Sets who reads what processes of the library ask. To be called once, before [`Wire::receive`].
    pub fn read_requests_by(&self, requests: Arc<dyn Requests>) {
        let _ = self.library.set(requests);
    }

    /// What the names of the library's channels begin with. `None` when nothing of other servers is heard.
    pub fn library_prefix(&self) -> Option<&str> {
        self.socketio.as_ref().map(|keys| keys.key())
    }

    /// Whether a request is heard in another way, too. With `wire = "socketio"` a node subscribes plainly, so that Node's servers
    /// count it, until it leaves; what the library sends, broadcasts among it, it hears until its last client is gone.
    pub(super) fn hears_again(&self, space: &Space, message: &Message) -> bool {
        let twice = self.speaks == config::Wire::Socketio && message.channel == space.requests;
        twice && message.kind == if is_list(message) { Kind::Plain } else { Kind::Unseen }
    }

    /// Hears one more channel of requests: those to this node alone.
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

    /// Whether a message is a request of the library. Servers of Node.js ask on a channel of the same name.
    pub(super) fn is_of_library(&self, message: &Message) -> bool {
        let may_be_of_node = message.channel == self.requests && message.kind != Kind::Sharded;
        self.is_library(&message.channel) && (is_list(message) || !may_be_of_node)
    }
}

fn is_list(message: &Message) -> bool {
    message.body.first().is_some_and(|first| LIST.contains(first))
}
