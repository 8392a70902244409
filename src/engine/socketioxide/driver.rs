//! Implements the pub/sub driver of socketioxide-redis with this node's own pub/sub. Messages are published
//! unchanged, in the library's protocol. Of the requests of other servers, the library's adapter gets the questions
//! only; see [`LibraryRequests`].
//!
//! Publishing returns at once, even if Redis is not available. Subscriptions take effect when Redis is available, and
//! are renewed when it returns.

use std::sync::Arc;

use bytes::Bytes;
use socketioxide_core::Uid;
use socketioxide_redis::drivers::{ChanItem, Driver, MessageStream};

use super::requests::LibraryRequests;
use crate::cluster::{PubSub, Wire};
use crate::redis::Kind;

/// The pub/sub driver of this node.
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

    /// Sets the id that the library's adapter uses for this server.
    pub(super) fn name(&self, own: Uid) {
        self.requests.name(own);
    }
}

/// Why the number of servers could not be determined.
#[derive(Debug, thiserror::Error)]
#[error("Redis did not say how many nodes listen")]
pub struct DriverError(#[source] fred::error::Error);

impl Driver for PubSubDriver {
    type Error = DriverError;

    // The adapter delivers to its own clients only after this has returned successfully, so it neither waits nor
    // fails.
    async fn publish(&self, channel: String, bytes: Vec<u8>) -> Result<(), DriverError> {
        let (channel, bytes): (Arc<str>, Bytes) = (channel.into(), bytes.into());
        // The kind of channel that another server subscribes to depends on its driver. No server subscribes to both,
        // so publish to both.
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
