//! The table of the API's routes. The router and the OpenAPI document are generated from it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::answer::{ApiError, ApiResponse};
use super::fields::{Body, ObjectReader};
use super::params::{Param, ParamKind, Params};
use super::state::ApiState;
use super::{
    access, actions, ask, body, connections, drain, emit, events, history, openapi, owners, revocations, rooms, users,
};
use crate::auth::api_keys::ApiKey;
use crate::directory::Slowness;

/// One row of the table.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path of the route, with its parameters in braces.
    pub path: &'static str,
    /// The operation's name in the OpenAPI document and in metrics.
    pub name: &'static str,
    /// A description of the route in one line, for people.
    pub summary: &'static str,
    /// The access that a request needs.
    pub access: Access,
    /// The parameters.
    pub params: &'static [Param],
    /// The JSON Schema of the route's body. `None`: the route has no body.
    pub request: Option<SchemaOf>,
    /// An example of the body, for the OpenAPI document.
    pub example: Option<&'static str>,
    /// The answer to a successful request: its status, its meaning and the schema of its body.
    pub success: (u16, &'static str, Option<SchemaOf>),
    /// Whether the route can answer 404.
    pub may_miss: bool,
    /// Answers a request.
    pub call: fn(ApiCall) -> BoxFuture<'static, Result<ApiResponse, ApiError>>,
}

/// Makes the JSON Schema of a type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The access that a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The route needs no key.
    Open,
    /// Any key. The route itself checks the key's contracts.
    Key,
    /// The route needs a key that permits everything (`*`).
    Admin,
}

/// A request on its way to its route.
pub struct ApiCall {
    /// The API's shared state.
    pub api: Arc<ApiState>,
    /// The caller's key.
    pub caller: ApiKey,
    /// The parameters of path and query.
    pub params: Params,
    /// The body. Empty if the route has none.
    pub body: Bytes,
}

impl ApiCall {
    /// Reads the body.
    ///
    /// # Errors
    /// Returns 400 if the body is not JSON, and 422 with all other mistakes.
    pub fn read<T: Body>(&self) -> Result<T, ApiError> {
        ObjectReader::open(body::parse(&self.body)?, "")?.read()
    }

    /// The requested namespace.
    ///
    /// # Errors
    /// Returns 404 if the node does not serve the namespace.
    pub fn namespace(&self) -> Result<&str, ApiError> {
        access::namespace(&self.api, self.params.namespace())
    }

    /// Returns the value of a parameter of the path.
    pub fn segment(&self, name: &str) -> &str {
        self.params.get(name).unwrap_or_default()
    }
}

const NAMESPACE: Param = Param { name: "namespace", kind: ParamKind::Namespace, doc: "The namespace's path." };
const LIMIT: Param = Param { name: "limit", kind: ParamKind::Limit, doc: "Maximum number of items." };
const CURSOR: Param =
    Param { name: "cursor", kind: ParamKind::Cursor, doc: "The value of `next` in the previous page." };
const SOCKET: Param = Param { name: "socketId", kind: ParamKind::PathName, doc: "The Socket.IO id." };
const ROOM: Param = Param { name: "room", kind: ParamKind::PathRoom, doc: "The room's name, percent-encoded." };
const USER: Param = Param { name: "userId", kind: ParamKind::PathName, doc: "The user's id, percent-encoded." };
const COUNT_ROOM: Param = Param { name: "room", kind: ParamKind::Room, doc: "Counts the clients in this room." };
const COUNT_USER: Param = Param { name: "user", kind: ParamKind::Name, doc: "Counts the connections of this user." };
const SORT: Param = Param {
    name: "sort",
    kind: ParamKind::Choice(Slowness::WORDS),
    doc: "Lists the slowest connections of all nodes first, on one page: by waiting packets or bytes, by dropped events, or by the last write.",
};
const SINCE: Param = Param {
    name: "since",
    kind: ParamKind::Offset,
    doc: "Only events after this offset; without it, the newest events.",
};
const EPOCH: Param = Param {
    name: "epoch",
    kind: ParamKind::Offset,
    doc: "The epoch of the offset. Without it, no result is proven complete.",
};
const ORDER: Param = Param {
    name: "order",
    kind: ParamKind::Choice(&["asc", "desc"]),
    doc: "`asc`: newest last; `desc`: newest first.",
};

