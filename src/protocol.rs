//! Constants of Socket.IO's protocol, and the names that the node keeps for its own rooms.

use std::sync::Arc;

/// Event names that Socket.IO reserves: the official client refuses to emit them.
pub const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// The maximum number of binary attachments of a packet.
pub const MAX_ATTACHMENTS: usize = 1024;

/// The maximum number of rooms and exceptions of one event together.
pub const MAX_TARGETS: usize = 4000;

/// The first character of the names of rooms that belong to the node. Contracts and clients cannot use such names.
pub const RESERVED_PREFIX: char = '$';

/// The name that stands for all clients of a namespace where the name of a room is expected.
pub const EVERYBODY: &str = "$all";

const SOCKET_PREFIX: &str = "$sid:";
const USER_PREFIX: &str = "$user:";

/// Whether a room belongs to the node, so that only the node puts clients into it.
pub fn is_reserved_room(room: &str) -> bool {
    room.starts_with(RESERVED_PREFIX)
}

/// The name of the room that holds one socket alone.
pub fn socket_room(id: &str) -> Arc<str> {
    [SOCKET_PREFIX, id].concat().into()
}

/// Whether a room belongs to one socket.
pub fn is_socket_room(room: &str) -> bool {
    room.starts_with(SOCKET_PREFIX)
}

/// The id of the socket that a room belongs to, if it belongs to one.
pub fn socket_of(room: &str) -> Option<&str> {
    room.strip_prefix(SOCKET_PREFIX)
}

/// The name of the room that holds all sockets of one user.
pub fn user_room(id: &str) -> Arc<str> {
    [USER_PREFIX, id].concat().into()
}

/// The id of the user that a room belongs to, if it belongs to one.
pub fn user_of(room: &str) -> Option<&str> {
    room.strip_prefix(USER_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_of_sockets_and_users_are_reserved() {
        let (socket, user) = (socket_room("s"), user_room("u"));
        assert_eq!((socket_of(&socket), user_of(&socket)), (Some("s"), None));
        assert_eq!((socket_of(&user), user_of(&user)), (None, Some("u")));
        assert!([&*socket, &*user, EVERYBODY].iter().all(|room| is_reserved_room(room)));
        assert!(is_socket_room(&socket) && !is_socket_room(&user) && !is_reserved_room("lobby"));
    }
}
