//! The last step of every publish: records the event in the histories of its rooms, then sends it.

use prometheus::IntCounter;

use super::{DeliveryResult, Outgoing, Publisher, PublisherKind, RemoteDelivery, RemoteFailure};
use crate::contract::model::RecoveryPolicy;
use crate::event::RecoveryMark;
use crate::history::RoomRecord;
use crate::protocol::EVERYBODY;
use crate::session::RoomName;

/// The effect of a publish on the histories of its rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordOutcome {
    /// The histories continue after the event.
    Goes,
    /// No history keeps the event.
    Passes,
    /// The event is terminal: it ends the histories.
    Ends,
}

impl Publisher {
    /// Records an event in its rooms' histories, then sends it.
    ///
    /// If an event cannot be recorded, the history's failure counter grows by one, and clients get the event without an
    /// offset. In a namespace without histories the future completes at the first poll, unless very many clients get
    /// the event.
    pub(super) async fn deliver(
        &self,
        published: &IntCounter,
        outgoing: &mut Outgoing,
        origin: PublisherKind,
        story: RecordOutcome,
    ) -> DeliveryResult {
        let recovery = self.recovering.get(&outgoing.namespace).copied();
        let kept = self.kept(outgoing, story, recovery);
        if kept.is_empty() {
            let (delivery_result, _timer) = self.emit(outgoing, published, origin);
            return delivery_result.served().await;
        }
        // Every recorded event needs the id: a copy without an offset is recognised by it, after a join's replay too.
        outgoing.event = outgoing.event.clone().with_mark(RecoveryMark::new(outgoing.except.clone()));
        // `recorded` is held until the event is sent, so that the order of offsets is the order of deliveries.
        let recorded = self.parts.history.record(&kept, &outgoing.event).await;
        if recorded.is_refused {
            let why = RemoteFailure::Full;
            self.parts.metrics.cluster_not_carried_total.with_label_values(&[why.as_str()]).inc();
            return DeliveryResult { remote: RemoteDelivery::NotCarried(why), ..DeliveryResult::to(0, 0) };
        }
        if recorded.is_fenced {
            self.parts.metrics.socketio_dropped_total.with_label_values(&["fenced"]).inc();
            return DeliveryResult::to(0, 0);
        }
        outgoing.stamps.clone_from(&recorded.stamps);
        if let Some(policy) = recovery
            && !recorded.is_whole
        {
            self.parts.history.note_unrecorded(&outgoing.namespace, policy.window);
        }
        let (delivery_result, _timer) = self.emit(outgoing, published, origin);
        drop(recorded);
        // The publisher continues only when the event is queued for all clients, which bounds the number of waiting
        // slices.
        delivery_result.served().await
    }

    pub(super) fn kept(
        &self,
        outgoing: &Outgoing,
        story: RecordOutcome,
        recovery: Option<RecoveryPolicy>,
    ) -> Vec<RoomRecord> {
        if story == RecordOutcome::Passes || !self.recorded.contains(&outgoing.namespace) {
            return Vec::new();
        }
        let Some(namespace) = self.namespaces.get(&outgoing.namespace) else { return Vec::new() };
        // A volatile event may be lost for a connected client, so it is not kept for a disconnected one either.
        let recovery = recovery.filter(|_| !outgoing.volatile);
        let everybody: [RoomName; 1] = [EVERYBODY.into()];
        let rooms = if outgoing.rooms.is_empty() { &everybody[..] } else { &outgoing.rooms };
        let keepings = rooms.iter().filter_map(|room| {
            let declared = namespace.room_of(room).and_then(|(def, vars)| {
                RoomRecord::of(def, &outgoing.namespace, room, &vars, story == RecordOutcome::Ends)
            });
            declared.or_else(|| Some(RoomRecord::for_returns(&outgoing.namespace, room, &recovery?)))
        });
        keepings.collect()
    }
}
