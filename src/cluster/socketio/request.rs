//! Requests to every server of a namespace. Requests are JSON, except a broadcast that asks for acknowledgements, which
//! is MessagePack.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::broadcast::{BroadcastOptions, options, packet};
use super::question::OURS;
use super::{MAX_MESSAGE_BYTES, MAX_TARGETS, UnusableMessage};
use crate::event::Event;
use crate::msgpack::{MsgpackReader, Token};

/// A request from another process.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerRequest {
    /// Act on clients. Servers send no answer to this request.
    Act(Targets, ServerAction),
    /// The request acts on one client, in the format of old servers. The server that has the client answers.
    ActOn {
        /// The client's id.
        socket_id: String,
        /// The action on the client.
        act: ServerAction,
        /// The id that the answer carries.
        request_id: String,
    },
    /// The request asks for the ids of the clients in these rooms.
    Sockets {
        /// The rooms. Empty means every client.
        rooms: Vec<String>,
        /// The id that the answer carries.
        request_id: String,
    },
    /// The request asks for the names of all rooms.
    AllRooms {
        /// The id that the answer carries.
        request_id: String,
    },
    /// Describe clients.
    Fetch {
        /// The clients.
        targets: Targets,
        /// The id that the answer carries.
        request_id: String,
    },
    /// The request is a message from server to server.
    ServerSideEmit {
        /// The id of the sender.
        uid: String,
        /// The id that the answer carries. `None` if the sender waits for no answer.
        request_id: Option<String>,
    },
    /// The request sends an event that clients have to acknowledge.
    BroadcastWithAck {
        /// The id that the answers carry.
        request_id: String,
        /// The event that clients get.
        event: Box<Event>,
        /// The namespace's path.
        namespace: String,
        /// The clients that receive the event.
        targets: Targets,
        /// How long the clients may take to answer.
        patience: Duration,
        /// True if the sender is a roomcast node, which asks the other roomcast nodes in another way.
        ours: bool,
    },
}

/// How long clients may take to answer. `PATIENCE` is used if the request gives no time; `MAX_PATIENCE` is the maximum.
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_PATIENCE: Duration = Duration::from_secs(60);

/// The clients that a request selects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Rooms and socket ids that the request selects. Empty means every client.
    pub rooms: Vec<String>,
    /// Rooms and socket ids that the request excludes.
    pub except: Vec<String>,
}

/// An action on clients.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerAction {
    /// Join these rooms.
    Join(Vec<String>),
    /// Leave these rooms.
    Leave(Vec<String>),
    /// The clients leave the namespace or, with `close`, their connection is closed.
    Disconnect {
        /// Whether the whole connection is closed.
        close: bool,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRequest {
    uid: Option<String>,
    request_id: Option<String>,
    r#type: u64,
    opts: Option<RawOptions>,
    #[serde(default)]
    rooms: Value,
    sid: Option<String>,
    room: Option<Value>,
    #[serde(default)]
    close: Value,
}

#[derive(Deserialize)]
struct RawOptions {
    #[serde(default)]
    rooms: Value,
    #[serde(default)]
    except: Value,
}

/// Reads a request.
///
/// # Errors
/// Returns why the request is ignored.
pub fn parse(bytes: &Bytes) -> Result<ServerRequest, UnusableMessage> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(UnusableMessage::TooLarge);
    }
    if bytes.first() != Some(&b'{') {
        return with_ack(bytes.clone());
    }
    let raw: RawRequest = serde_json::from_slice(bytes).map_err(|_| UnusableMessage::Malformed)?;
    match raw.r#type {
        0 => Ok(ServerRequest::Sockets { rooms: names(raw.rooms)?, request_id: named(raw.request_id)? }),
        1 => Ok(ServerRequest::AllRooms { request_id: named(raw.request_id)? }),
        2..=4 => act(raw),
        5 => Ok(ServerRequest::Fetch { targets: targets(raw.opts)?, request_id: named(raw.request_id)? }),
        6 => Ok(ServerRequest::ServerSideEmit { uid: raw.uid.unwrap_or_default(), request_id: raw.request_id }),
        _ => Err(UnusableMessage::UnknownType),
    }
}

