//! Compiles `[server]`.

use std::sync::Arc;

use indexmap::IndexMap;

use super::Compiler;
use super::site::ExpressionSite;
use crate::contract::document::KeyPath;
use crate::contract::file::{self, OneOrMany};
use crate::contract::model::{RoomRef, ServerEvent, ThrottleBy, ThrottlePolicy};

impl Compiler<'_> {
    pub(super) fn compile_server(&mut self) -> IndexMap<String, Arc<ServerEvent>> {
        let mut events = IndexMap::new();
        for (name, value) in self.entries("server") {
            let key_path = KeyPath::top("server").key(&name);
            self.check_event_name(&key_path, &name);
            if let Some(raw) = self.read::<file::ServerEventSpec>(&key_path, &value) {
                let event = self.server_event(&key_path, &name, raw);
                events.insert(name, Arc::new(event));
            }
        }
        events
    }

    fn server_event(&mut self, key_path: &KeyPath, name: &str, raw: file::ServerEventSpec) -> ServerEvent {
        let terminal = raw.terminal.unwrap_or_default();
        let throttle = raw.throttle.and_then(|throttle| self.server_throttle(&key_path.key("throttle"), throttle));
        if terminal && throttle.is_some() {
            let problem = "a terminal event is never throttled";
            self.note_mistake(&key_path.key("throttle"), problem, "take `throttle` or `terminal` out");
        }
        ServerEvent {
            name: name.to_owned(),
            rooms: self.server_rooms(&key_path.key("rooms"), raw.rooms),
            schema: self.schema(&key_path.key("schema"), raw.schema),
            fill: raw.fill.and_then(|fill| self.members(&key_path.key("fill"), fill, ExpressionSite::Server)),
            throttle,
            flush: terminal || raw.flush.unwrap_or_default(),
            terminal,
            volatile: raw.volatile.unwrap_or_default(),
            slow: raw.slow.unwrap_or_default(),
        }
    }

    /// Compiles the rooms of a server event. The result is empty only for `"*"`: an empty list of rooms means
    /// everyone.
    fn server_rooms(&mut self, key_path: &KeyPath, raw: OneOrMany<file::RoomRefSpec>) -> Vec<RoomRef> {
        if matches!(&raw, OneOrMany::One(file::RoomRefSpec::Key(key)) if key == "*") {
            return Vec::new();
        }
        if matches!(&raw, OneOrMany::Many(items) if items.is_empty()) {
            self.note_mistake(
                key_path,
                "it goes to no room",
                "name a room, or write \"*\" for everyone in the namespace",
            );
        }
        self.room_refs(key_path, Some(raw), ExpressionSite::Server)
    }

    fn server_throttle(&mut self, key_path: &KeyPath, raw: file::ServerThrottleSpec) -> Option<ThrottlePolicy> {
        match raw {
            file::ServerThrottleSpec::Every(every) => {
                Some(ThrottlePolicy { every: self.duration(key_path, Some(every))?, per: ThrottleBy::Room })
            }
            file::ServerThrottleSpec::Table(raw) => {
                let per = raw.per.unwrap_or_default();
                Some(ThrottlePolicy { every: self.duration(&key_path.key("every"), Some(raw.every))?, per })
            }
        }
    }
}
