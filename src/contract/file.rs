//! The contract file as it is written: every key, its type and its meaning, once. The JSON Schema for editors, the check for
//! unknown keys and the reading of files all come from here.

mod events;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub use events::*;

/// One application: what its clients may send, what its backends may publish, which rooms exist and who may join them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "roomcast contract")]
pub struct File {
    /// The contract's name, unique among the loaded contracts.
    pub name: String,
    /// The Socket.IO namespace; starts with a slash. Default: "/".
    #[serde(default)]
    pub namespace: Option<String>,
    /// One line for people.
    #[serde(default)]
    pub summary: Option<String>,
    /// Who may connect.
    #[serde(default)]
    pub auth: Auth,
    /// How errors look to clients.
    #[serde(default)]
    pub errors: Errors,
    /// What is done for an event that no contract of the namespace knows. Default: refuse.
    #[serde(default)]
    pub unknown: Option<Unknown>,
    /// What happens as a client connects.
    #[serde(default)]
    pub connect: Connect,
    /// What happens as a client disconnects.
    #[serde(default)]
    pub disconnect: Disconnect,
    /// Limits on connections.
    #[serde(default)]
    pub limits: Limits,
    /// Redis keys kept for the application's other services.
    #[serde(default)]
    pub mirror: Option<Mirror>,
    /// Clients that come back soon get their session back, with what they missed. Default: they do not.
    #[serde(default)]
    pub recovery: Option<Recovery>,
    /// Families of rooms, by a key of your own that the rest of the file uses.
    #[serde(default)]
    pub rooms: BTreeMap<String, Room>,
    /// What clients may send, by event name.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "pattern": "^[^{}*]+$" }))]
    pub client: BTreeMap<String, Client>,
    /// What backends may publish, by event name.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "pattern": "^[^{}*]+$" }))]
    pub server: BTreeMap<String, Server>,
}

/// One or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// Several. Tried first: serde would read a list as the fields of a struct.
    Many(Vec<T>),
    /// One.
    One(T),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn items(&self) -> &[T] {
        match self {
            Self::One(item) => std::slice::from_ref(item),
            Self::Many(items) => items,
        }
    }

    /// All of them, with their place in the list where it is one.
    pub fn into_items(self) -> Vec<(Option<usize>, T)> {
        match self {
            Self::One(item) => vec![(None, item)],
            Self::Many(items) => items.into_iter().enumerate().map(|(at, item)| (Some(at), item)).collect(),
        }
    }
}

/// Who may connect.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Whether a token is needed. Default: required.
    pub mode: Option<AuthMode>,
    /// Where a token is looked for, in this order: "auth.<member>", "header", "query.<parameter>", "cookie.<name>".
    /// Default: ["auth.token", "header"].
    pub tokens: Option<Vec<String>>,
    /// How a client learns that its token does not hold. Default: connect_error.
    pub reject: Option<Reject>,
    /// The claim that is the user's id. Default: "sub".
    pub user: Option<String>,
    /// The claim that lists the user's roles. Default: "roles".
    pub roles: Option<String>,
    /// What happens as a token ends. Default: the client is disconnected.
    pub expiry: Option<Expiry>,
}

/// What happens as a token ends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Expiry {
    /// How long before the end a client is warned. Default: 60s, where there is a `warn_event`.
    pub warn: Option<String>,
    /// The event that warns. Default: none, and no warning.
    #[schemars(regex(pattern = "^[^{}*]+$"))]
    pub warn_event: Option<String>,
    /// The client event that brings a newer token of the same user. Default: none; tokens cannot be replaced.
    #[schemars(regex(pattern = "^[^{}*]+$"))]
    pub refresh: Option<String>,
    /// How a client whose token has ended is disconnected. Default: disconnect.
    pub then: Option<AtExpiry>,
}

/// How a client whose token has ended is disconnected.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtExpiry {
    /// Out of the namespace: the official client does not return by itself.
    Disconnect,
    /// The whole connection closes: the official client returns, and needs a newer token then.
    Reconnect,
}

/// Whether a token is needed.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// No token: refused.
    Required,
    /// No token: an anonymous user. A bad token: refused.
    Optional,
    /// Tokens are not looked at; everybody is anonymous.
    None,
}

/// How a client learns that it was refused.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reject {
    /// A Socket.IO CONNECT_ERROR, whose message starts with the code.
    ConnectError,
    /// It is connected, gets the contract's error event, and is disconnected.
    Event,
}

/// How errors look to clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// The event that carries an error where no ack was asked for. Without it such errors are only counted.
    #[schemars(regex(pattern = "^[^{}*]+$"))]
    pub event: Option<String>,
    /// The event's payload. Default: { code = "{error.code}", message = "{error.message}" }.
    pub payload: Option<Value>,
    /// What a failed event's ack carries. Default: { success = false, error = { code = "{error.code}", message =
    /// "{error.message}" } }.
    pub ack: Option<Value>,
    /// Other names for codes: { INVALID_PAYLOAD = "INVALID_MESSAGE" }.
    pub codes: BTreeMap<String, String>,
}

/// What is done for an event that nobody knows.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// An error.
    Refuse,
    /// Nothing; it is counted.
    Ignore,
}

/// What happens as a client connects.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Connect {
    /// Rooms joined by everyone whom the room's rule permits.
    pub join: Option<OneOrMany<RoomRef>>,
    /// The first event a client gets.
    pub greet: Option<Reply>,
    /// The hook that is asked before the client is let in.
    pub call: Option<Call>,
}

/// What happens as a client disconnects.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Disconnect {
    /// The hook that is told.
    pub call: Option<Call>,
}

