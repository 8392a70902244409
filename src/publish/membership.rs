//! The undo events of clients that leave a room.

use super::{DeliveryResult, Outgoing, Publisher, PublisherKind};
use crate::protocol::socket_room;
use crate::room::Rooms;
use crate::session::{LeaveEvent, RoomName, Session};

impl Publisher {
    /// Removes a session from a room. Before that, publishes the undo events that are stored for the session and this
    /// room.
    pub fn take_out(&self, rooms: &Rooms, session: &Session, room: &RoomName) {
        for (room, undo) in session.take_undo(Some(room)) {
            self.undo(session, room, undo);
        }
        rooms.leave(session, room);
    }

    /// Publishes an undo event (such as "stopped typing") for a client that left without sending it.
    pub fn undo(&self, session: &Session, room: RoomName, undo: LeaveEvent) {
        let except = if undo.others { vec![socket_room(session.id())] } else { Vec::new() };
        let outgoing = Outgoing::new(session.namespace().clone(), undo.event, vec![room]).except(except);
        self.notice(&undo.contract, &outgoing);
    }

    /// Publishes an undo or presence event. These events are not kept in histories.
    pub(super) fn notice(&self, contract: &str, outgoing: &Outgoing) -> DeliveryResult {
        let published = self.counter(contract, outgoing.event.name(), PublisherKind::Node);
        self.emit(outgoing, &published, PublisherKind::Node).0
    }
}
