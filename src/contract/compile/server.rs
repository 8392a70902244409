//! Compiles `[server]`.

use std::sync::Arc;

use indexmap::IndexMap;

use super::Compiler;
use super::sees::Sees;
use crate::contract::document::Place;
use crate::contract::file::{self, OneOrMany};
use crate::contract::model::{RoomRef, ServerEvent, Slow, Throttle, ThrottleKey};

impl Compiler<'_> {
    pub(super) fn compile_server(&mut self) -> IndexMap<String, Arc<ServerEvent>> {
        let mut events = IndexMap::new();
        for (name, value) in self.entries("server") {
            let place = Place::top("server").key(&name);
            self.check_event_name(&place, &name);
            if let Some(raw) = self.read::<file::Server>(&place, &value) {
                let event = self.server_event(&place, &name, raw);
                events.insert(name, Arc::new(event));
            }
        }
        events
    }

    fn server_event(&mut self, place: &Place, name: &str, raw: file::Server) -> ServerEvent {
        let terminal = raw.terminal.unwrap_or_default();
        let throttle = raw.throttle.and_then(|throttle| self.server_throttle(&place.key("throttle"), throttle));
        if terminal && throttle.is_some() {
            let problem = "a terminal event is never throttled";
            self.blame(&place.key("throttle"), problem, "take `throttle` or `terminal` out");
        }
        ServerEvent {
            name: name.to_owned(),
            rooms: self.server_rooms(&place.key("rooms"), raw.rooms),
            schema: self.schema(&place.key("schema"), raw.schema),
            fill: raw.fill.and_then(|fill| self.members(&place.key("fill"), fill, Sees::Server)),
            throttle,
            flush: terminal || raw.flush.unwrap_or_default(),
            terminal,
            volatile: raw.volatile.unwrap_or_default(),
            slow: match raw.slow {
                None | Some(file::Slow::Drop) => Slow::Drop,
                Some(file::Slow::Disconnect) => Slow::Disconnect,
                Some(file::Slow::DropOldest) => Slow::DropOldest,
                Some(file::Slow::KeepLatest) => Slow::KeepLatest,
            },
        }
    }

    /// Compiles the rooms of a server event. The result is empty only for `"*"`: an empty list of rooms means
    /// everyone.
    fn server_rooms(&mut self, place: &Place, raw: OneOrMany<file::RoomRef>) -> Vec<RoomRef> {
        if matches!(&raw, OneOrMany::One(file::RoomRef::Key(key)) if key == "*") {
            return Vec::new();
        }
        if matches!(&raw, OneOrMany::Many(items) if items.is_empty()) {
            self.blame(place, "it goes to no room", "name a room, or write \"*\" for everyone in the namespace");
        }
        self.room_refs(place, Some(raw), Sees::Server)
    }

    fn server_throttle(&mut self, place: &Place, raw: file::ServerThrottle) -> Option<Throttle> {
        match raw {
            file::ServerThrottle::Every(every) => {
                Some(Throttle { every: self.duration(place, Some(every))?, per: ThrottleKey::Room })
            }
            file::ServerThrottle::Table(raw) => {
                let per = match raw.per {
                    None | Some(file::ThrottleKey::Room) => ThrottleKey::Room,
                    Some(file::ThrottleKey::Event) => ThrottleKey::Event,
                };
                Some(Throttle { every: self.duration(&place.key("every"), Some(raw.every))?, per })
            }
        }
    }
}
