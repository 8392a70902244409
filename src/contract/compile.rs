//! Compiles a file's tree to a contract. Every mistake is reported with its key path. Whatever depends on a wrong part
//! is left out, so that one mistake is reported once.

mod client;
mod expiry;
mod parts;
mod rooms;
mod server;
mod site;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::site::ExpressionSite;
use super::document::{Document, KeyPath};
use super::file;
use super::handshake::HandshakePart;
use super::model::{
    AuthPolicy, ConnectPolicy, ConnectionPolicy, Contract, ErrorShape, MirrorPolicy, RecoveryPolicy, RejectPolicy,
    RoomDef, TokenSource,
};
use super::report::ContractReport;
use super::template::Template;
use crate::error::Code;
use crate::suggest::one_of_quoted;

/// How long mirrored keys live if the contract does not set the time.
const DEFAULT_MIRROR_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long after a disconnect a client can recover its session if the contract does not set the time.
const DEFAULT_RECOVERY_WINDOW: Duration = Duration::from_secs(120);

/// The longest permitted recovery window. To keep events longer, a contract declares a history.
const LONGEST_RECOVERY_WINDOW: Duration = Duration::from_secs(60 * 60);

/// Number of events of a room that are kept for recovery if the contract does not set the number.
const DEFAULT_RECOVERY_EVENTS: u32 = 256;

/// The largest permitted number of events kept for recovery; the same as for a history.
const MOST_RECOVERY_EVENTS: u32 = 100_000;

/// All keys that the file has, including those whose values are wrong.
#[derive(Debug, Default)]
pub(super) struct FileKeys {
    /// The keys of `[rooms]`.
    pub rooms: Vec<String>,
    /// The keys of `[client]`.
    pub client: Vec<String>,
    /// The keys of `[server]`.
    pub server: Vec<String>,
}

impl FileKeys {
    /// Collects the keys of a document.
    pub fn of(document: &Document) -> Self {
        Self { rooms: document.keys("rooms"), client: document.keys("client"), server: document.keys("server") }
    }
}

/// Compiles a document. Its structure must have been checked.
pub(super) fn compile(
    document: &Document,
    keys: &FileKeys,
    base: Option<PathBuf>,
    report: &mut ContractReport,
) -> Contract {
    let mut compiler = Compiler { document, keys, base, report, rooms: IndexMap::new(), handshake: Vec::new() };
    compiler.contract()
}

struct Compiler<'c> {
    document: &'c Document,
    keys: &'c FileKeys,
    /// The directory that paths of schemas are relative to.
    base: Option<PathBuf>,
    report: &'c mut ContractReport,
    rooms: IndexMap<String, Arc<RoomDef>>,
    /// The parts of the handshake that paths use.
    handshake: Vec<HandshakePart>,
}

