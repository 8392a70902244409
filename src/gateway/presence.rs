//! Statuses of users, and the members of rooms.

use serde_json::Value;

use super::context::{EventContext, EventRoom};
use super::{Gateway, GatewayClient};
use crate::contract::scope::{MembersNeed, RoomMembersScope, Scope};
use crate::error::{Code, Refusal};
use crate::presence::{MAX_STATUS_BYTES, may_have_status};
use crate::protocol::is_reserved_room;
use crate::publish::ListedRoom;
use crate::session::RoomName;

impl Gateway {
    /// The presence status that an event sets. Refuses a status that the user may not have.
    pub(super) fn check_status(&self, context: &EventContext<'_>, scope: &Scope<'_>) -> Result<Option<Value>, Refusal> {
        let Some(status) = context.def.presence.as_ref().and_then(|path| path.find(scope)) else { return Ok(None) };
        if may_have_status(&context.client.session, &status) {
            return Ok(Some(status));
        }
        let text = format!("a status has at most {MAX_STATUS_BYTES} bytes, and belongs to a user");
        Err(Refusal::new(Code::InvalidPayload, text))
    }

    /// The members of a room, as its contract shows them. `None` if the contract lists no members.
    pub(super) async fn members(
        &self,
        client: &GatewayClient,
        place: &EventRoom,
        need: MembersNeed,
    ) -> Option<RoomMembersScope> {
        let room = ListedRoom::new(&client.namespace.path, &place.def, &place.name, &place.vars)?;
        Some(self.parts.publisher.members_of(&room, need, Some(&client.session)).await)
    }

    /// The rooms of all sockets of the event's user. While Redis is unavailable, the rooms of this socket are still
    /// included.
    pub(super) async fn shared_rooms(&self, context: &EventContext<'_>) -> Vec<RoomName> {
        let session = &context.client.session;
        let own = session.rooms().into_iter().filter(|room| !is_reserved_room(room));
        let user = session.user();
        if user.anonymous {
            return own.collect();
        }
        let mut rooms = self.parts.presence.shared_rooms(session.namespace(), &user.id).await.rooms;
        for room in own {
            if !rooms.contains(&room) {
                rooms.push(room);
            }
        }
        rooms
    }
}