/// Returns the JSON Schema of a type.
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
        get("/api/v1/openapi.json", "openapi", "Returns this document.", &[], |call| Box::pin(openapi::answer(call)))
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
        .accepts("The result of the event, or of each event of the batch.", events::response)
        .key()
        .misses(),
        send(Method::POST, "/api/v1/emit", "emit", "Sends an event that no contract declares.", |call| {
            Box::pin(emit::emit(call))
        })
        .takes(schema::<emit::EmitRequest>, r#"{"namespace":"/","rooms":["lobby"],"event":"notice","args":["hello"]}"#)
        .accepts("What happened.", schema::<events::PublishResponse>)
        .misses(),
        send(Method::PUT, "/api/v1/owners", "setOwner", "Records the owner of a room.", |call| {
            Box::pin(owners::set(call))
        })
        .takes(schema::<owners::SetOwner>, r#"{"namespace":"/","room":"order:42","owner":"ada","ttl":"24h"}"#)
        .succeeds(204, "The owner is recorded for all nodes.")
        .key()
        .misses(),
        send(Method::DELETE, "/api/v1/owners", "removeOwner", "Deletes the owner of a room.", |call| {
            Box::pin(owners::remove(call))
        })
        .takes(schema::<owners::RemoveOwner>, r#"{"namespace":"/","room":"order:42"}"#)
        .succeeds(204, "The room has no owner now.")
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
        .answers("A page.", schema::<connections::ConnectionPage>),
        get(
            "/api/v1/connections/{socketId}",
            "getConnection",
            "Describes one connection.",
            &[SOCKET, NAMESPACE],
            |call| Box::pin(connections::one(call)),
        )
        .answers("The connection.", schema::<crate::directory::ConnectionInfo>),
        get("/api/v1/rooms", "listRooms", "Lists the rooms of a namespace.", &[NAMESPACE, LIMIT, CURSOR], |call| {
            Box::pin(rooms::list(call))
        })
        .answers("A page.", schema::<rooms::RoomPage>),
        get("/api/v1/rooms/{room}", "getRoom", "Describes one room.", &[ROOM, NAMESPACE], |call| {
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
        .answers("A page; empty if the room has no members.", schema::<rooms::MemberPage>)
        .key(),
        get(
            "/api/v1/rooms/{room}/history",
            "getHistory",
            "Reads the history of a room.",
            &[ROOM, NAMESPACE, LIMIT, SINCE, EPOCH, ORDER],
            |call| Box::pin(history::read(call)),
        )
        .answers("The requested part of the history.", schema::<history::HistoryResponse>)
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
            "Describes one user and lists the user's connections.",
            &[USER, NAMESPACE, LIMIT, CURSOR],
            |call| Box::pin(users::one(call)),
        )
        .answers("The user, with a page of connections.", schema::<users::UserEntry>),
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
            .takes(schema::<actions::MembershipRequest>, membership)
            .accepts("What happened.", schema::<actions::ActionResponse>)
            .misses(),
        send(Method::POST, "/api/v1/leave", "leave", "Takes clients out of a room.", |call| {
            Box::pin(actions::leave(call))
        })
        .takes(schema::<actions::MembershipRequest>, membership)
        .accepts("What happened.", schema::<actions::ActionResponse>)
        .misses(),
        send(Method::POST, "/api/v1/disconnect", "disconnect", "Disconnects clients.", |call| {
            Box::pin(actions::disconnect(call))
        })
        .takes(schema::<actions::DisconnectRequest>, r#"{"namespace":"/","users":["ada"],"close":false}"#)
        .accepts("What happened.", schema::<actions::ActionResponse>)
        .misses(),
        send(
            Method::POST,
            "/api/v1/ask",
            "ask",
            "Sends clients an event and returns their acknowledgements.",
            |call| Box::pin(ask::ask(call)),
        )
        .takes(
            schema::<ask::AskRequest>,
            r#"{"namespace":"/","users":["ada"],"event":"confirm","args":["delete?"],"timeout":"2s"}"#,
        )
        .answers("The acknowledgements.", schema::<ask::AskResponse>)
        .misses(),
    ]
}

fn revoking() -> Vec<Route> {
    let path = "/api/v1/revocations";
    vec![
        send(Method::POST, path, "revoke", "Revokes users, tokens or sockets, and disconnects them.", |call| {
            Box::pin(revocations::revoke(call))
        })
        .takes(schema::<revocations::RevokeRequest>, r#"{"users":["ada"],"ttl":"24h"}"#)
        .accepts("What happened.", schema::<revocations::RevocationResponse>),
        get(path, "listRevocations", "Lists the revocations.", &[LIMIT, CURSOR], |call| {
            Box::pin(revocations::list(call))
        })
        .answers("A page.", schema::<revocations::RevocationPage>),
        send(Method::DELETE, path, "liftRevocations", "Lifts revocations.", |call| Box::pin(revocations::lift(call)))
            .takes(schema::<revocations::LiftRequest>, r#"{"users":["ada"]}"#)
            .accepts("What happened.", schema::<revocations::RevocationResponse>),
    ]
}

fn draining() -> Vec<Route> {
    const PATH: &str = "/api/v1/drain";
    vec![
        send(Method::POST, PATH, "drain", "Starts the drain of this node, which hands its clients over.", |call| {
            Box::pin(drain::begin(call))
        })
        .accepts("The drain has begun, now or earlier.", schema::<crate::drain::DrainStatus>),
        get(PATH, "drainStatus", "Shows the progress of this node's drain.", &[], |call| Box::pin(drain::status(call)))
            .answers("The state.", schema::<crate::drain::DrainStatus>),
        send(Method::DELETE, PATH, "undoDrain", "Undoes the drain: this node serves again.", |call| {
            Box::pin(drain::undo(call))
        })
        .answers("It serves.", schema::<crate::drain::DrainStatus>),
    ]
}

type RouteHandler = fn(ApiCall) -> BoxFuture<'static, Result<ApiResponse, ApiError>>;

fn get(
    path: &'static str,
    name: &'static str,
    summary: &'static str,
    params: &'static [Param],
    call: RouteHandler,
) -> Route {
    let may_miss = !params.is_empty();
    Route { params, may_miss, ..send(Method::GET, path, name, summary, call) }
}

fn send(method: Method, path: &'static str, name: &'static str, summary: &'static str, call: RouteHandler) -> Route {
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

    /// Returns the example of the body as JSON.
    pub fn example(&self) -> Option<Value> {
        self.example.and_then(|text| serde_json::from_str(text).ok())
    }
}