/// Limits on connections.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// New connections from one IP address, such as "10/1m".
    pub connections_per_ip: Option<String>,
}

/// Redis keys kept for the application's other services.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mirror {
    /// A HASH of connection metadata for each socket, such as "client:{socket.id}".
    pub client: Option<String>,
    /// A SET of rooms for each socket, such as "subscriptions:{socket.id}".
    pub subscriptions: Option<String>,
    /// How long they live after the last change. Default: 24h.
    pub ttl: Option<String>,
}

/// Clients that come back soon get their session back.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Recovery {
    /// How soon, at most. Default: 2m.
    pub window: Option<String>,
    /// How many events are kept for them of rooms without a history of their own. Default: 256.
    #[schemars(range(min = 1, max = 100_000))]
    pub events: Option<u32>,
}

/// A family of rooms.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// The rooms' names: text and variables, such as "job:{jobId}".
    pub name: String,
    /// Characters that variables may hold beside letters, digits and _-.@+=~ (none by default).
    #[serde(default)]
    pub chars: Option<String>,
    /// A CEL rule that says who may join. Default: everyone who is connected.
    #[serde(default)]
    pub join: Option<String>,
    /// The hook that is asked whether a user may join.
    #[serde(default)]
    pub call: Option<Call>,
    /// What is kept for late joiners and readers. Default: nothing.
    #[serde(default)]
    pub history: Option<History>,
    /// Whether members are kept in the cluster's presence, and which events tell of it. Default: false.
    #[serde(default)]
    pub presence: Option<Presence>,
    /// A room without events for so long is forgotten with its history. Default: never.
    #[serde(default)]
    pub idle: Option<String>,
    /// How long a room's history is kept after a terminal event. Default: as long as without one.
    #[serde(default)]
    pub linger: Option<String>,
}

/// What is kept of a room's events.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// At most so many events. Default: 100.
    #[schemars(range(min = 1, max = 100_000))]
    pub events: Option<u32>,
    /// For so long after the last one. Default: 24h.
    pub ttl: Option<String>,
    /// What a joining client gets. Default: none.
    pub replay: Option<Replay>,
    /// A LIST key that other services read (payloads as JSON, newest last), such as "job-history:{jobId}".
    pub key: Option<String>,
    /// The event that tells a joining client that it was not shown everything, and how far. Default: none; the default ack
    /// of an event that joins tells it.
    #[schemars(regex(pattern = "^[^{}*]+$"))]
    pub incomplete: Option<String>,
}

/// What a joining client gets.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// Nothing.
    None,
    /// The newest event.
    Last,
    /// Everything that is kept.
    All,
    /// Everything since the offset in the payload's member `since`, all without one.
    Since,
}

/// Whether members are kept in the cluster's presence.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Presence {
    /// Kept, and nobody is told; or not kept.
    Kept(bool),
    /// Kept, and the room is told.
    Told(PresenceEvents),
}

/// Events that tell a room of its members.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PresenceEvents {
    /// The event for the first socket of a user in a room.
    #[schemars(regex(pattern = "^[^{}*]+$"))]
    pub joined: Option<String>,
    /// The event for the last socket of a user leaving it.
    #[schemars(regex(pattern = "^[^{}*]+$"))]
    pub left: Option<String>,
}

/// A room of the contract: its key, or a table.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RoomRef {
    /// Its key under `rooms`.
    Key(String),
    /// Its key and more.
    Table(RoomRefTable),
}

/// A room of the contract.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomRefTable {
    /// Its key under `rooms`.
    pub room: String,
    /// Where the name's variables come from, such as { jobId = "payload.id" }; the first path of a list that has a value
    /// counts. Default: the payload's member of the variable's name.
    #[serde(default)]
    pub with: BTreeMap<String, OneOrMany<String>>,
    /// A CEL rule: only then.
    #[serde(default)]
    pub when: Option<String>,
    /// A variable without a value means "not this room" instead of an error. Default: false.
    #[serde(default)]
    pub optional: Option<bool>,
}

/// The JSON Schema of contract files, for editors.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(File).to_value();
    tidy(&mut schema);
    schema
}

/// Takes out what TOML does not have: null, and the formats of Rust's integers.
fn tidy(schema: &mut Value) {
    let is_null = |kind: &Value| *kind == "null" || kind.get("type").is_some_and(|kind| kind == "null");
    match schema {
        Value::Object(keywords) => {
            if keywords.get("default").is_some_and(Value::is_null) {
                keywords.remove("default");
            }
            if keywords.get("format").is_some_and(|format| format == "uint32") {
                keywords.remove("format");
            }
            for keyword in ["type", "anyOf"] {
                let Some(Value::Array(choices)) = keywords.get_mut(keyword) else {
                    continue;
                };
                choices.retain(|choice| !is_null(choice));
                if choices.len() == 1 {
                    match (keyword, choices.remove(0)) {
                        ("anyOf", Value::Object(only)) => {
                            keywords.remove(keyword);
                            only.into_iter().for_each(|(key, value)| {
                                keywords.entry(key).or_insert(value);
                            });
                        }
                        (_, only) => {
                            keywords.insert(keyword.to_owned(), only);
                        }
                    }
                }
            }
            keywords.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_of_contract_files_is_a_schema_without_null() {
        let schema = json_schema();
        crate::contract::schema::Schema::compile(&schema).unwrap();
        assert!(!schema.to_string().contains("null\""), "{schema}");
        assert_eq!(schema.pointer("/$defs/Auth/properties/mode/$ref").unwrap(), "#/$defs/AuthMode");
    }
}