impl Compiler<'_> {
    fn contract(&mut self) -> Contract {
        let name = self.name();
        let errors = self.errors();
        self.rooms = self.compile_rooms(&name);
        let mut contract = Contract {
            namespace: self.namespace(),
            summary: self.text("summary").unwrap_or_default(),
            source: self.document.file.clone(),
            digest: String::new(),
            auth: self.auth(&errors),
            unknown: self.section("unknown").unwrap_or_default(),
            hook_joins: self.section("hook_joins").unwrap_or_default(),
            handshake: Vec::new(),
            client_metadata: self.client_metadata(),
            connect: self.connect(),
            disconnect: self.disconnect(),
            limits: self.limits(),
            mirror: self.mirror(),
            recovery: self.recovery(),
            client: self.compile_client(&errors),
            server: self.compile_server(),
            rooms: self.rooms.clone(),
            errors,
            name,
        };
        self.check_lists(&contract.server);
        contract.handshake = std::mem::take(&mut self.handshake);
        contract
    }

    fn client_metadata(&mut self) -> BTreeSet<String> {
        let entries = self.entries("metadata").into_iter();
        let read = |(name, value): (String, Value)| {
            let key_path = KeyPath::top("metadata").key(&name);
            self.read::<file::MetadataMemberSpec>(&key_path, &value).map(|_| name)
        };
        entries.filter_map(read).collect()
    }

    /// Reports a mistake.
    fn note_mistake(&mut self, key_path: &KeyPath, problem: impl Into<String>, remedy: impl Into<String>) {
        self.report.push(self.document.mistake(key_path, problem, remedy));
    }

    /// Reads a part of the contract file into its struct. The structure has been checked, so an error here is reported
    /// as serde words it.
    fn read<T: DeserializeOwned>(&mut self, key_path: &KeyPath, value: &Value) -> Option<T> {
        match T::deserialize(value) {
            Ok(part) => Some(part),
            Err(error) => {
                self.note_mistake(key_path, error.to_string(), "");
                None
            }
        }
    }

    fn section<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let document = self.document;
        let value = document.tree.get(key)?;
        self.read(&KeyPath::top(key), value)
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.document.tree.get(key).and_then(Value::as_str).map(str::to_owned)
    }

    fn name(&mut self) -> Arc<str> {
        let name = self.text("name").unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        // The missing name was reported as a mistake before.
        if self.document.tree.get("name").is_some() && (name.is_empty() || !name.chars().all(plain)) {
            self.note_mistake(
                &KeyPath::top("name"),
                format!("\"{name}\" is not a name"),
                "write letters, digits, `-`, `_` and `.`",
            );
        }
        name.into()
    }

    fn namespace(&mut self) -> Arc<str> {
        let path = self.text("namespace").unwrap_or_else(|| "/".to_owned());
        let odd = |c: char| c.is_whitespace() || c.is_control() || ",?#\"\\".contains(c);
        if !path.starts_with('/') {
            self.note_mistake(
                &KeyPath::top("namespace"),
                "a namespace starts with a slash",
                format!("write \"/{path}\""),
            );
        } else if path.contains(odd) {
            let problem = "a namespace contains no spaces and none of , ? # \" \\";
            self.note_mistake(&KeyPath::top("namespace"), problem, "write for example \"/jobs\"");
        } else {
            self.check_literal(&KeyPath::top("namespace"), &path, "a namespace", "write the path of one namespace");
        }
        path.into()
    }

    fn auth(&mut self, errors: &ErrorShape) -> AuthPolicy {
        let raw: file::AuthSpec = self.section("auth").unwrap_or_default();
        let key_path = KeyPath::top("auth");
        let given = raw.tokens.unwrap_or_else(|| vec!["auth.token".to_owned(), "header".to_owned()]);
        if given.is_empty() {
            self.note_mistake(
                &key_path.key("tokens"),
                "the list of sources of tokens is empty",
                "write for example [\"auth.token\", \"header\"]",
            );
        }
        let mut tokens = Vec::new();
        for (at, text) in given.iter().enumerate() {
            match token_source(text) {
                Some(source) => {
                    let at = key_path.key("tokens").index(Some(at));
                    self.check_literal(&at, text, "a place for a token", "write its whole name");
                    tokens.push(source);
                }
                None => self.note_mistake(
                    &key_path.key("tokens").index(Some(at)),
                    format!("\"{text}\" is not a source of tokens"),
                    "write \"auth.<member>\", \"header\", \"query.<parameter>\" or \"cookie.<name>\"",
                ),
            }
        }
        let reject = raw.reject.unwrap_or_default();
        if reject == RejectPolicy::Event && errors.event.is_none() {
            let remedy = "add `event = \"error\"` to [errors], or take `reject` out";
            self.note_mistake(&key_path.key("reject"), "no error event is set", remedy);
        }
        let mode = raw.mode.unwrap_or_default();
        AuthPolicy {
            mode,
            expiry: self.expiry(&key_path.key("expiry"), raw.expiry, mode),
            tokens,
            reject,
            user: self.claim(&key_path.key("user"), raw.user, "sub"),
            roles: self.claim(&key_path.key("roles"), raw.roles, "roles"),
        }
    }

    fn claim(&mut self, key_path: &KeyPath, given: Option<String>, default: &str) -> String {
        let Some(given) = given else {
            return default.to_owned();
        };
        let claim = given.strip_prefix("claims.").unwrap_or(&given);
        if claim.is_empty() || claim.split('.').any(str::is_empty) {
            self.note_mistake(
                key_path,
                format!("\"{given}\" is not a claim"),
                format!("write for example \"{default}\""),
            );
        } else {
            self.check_literal(key_path, &given, "a claim", &format!("write its name, such as \"{default}\""));
        }
        claim.to_owned()
    }

    fn errors(&mut self) -> ErrorShape {
        let raw: file::ErrorsSpec = self.section("errors").unwrap_or_default();
        let key_path = KeyPath::top("errors");
        if let Some(event) = &raw.event {
            self.check_event_name(&key_path.key("event"), event);
        }
        if raw.payload.is_some() && raw.event.is_none() {
            let remedy = "add `event = \"error\"`, or take it out";
            self.note_mistake(&key_path.key("payload"), "no error event is set that could carry it", remedy);
        }
        // Members of this object without a value are left out of the payload: most errors have no retry time.
        let all =
            json!({ "code": "{error.code}", "message": "{error.message}", "retryAfterMs": "{error.retryAfterMs}" });
        let ack = raw.ack.unwrap_or_else(|| json!({ "success": false, "error": all.clone() }));
        let payload = raw.payload.unwrap_or(all);
        let codes = self.by_code(&key_path.key("codes"), raw.codes, "a code", "write the code that clients see");
        let messages = self.by_code(&key_path.key("messages"), raw.messages, "a message", "write the whole message");
        ErrorShape {
            event: raw.event,
            payload: self.template(&key_path.key("payload"), payload, ExpressionSite::Failure).unwrap_or_else(empty),
            ack: self.template(&key_path.key("ack"), ack, ExpressionSite::Failure).unwrap_or_else(empty),
            codes,
            messages,
        }
    }

    /// Reads a table of texts by error code.
    fn by_code(
        &mut self,
        key_path: &KeyPath,
        table: BTreeMap<String, String>,
        what: &str,
        remedy: &str,
    ) -> HashMap<Code, String> {
        let mut texts = HashMap::new();
        for (name, text) in table {
            let key_path = key_path.key(&name);
            match Code::ALL.into_iter().find(|code| code.as_str() == name) {
                Some(code) => {
                    self.check_literal(&key_path, &text, what, remedy);
                    texts.insert(code, text);
                }
                None => {
                    let known = one_of_quoted(Code::ALL.iter().map(|code| code.as_str()));
                    self.note_mistake(&key_path, format!("there is no code {name}"), format!("write {known}"));
                }
            }
        }
        texts
    }

    fn connect(&mut self) -> ConnectPolicy {
        let Some(raw) = self.section::<file::ConnectSpec>("connect") else {
            return ConnectPolicy::default();
        };
        let key_path = KeyPath::top("connect");
        ConnectPolicy {
            join: self.room_refs(&key_path.key("join"), raw.join, ExpressionSite::Connect),
            greet: self.replies(&key_path.key("greet"), raw.greet, ExpressionSite::Connect),
            call: raw.call.map(|call| self.call(&key_path.key("call"), call, None)),
            notify: raw.notify.map(|hook| self.hook_name(&key_path.key("notify"), hook)),
        }
    }

    fn disconnect(&mut self) -> Option<super::model::HookCall> {
        let raw: file::DisconnectSpec = self.section("disconnect")?;
        raw.call.map(|call| self.call(&KeyPath::top("disconnect").key("call"), call, None))
    }

    fn limits(&mut self) -> ConnectionPolicy {
        let raw: file::LimitsSpec = self.section("limits").unwrap_or_default();
        let key_path = KeyPath::top("limits").key("connections_per_ip");
        ConnectionPolicy { connections_per_ip: self.rate(&key_path, raw.connections_per_ip) }
    }

    fn mirror(&mut self) -> Option<MirrorPolicy> {
        let raw: file::MirrorSpec = self.section("mirror")?;
        let key_path = KeyPath::top("mirror");
        let key = |compiler: &mut Self, name: &str, text: Option<String>| {
            text.and_then(|text| compiler.template(&key_path.key(name), Value::String(text), ExpressionSite::Socket))
        };
        Some(MirrorPolicy {
            client: key(self, "client", raw.client),
            subscriptions: key(self, "subscriptions", raw.subscriptions),
            ttl: self.duration(&key_path.key("ttl"), raw.ttl).unwrap_or(DEFAULT_MIRROR_TTL),
        })
    }
}

