//! Answers to requests of Node.js servers, as JSON.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::event::Args;
use crate::msgpack::{put_json, put_text};
use crate::protocol::{is_reserved_room, socket_of};
use crate::session::Session;
use crate::time::{iso8601, unix_millis};

/// An answer to a request, with the id of the request.
#[derive(Debug)]
pub struct RequestAnswer(Value);

impl RequestAnswer {
    /// The answer that a request was carried out.
    pub fn done(request_id: &str) -> Self {
        Self(json!({ "requestId": request_id }))
    }

    /// The answer that lists the ids of clients.
    pub fn sockets<'a>(request_id: &str, ids: impl Iterator<Item = &'a str>) -> Self {
        Self(json!({ "requestId": request_id, "sockets": ids.collect::<Vec<_>>() }))
    }

    /// The answer that lists the names of rooms, including the rooms that contain only one client.
    pub fn rooms(request_id: &str, rooms: &[String]) -> Self {
        Self(json!({ "requestId": request_id, "rooms": rooms }))
    }

    /// The answer that describes clients. The headers (except `user-agent`), the query and the tokens of their
    /// handshakes are not included.
    pub fn fetched(request_id: &str, sessions: &[Arc<Session>]) -> Self {
        let sockets: Vec<_> = sessions.iter().map(|session| socket(session)).collect();
        Self(json!({ "requestId": request_id, "sockets": sockets }))
    }

    /// The answer that a server-side emit has arrived. The answer contains no data.
    pub fn server_side_emit(request_id: &str) -> Self {
        Self(json!({ "type": 6, "requestId": request_id, "data": null }))
    }

    /// The answer that says how many clients were asked to acknowledge an event.
    pub fn clients_asked(request_id: &str, count: usize) -> Self {
        Self(json!({ "type": 8, "requestId": request_id, "clientCount": count }))
    }

    /// A client's answer: its first argument, in MessagePack. `None` if the arguments are not JSON.
    pub fn acknowledged(request_id: &str, args: &Args) -> Option<Bytes> {
        let all: Vec<&RawValue> = serde_json::from_str(args.text()).ok()?;
        let mut out = BytesMut::new();
        // A MessagePack map of two or three members.
        out.put_u8(if all.is_empty() { 0x82 } else { 0x83 });
        put_text(&mut out, "type");
        out.put_u8(9);
        put_text(&mut out, "requestId");
        put_text(&mut out, request_id);
        if let Some(first) = all.first() {
            put_text(&mut out, "packet");
            put_json(&mut out, first.get(), args.attachments()).ok()?;
        }
        Some(out.freeze())
    }

    /// The answer to a request as JSON text.
    pub fn to_text(&self) -> String {
        self.0.to_string()
    }
}

/// The name of a room as other servers know it: for a client's own room, the client's id.
pub fn outside(room: &str) -> &str {
    socket_of(room).unwrap_or(room)
}

fn socket(session: &Session) -> Value {
    let peer = session.peer();
    let at = session.connected_at();
    let issued = unix_millis(at);
    let user = session.user();
    let rooms: Vec<_> = std::iter::once(session.id().to_owned())
        .chain(session.rooms().iter().filter(|room| !is_reserved_room(room)).map(|room| room.to_string()))
        .collect();
    let mut data = session.metadata();
    if !user.anonymous && !data.contains_key("user") {
        data.insert("user".to_owned(), Value::String(user.id.to_string()));
    }
    let mut headers = serde_json::Map::new();
    if let Some(agent) = &peer.user_agent {
        headers.insert("user-agent".to_owned(), Value::String(agent.to_string()));
    }
    json!({
        "id": session.id(),
        "handshake": {
            "headers": headers,
            "time": iso8601(at),
            "address": peer.ip.to_string(),
            "xdomain": false,
            "secure": false,
            "issued": issued,
            "url": "/socket.io/",
            "query": { "EIO": peer.protocol.to_string(), "transport": peer.transport },
            "auth": {},
        },
        "rooms": rooms,
        "data": data,
    })
}
