//! What clients send on to others.

use super::record::Story;
use super::{Carried, Origin, Outgoing, Publisher};

impl Publisher {
    /// Publishes what the gateway has permitted for a client. At most once, as Socket.IO has it.
    ///
    /// Done after one poll where no history is kept and not very many get it: a client's relays leave in the order of its
    /// events.
    pub async fn relay(&self, contract: &str, outgoing: &mut Outgoing, origin: Origin) -> Carried {
        self.deliver(contract, outgoing, origin, Story::Goes).await
    }

    /// Publishes what a client that is gone would have said. Such events are notices, and not kept in histories.
    pub fn notice(&self, contract: &str, outgoing: &Outgoing) -> Carried {
        self.emit(outgoing, contract, Origin::Node).0
    }
}