fn act(raw: RawRequest) -> Result<ServerRequest, UnusableMessage> {
    let old = raw.sid.is_some();
    let rooms = if old { Value::Array(raw.room.into_iter().collect()) } else { raw.rooms };
    let act = match raw.r#type {
        2 => ServerAction::Join(names(rooms)?),
        3 => ServerAction::Leave(names(rooms)?),
        _ => ServerAction::Disconnect { close: !is_falsy(&raw.close) },
    };
    match raw.sid {
        Some(socket_id) => Ok(ServerRequest::ActOn { socket_id, act, request_id: named(raw.request_id)? }),
        None => Ok(ServerRequest::Act(targets(raw.opts)?, act)),
    }
}

/// Reads the selected clients. Empty lists select every client, so a request without any lists is refused.
fn targets(options: Option<RawOptions>) -> Result<Targets, UnusableMessage> {
    let options = options.ok_or(UnusableMessage::Malformed)?;
    Ok(Targets { rooms: names(options.rooms)?, except: names(options.except)? })
}

fn named(request_id: Option<String>) -> Result<String, UnusableMessage> {
    request_id.ok_or(UnusableMessage::Malformed)
}

/// Whether the value is falsy in JavaScript.
fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Reads a list of rooms. Ports of the emitter write `""` or `null` for an empty list.
fn names(values: Value) -> Result<Vec<String>, UnusableMessage> {
    let values = match values {
        Value::Array(values) => values,
        value if is_falsy(&value) => Vec::new(),
        _ => return Err(UnusableMessage::Malformed),
    };
    if values.len() > MAX_TARGETS {
        return Err(UnusableMessage::TooLarge);
    }
    let name = |value| match value {
        Value::String(name) => Ok(name),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(UnusableMessage::Malformed),
    };
    values.into_iter().map(name).collect()
}

