//! The routes of the API in one table: the router and the OpenAPI document are both made of it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::answer::{Answer, ApiError};
use super::params::{Kind, Param, Params};
use super::state::Api;
use super::{
    access, actions, ask, body, connections, drain, emit, events, fields, history, openapi, owners, revocations, rooms,
    users,
};
use crate::auth::api_keys::ApiKey;
use crate::directory::Slowness;

/// A route.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, with its parameters in braces.
    pub path: &'static str,
    /// The operation's name in the document and in metrics.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Who may use it.
    pub access: Access,
    /// Its parameters.
    pub params: &'static [Param],
    /// Its body; `None`: it has none.
    pub request: Option<SchemaOf>,
    /// A body, for the document.
    pub example: Option<&'static str>,
    /// The success: status, what it means, and its body.
    pub success: (u16, &'static str, Option<SchemaOf>),
    /// Whether 404 is an answer.
    pub may_miss: bool,
    /// Answers it.
    pub call: fn(Call) -> BoxFuture<'static, Result<Answer, ApiError>>,
}

/// Makes the JSON Schema of a type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Every key; the route looks at the key's contracts itself.
    Key,
    /// Keys for everything (`*`).
    Admin,
}

/// A request on its way to its route.
pub struct Call {
    /// What the API is made of.
    pub api: Arc<Api>,
    /// The key.
    pub caller: ApiKey,
    /// Path and query.
    pub params: Params,
    /// The body, empty where the route has none.
    pub body: Bytes,
}

impl Call {
    /// The body's object, for reading.
    ///
    /// # Errors
    /// 400 and 422.
    pub fn object(&self) -> Result<fields::Object<'_>, ApiError> {
        fields::Object::read(body::parse(&self.body)?, "")
    }

    /// The namespace that is asked of.
    ///
    /// # Errors
    /// 404 when the node does not serve it.
    pub fn namespace(&self) -> Result<&str, ApiError> {
        access::namespace(&self.api, self.params.namespace())
    }

    /// A parameter of the path.
    pub fn segment(&self, name: &str) -> &str {
        self.params.get(name).unwrap_or_default()
    }
}

const NAMESPACE: Param = Param { name: "namespace", kind: Kind::Namespace, doc: "The namespace's path." };
const LIMIT: Param = Param { name: "limit", kind: Kind::Limit, doc: "At most so many items." };
const CURSOR: Param = Param { name: "cursor", kind: Kind::Cursor, doc: "`next` of the page before." };
const SOCKET: Param = Param { name: "socketId", kind: Kind::PathName, doc: "The Socket.IO id." };
const ROOM: Param = Param { name: "room", kind: Kind::PathRoom, doc: "The room's name, percent-encoded." };
const USER: Param = Param { name: "userId", kind: Kind::PathName, doc: "The user's id, percent-encoded." };
const COUNT_ROOM: Param = Param { name: "room", kind: Kind::Room, doc: "Counts the clients in this room." };
const COUNT_USER: Param = Param { name: "user", kind: Kind::Name, doc: "Counts the connections of this user." };
const SORT: Param = Param {
    name: "sort",
    kind: Kind::Choice(Slowness::WORDS),
    doc: "The slowest connections first, in one page: by what waits, by what was dropped, by the last write.",
};
const SINCE: Param =
    Param { name: "since", kind: Kind::Offset, doc: "Only events after this offset; without it the newest are meant." };
const EPOCH: Param = Param {
    name: "epoch",
    kind: Kind::Offset,
    doc: "The epoch that the offset is of; without it nothing is proven complete.",
};
const ORDER: Param =
    Param { name: "order", kind: Kind::Choice(&["asc", "desc"]), doc: "`asc`: newest last; `desc`: newest first." };

/// The schema of a type.
pub fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Every route under `/api/v1`.
pub fn table() -> Vec<Route> {
    let mut table = publishing();
    table.extend(reading());
    table.extend(acting());
    table.extend(revoking());
    table.extend(draining());
    table.push(
        get("/api/v1/openapi.json", "openapi", "Describes this API.", &[], |call| Box::pin(openapi::answer(call)))
            .open()
            .answers("This document.", |_| schemars::json_schema!({ "type": "object" })),
    );
    table
}

