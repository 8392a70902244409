//! The last step of every publish: into the histories of its rooms, then out.

use super::{Carried, Origin, Outgoing, Publisher};
use crate::history::Keeping;

/// What a publish means for the rooms that it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Story {
    /// It goes on.
    Goes,
    /// This event ends it.
    Ends,
}

impl Publisher {
    /// Records an event in its rooms' histories, then carries it.
    ///
    /// What cannot be recorded is counted by the history, and goes out live without a place in it. Without a history
    /// this is done after one poll.
    pub(super) async fn deliver(
        &self,
        contract: &str,
        outgoing: &mut Outgoing,
        origin: Origin,
        story: Story,
    ) -> Carried {
        let kept = self.kept(outgoing, story);
        if kept.is_empty() {
            return self.emit(outgoing, contract, origin);
        }
        // The turn lasts until the event is out, so that the order of offsets is the order of deliveries.
        let recorded = self.parts.history.record(&kept, &outgoing.event).await;
        outgoing.stamps.clone_from(&recorded.stamps);
        self.emit(outgoing, contract, origin)
    }

    fn kept(&self, outgoing: &Outgoing, story: Story) -> Vec<Keeping> {
        if !self.recorded.contains(&outgoing.namespace) {
            return Vec::new();
        }
        let Some(namespace) = self.namespaces.get(&outgoing.namespace) else { return Vec::new() };
        let rooms = outgoing.rooms.iter().filter_map(|room| {
            let (def, vars) = namespace.room_of(room)?;
            Keeping::of(def, &outgoing.namespace, room, &vars, story == Story::Ends)
        });
        rooms.collect()
    }
}
