//! The contract file as it is written: every key with its type and meaning. The JSON Schema for editors, the check for
//! unknown keys and the parser all use these types.

mod events;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub use events::*;

use super::model::{AtExpiry, AuthMode, HookJoins, MemberUnit, RejectPolicy, ReplayPolicy, UnknownEvent};

/// One application: the events that its clients and backends may send, and its rooms with the rules of who may join.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "roomcast contract")]
pub struct ContractFile {
    /// The contract's name, unique among the loaded contracts.
    pub name: String,
    /// The Socket.IO namespace; starts with a slash. Default: "/".
    #[serde(default)]
    pub namespace: Option<String>,
    /// A description of the contract in one line, for people.
    #[serde(default)]
    pub summary: Option<String>,
    /// Who may connect.
    #[serde(default)]
    pub auth: AuthSpec,
    /// The shape of errors that clients receive.
    #[serde(default)]
    pub errors: ErrorsSpec,
    /// What happens with an event that no contract of the namespace declares. Default: refuse.
    #[serde(default)]
    pub unknown: Option<UnknownEvent>,
    /// Which rooms a hook's answer may let a client join. Default: any.
    #[serde(default)]
    pub hook_joins: Option<HookJoins>,
    /// The members of the sockets' metadata for which the contract has further rules.
    #[serde(default)]
    pub metadata: BTreeMap<String, MetadataMemberSpec>,
    /// What happens when a client connects.
    #[serde(default)]
    pub connect: ConnectSpec,
    /// What happens when a client disconnects.
    #[serde(default)]
    pub disconnect: DisconnectSpec,
    /// Limits on connections.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// Redis keys that the node writes for the application's other services.
    #[serde(default)]
    pub mirror: Option<MirrorSpec>,
    /// Recovery: clients that return soon get their session and the events that they missed. Default: no recovery.
    #[serde(default)]
    pub recovery: Option<RecoverySpec>,
    /// Families of rooms. The rest of the file refers to each by its key.
    #[serde(default)]
    pub rooms: BTreeMap<String, RoomSpec>,
    /// What clients may send, by event name. The name "*" stands for all events that no table names.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "pattern": "^([^{}*]+|\\*)$" }))]
    pub client: BTreeMap<String, ClientEventSpec>,
    /// What backends may publish, by event name.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "pattern": "^[^{}*]+$" }))]
    pub server: BTreeMap<String, ServerEventSpec>,
}

/// A member of the sockets' metadata.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataMemberSpec {
    /// Says that rules may use the member although a client chooses its value.
    pub trust: TrustedSource,
}

/// Whose values of a metadata member rules may use.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrustedSource {
    /// The client's.
    Client,
}

/// One item, or a list of items.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// A list. It is tried first, because serde would read a list as the fields of a struct.
    Many(Vec<T>),
    /// One item.
    One(T),
}

impl<T> OneOrMany<T> {
    /// All items.
    pub fn items(&self) -> &[T] {
        match self {
            Self::One(item) => std::slice::from_ref(item),
            Self::Many(items) => items,
        }
    }

    /// Returns all items, each with its index if they were written as a list.
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
pub struct AuthSpec {
    /// Whether a client needs a token. Default: required.
    pub mode: Option<AuthMode>,
    /// Where the node looks for a token, in this order: "auth.<member>", "header", "query.<parameter>",
    /// "cookie.<name>". Default: ["auth.token", "header"].
    pub tokens: Option<Vec<String>>,
    /// How a client learns that its token is invalid. Default: connect_error.
    pub reject: Option<RejectPolicy>,
    /// The claim that is the user's id. Default: "sub".
    pub user: Option<String>,
    /// The claim that lists the user's roles. Default: "roles".
    pub roles: Option<String>,
    /// What happens when a token expires. Default: the client is disconnected.
    pub expiry: Option<ExpirySpec>,
}

/// What happens when a token expires.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExpirySpec {
    /// How long before the expiry a client is warned. Default: 60s, if there is a `warn_event`.
    pub warn: Option<String>,
    /// The event that warns the client. Default: no event, and no warning.
    #[schemars(regex(pattern = "^[^{}*]+$"))]
    pub warn_event: Option<String>,
    /// The client event that brings a newer token of the same user. Default: none, so that tokens cannot be replaced.
    #[schemars(regex(pattern = "^[^{}*]+$"))]
    pub refresh: Option<String>,
    /// How a client is disconnected when its token has expired. Default: disconnect.
    pub then: Option<AtExpiry>,
}

/// The shape of errors that clients receive.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorsSpec {
    /// The event that reports an error if the client asked for no acknowledgement. Default: none; such errors are only
    /// counted.
    #[schemars(regex(pattern = "^[^{}*]+$"))]
    pub event: Option<String>,
    /// The event's payload. Default: { code = "{error.code}", message = "{error.message}" }.
    pub payload: Option<Value>,
    /// The acknowledgement of a failed event. Default: { success = false, error = { code = "{error.code}", message =
    /// "{error.message}" } }.
    pub ack: Option<Value>,
    /// Other names for error codes: { INVALID_PAYLOAD = "INVALID_MESSAGE" }.
    pub codes: BTreeMap<String, String>,
    /// Own messages for errors, by code: { AUTHENTICATION_FAILED = "Please log in" }.
    pub messages: BTreeMap<String, String>,
}

/// What happens when a client connects.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectSpec {
    /// Rooms that the client joins, if the room's rule permits it.
    pub join: Option<OneOrMany<RoomRefSpec>>,
    /// The first event that the client receives.
    pub greet: Option<OneOrMany<ReplyRefSpec>>,
    /// The hook that decides whether the client may connect.
    pub call: Option<CallSpec>,
    /// The hook that the node informs, without waiting, that the client has connected.
    pub notify: Option<String>,
}

