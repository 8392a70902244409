//! The pub/sub of socketioxide-redis on ours: bytes are published as they are, in the library's own protocol.
//!
//! Publishing returns at once, whatever Redis does; subscriptions take effect when Redis is there, and survive it.

use std::sync::Arc;

use socketioxide_redis::drivers::{ChanItem, Driver, MessageStream};

use crate::cluster::PubSub;
use crate::redis::Kind;

/// The driver of a node.
#[derive(Clone)]
pub struct PubSubDriver {
    pubsub: Arc<PubSub>,
}

impl PubSubDriver {
    pub(super) fn new(pubsub: Arc<PubSub>) -> Self {
        Self { pubsub }
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
        if let Err(why) = self.pubsub.send_as(Kind::Sharded, &channel.into(), bytes.into()) {
            tracing::debug!(reason = why.as_str(), "a request to the other nodes was not carried");
        }
        Ok(())
    }

    async fn subscribe(&self, channel: String, buffer: usize) -> Result<MessageStream<ChanItem>, DriverError> {
        let incoming = self
            .pubsub
            .subscribe_plain(&channel.into(), buffer, |message| (message.channel.to_string(), message.body.to_vec()));
        Ok(MessageStream::new(incoming))
    }

    async fn unsubscribe(&self, channel: String) -> Result<(), DriverError> {
        self.pubsub.unsubscribe(&channel);
        Ok(())
    }

    async fn num_serv(&self, channel: &str) -> Result<u16, DriverError> {
        let count = self.pubsub.subscribers(channel).await.map_err(DriverError)?;
        Ok(u16::try_from(count).unwrap_or(u16::MAX))
    }
}