/// Reads `{uid, requestId, type: 7, packet, opts}` in MessagePack.
fn with_ack(bytes: Bytes) -> Result<ServerRequest, UnusableMessage> {
    let mut reader = MsgpackReader::new(bytes);
    let Token::Map(members) = reader.token()? else { return Err(UnusableMessage::Malformed) };
    let (mut request_id, mut kind, mut broadcast, mut to) = (None, None, None, BroadcastOptions::default());
    let mut ours = false;
    for _ in 0..members {
        match reader.key()?.as_str() {
            "requestId" => request_id = Some(reader.text()?),
            "type" => match reader.token()? {
                Token::Uint(number) => kind = Some(number),
                _ => return Err(UnusableMessage::Malformed),
            },
            "packet" => broadcast = Some(packet(&mut reader)?),
            "opts" => to = options(&mut reader)?,
            OURS => ours = reader.flag()?,
            _ => reader.skip()?,
        }
    }
    match kind {
        Some(7) => {
            let (event, namespace) = broadcast.ok_or(UnusableMessage::Malformed)?;
            let patience = to.timeout.map_or(PATIENCE, Duration::from_millis).min(MAX_PATIENCE);
            let targets = Targets { rooms: to.rooms, except: to.except };
            let (request_id, event) = (named(request_id)?, Box::new(event));
            Ok(ServerRequest::BroadcastWithAck { request_id, event, namespace, targets, patience, ours })
        }
        Some(_) => Err(UnusableMessage::UnknownType),
        None => Err(UnusableMessage::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &'static str) -> Result<ServerRequest, UnusableMessage> {
        parse(&Bytes::from_static(text.as_bytes()))
    }

    fn all(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn what_emitters_and_servers_ask_for_is_read() {
        let targets = |rooms: &[&str], except: &[&str]| Targets { rooms: all(rooms), except: all(except) };
        let cases = [
            (
                r#"{"type":2,"opts":{"rooms":["room0"],"except":[]},"rooms":["r3",4]}"#,
                ServerRequest::Act(targets(&["room0"], &[]), ServerAction::Join(all(&["r3", "4"]))),
            ),
            (
                r#"{"type":3,"opts":{"rooms":[],"except":["r9"]},"rooms":["r3"]}"#,
                ServerRequest::Act(targets(&[], &["r9"]), ServerAction::Leave(all(&["r3"]))),
            ),
            (
                r#"{"type":4,"opts":{"rooms":["room1"],"except":[]},"close":true}"#,
                ServerRequest::Act(targets(&["room1"], &[]), ServerAction::Disconnect { close: true }),
            ),
            (
                r#"{"uid":"emitter","type":6,"data":["hello",1]}"#,
                ServerRequest::ServerSideEmit { uid: "emitter".into(), request_id: None },
            ),
            (
                r#"{"uid":"u","requestId":"q","type":5,"opts":{"rooms":["a"],"except":[]}}"#,
                ServerRequest::Fetch { targets: targets(&["a"], &[]), request_id: "q".into() },
            ),
            (
                r#"{"uid":"u","requestId":"q2","type":2,"sid":"s","room":"r"}"#,
                ServerRequest::ActOn {
                    socket_id: "s".into(),
                    act: ServerAction::Join(all(&["r"])),
                    request_id: "q2".into(),
                },
            ),
            (r#"{"uid":"u","requestId":"q","type":1}"#, ServerRequest::AllRooms { request_id: "q".into() }),
        ];
        for (text, request) in cases {
            assert_eq!(read(text).unwrap(), request);
        }
        // Ports of the emitter write a value that is falsy in JavaScript for an empty list.
        let text = r#"{"type":4,"opts":{"rooms":["a"],"except":""},"rooms":null,"close":1}"#;
        assert_eq!(
            read(text).unwrap(),
            ServerRequest::Act(targets(&["a"], &[]), ServerAction::Disconnect { close: true })
        );
        let text = r#"{"type":4,"opts":{"rooms":null,"except":false},"close":null}"#;
        assert_eq!(
            read(text).unwrap(),
            ServerRequest::Act(targets(&[], &[]), ServerAction::Disconnect { close: false })
        );
        // A message that socket.io 4.8 wrote for `io.timeout(700).to("room1").emitWithAck("ask", 1)`.
        let asked = b"\x85\xa3uid\xa6r4Gz24\xa9requestId\xa6Iw-53s\xa4type\x07\xa6packet\x83\xa4type\x02\xa4data\x92\xa3ask\x01\
            \xa3nsp\xa1/\xa4opts\x83\xa5rooms\x91\xa5room1\xa6except\x90\xa5flags\x81\xa7timeout\xcd\x02\xbc";
        let request = ServerRequest::BroadcastWithAck {
            request_id: "Iw-53s".into(),
            event: Box::new(Event::encode("ask", [1]).unwrap()),
            namespace: "/".into(),
            targets: targets(&["room1"], &[]),
            patience: Duration::from_millis(700),
            ours: false,
        };
        assert_eq!(parse(&Bytes::from_static(asked)).unwrap(), request);
        let nothing = b"\x83\xa3uid\xa1u\xa9requestId\xa1q\xa4type\x07";
        assert_eq!(parse(&Bytes::from_static(nothing)).unwrap_err(), UnusableMessage::Malformed);
    }

    #[test]
    fn what_kills_other_servers_is_refused() {
        for text in [
            r#"{"type":5,"requestId":"x"}"#,
            r#"{"type":2}"#,
            r#"{"type":4,"close":true}"#,
            r#"{"type":"2"}"#,
            r#"{"type":2,"opts":{"rooms":[{}]},"rooms":["a"]}"#,
            r#"{"type":2,"opts":{"rooms":"lobby"},"rooms":["a"]}"#,
            "{",
            "null",
            "[]",
            "",
        ] {
            assert_eq!(read(text).unwrap_err(), UnusableMessage::Malformed, "{text}");
        }
        assert_eq!(read(r#"{"type":99}"#).unwrap_err(), UnusableMessage::UnknownType);
        let many = format!(r#"{{"type":2,"opts":{{"rooms":[]}},"rooms":[{}0]}}"#, "0,".repeat(MAX_TARGETS));
        assert_eq!(parse(&Bytes::from(many)).unwrap_err(), UnusableMessage::TooLarge);
        let deep = format!(r#"{{"type":1,"requestId":"a","x":{}"#, "[".repeat(1_000_000));
        assert_eq!(parse(&Bytes::from(deep)).unwrap_err(), UnusableMessage::Malformed);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes.into());
        }
    }
}
