//! Compiles the parts that several sections share: rules, paths, templates, schemas, times, rates, and names of rooms
//! and events.

use std::time::Duration;

use serde_json::Value;

use super::Compiler;
use super::site::ExpressionSite;
use crate::contract::document::KeyPath;
use crate::contract::event_name::{self, EventName};
use crate::contract::file::{self, OneOrMany};
use crate::contract::model::{HookCall, Reply, RoomRef, SentArgs};
use crate::contract::path::Path;
use crate::contract::rule::Rule;
use crate::contract::schema::Schema;
use crate::contract::template::Template;
use crate::rate::Rate;
use crate::suggest::{nearest, one_of_quoted};

/// Maximum size of a JSON Schema file, in bytes.
const MAX_SCHEMA_BYTES: u64 = 1024 * 1024;

impl Compiler<'_> {
    pub(super) fn rule(&mut self, key_path: &KeyPath, text: Option<String>, sees: ExpressionSite) -> Option<Rule> {
        let text = text?;
        if let Some(path) = placeholder_in(&text) {
            let problem = format!("`{{{path}}}` is not replaced: a rule is not a template");
            self.note_mistake(key_path, problem, format!("join texts with `+`, such as \"job:\" + {path}"));
            return None;
        }
        match Rule::compile(&text) {
            Ok(rule) => {
                if let Some(why) = sees.objection_to(&rule) {
                    self.note_mistake(
                        key_path,
                        format!("this rule uses a value that it cannot have: {why}"),
                        "use another value",
                    );
                }
                Some(rule)
            }
            Err(problem) => {
                self.note_two_mistakes(key_path, &problem);
                None
            }
        }
    }

    /// Reports a problem whose text has the form "what is wrong: what to write".
    fn note_two_mistakes(&mut self, key_path: &KeyPath, problem: &str) {
        let (problem, remedy) = problem.split_once(": ").unwrap_or((problem, ""));
        self.note_mistake(key_path, problem, remedy);
    }

    pub(super) fn path(&mut self, key_path: &KeyPath, text: &str, sees: ExpressionSite) -> Option<Path> {
        if !self.check_literal(key_path, text, "a path", "name each member, such as `payload.items.0.id`") {
            return None;
        }
        match Path::parse(text) {
            Ok(path) => {
                if let Some(why) = sees.objection(path.root()) {
                    self.note_mistake(key_path, format!("`{text}` has no value here: {why}"), "name something else");
                }
                self.handshake.extend(path.handshake_part());
                Some(path)
            }
            Err(problem) => {
                self.note_two_mistakes(key_path, &problem);
                None
            }
        }
    }

    pub(super) fn template(&mut self, key_path: &KeyPath, value: Value, sees: ExpressionSite) -> Option<Template> {
        self.check_member_names(key_path, &value);
        match Template::compile_all(value) {
            Ok(template) => {
                for (inner, path) in template.paths() {
                    self.handshake.extend(path.handshake_part());
                    if let Some(why) = sees.objection(path.root()) {
                        let problem = format!("`{{{}}}` has no value here: {why}", path.text());
                        self.note_mistake(&key_path.keys(&inner), problem, "name something else");
                    }
                }
                Some(template)
            }
            Err(mistakes) => {
                for (inner, problem) in mistakes {
                    self.note_two_mistakes(&key_path.keys(&inner), &problem);
                }
                None
            }
        }
    }

    /// Refuses a text that is used literally but looks like a placeholder or a pattern. Returns false when it was
    /// refused.
    pub(super) fn check_literal(&mut self, key_path: &KeyPath, text: &str, what: &str, remedy: &str) -> bool {
        let literal = !text.contains(['{', '}', '*']);
        if !literal {
            let problem = format!("\"{text}\" is taken as it stands: {what} has no placeholders and no wildcards");
            self.note_mistake(key_path, problem, remedy);
        }
        literal
    }

    /// Checks that no member name of a template holds a placeholder: only values are filled in.
    fn check_member_names(&mut self, key_path: &KeyPath, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    if name.contains(['{', '}']) {
                        let problem =
                            format!("\"{name}\" is taken as it stands: the name of a member has no placeholders");
                        self.note_mistake(
                            &key_path.key(name),
                            problem,
                            "write the whole name; only values are filled in",
                        );
                    }
                    self.check_member_names(&key_path.key(name), value);
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.check_member_names(&key_path.index(Some(at)), item);
                }
            }
            _ => {}
        }
    }

    /// Checks that a value holds no placeholders, because nothing is filled in there.
    pub(super) fn check_fixed(&mut self, key_path: &KeyPath, value: &Value) {
        let Ok(template) = Template::compile(value.clone()) else { return };
        for (inner, path) in template.paths() {
            let problem = format!("`{{{}}}` is not replaced: a default is used as written", path.text());
            self.note_mistake(
                &key_path.keys(&inner),
                problem,
                "write the value itself, or use the path where the member is used",
            );
        }
    }

    /// Compiles a template that must be a table.
    pub(super) fn members(&mut self, key_path: &KeyPath, value: Value, sees: ExpressionSite) -> Option<Template> {
        if !value.is_object() {
            self.note_mistake(key_path, "members are added from a table", "write { member = \"value\" }");
            return None;
        }
        self.template(key_path, value, sees)
    }

    pub(super) fn schema(&mut self, key_path: &KeyPath, schema: Option<file::SchemaSpec>) -> Option<Schema> {
        let schema = match schema? {
            file::SchemaSpec::Inline(schema) => Value::Object(schema),
            file::SchemaSpec::File(path) => match self.schema_file(&path) {
                Ok(schema) => schema,
                Err(problem) => {
                    self.note_two_mistakes(key_path, &problem);
                    return None;
                }
            },
        };
        match Schema::compile(&schema) {
            Ok(schema) => Some(schema),
            Err(problem) => {
                self.note_two_mistakes(key_path, &problem);
                None
            }
        }
    }

    fn schema_file(&self, path: &str) -> Result<Value, String> {
        let Some(base) = &self.base else {
            return Err("there is no file next to this contract: write the schema as a table".to_owned());
        };
        let remedy = "give the path of a JSON file, relative to this contract";
        let full = base.join(path);
        let size = std::fs::metadata(&full)
            .map_err(|error| format!("{} cannot be read ({error}): {remedy}", full.display()))?;
        if size.len() > MAX_SCHEMA_BYTES {
            return Err(format!("{} is larger than {MAX_SCHEMA_BYTES} bytes: split it", full.display()));
        }
        let text = std::fs::read_to_string(&full)
            .map_err(|error| format!("{} cannot be read ({error}): {remedy}", full.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{} is not JSON ({error}): correct it", full.display()))
    }

    pub(super) fn duration(&mut self, key_path: &KeyPath, text: Option<String>) -> Option<Duration> {
        let text = text?;
        let parsed = humantime::parse_duration(&text).ok().filter(|time| !time.is_zero());
        if parsed.is_none() || text.trim().parse::<u64>().is_ok() {
            self.note_mistake(
                key_path,
                format!("\"{text}\" is not a time"),
                "write a number and its unit, such as \"100ms\", \"25s\" or \"24h\"",
            );
            return None;
        }
        parsed
    }

    pub(super) fn rate(&mut self, key_path: &KeyPath, text: Option<String>) -> Option<Rate> {
        let text = text?;
        match text.parse::<Rate>() {
            Ok(rate) => Some(rate),
            Err(error) => {
                let problem = error.to_string();
                let (problem, remedy) = problem.split_once("; ").unwrap_or((&problem, "write for example \"10/s\""));
                self.note_mistake(key_path, problem, remedy);
                None
            }
        }
    }

    pub(super) fn check_event_name(&mut self, key_path: &KeyPath, name: &str) {
        match event_name::problem_of(name) {
            Some(problem) => {
                self.note_mistake(key_path, format!("\"{name}\" cannot be sent: {problem}"), "choose another name")
            }
            None => {
                self.check_literal(key_path, name, "the name of this event", "write the whole name of each event");
            }
        }
    }

    /// Compiles the name of an event that is sent because of a client's event, with the values of that event.
    pub(super) fn event_name(&mut self, key_path: &KeyPath, name: &str, sees: ExpressionSite) -> EventName {
        let has_values = matches!(sees, ExpressionSite::Sent(_)) && name.contains('{') && !name.contains('*');
        if has_values && self.template(key_path, Value::from(name), ExpressionSite::EventName).is_some() {
            if let Ok(name) = EventName::compile(name) {
                return name;
            }
        } else if !has_values {
            self.check_event_name(key_path, name);
        }
        EventName::Fixed(name.to_owned())
    }

    pub(super) fn room_refs(
        &mut self,
        key_path: &KeyPath,
        refs: Option<OneOrMany<file::RoomRefSpec>>,
        sees: ExpressionSite,
    ) -> Vec<RoomRef> {
        let items = refs.map(OneOrMany::into_items).unwrap_or_default();
        items.into_iter().filter_map(|(at, item)| self.room_ref(&key_path.index(at), item, sees)).collect()
    }

    pub(super) fn room_ref(
        &mut self,
        key_path: &KeyPath,
        raw: file::RoomRefSpec,
        sees: ExpressionSite,
    ) -> Option<RoomRef> {
        let (raw, named_at) = match raw {
            file::RoomRefSpec::Key(room) => {
                let raw =
                    file::RoomRefTableSpec { room, with: Default::default(), when: None, optional: None, all: None };
                (raw, key_path.clone())
            }
            file::RoomRefSpec::Table(raw) => (raw, key_path.key("room")),
        };
        let known = self.keys.rooms.iter().map(String::as_str);
        if !self.keys.rooms.contains(&raw.room) {
            let remedy = match nearest(&raw.room, known.clone()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("write {}, or add [rooms.{}]", one_of_quoted(known), raw.room),
            };
            self.note_mistake(&named_at, format!("there is no room \"{}\"", raw.room), remedy);
        }
        let when = self.rule(&key_path.key("when"), raw.when, sees);
        let mut with = Vec::new();
        for (variable, paths) in raw.with {
            let at_variable = key_path.key("with").key(&variable);
            let items = paths.into_items();
            let paths =
                items.into_iter().filter_map(|(at, path)| self.path(&at_variable.index(at), &path, sees)).collect();
            with.push((variable, paths));
        }
        let room = self.rooms.get(&raw.room)?.clone();
        if raw.all == Some(true) {
            self.note_mistake(&key_path.key("all"), "`all` belongs to `leave`", "take it out");
        }
        self.check_variables(key_path, &room.name, &with, sees);
        Some(RoomRef { room, with, when, optional: raw.optional.unwrap_or_default(), all: false })
    }

    /// Compiles the rooms that an event leaves, some of which may be all rooms of a family.
    pub(super) fn leave_refs(
        &mut self,
        key_path: &KeyPath,
        refs: Option<OneOrMany<file::RoomRefSpec>>,
    ) -> Vec<RoomRef> {
        let items = refs.map(OneOrMany::into_items).unwrap_or_default();
        let refs = items.into_iter().filter_map(|(at, item)| self.leave_ref(&key_path.index(at), item));
        refs.collect()
    }

    fn leave_ref(&mut self, key_path: &KeyPath, item: file::RoomRefSpec) -> Option<RoomRef> {
        let mut raw = match item {
            file::RoomRefSpec::Table(raw) if raw.all == Some(true) => raw,
            item => return self.room_ref(key_path, item, ExpressionSite::Client),
        };
        if !raw.with.is_empty() {
            let problem = "`all` leaves every room of the family, whatever its variables are";
            self.note_mistake(&key_path.key("with"), problem, "take `with` or `all` out");
            raw.with.clear();
        }
        raw.all = None;
        let of = self.room_ref(key_path, file::RoomRefSpec::Table(raw), ExpressionSite::Client)?;
        Some(RoomRef { all: true, ..of })
    }

    fn check_variables(
        &mut self,
        key_path: &KeyPath,
        name: &crate::contract::room_name::RoomTemplate,
        with: &[(String, Vec<Path>)],
        sees: ExpressionSite,
    ) {
        for (variable, paths) in with {
            if !name.variables().any(|known| known == variable) {
                let problem = format!("`{}` has no variable `{variable}`", name.text());
                let known: Vec<&str> = name.variables().collect();
                self.note_mistake(
                    &key_path.key("with").key(variable),
                    problem,
                    format!("write {}", one_of_quoted(known)),
                );
            } else if paths.is_empty() {
                self.note_mistake(
                    &key_path.key("with").key(variable),
                    "no path is given",
                    "write for example \"payload.id\"",
                );
            }
        }
        if sees == ExpressionSite::Connect {
            for variable in name.variables().filter(|name| !with.iter().any(|(given, _)| given == name)) {
                let problem = format!("`{variable}` would come from the payload, but there is no payload here");
                self.note_mistake(key_path, problem, format!("write with = {{ {variable} = \"user.id\" }}"));
            }
        }
    }

    pub(super) fn hook_name(&mut self, key_path: &KeyPath, hook: String) -> String {
        self.check_literal(key_path, &hook, "a hook's name", "write the name of one of the node's hooks");
        hook
    }

    /// Compiles the call of a hook. Only a call that has a site `asks` may have a rule that says when it is made.
    pub(super) fn call(&mut self, key_path: &KeyPath, raw: file::CallSpec, asks: Option<ExpressionSite>) -> HookCall {
        let (hook, named_at) = match &raw {
            file::CallSpec::Hook(hook) => (hook, key_path.clone()),
            file::CallSpec::Table(raw) => (&raw.hook, key_path.key("hook")),
        };
        self.check_literal(&named_at, hook, "a hook's name", "write the name of one of the node's hooks");
        match raw {
            file::CallSpec::Hook(hook) => HookCall { hook, idempotent: false, timeout: None, when: None },
            file::CallSpec::Table(raw) => {
                let key_of_rule = key_path.key("when");
                if raw.when.is_some() && asks.is_none() {
                    self.note_mistake(&key_of_rule, "only the hook of a client event has `when`", "take it out");
                }
                HookCall {
                    hook: raw.hook,
                    idempotent: raw.idempotent.unwrap_or_default(),
                    timeout: self.duration(&key_path.key("timeout"), raw.timeout),
                    when: asks.and_then(|sees| self.rule(&key_of_rule, raw.when, sees)),
                }
            }
        }
    }

    /// Compiles an event that is written as its name alone, or as a table.
    pub(super) fn reply_ref(
        &mut self,
        key_path: &KeyPath,
        raw: file::ReplyRefSpec,
        sees: ExpressionSite,
    ) -> Option<Reply> {
        match raw {
            file::ReplyRefSpec::Event(event) => {
                let event = self.event_name(key_path, &event, sees);
                Some(Reply { event, args: SentArgs::Values(Vec::new()), when: None })
            }
            file::ReplyRefSpec::Table(reply) => self.reply(key_path, reply, sees),
        }
    }

    pub(super) fn reply(&mut self, key_path: &KeyPath, raw: file::ReplySpec, sees: ExpressionSite) -> Option<Reply> {
        let event = self.event_name(&key_path.key("event"), &raw.event, sees);
        let when = self.rule(&key_path.key("when"), raw.when, sees);
        let args = match (raw.data, raw.args) {
            (None, None) => SentArgs::Values(Vec::new()),
            given => self.sent_args(key_path, ["data", "args"], given, sees)?,
        };
        Some(Reply { event, args, when })
    }

    /// Compiles the arguments of an event or an acknowledgement. The key `one` has one argument, or `"*"` for all
    /// arguments of the client's event. The key `list` lists the arguments. `None` if neither is given, or if there is
    /// a mistake.
    pub(super) fn sent_args(
        &mut self,
        key_path: &KeyPath,
        [one, list]: [&str; 2],
        given: (Option<Value>, Option<Vec<Value>>),
        sees: ExpressionSite,
    ) -> Option<SentArgs> {
        match given {
            (None, None) => None,
            (Some(value), None) if value == "*" => {
                if matches!(sees, ExpressionSite::Connect | ExpressionSite::Member | ExpressionSite::Members) {
                    let problem = "the sender's arguments are not available here";
                    self.note_mistake(&key_path.key(one), problem, "write a value");
                }
                Some(SentArgs::Unchanged)
            }
            (Some(value), None) => {
                self.template(&key_path.key(one), value, sees).map(|template| SentArgs::Values(vec![template]))
            }
            (None, Some(values)) => {
                let places = values.into_iter().enumerate();
                let templates: Vec<_> =
                    places.map(|(at, value)| self.template(&key_path.key(list).index(Some(at)), value, sees)).collect();
                templates.into_iter().collect::<Option<Vec<_>>>().map(SentArgs::Values)
            }
            (Some(_), Some(_)) => {
                let problem = format!("`{one}` and `{list}` cannot be combined");
                let remedy = format!("write `{one}` for one argument, or `{list}` for a list of arguments");
                self.note_mistake(&key_path.key(list), problem, remedy);
                None
            }
        }
    }
}

/// The first path in braces in a text, if there is one.
fn placeholder_in(text: &str) -> Option<String> {
    let pieces = text.split('{').skip(1).filter_map(|after| after.split_once('}'));
    pieces.map(|(inner, _)| inner.trim()).find(|inner| Path::parse(inner).is_ok()).map(str::to_owned)
}
