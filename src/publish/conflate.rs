//! Throttled events of a contract: sends the newest event at the declared rate, and no event after the completion that
//! ends them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::record::RecordOutcome;
use super::{DeliveryResult, DescribedEvent, Outgoing, Publisher, PublisherKind, RemoteFailure};
use crate::contract::model::{Contract, ServerEvent, ThrottleBy as Per, ThrottlePolicy};
use crate::event::Event;
use crate::order::ConflationOrder;
use crate::protocol::is_socket_room;
use crate::session::RoomName;
use crate::telemetry::log_limit::log_seldom;
use crate::throttle::{DueEvent, ThrottleDecision, ThrottleKey, scope};

/// A throttled event that waits for the end of its throttle's time, in its stored form.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct HeldEvent {
    contract: String,
    namespace: String,
    text: ByteString,
    attachments: Vec<Bytes>,
    rooms: Vec<RoomName>,
    volatile: bool,
    /// True when an emitter or a Node.js server sent the event. Left out when false, so that earlier versions can read
    /// the entry.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    foreign: bool,
}

impl Publisher {
    /// Sends the event now, or stores it as the newest one, to be sent when the throttle's time has passed. Returns
    /// `None` for a stored event.
    pub(super) async fn conflate(
        self: &Arc<Self>,
        of: &DescribedEvent,
        throttle: &ThrottlePolicy,
        outgoing: &mut Outgoing,
        origin: PublisherKind,
    ) -> Option<DeliveryResult> {
        let key = key_of(throttle, outgoing);
        if let Some(value) = HeldEvent::encode(&of.contract, outgoing, origin) {
            match self.parts.throttles.offer(&key, throttle.every, &value).await {
                ThrottleDecision::Pass(number) => {
                    outgoing.order = Some(ConflationOrder { scope: key.scope, number, closes: false })
                }
                ThrottleDecision::Held(wait) => {
                    self.schedule(key, throttle.every, wait);
                    return None;
                }
            }
        }
        Some(self.deliver(of.published.of(origin), outgoing, origin, RecordOutcome::Goes).await)
    }

    /// Sends the events that a throttle holds for the rooms of `outgoing`, before `outgoing` is sent as their
    /// completion. No held event is delivered after `outgoing`.
    pub(super) async fn flush(self: &Arc<Self>, contract: &Contract, outgoing: &mut Outgoing) {
        let throttled: Vec<Arc<str>> = throttled(contract).map(|def| def.name.as_str().into()).collect();
        if throttled.is_empty() {
            return;
        }
        // A client's own room has no throttles.
        let rooms: Vec<RoomName> = outgoing.rooms.iter().filter(|room| !is_socket_room(room)).cloned().collect();
        for room in rooms {
            let scope = scope(&outgoing.namespace, &room);
            let closing = self.parts.throttles.close(&scope, &throttled).await;
            for (value, number) in closing.held {
                self.send_held(&scope, &value, number).await;
            }
            // An event has only one order: that of its first room.
            if outgoing.order.is_none() {
                outgoing.order = Some(ConflationOrder { scope, number: closing.number, closes: true });
            }
        }
    }

    /// Sends all events that this node's throttles hold, before they are due. Called when the node leaves, because only
    /// this node has the timers of these events.
    pub async fn say_held(self: &Arc<Self>) {
        let keys: Vec<ThrottleKey> =
            self.timers.lock().expect("no thread panics while it holds this lock").iter().cloned().collect();
        for key in keys {
            let closing = self.parts.throttles.close(&key.scope, std::slice::from_ref(&key.event)).await;
            for (value, number) in closing.held {
                self.send_held(&key.scope, &value, number).await;
            }
        }
    }

    /// Starts the timer of a key, unless it is running. The timer ends when no event is held for the key.
    pub(super) fn schedule(self: &Arc<Self>, key: ThrottleKey, every: Duration, wait: Duration) {
        if !self.timers.lock().expect("no thread panics while it holds this lock").insert(key.clone()) {
            return;
        }
        let publisher = self.clone();
        tokio::spawn(async move {
            publisher.release(&key, every, wait).await;
            publisher.timers.lock().expect("no thread panics while it holds this lock").remove(&key);
            // An event that was stored after the timer's last question and before the timer was removed has started no
            // timer. So ask once more.
            publisher.release(&key, every, Duration::ZERO).await;
        });
    }

