//! Compiles `[rooms]`.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use super::Compiler;
use super::site::ExpressionSite;
use crate::contract::document::KeyPath;
use crate::contract::file;
use crate::contract::model::{HistoryPolicy, PresencePolicy, ReplayPolicy, RoomDef};
use crate::contract::room_name::RoomTemplate;
use crate::suggest::one_of_quoted;

/// Number of events that a history keeps if the contract does not set it.
const DEFAULT_EVENTS: u32 = 100;
/// How long a history is kept after its last event if the contract does not set it.
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 60 * 60);

impl Compiler<'_> {
    pub(super) fn compile_rooms(&mut self, contract: &Arc<str>) -> IndexMap<String, Arc<RoomDef>> {
        let mut rooms: IndexMap<String, Arc<RoomDef>> = IndexMap::new();
        for (key, value) in self.entries("rooms") {
            let key_path = KeyPath::top("rooms").key(&key);
            let Some(raw) = self.read::<file::RoomSpec>(&key_path, &value) else {
                continue;
            };
            let Some(def) = self.room(&key_path, &key, contract, raw) else {
                continue;
            };
            if let Some(twin) = rooms.values().find(|twin| twin.name.shape() == def.name.shape()) {
                let line = self.document.line(&KeyPath::top("rooms").key(&twin.key)).unwrap_or_default();
                let problem = format!("rooms.{} on line {line} has the same names", twin.key);
                self.note_mistake(&key_path.key("name"), problem, "make them one, or give them other names");
            }
            rooms.insert(key, Arc::new(def));
        }
        rooms
    }

    /// The entries of a table, in the order of the file.
    pub(super) fn entries(&self, table: &str) -> Vec<(String, serde_json::Value)> {
        let table = self.document.tree.get(table).and_then(serde_json::Value::as_object);
        table.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn room(&mut self, key_path: &KeyPath, key: &str, contract: &Arc<str>, raw: file::RoomSpec) -> Option<RoomDef> {
        let chars = raw.chars.unwrap_or_default();
        let join = self.rule(&key_path.key("join"), raw.join, ExpressionSite::Room);
        let name = match RoomTemplate::compile(&raw.name, &chars) {
            Ok(name) => name,
            Err(problem) => {
                let (problem, remedy) = problem.split_once(": ").unwrap_or((&problem, ""));
                self.note_mistake(&key_path.key("name"), problem, remedy);
                return None;
            }
        };
        for variable in join.iter().flat_map(|rule| rule.room_variables()) {
            if !name.variables().any(|known| known == variable) {
                let known: Vec<&str> = name.variables().collect();
                let problem = format!("`{}` has no variable `{variable}`", name.text());
                self.note_mistake(
                    &key_path.key("join"),
                    problem,
                    format!("use one of the variables of the room's name: {}", one_of_quoted(known)),
                );
            }
        }
        for (key, given) in [("idle", raw.idle.is_some()), ("linger", raw.linger.is_some())] {
            if given && raw.history.is_none() {
                let problem = format!("`{key}` ends a history, and this room has none");
                self.note_mistake(&key_path.key(key), problem, "add `history`, or take it out");
            }
        }
        Some(RoomDef {
            key: key.to_owned(),
            contract: contract.clone(),
            call: raw.call.map(|call| self.call(&key_path.key("call"), call)),
            history: raw.history.map(|history| self.history(&key_path.key("history"), history, &name)),
            presence: self.presence(&key_path.key("presence"), raw.presence),
            idle: self.duration(&key_path.key("idle"), raw.idle),
            linger: self.duration(&key_path.key("linger"), raw.linger),
            join,
            name,
        })
    }

    fn history(&mut self, key_path: &KeyPath, raw: file::HistorySpec, name: &RoomTemplate) -> HistoryPolicy {
        let replay = raw.replay.unwrap_or_default();
        let key = raw.key.and_then(|key| self.history_key(&key_path.key("key"), &key, name));
        if let Some(event) = &raw.incomplete {
            self.check_event_name(&key_path.key("incomplete"), event);
            if replay == ReplayPolicy::None {
                let problem = "`incomplete` needs a replay, and this room has none";
                self.note_mistake(&key_path.key("incomplete"), problem, "add `replay`, or take it out");
            }
        }
        HistoryPolicy {
            events: raw.events.unwrap_or(DEFAULT_EVENTS),
            ttl: self.duration(&key_path.key("ttl"), raw.ttl).unwrap_or(DEFAULT_TTL),
            replay,
            key,
            incomplete: raw.incomplete,
        }
    }

    fn history_key(&mut self, key_path: &KeyPath, key: &str, name: &RoomTemplate) -> Option<RoomTemplate> {
        let template = match RoomTemplate::compile(key, name.chars()) {
            Ok(template) => template,
            Err(problem) => {
                let (problem, remedy) = problem.split_once(": ").unwrap_or((&problem, ""));
                self.note_mistake(key_path, problem, remedy);
                return None;
            }
        };
        let known: Vec<&str> = name.variables().collect();
        for variable in template.variables().filter(|variable| !known.contains(variable)) {
            let problem = format!("`{}` has no variable `{variable}`", name.text());
            self.note_mistake(key_path, problem, format!("write {}", one_of_quoted(known.iter().copied())));
        }
        for variable in known.iter().filter(|variable| !template.variables().any(|used| used == **variable)) {
            let problem = format!("without `{{{variable}}}` several rooms share one key");
            self.note_mistake(key_path, problem, format!("write `{{{variable}}}` into it"));
        }
        Some(template)
    }

    fn presence(&mut self, key_path: &KeyPath, raw: Option<file::PresenceSpec>) -> Option<PresencePolicy> {
        match raw? {
            file::PresenceSpec::Kept(kept) => kept.then(PresencePolicy::default),
            file::PresenceSpec::Told(events) => {
                for (key, event) in [("joined", &events.joined), ("left", &events.left)] {
                    if let Some(event) = event {
                        self.check_event_name(&key_path.key(key), event);
                    }
                }
                Some(events)
            }
        }
    }
}
