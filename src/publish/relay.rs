//! Publishes the events that clients send on to others.

use prometheus::IntCounter;

use super::record::RecordOutcome;
use super::{DeliveryResult, Outgoing, Publisher, PublisherKind};

impl Publisher {
    /// Publishes an event that the gateway permitted for a client. Delivery is at most once, as in Socket.IO.
    ///
    /// The future completes at the first poll, unless a room keeps a history or very many clients get the event. So a
    /// client's relays are sent in the order of its events.
    pub async fn relay(&self, published: &IntCounter, outgoing: &mut Outgoing) -> DeliveryResult {
        let story = if outgoing.volatile { RecordOutcome::Passes } else { RecordOutcome::Goes };
        self.deliver(published, outgoing, PublisherKind::Client, story).await
    }
}
