//! Translates between roomcast's rooms and the names that Socket.IO's servers and emitters use. Socket.IO uses the id
//! of a client as the name of a room.
//!
//! A name that a server or emitter sends may mean a room, a client, or both, so a node looks up both. A name that a
//! roomcast node sends is accompanied by its meaning.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use crate::cluster::socketio::outside;
use crate::protocol::{is_reserved_room, is_socket_room, socket_room, user_of};
use crate::room::Rooms;
use crate::session::RoomName;

/// The name means a room.
const ROOM: u8 = 1;

/// The name means the client with this id.
const CLIENT: u8 = 2;

/// Names in the form that other servers use, each with its meaning for roomcast nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ForeignNames {
    /// The names of rooms and clients, without repetition.
    pub(super) names: Vec<String>,
    /// For each name [`ROOM`], [`CLIENT`], or both.
    pub(super) kinds: Vec<u8>,
}

impl ForeignNames {
    /// Returns the names of rooms. The name of a client's own room is the client's id.
    pub(super) fn of(rooms: &[RoomName]) -> Self {
        let mut all = Self::default();
        let mut places = HashMap::new();
        for room in rooms {
            let name = outside(room);
            let kind = if is_socket_room(room) { CLIENT } else { ROOM };
            match places.entry(name) {
                Entry::Occupied(place) => all.kinds[*place.get()] |= kind,
                Entry::Vacant(place) => {
                    place.insert(all.names.len());
                    all.names.push(name.to_owned());
                    all.kinds.push(kind);
                }
            }
        }
        all
    }
}

/// The rooms that names sent by another roomcast node mean. `None` if that node did not send a valid meaning for each
/// name.
pub(super) fn meant(names: &[String], kinds: &[u8]) -> Option<Vec<RoomName>> {
    let known = kinds.iter().all(|kind| (ROOM..=ROOM | CLIENT).contains(kind));
    if names.len() != kinds.len() || !known {
        return None;
    }
    let rooms = names.iter().zip(kinds).flat_map(|(name, kind)| {
        let room = (kind & ROOM != 0).then(|| name.as_str().into());
        let client = (kind & CLIENT != 0).then(|| socket_room(name));
        room.into_iter().chain(client)
    });
    Some(rooms.collect())
}

/// The rooms that names sent by a server or emitter may mean on this node. A name is taken for a client's id only if
/// that client is connected to this node.
pub(super) fn here(rooms: &Rooms, namespace: &str, names: &[String]) -> Vec<RoomName> {
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        found.extend(named(name));
        if rooms.session(namespace, name).is_some() {
            found.push(socket_room(name));
        }
    }
    found
}

/// The rooms that names sent by a server or emitter may mean on any node. Each name is taken for a client's id as well,
/// because no node knows the ids of all clients. Rooms come first, because the first one orders and throttles an event.
pub(super) fn everywhere(names: &[String]) -> Vec<RoomName> {
    let mut seen = HashSet::new();
    let rooms = names.iter().filter_map(|name| named(name));
    let clients = names.iter().map(|name| socket_room(name));
    rooms.chain(clients).filter(|room| seen.insert(room.clone())).collect()
}

/// Returns the room with this name if a process outside the cluster may send to the room: of the reserved rooms, only
/// those of users are allowed.
fn named(name: &str) -> Option<RoomName> {
    (!is_reserved_room(name) || user_of(name).is_some()).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(names: &[&str]) -> Vec<RoomName> {
        names.iter().map(|&name| name.into()).collect()
    }

    #[test]
    fn nodes_understand_each_other_exactly() {
        let sent = rooms(&["a", "$sid:x", "b", "$sid:b", "$user:u"]);
        let ForeignNames { names, kinds } = ForeignNames::of(&sent);
        assert_eq!(names, ["a", "x", "b", "u"].map(|name| if name == "u" { "$user:u" } else { name }));
        assert_eq!(meant(&names, &kinds).unwrap(), sent);
        assert_eq!(meant(&names, &kinds[1..]), None);
        assert_eq!(meant(&names, &[1, 2, 0, 1]), None);
        assert_eq!(meant(&names, &[1, 2, 4, 1]), None);
    }

    #[test]
    fn a_strangers_name_is_a_room_and_an_id_whatever_it_looks_like() {
        let names = ["lobby", "lobby", "$all", "$user:u"].map(str::to_owned);
        assert_eq!(everywhere(&names), rooms(&["lobby", "$user:u", "$sid:lobby", "$sid:$all", "$sid:$user:u"]));
    }
}