    async fn release(self: &Arc<Self>, key: &ThrottleKey, every: Duration, mut wait: Duration) {
        loop {
            tokio::time::sleep(wait).await;
            wait = match self.parts.throttles.due(key, every).await {
                DueEvent::Send(value, number) => {
                    self.send_held(&key.scope, &value, number).await;
                    every
                }
                DueEvent::Wait(wait) => wait.max(Duration::from_millis(1)),
                DueEvent::Nothing => return,
            };
        }
    }

    async fn send_held(&self, scope: &Arc<str>, value: &[u8], number: u64) {
        let Some((contract, mut outgoing, origin)) = HeldEvent::decode(value) else {
            self.parts.metrics.cluster_not_carried_total.with_label_values(&[RemoteFailure::Refused.as_str()]).inc();
            log_seldom!(warn, "a held event could not be read; was it written by another version?");
            return;
        };
        outgoing.order = Some(ConflationOrder { scope: scope.clone(), number, closes: false });
        if self.send_due_list(&contract, &outgoing).await {
            return;
        }
        let published = self.counter(&contract, outgoing.event.name(), origin);
        self.deliver(&published, &mut outgoing, origin, RecordOutcome::Goes).await;
    }
}

fn throttled(contract: &Contract) -> impl Iterator<Item = &Arc<ServerEvent>> {
    contract.server.values().filter(|def| def.throttle.is_some())
}

fn key_of(throttle: &ThrottlePolicy, outgoing: &Outgoing) -> ThrottleKey {
    let room = match throttle.per {
        Per::Room => outgoing.rooms.first().map_or("", |room| room),
        Per::Event => "",
    };
    ThrottleKey::new(&outgoing.namespace, room, outgoing.event.name())
}

// === impl Held ===

impl HeldEvent {
    /// The stored form of a note that a room's list of members is due.
    pub(super) fn note(contract: &str, namespace: &str, room: &RoomName, event: &str) -> Option<Vec<u8>> {
        let note = Self {
            contract: contract.to_owned(),
            namespace: namespace.to_owned(),
            text: Event::encode(event, [(); 0]).ok()?.text().clone(),
            attachments: Vec::new(),
            rooms: vec![room.clone()],
            volatile: false,
            foreign: false,
        };
        rmp_serde::to_vec(&note).ok()
    }

    fn encode(contract: &Contract, outgoing: &Outgoing, origin: PublisherKind) -> Option<Vec<u8>> {
        let held = Self {
            contract: contract.name.to_string(),
            namespace: outgoing.namespace.to_string(),
            text: outgoing.event.text().clone(),
            attachments: outgoing.event.attachments().to_vec(),
            rooms: outgoing.rooms.clone(),
            volatile: outgoing.volatile,
            foreign: origin == PublisherKind::Emitter,
        };
        rmp_serde::to_vec(&held).ok()
    }

    fn decode(value: &[u8]) -> Option<(String, Outgoing, PublisherKind)> {
        let held: Self = rmp_serde::from_slice(value).ok()?;
        let origin = if held.foreign { PublisherKind::Emitter } else { PublisherKind::Api };
        let event = Event::from_wire(held.text, held.attachments).ok()?;
        let outgoing = Outgoing::new(held.namespace.into(), event, held.rooms).volatile(held.volatile);
        Some((held.contract, outgoing, origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{THROTTLE, frozen};

    #[test]
    fn held_events_are_the_frozen_ones() {
        for (foreign, sample) in [(false, "held"), (true, "held-of-an-emitter")] {
            let held = HeldEvent {
                contract: "c".into(),
                namespace: "/n".into(),
                text: r#"["e",{"n":1.50}]"#.into(),
                attachments: vec![Bytes::from_static(&[0, 1])],
                rooms: vec!["r:é".into()],
                volatile: true,
                foreign,
            };
            let frozen = frozen::check(&THROTTLE, sample, &rmp_serde::to_vec(&held).unwrap());
            assert_eq!(rmp_serde::from_slice::<HeldEvent>(&frozen).unwrap(), held);
        }
    }
}