impl Compiler<'_> {
    fn recovery(&mut self) -> Option<RecoveryPolicy> {
        let raw: file::RecoverySpec = self.section("recovery")?;
        let key_path = KeyPath::top("recovery").key("window");
        let window = self.duration(&key_path, raw.window).unwrap_or(DEFAULT_RECOVERY_WINDOW);
        if window > LONGEST_RECOVERY_WINDOW {
            self.note_mistake(&key_path, "the window is longer than 1h", "write 1h or less");
        }
        let events = raw.events.unwrap_or(DEFAULT_RECOVERY_EVENTS);
        if !(1..=MOST_RECOVERY_EVENTS).contains(&events) {
            let problem = format!("recovery cannot keep {events} events for a room");
            self.note_mistake(
                &KeyPath::top("recovery").key("events"),
                problem,
                format!("write 1 to {MOST_RECOVERY_EVENTS}"),
            );
        }
        Some(RecoveryPolicy { window, events })
    }
}

/// A placeholder that stands for a wrong template. The contract is refused anyway.
fn empty() -> Template {
    Template::compile(Value::Null).expect("null holds no placeholder")
}

fn token_source(text: &str) -> Option<TokenSource> {
    if text == "header" {
        return Some(TokenSource::Header);
    }
    let (kind, name) = text.split_once('.')?;
    let name = Some(name.to_owned()).filter(|name| !name.is_empty())?;
    match kind {
        "auth" => Some(TokenSource::Auth(name)),
        "query" => Some(TokenSource::Query(name)),
        "cookie" => Some(TokenSource::Cookie(name)),
        _ => None,
    }
}
