//! Compiles `[rooms]`.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::Compiler;
use super::site::{ExpressionSite, MembersAt};
use crate::contract::document::KeyPath;
use crate::contract::file;
use crate::contract::model::{
    HistoryPolicy, MemberUnit, PresencePolicy, ReplayPolicy, Reply, RoomDef, SentArgs, ServerEvent,
};
use crate::contract::room_name::RoomTemplate;
use crate::contract::template::Template;
use crate::suggest::one_of_quoted;

/// Number of events that a history keeps if the contract does not set the number.
const DEFAULT_EVENTS: u32 = 100;
/// How long a history is kept after its last event if the contract does not set the time.
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The minimum time between two lists of a room's members if the contract does not set the time.
const DEFAULT_EVERY: Duration = Duration::from_millis(250);
/// Number of members that a list shows if the contract does not set the number.
const DEFAULT_MEMBERS: u32 = 100;

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

    /// Returns the entries of a table, in the order of the file.
    pub(super) fn entries(&self, table: &str) -> Vec<(String, serde_json::Value)> {
        let table = self.document.tree.get(table).and_then(serde_json::Value::as_object);
        table.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn room(&mut self, key_path: &KeyPath, key: &str, contract: &Arc<str>, raw: file::RoomSpec) -> Option<RoomDef> {
        let chars = raw.chars.unwrap_or_default();
        let presence = self.presence(&key_path.key("presence"), raw.presence);
        let members = match &presence {
            Some(presence) if presence.listed => MembersAt::Listed,
            _ => MembersAt::Unlisted,
        };
        let join = self.rule(&key_path.key("join"), raw.join, ExpressionSite::Room(members));
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
            call: raw.call.map(|call| self.call(&key_path.key("call"), call, None)),
            history: raw.history.map(|history| self.history(&key_path.key("history"), history, &name)),
            presence,
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
        let (listed, raw) = match raw? {
            file::PresenceSpec::Kept(false) => return None,
            file::PresenceSpec::Kept(true) => (false, Box::default()),
            file::PresenceSpec::Told(table) => (true, table),
        };
        for (key, given, needed, by) in [
            ("every", raw.every.is_some(), "changed", raw.changed.is_some()),
            ("others", raw.others.is_some(), "joined", raw.joined.is_some()),
        ] {
            if given && !by {
                let problem = format!("`{key}` applies to `{needed}`, and there is none");
                self.note_mistake(&key_path.key(key), problem, format!("add `{needed}`, or take it out"));
            }
        }
        let joined = self.member_event(&key_path.key("joined"), raw.joined);
        let left = self.member_event(&key_path.key("left"), raw.left);
        let changed =
            raw.changed.and_then(|event| self.reply_ref(&key_path.key("changed"), event, ExpressionSite::Members));
        let show = raw.show.and_then(|show| self.template(&key_path.key("show"), show, ExpressionSite::Shown));
        Some(PresencePolicy {
            listed,
            each: raw.each.unwrap_or(MemberUnit::User),
            joined,
            left,
            changed,
            others: raw.others.unwrap_or_default(),
            every: self.duration(&key_path.key("every"), raw.every).unwrap_or(DEFAULT_EVERY),
            show: show.unwrap_or_else(|| fixed(json!("{member.id}"))),
            most: raw.most.unwrap_or(DEFAULT_MEMBERS) as usize,
        })
    }

    /// Compiles an event that announces one member. Without arguments in the contract, the event says which member.
    fn member_event(&mut self, key_path: &KeyPath, raw: Option<file::ReplyRefSpec>) -> Option<Reply> {
        let raw = raw?;
        let plain = match &raw {
            file::ReplyRefSpec::Event(_) => true,
            file::ReplyRefSpec::Table(table) => table.data.is_none() && table.args.is_none(),
        };
        let event = self.reply_ref(key_path, raw, ExpressionSite::Member)?;
        let default = || json!({ "userId": "{member.userId}", "socketId": "{member.socketId}", "room": "{room}" });
        Some(if plain { Reply { args: SentArgs::Values(vec![fixed(default())]), ..event } } else { event })
    }

    /// Checks that no throttled server event has the name of an event that lists members: both would wait under one
    /// name.
    pub(super) fn check_lists(&mut self, server: &IndexMap<String, Arc<ServerEvent>>) {
        for room in self.rooms.values().cloned().collect::<Vec<_>>() {
            let Some(changed) = room.presence.as_ref().and_then(|presence| presence.changed.as_ref()) else { continue };
            let name = changed.event.fixed().unwrap_or_default();
            if server.get(name).is_some_and(|event| event.throttle.is_some()) {
                let key_path = KeyPath::top("rooms").key(&room.key).key("presence").key("changed");
                let problem = format!("the server event \"{}\" has the same name and a throttle", name);
                self.note_mistake(&key_path, problem, "rename one of them");
            }
        }
    }
}

/// Compiles a default template that the contract itself does not contain.
fn fixed(template: Value) -> Template {
    Template::compile(template).expect("it has no mistake")
}
