//! Compiles `[client]`.

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use super::Compiler;
use super::site::{ExpressionSite, MembersAt};
use crate::contract::document::KeyPath;
use crate::contract::event_name::EventName;
use crate::contract::file;
use crate::contract::model::{
    ANY_EVENT, ClientEvent, ErrorShape, MetadataChange, Outcome, PayloadShape, Relay, Reply, RoomRef, RoomUse,
    SentArgs, Target,
};
use crate::suggest::{nearest, one_of_quoted};

impl Compiler<'_> {
    pub(super) fn compile_client(&mut self, errors: &ErrorShape) -> IndexMap<String, Arc<ClientEvent>> {
        let mut events = IndexMap::new();
        for (name, value) in self.entries("client") {
            let key_path = KeyPath::top("client").key(&name);
            if name != ANY_EVENT {
                self.check_event_name(&key_path, &name);
            }
            if let Some(raw) = self.read::<file::ClientEventSpec>(&key_path, &value) {
                let mut event = self.client_event(&key_path, &name, raw);
                event.reads_payload = event.finds_payload_read(errors);
                event.room_use = event.finds_room_used();
                events.insert(name, Arc::new(event));
            }
        }
        self.check_undone(&events);
        events
    }

    /// Checks that an event named by `undo` has a relay: the node sends the first relay on the client's behalf.
    fn check_undone(&mut self, events: &IndexMap<String, Arc<ClientEvent>>) {
        for event in events.values() {
            let undone = event.undo.as_ref().and_then(|undo| events.get(undo));
            if undone.is_some_and(|undone| undone.relay.is_empty()) {
                let key_path = KeyPath::top("client").key(&event.name).key("undo");
                self.note_mistake(
                    &key_path,
                    "the event that `undo` names has no `relay`",
                    "name an event that has a `relay`",
                );
            }
        }
    }

    fn client_event(&mut self, key_path: &KeyPath, name: &str, raw: file::ClientEventSpec) -> ClientEvent {
        if raw.on_ok.is_some() && raw.call.is_none() {
            let remedy = "add `call`, or say it with `relay`, `reply` and `ack`";
            self.note_mistake(&key_path.key("on_ok"), "`on_ok` needs a hook's answer, and no hook is called", remedy);
        }
        self.check_undo(&key_path.key("undo"), raw.undo.as_deref());
        let has_room = raw.join.is_some() || raw.leave.is_some() || raw.room.is_some();
        let to_rooms = raw.relay.as_ref().is_some_and(|relay| relay.items().iter().any(|relay| relay.room.is_some()));
        for (key, given) in [("throttle", raw.throttle.is_some()), ("undo", raw.undo.is_some())] {
            if given && !to_rooms {
                let problem = format!("`{key}` applies only to relays to a room, and there is none");
                self.note_mistake(&key_path.key(key), problem, "relay to a `room`, or take it out");
            }
        }
        if name == ANY_EVENT {
            for (key, given) in [("throttle", raw.throttle.is_some()), ("undo", raw.undo.is_some())] {
                if given {
                    let problem = format!("`{key}` needs one event, and \"*\" stands for many");
                    self.note_mistake(&key_path.key(key), problem, "take it out, or give the event a table of its own");
                }
            }
        }
        if raw.room.is_some() && (raw.join.is_some() || raw.leave.is_some()) {
            let problem = "the event is about the rooms that it joins and leaves";
            self.note_mistake(&key_path.key("room"), problem, "take `room` out, or `join` and `leave`");
        }
        let join = self.room_refs(&key_path.key("join"), raw.join, ExpressionSite::Client);
        let leave = self.leave_refs(&key_path.key("leave"), raw.leave);
        let room = raw.room.and_then(|room| self.room_ref(&key_path.key("room"), room, ExpressionSite::Client));
        let members = members_at(join.iter().chain(&leave).chain(&room));
        let sent = ExpressionSite::Sent(members);
        // If the event has rooms, the rule can use the first of them.
        let asked = if has_room { ExpressionSite::Room(members) } else { sent };
        let throttle = raw.throttle.and_then(|throttle| self.client_throttle(&key_path.key("throttle"), throttle));
        let presence =
            raw.presence.and_then(|path| self.path(&key_path.key("presence"), &path, ExpressionSite::Client));
        let metadata = raw.metadata.and_then(|metadata| self.metadata(&key_path.key("metadata"), metadata, has_room));
        ClientEvent {
            name: name.to_owned(),
            payload: self.payload_shape(&key_path.key("payload"), raw.payload),
            require: self.rule(&key_path.key("require"), raw.require, asked),
            join,
            leave,
            room,
            relay: self.relays(&key_path.key("relay"), name, raw.relay, sent),
            reply: self.replies(&key_path.key("reply"), raw.reply, sent),
            call: raw.call.map(|call| self.call(&key_path.key("call"), call, Some(ExpressionSite::Client))),
            notify: raw.notify.map(|hook| self.hook_name(&key_path.key("notify"), hook)),
            on_ok: raw.on_ok.map(|outcome| self.outcome(&key_path.key("on_ok"), outcome, sent)),
            on_error: raw
                .on_error
                .map(|outcome| self.outcome(&key_path.key("on_error"), outcome, ExpressionSite::Failure)),
            presence,
            metadata,
            ack: self.sent_args(key_path, ["ack", "ack_args"], (raw.ack, raw.ack_args), sent),
            limit: self.rate(&key_path.key("limit"), raw.limit),
            throttle,
            undo: raw.undo,
            reads_payload: true,
            room_use: RoomUse::default(),
        }
    }

    fn metadata(&mut self, key_path: &KeyPath, raw: file::MetadataSpec, has_room: bool) -> Option<MetadataChange> {
        match raw {
            file::MetadataSpec::Path(path) => {
                self.path(key_path, &path, ExpressionSite::Client).map(MetadataChange::At)
            }
            file::MetadataSpec::Members(members) => {
                let sees = if has_room { ExpressionSite::Client } else { ExpressionSite::Sent(MembersAt::NoRoom) };
                self.members(key_path, members.into(), sees).map(MetadataChange::Members)
            }
        }
    }

    fn payload_shape(&mut self, key_path: &KeyPath, raw: file::PayloadSpec) -> PayloadShape {
        let args = raw.args.unwrap_or_default();
        if !args.is_empty() {
            if raw.shorthand.is_some() {
                let problem = "`shorthand` cannot be combined with `args`";
                self.note_mistake(&key_path.key("shorthand"), problem, "take `shorthand` or `args` out");
            }
            if args.iter().collect::<BTreeSet<_>>().len() < args.len() {
                self.note_mistake(&key_path.key("args"), "a name occurs twice", "give each argument its own");
            }
            if raw.default.as_ref().is_some_and(|default| !default.is_object()) {
                let problem = "with `args`, the default must be a table";
                self.note_mistake(&key_path.key("default"), problem, "write { name = value }");
            }
        }
        for (key, name) in
            raw.shorthand.iter().map(|name| ("shorthand", name)).chain(args.iter().map(|name| ("args", name)))
        {
            self.check_literal(&key_path.key(key), name, "the name of a member", "write the whole name");
        }
        if let Some(default) = &raw.default {
            self.check_fixed(&key_path.key("default"), default);
        }
        PayloadShape {
            shorthand: raw.shorthand,
            args,
            default: raw.default,
            schema: self.schema(&key_path.key("schema"), raw.schema),
        }
    }

    fn check_undo(&mut self, key_path: &KeyPath, undo: Option<&str>) {
        let Some(undo) = undo.filter(|undo| *undo == ANY_EVENT || !self.keys.client.iter().any(|known| known == undo))
        else {
            return;
        };
        let known = self.keys.client.iter().map(String::as_str);
        let remedy = nearest(undo, known)
            .map_or_else(|| "name an event of [client]".to_owned(), |near| format!("did you mean \"{near}\"?"));
        self.note_mistake(key_path, format!("there is no client event \"{undo}\""), remedy);
    }

    fn client_throttle(&mut self, key_path: &KeyPath, raw: file::ClientThrottleSpec) -> Option<std::time::Duration> {
        match raw {
            file::ClientThrottleSpec::Every(every) => self.duration(key_path, Some(every)),
            file::ClientThrottleSpec::Table(raw) => self.duration(&key_path.key("every"), Some(raw.every)),
        }
    }

    fn relays(
        &mut self,
        key_path: &KeyPath,
        name: &str,
        raw: Option<file::OneOrMany<file::RelaySpec>>,
        sees: ExpressionSite,
    ) -> Vec<Relay> {
        let items = raw.map(file::OneOrMany::into_items).unwrap_or_default();
        items.into_iter().filter_map(|(at, relay)| self.relay(&key_path.index(at), name, relay, sees)).collect()
    }

    fn relay(&mut self, key_path: &KeyPath, name: &str, raw: file::RelaySpec, sees: ExpressionSite) -> Option<Relay> {
        let event = match &raw.event {
            Some(event) => self.event_name(&key_path.key("event"), event, sees),
            None if name == ANY_EVENT => EventName::own(),
            None => EventName::Fixed(name.to_owned()),
        };
        let when = self.rule(&key_path.key("when"), raw.when, sees);
        let args = self.relay_args(key_path, (raw.data, raw.args), raw.add, sees);
        let member = raw.member.unwrap_or_default();
        if member && raw.room.is_none() {
            let problem = "only a room has members";
            self.note_mistake(&key_path.key("member"), problem, "take `member` out, or relay to a `room`");
        }
        let to = self.target(key_path, raw.room, raw.to, raw.shared, raw.everyone)?;
        Some(Relay {
            to,
            event,
            args: args?,
            others: raw.others.unwrap_or_default(),
            volatile: raw.volatile.unwrap_or_default(),
            member,
            when,
        })
    }

    fn relay_args(
        &mut self,
        key_path: &KeyPath,
        (data, args): (Option<Value>, Option<Vec<Value>>),
        add: Option<Value>,
        sees: ExpressionSite,
    ) -> Option<SentArgs> {
        let Some(add) = add else {
            return match (data, args) {
                (None, None) => Some(SentArgs::Unchanged),
                given => self.sent_args(key_path, ["data", "args"], given, sees),
            };
        };
        for (key, given) in [("data", data.is_some()), ("args", args.is_some())] {
            if given {
                let remedy = format!("take out `{key}` to add to the payload, or `add` to send values of its own");
                self.note_mistake(&key_path.key("add"), format!("`{key}` and `add` cannot be combined"), remedy);
                return None;
            }
        }
        self.members(&key_path.key("add"), add, sees).map(SentArgs::Payload)
    }

    fn target(
        &mut self,
        key_path: &KeyPath,
        room: Option<file::RoomRefSpec>,
        to: Option<String>,
        shared: Option<bool>,
        everyone: Option<bool>,
    ) -> Option<Target> {
        let (shared, everyone) = (shared == Some(true), everyone == Some(true));
        let count = [room.is_some(), to.is_some(), shared, everyone].into_iter().filter(|given| *given).count();
        if count != 1 {
            let problem = if count == 0 { "it has no recipient" } else { "it has several recipients" };
            self.note_mistake(
                key_path,
                problem,
                format!("write one of {}", one_of_quoted(["room", "to", "shared", "everyone"])),
            );
            return None;
        }
        if let Some(room) = room {
            return self.room_ref(&key_path.key("room"), room, ExpressionSite::Client).map(Target::Room);
        }
        if let Some(to) = to {
            return self.path(&key_path.key("to"), &to, ExpressionSite::Client).map(Target::Address);
        }
        Some(if shared { Target::Shared } else { Target::Everyone })
    }

    pub(super) fn replies(
        &mut self,
        key_path: &KeyPath,
        raw: Option<file::OneOrMany<file::ReplyRefSpec>>,
        sees: ExpressionSite,
    ) -> Vec<Reply> {
        let items = raw.map(file::OneOrMany::into_items).unwrap_or_default();
        items.into_iter().filter_map(|(at, reply)| self.reply_ref(&key_path.index(at), reply, sees)).collect()
    }

    fn outcome(&mut self, key_path: &KeyPath, raw: file::OutcomeSpec, sees: ExpressionSite) -> Outcome {
        if raw.publish.is_none() && raw.reply.is_none() {
            self.note_mistake(key_path, "it has no effect", format!("write {}", one_of_quoted(["publish", "reply"])));
        }
        if raw.always.is_some() && sees != ExpressionSite::Failure {
            self.note_mistake(&key_path.key("always"), "it belongs to `on_error`", "take it out");
        }
        if let Some(event) = raw.publish.as_deref().filter(|event| !self.keys.server.iter().any(|known| known == event))
        {
            let known = self.keys.server.iter().map(String::as_str);
            let remedy = match nearest(event, known.clone()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("add [server.\"{event}\"] with its rooms"),
            };
            self.note_mistake(&key_path.key("publish"), format!("there is no server event \"{event}\""), remedy);
        }
        let reply = raw.reply.map(|event| self.event_name(&key_path.key("reply"), &event, sees));
        if raw.publish.is_some() && raw.data.is_none() && raw.args.is_none() {
            self.note_mistake(key_path, "the published event has no `data`", "add `data`, or `args`");
        }
        // The published event is decided before the hook is asked, and so before the event joins its rooms.
        let sees = if raw.publish.is_some() && sees != ExpressionSite::Failure { ExpressionSite::Client } else { sees };
        let args = self.sent_args(key_path, ["data", "args"], (raw.data, raw.args), sees);
        let args = args.unwrap_or_else(|| SentArgs::Values(Vec::new()));
        let published = match &args {
            SentArgs::Values(templates) => templates.clone(),
            _ => {
                if raw.publish.is_some() {
                    self.note_mistake(&key_path.key("data"), "what is published is a value", "write a table");
                }
                Vec::new()
            }
        };
        Outcome {
            publish: raw.publish.map(|event| (event, published)),
            reply: reply.map(|event| Reply { event, args, when: None }),
            always: raw.always.unwrap_or_default(),
        }
    }
}

/// Whether the members of an event's rooms are known.
fn members_at<'r>(mut rooms: impl Iterator<Item = &'r RoomRef>) -> MembersAt {
    let is_listed = |of: &RoomRef| of.room.presence.as_ref().is_some_and(|presence| presence.listed);
    match rooms.next() {
        None => MembersAt::NoRoom,
        Some(first) if is_listed(first) && rooms.all(is_listed) => MembersAt::Listed,
        Some(_) => MembersAt::Unlisted,
    }
}
