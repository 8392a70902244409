//! The pub/sub of socketioxide-redis on ours: bytes are published as they are, in the library's own protocol. Of the requests
//! of other servers the library gets the questions; see [`LibraryRequests`].
//!
//! Publishing returns at once, whatever Redis does; subscriptions take effect when Redis is there, and survive it.

use std::sync::Arc;

use bytes::Bytes;
use socketioxide_core::Uid;
use socketioxide_redis::drivers::{ChanItem, Driver, MessageStream};

use super::requests::LibraryRequests;
use crate::cluster::{PubSub, Wire};
use crate::redis::Kind;

/// The driver of a node.
#[derive(Clone)]
pub struct PubSubDriver {
    pubsub: Arc<PubSub>,
    wire: Arc<Wire>,
    requests: Arc<LibraryRequests>,
}

impl PubSubDriver {
    pub(super) fn new(pubsub: Arc<PubSub>, wire: Arc<Wire>, requests: Arc<LibraryRequests>) -> Self {
        Self { pubsub, wire, requests }
    }

    /// The library's name of this server.
    pub(super) fn name(&self, own: Uid) {
        self.requests.name(own);
    }
}

/// Why the number of servers is not known.
#[derive(Debug, thiserror::Error)]
#[error("Redis did not say how many nodes listen")]
pub struct DriverError(#[source] fred::error::Error);

impl Driver for PubSubDriver {
    type Error = DriverError;

    // The adapter waits for this before it delivers to its own clients, and an error would keep it from doing so.
    async fn publish(&self, channel: String, bytes: Vec<u8>) -> Result<(), DriverError> {
        let (channel, bytes): (Arc<str>, Bytes) = (channel.into(), bytes.into());
        // Which of the two another server listens to depends on its own driver, and none listens to both.
        for kind in [Kind::Plain, Kind::Sharded] {
            if let Err(why) = self.pubsub.send_as(kind, &channel, bytes.clone()) {
                tracing::debug!(reason = why.as_str(), "a message to servers of the library was not carried");
            }
        }
        Ok(())
    }

    async fn subscribe(&self, channel: String, buffer: usize) -> Result<MessageStream<ChanItem>, DriverError> {
        if LibraryRequests::are_on(&channel) {
            return Ok(MessageStream::new(self.requests.questions(&self.wire, channel, buffer)));
        }
        let incoming = self
            .pubsub
            .subscribe_plain(&channel.into(), buffer, |message| (message.channel.to_string(), message.body.to_vec()));
        Ok(MessageStream::new(incoming))
    }

    async fn unsubscribe(&self, channel: String) -> Result<(), DriverError> {
        if LibraryRequests::are_on(&channel) {
            self.requests.forget(&channel);
        } else {
            self.pubsub.unsubscribe(&channel);
        }
        Ok(())
    }

    async fn num_serv(&self, channel: &str) -> Result<u16, DriverError> {
        let count = self.pubsub.subscribers(channel).await.map_err(DriverError)?;
        Ok(u16::try_from(count).unwrap_or(u16::MAX))
    }
}