/// What happens when a client disconnects.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DisconnectSpec {
    /// The hook that the node informs of the disconnect.
    pub call: Option<CallSpec>,
}

/// Limits on connections.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// New connections from one IP address, such as "10/1m".
    pub connections_per_ip: Option<String>,
}

/// Redis keys that the node writes for the application's other services.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MirrorSpec {
    /// A HASH with connection metadata for each socket, such as "client:{socket.id}".
    pub client: Option<String>,
    /// A SET with the rooms of each socket, such as "subscriptions:{socket.id}".
    pub subscriptions: Option<String>,
    /// How long the Redis keys live after the last change. Default: 24h.
    pub ttl: Option<String>,
}

/// Recovery of sessions.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecoverySpec {
    /// How soon a client must return to recover its session. Default: 2m.
    pub window: Option<String>,
    /// How many events are kept for returning clients in each room that has no history of its own. Default: 256.
    #[schemars(range(min = 1, max = 100_000))]
    pub events: Option<u32>,
}

/// A family of rooms.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomSpec {
    /// The pattern of the rooms' names: text and variables, such as "job:{jobId}".
    pub name: String,
    /// Characters that variables may contain besides letters, digits and _-.@+=~. Default: none.
    #[serde(default)]
    pub chars: Option<String>,
    /// A CEL rule that decides who may join. Default: every connected client.
    #[serde(default)]
    pub join: Option<String>,
    /// The hook that decides whether a user may join.
    #[serde(default)]
    pub call: Option<CallSpec>,
    /// The room's history, for late joiners and readers. Default: none.
    #[serde(default)]
    pub history: Option<HistorySpec>,
    /// Whether the presence of members is recorded for all nodes, and which events announce it. Default: false.
    #[serde(default)]
    pub presence: Option<PresenceSpec>,
    /// How long a room may be without events before its history is deleted. Default: no limit.
    #[serde(default)]
    pub idle: Option<String>,
    /// How long a room's history is kept after a terminal event. Default: as long as any other history.
    #[serde(default)]
    pub linger: Option<String>,
}

/// A room's history.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HistorySpec {
    /// Maximum number of events in the history. Default: 100.
    #[schemars(range(min = 1, max = 100_000))]
    pub events: Option<u32>,
    /// How long the history is kept after its last event. Default: 24h.
    pub ttl: Option<String>,
    /// The events that a joining client receives. Default: none.
    pub replay: Option<ReplayPolicy>,
    /// A LIST key for other services (payloads as JSON, newest last), such as "job-history:{jobId}".
    pub key: Option<String>,
    /// The event that tells a joining client that its replay is incomplete, and up to which offset. Default: none; the
    /// default acknowledgement of an event that joins a room contains it.
    #[schemars(regex(pattern = "^[^{}*]+$"))]
    pub incomplete: Option<String>,
}

/// Whether the presence of members is recorded for all nodes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PresenceSpec {
    /// `true`: presence is recorded, and no event announces it. `false`: it is not recorded.
    Kept(bool),
    /// Presence is recorded, members are listed, and events announce them to the room.
    Told(Box<PresenceTableSpec>),
}

/// The members of a room: the events that announce them, and what lists of members show.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PresenceTableSpec {
    /// Whether all sockets of a user are one member, or each socket is one. Default: user.
    pub each: Option<MemberUnit>,
    /// The event when a member joins the room with its first socket: its name, or a table. Default: none.
    pub joined: Option<ReplyRefSpec>,
    /// The event when a member leaves the room with its last socket: its name, or a table. Default: none.
    pub left: Option<ReplyRefSpec>,
    /// The event that is sent when the list of members changes: its name, or a table. Default: none.
    pub changed: Option<ReplyRefSpec>,
    /// Whether the member itself does not get `joined`. Default: false.
    pub others: Option<bool>,
    /// The minimum time between two `changed` events of a room. Default: 250ms.
    pub every: Option<String>,
    /// What a list shows of a member: a value with placeholders. Default: "{member.id}".
    pub show: Option<Value>,
    /// Maximum number of members that a list shows. Default: 100.
    #[schemars(range(min = 1, max = 1000))]
    pub most: Option<u32>,
}

/// A room of the contract: its key, or a table.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RoomRefSpec {
    /// The room's key under `rooms`.
    Key(String),
    /// The room's key with further settings.
    Table(RoomRefTableSpec),
}

/// A room of the contract.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomRefTableSpec {
    /// The room's key under `rooms`.
    pub room: String,
    /// The values of the name's variables, such as { jobId = "payload.id" }. Of a list of paths, the first that has a
    /// value counts. Default: the payload's member with the variable's name.
    #[serde(default)]
    pub with: BTreeMap<String, OneOrMany<String>>,
    /// A CEL rule. The room is used only if it is true.
    #[serde(default)]
    pub when: Option<String>,
    /// Whether a missing value of a variable means that the room is not used, instead of an error. Default: false.
    #[serde(default)]
    pub optional: Option<bool>,
    /// Only in `leave`: all rooms of this family that the socket is in. Default: false.
    #[serde(default)]
    pub all: Option<bool>,
}

/// The JSON Schema of contract files, for editors.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(ContractFile).to_value();
    remove_non_toml(&mut schema);
    schema
}

/// Removes from the schema what TOML does not have: null, and the formats of Rust's integers.
fn remove_non_toml(schema: &mut Value) {
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
            keywords.values_mut().for_each(remove_non_toml);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_non_toml),
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
        assert_eq!(schema.pointer("/$defs/AuthSpec/properties/mode/$ref").unwrap(), "#/$defs/AuthMode");
    }
}
