//! Delivers events with the room index alone: each session gets its events through its link.

use std::sync::Arc;

use super::{Delivery, DeliveryResult, Outgoing};
use crate::order::OrderGuard;
use crate::room::Rooms;
use crate::session::SendError;
use crate::telemetry::metrics::Metrics;

/// A [`Delivery`] for one node without an engine, for tests.
pub struct RoomDelivery {
    rooms: Arc<Rooms>,
    guard: OrderGuard,
    metrics: Arc<Metrics>,
}

impl RoomDelivery {
    /// Creates a carrier that uses this index.
    pub fn new(rooms: Arc<Rooms>, metrics: Arc<Metrics>) -> Self {
        Self { rooms, guard: OrderGuard::default(), metrics }
    }

    fn send(&self, outgoing: &Outgoing) -> (usize, usize) {
        let mut queued = 0;
        let mut dropped = 0;
        for session in self.rooms.recipients(&outgoing.namespace, &outgoing.rooms, &outgoing.except) {
            if outgoing.passes_over(&session) {
                dropped += 1;
                let labels = [&*outgoing.namespace, "volatile"];
                self.metrics.deliveries_dropped_total.with_label_values(&labels).inc();
                continue;
            }
            match session.deliver(&outgoing.event, &outgoing.rooms, &outgoing.stamps) {
                Ok(_) => queued += 1,
                Err(error) => {
                    dropped += 1;
                    let reason = if error == SendError::Full { "queue_full" } else { "closed" };
                    self.metrics.deliveries_dropped_total.with_label_values(&[&outgoing.namespace, reason]).inc();
                }
            }
        }
        self.metrics.deliveries_total.with_label_values(&[&outgoing.namespace]).inc_by(queued as u64);
        (queued, dropped)
    }
}

impl Delivery for RoomDelivery {
    fn broadcast(&self, outgoing: &Outgoing) -> DeliveryResult {
        let delivered = self.guard.deliver(outgoing.order.as_ref(), outgoing.event.name(), || self.send(outgoing));
        let (local, dropped) = delivered.unwrap_or_else(|| {
            self.metrics.deliveries_dropped_total.with_label_values(&[&outgoing.namespace, "overtaken"]).inc();
            (0, 0)
        });
        DeliveryResult::to(local, dropped)
    }
}