fn publishing() -> Vec<Route> {
    vec![
        send(
            Method::POST,
            "/api/v1/events",
            "publishEvents",
            "Publishes one event of a contract, or a batch.",
            |call| Box::pin(events::publish(call)),
        )
        .takes(events::request, r#"{"contract":"orders","event":"order:status","data":{"id":"42","status":"paid"}}"#)
        .accepts("What happened, for the event or for each of the batch.", events::response)
        .key()
        .misses(),
        send(Method::POST, "/api/v1/emit", "emit", "Emits what no contract describes.", |call| {
            Box::pin(emit::emit(call))
        })
        .takes(schema::<emit::Emit>, r#"{"namespace":"/","rooms":["lobby"],"event":"notice","args":["hello"]}"#)
        .accepts("What happened.", schema::<events::Accepted>)
        .misses(),
        send(Method::PUT, "/api/v1/owners", "setOwner", "Records who owns a room.", |call| Box::pin(owners::set(call)))
            .takes(schema::<owners::SetOwner>, r#"{"namespace":"/","room":"order:42","owner":"ada","ttl":"24h"}"#)
            .succeeds(204, "Every node knows it.")
            .key()
            .misses(),
        send(Method::DELETE, "/api/v1/owners", "removeOwner", "Forgets who owns a room.", |call| {
            Box::pin(owners::remove(call))
        })
        .takes(schema::<owners::RemoveOwner>, r#"{"namespace":"/","room":"order:42"}"#)
        .succeeds(204, "Nobody owns it now.")
        .key()
        .misses(),
    ]
}

fn reading() -> Vec<Route> {
    vec![
        get(
            "/api/v1/connections",
            "listConnections",
            "Lists the connections of a namespace.",
            &[NAMESPACE, LIMIT, CURSOR, SORT],
            |call| Box::pin(connections::list(call)),
        )
        .answers("A page.", schema::<connections::Connections>),
        get(
            "/api/v1/connections/{socketId}",
            "getConnection",
            "Tells of one connection.",
            &[SOCKET, NAMESPACE],
            |call| Box::pin(connections::one(call)),
        )
        .answers("The connection.", schema::<crate::directory::ConnectionInfo>),
        get("/api/v1/rooms", "listRooms", "Lists the rooms of a namespace.", &[NAMESPACE, LIMIT, CURSOR], |call| {
            Box::pin(rooms::list(call))
        })
        .answers("A page.", schema::<rooms::RoomPage>),
        get("/api/v1/rooms/{room}", "getRoom", "Tells of one room.", &[ROOM, NAMESPACE], |call| {
            Box::pin(rooms::one(call))
        })
        .answers("The room.", schema::<crate::directory::RoomInfo>)
        .key(),
        get(
            "/api/v1/rooms/{room}/members",
            "listMembers",
            "Lists the members of a room.",
            &[ROOM, NAMESPACE, LIMIT, CURSOR],
            |call| Box::pin(rooms::members(call)),
        )
        .answers("A page; empty when nobody is in the room.", schema::<rooms::MemberPage>)
        .key(),
        get(
            "/api/v1/rooms/{room}/history",
            "getHistory",
            "Reads the history of a room.",
            &[ROOM, NAMESPACE, LIMIT, SINCE, EPOCH, ORDER],
            |call| Box::pin(history::read(call)),
        )
        .answers("The part that was asked for.", schema::<history::History>)
        .key(),
        get(
            "/api/v1/users",
            "listUsers",
            "Lists the users who are connected to a namespace.",
            &[NAMESPACE, LIMIT, CURSOR],
            |call| Box::pin(users::list(call)),
        )
        .answers("A page.", schema::<users::UserPage>),
        get(
            "/api/v1/users/{userId}",
            "getUser",
            "Tells of one user and lists the user's connections.",
            &[USER, NAMESPACE, LIMIT, CURSOR],
            |call| Box::pin(users::one(call)),
        )
        .answers("The user, with a page of connections.", schema::<users::User>),
        get(
            "/api/v1/counts",
            "count",
            "Counts connections over the cluster.",
            &[NAMESPACE, COUNT_ROOM, COUNT_USER],
            |call| Box::pin(users::count(call)),
        )
        .answers("The count.", schema::<crate::directory::Count>)
        .key(),
    ]
}

fn acting() -> Vec<Route> {
    let membership = r#"{"namespace":"/","users":["ada"],"room":"lobby"}"#;
    vec![
        send(Method::POST, "/api/v1/join", "join", "Puts clients into a room.", |call| Box::pin(actions::join(call)))
            .takes(schema::<actions::Membership>, membership)
            .accepts("What happened.", schema::<actions::Acted>)
            .misses(),
        send(Method::POST, "/api/v1/leave", "leave", "Takes clients out of a room.", |call| {
            Box::pin(actions::leave(call))
        })
        .takes(schema::<actions::Membership>, membership)
        .accepts("What happened.", schema::<actions::Acted>)
        .misses(),
        send(Method::POST, "/api/v1/disconnect", "disconnect", "Disconnects clients.", |call| {
            Box::pin(actions::disconnect(call))
        })
        .takes(schema::<actions::Disconnect>, r#"{"namespace":"/","users":["ada"],"close":false}"#)
        .accepts("What happened.", schema::<actions::Acted>)
        .misses(),
        send(
            Method::POST,
            "/api/v1/ask",
            "ask",
            "Sends clients an event and answers with what they say to it.",
            |call| Box::pin(ask::ask(call)),
        )
        .takes(
            schema::<ask::Ask>,
            r#"{"namespace":"/","users":["ada"],"event":"confirm","args":["delete?"],"timeout":"2s"}"#,
        )
        .answers("What they have said.", schema::<ask::Answers>)
        .misses(),
    ]
}

fn revoking() -> Vec<Route> {
    let path = "/api/v1/revocations";
    vec![
        send(Method::POST, path, "revoke", "Revokes users, tokens or sockets, and disconnects them.", |call| {
            Box::pin(revocations::revoke(call))
        })
        .takes(schema::<revocations::Revoke>, r#"{"users":["ada"],"ttl":"24h"}"#)
        .accepts("What happened.", schema::<revocations::Outcome>),
        get(path, "listRevocations", "Lists what is revoked.", &[LIMIT, CURSOR], |call| {
            Box::pin(revocations::list(call))
        })
        .answers("A page.", schema::<revocations::RevocationPage>),
        send(Method::DELETE, path, "liftRevocations", "Takes revocations back.", |call| {
            Box::pin(revocations::lift(call))
        })
        .takes(schema::<revocations::Lift>, r#"{"users":["ada"]}"#)
        .accepts("What happened.", schema::<revocations::Outcome>),
    ]
}

fn draining() -> Vec<Route> {
    const PATH: &str = "/api/v1/drain";
    vec![
        send(Method::POST, PATH, "drain", "Has this node hand its clients over.", |call| Box::pin(drain::begin(call)))
            .accepts("It has begun, or had before.", schema::<crate::drain::Status>),
        get(PATH, "drainStatus", "Tells how far this node is.", &[], |call| Box::pin(drain::status(call)))
            .answers("The state.", schema::<crate::drain::Status>),
        send(Method::DELETE, PATH, "undoDrain", "Has this node serve again.", |call| Box::pin(drain::undo(call)))
            .answers("It serves.", schema::<crate::drain::Status>),
    ]
}

type Handler = fn(Call) -> BoxFuture<'static, Result<Answer, ApiError>>;

fn get(
    path: &'static str,
    name: &'static str,
    summary: &'static str,
    params: &'static [Param],
    call: Handler,
) -> Route {
    let may_miss = !params.is_empty();
    Route { params, may_miss, ..send(Method::GET, path, name, summary, call) }
}

fn send(method: Method, path: &'static str, name: &'static str, summary: &'static str, call: Handler) -> Route {
    let success = (200, "", None);
    Route {
        method,
        path,
        name,
        summary,
        access: Access::Admin,
        params: &[],
        request: None,
        example: None,
        success,
        may_miss: false,
        call,
    }
}

// === impl Route ===

impl Route {
    fn takes(self, request: SchemaOf, example: &'static str) -> Self {
        Self { request: Some(request), example: Some(example), ..self }
    }

    fn answers(self, means: &'static str, schema: SchemaOf) -> Self {
        Self { success: (200, means, Some(schema)), ..self }
    }

    fn accepts(self, means: &'static str, schema: SchemaOf) -> Self {
        Self { success: (202, means, Some(schema)), ..self }
    }

    fn succeeds(self, status: u16, means: &'static str) -> Self {
        Self { success: (status, means, None), ..self }
    }

    fn key(self) -> Self {
        Self { access: Access::Key, ..self }
    }

    fn open(self) -> Self {
        Self { access: Access::Open, ..self }
    }

    fn misses(self) -> Self {
        Self { may_miss: true, ..self }
    }

    /// The example as JSON.
    pub fn example(&self) -> Option<Value> {
        self.example.and_then(|text| serde_json::from_str(text).ok())
    }
}
