//! Reads the requests that socketioxide's servers and the emitter for Rust send to every server, and writes the answers
//! to their questions, in the protocol of the library's Redis adapter.
//!
//! Broadcasts and commands are handled like those of the emitter for JavaScript. Questions are answered from the node's
//! own index of rooms, so it does not matter which engine serves a client.

use std::collections::VecDeque;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize as _;
use socketioxide_core::adapter::remote_packet::{RequestIn, RequestTypeIn, Response, ResponseType};
use socketioxide_core::adapter::{BroadcastFlags, BroadcastOptions, RemoteSocketData, Room};
use socketioxide_core::packet::{Packet, PacketData};
use socketioxide_core::{Sid, Str, Uid, Value};
use socketioxide_redis::RedisAdapterConfig;

use crate::cluster::socketio::{
    Broadcast, MAX_DEPTH, MAX_MESSAGE_BYTES, MAX_TARGETS, ServerAction, Targets, UnusableMessage, is_reserved,
    packed_event,
};
use crate::cluster::{AnswerFormat, Inquiry, InquiryAnswer, LibraryCodec, LibraryRequest};
use crate::engine::validate::validate;
use crate::event::Event;
use crate::limits::deeper_than;
use crate::protocol::MAX_ATTACHMENTS;
use crate::redis::ChannelMessage;

/// The part of a request channel's name between the prefix and the namespace.
const REQUEST: &str = "-request#";

/// The maximum time for which a server's request waits for acknowledgements.
const MAX_PATIENCE: Duration = Duration::from_secs(60);

/// Reads the requests of socketioxide's Redis adapter.
#[derive(Default)]
pub struct LibraryRequests {
    own: Uid,
}

impl LibraryCodec for LibraryRequests {
    fn own_id(&self) -> String {
        self.own.to_string()
    }

    fn read(&self, message: &ChannelMessage) -> Result<LibraryRequest, UnusableMessage> {
        let RequestIn { node_id, id, r#type, opts, ack_timeout } = decode(&message.body)?;
        let options = opts.as_ref();
        let ask = |question: Inquiry| {
            let answers =
                LibraryAnswers::new(&message.channel, (self.own, node_id, id)).ok_or(UnusableMessage::Malformed)?;
            let (targets, _) = targets(options)?;
            Ok(LibraryRequest::Inquiry(targets, question, Box::new(answers)))
        };
        match r#type {
            RequestTypeIn::Broadcast(packet) => broadcast(&packet, targets(options)?),
            RequestTypeIn::DisconnectSockets => act(options, ServerAction::Disconnect { close: false }),
            RequestTypeIn::AddSockets(rooms) => act(options, ServerAction::Join(names(&rooms))),
            RequestTypeIn::DelSockets(rooms) => act(options, ServerAction::Leave(names(&rooms))),
            RequestTypeIn::AllRooms => ask(Inquiry::Rooms),
            RequestTypeIn::FetchSockets => ask(Inquiry::Ids),
            RequestTypeIn::BroadcastWithAck(packet) => {
                // If a server does not specify how long it waits, the adapter's default applies.
                let default = || RedisAdapterConfig::new().request_timeout;
                let patience = ack_timeout.unwrap_or_else(default).min(MAX_PATIENCE);
                ask(Inquiry::Acknowledge(event(content(&packet)?)?, patience))
            }
            _ => Err(UnusableMessage::UnknownType),
        }
    }
}

/// Writes the answers to one question.
struct LibraryAnswers {
    own: Uid,
    request: Sid,
    namespace: Str,
    channel: Arc<str>,
}

impl LibraryAnswers {
    /// The answers to the request `id` of the server `asker`, which came on this channel.
    fn new(channel: &str, (own, asker, id): (Uid, Uid, Sid)) -> Option<Self> {
        let (prefix, rest) = channel.rsplit_once(REQUEST)?;
        let namespace = rest.split('#').next()?;
        let channel = format!("{prefix}-response#{namespace}#{asker}#").into();
        Some(Self { own, request: id, namespace: Str::copy_from_slice(namespace), channel })
    }

    /// Describes a client as the library does. `None` if the client's id is not one of the library's.
    fn socket(&self, id: &str) -> Option<RemoteSocketData> {
        Some(RemoteSocketData { id: Sid::from_str(id).ok()?, server_id: self.own, ns: self.namespace.clone() })
    }
}

impl AnswerFormat for LibraryAnswers {
    fn channel(&self) -> Arc<str> {
        self.channel.clone()
    }

    fn write(&self, said: &InquiryAnswer<'_>) -> Option<Bytes> {
        let r#type = match said {
            InquiryAnswer::Rooms(rooms) => ResponseType::AllRooms(rooms.iter().cloned().map(Room::Owned).collect()),
            InquiryAnswer::Ids(ids) => {
                ResponseType::FetchSockets(ids.iter().filter_map(|id| self.socket(id)).collect())
            }
            InquiryAnswer::Asked(count) => ResponseType::BroadcastAckCount(u32::try_from(*count).unwrap_or(u32::MAX)),
            InquiryAnswer::Acknowledged(id, args) => {
                let attachments: VecDeque<_> = args.attachments().iter().cloned().collect();
                let attachments = (!attachments.is_empty()).then_some(attachments);
                let value = Value::Str(Str::copy_from_slice(args.text()), attachments);
                ResponseType::BroadcastAck((Sid::from_str(id).unwrap_or(Sid::ZERO), Ok(value)))
            }
        };
        let answer = rmp_serde::to_vec(&(self.request, Response { node_id: self.own, r#type })).ok()?;
        Some(answer.into())
    }
}

fn decode(body: &Bytes) -> Result<RequestIn, UnusableMessage> {
    if body.len() > MAX_MESSAGE_BYTES {
        return Err(UnusableMessage::TooLarge);
    }
    let mut reader = rmp_serde::Deserializer::new(&body[..]);
    let request = RequestIn::deserialize(&mut reader).map_err(|_| UnusableMessage::Malformed)?;
    if reader.get_ref().is_empty() { Ok(request) } else { Err(UnusableMessage::Malformed) }
}

fn act(options: Option<&BroadcastOptions>, act: ServerAction) -> Result<LibraryRequest, UnusableMessage> {
    let (targets, _) = targets(options)?;
    let rooms = match &act {
        ServerAction::Join(rooms) | ServerAction::Leave(rooms) => rooms.len(),
        ServerAction::Disconnect { .. } => 0,
    };
    if rooms > MAX_TARGETS { Err(UnusableMessage::TooLarge) } else { Ok(LibraryRequest::Act(targets, act)) }
}

/// The clients that a request is meant for, and whether its event is volatile.
fn targets(options: Option<&BroadcastOptions>) -> Result<(Targets, bool), UnusableMessage> {
    let options = options.ok_or(UnusableMessage::Malformed)?;
    let (mut rooms, mut except) = (names(&options.rooms), names(&options.except));
    let sender = options.sid.map(|sid| sid.to_string());
    // Selects clients as the library's adapter does. With the flag `Broadcast`, the sender is left out. Without the
    // flag and without rooms, only the sender is meant.
    if options.has_flag(BroadcastFlags::Broadcast) {
        except.extend(sender);
    } else if rooms.is_empty() {
        // If the list of rooms were empty, the event would go to every client.
        rooms.push(sender.ok_or(UnusableMessage::Malformed)?);
    }
    if rooms.len() + except.len() > MAX_TARGETS {
        return Err(UnusableMessage::TooLarge);
    }
    Ok((Targets { rooms, except }, options.has_flag(BroadcastFlags::Volatile)))
}

fn names(rooms: &[Room]) -> Vec<String> {
    rooms.iter().map(|room| room.to_string()).collect()
}

fn broadcast(packet: &Packet, (targets, volatile): (Targets, bool)) -> Result<LibraryRequest, UnusableMessage> {
    let Targets { rooms, except } = targets;
    let namespace = packet.ns.to_string();
    let broadcast = Broadcast { namespace, event: event(content(packet)?)?, rooms, except, volatile, ours: None };
    Ok(LibraryRequest::Broadcast(Box::new(broadcast)))
}

/// The event in a packet.
fn content(packet: &Packet) -> Result<&Value, UnusableMessage> {
    match &packet.inner {
        PacketData::Event(value, _) | PacketData::BinaryEvent(value, _) => Ok(value),
        _ => Err(UnusableMessage::Malformed),
    }
}

/// Reads the event of a broadcast. Its sender may not have checked that clients can parse it.
fn event(value: &Value) -> Result<Event, UnusableMessage> {
    let (text, attachments) = match value {
        Value::Str(text, attachments) => (text, attachments),
        // An emitter that uses the MessagePack parser sends bytes.
        Value::Bytes(bytes) => return packed_event(bytes.clone()),
    };
    let attachments: Vec<Bytes> = attachments.iter().flatten().cloned().collect();
    if attachments.len() > MAX_ATTACHMENTS {
        return Err(UnusableMessage::TooLarge);
    }
    if deeper_than(text, MAX_DEPTH) {
        return Err(UnusableMessage::TooLarge);
    }
    validate(text, attachments.len()).map_err(|_| UnusableMessage::Malformed)?;
    let event =
        Event::from_wire(ByteString::from(text.as_str()), attachments).map_err(|_| UnusableMessage::Malformed)?;
    if is_reserved(event.name()) { Err(UnusableMessage::ReservedEvent) } else { Ok(event) }
}

#[cfg(test)]
mod tests {
    use socketioxide_core::Sid;
    use socketioxide_core::adapter::remote_packet::{RequestOut, RequestTypeOut};

    use super::*;
    use crate::event::Args;

    fn everybody() -> BroadcastOptions {
        let mut options = BroadcastOptions::default();
        options.add_flag(BroadcastFlags::Broadcast);
        options
    }

    fn written(what: RequestTypeOut<'_>, options: &BroadcastOptions) -> Vec<u8> {
        rmp_serde::to_vec(&RequestOut::new(Uid::new(), what, options)).unwrap()
    }

    fn said(text: &str, attachments: &[&'static [u8]]) -> Result<Event, UnusableMessage> {
        let attachments = attachments.iter().map(|&bytes| Bytes::from_static(bytes)).collect();
        event(&Value::Str(text.to_owned().into(), Some(attachments)))
    }

    #[test]
    fn who_is_meant_is_as_the_library_selects() {
        let sender = Sid::new();
        let of =
            |options: &BroadcastOptions| targets(Some(options)).map(|(targets, _)| (targets.rooms, targets.except));
        let mut options = everybody();
        assert_eq!(of(&options), Ok((vec![], vec![])));
        options.sid = Some(sender);
        options.rooms.push("a".into());
        options.except.push("b".into());
        assert_eq!(of(&options), Ok((vec!["a".into()], vec!["b".into(), sender.to_string()])));
        assert_eq!(of(&BroadcastOptions::new(sender)), Ok((vec![sender.to_string()], vec![])));
        assert_eq!(of(&BroadcastOptions::default()), Err(UnusableMessage::Malformed), "nobody is not everybody");
        assert_eq!(targets(None).unwrap_err(), UnusableMessage::Malformed);
        options.rooms.extend((0..MAX_TARGETS).map(|n| n.to_string().into()));
        assert_eq!(of(&options), Err(UnusableMessage::TooLarge));
    }

    #[test]
    fn an_event_is_read_only_if_clients_can_read_it() {
        let binary = r#"["bin",{"_placeholder":true,"num":0}]"#;
        assert_eq!(said(binary, &[b"\x00"]).unwrap().attachments(), [&b"\x00"[..]]);
        assert_eq!(said(r#"["e",{"a":1.50}]"#, &[]).unwrap().text(), r#"["e",{"a":1.50}]"#);
        for text in [r#"["e""#, r#"{"a":1}"#, "[]", "", r#"["e"]x"#] {
            assert_eq!(said(text, &[]), Err(UnusableMessage::Malformed), "{text}");
        }
        let deep = format!("[\"e\",{}{}]", "[".repeat(500), "]".repeat(500));
        assert_eq!(said(&deep, &[]), Err(UnusableMessage::TooLarge));
        assert_eq!(said(r#"["connect",1]"#, &[]), Err(UnusableMessage::ReservedEvent));
        let many = vec![&b"x"[..]; MAX_ATTACHMENTS + 1];
        assert_eq!(said(binary, &many), Err(UnusableMessage::TooLarge));
        // The event `["hi", 1, <9>]` as the MessagePack parser encodes it.
        let packed = event(&Value::Bytes(Bytes::from_static(b"\x93\xa2hi\x01\xc4\x01\x09"))).unwrap();
        assert_eq!(packed.text(), r#"["hi",1,{"_placeholder":true,"num":0}]"#);
        assert_eq!(packed.attachments(), [&b"\x09"[..]]);
    }

    #[test]
    fn garbage_is_refused_whatever_it_is() {
        let options = everybody();
        let whole =
            written(RequestTypeOut::Broadcast(&Packet::event("/", Value::Str("[\"e\"]".into(), None))), &options);
        assert!(decode(&whole.clone().into()).is_ok());
        for cut in 0..whole.len() {
            assert_eq!(
                decode(&Bytes::copy_from_slice(&whole[..cut])).unwrap_err(),
                UnusableMessage::Malformed,
                "{cut}"
            );
        }
        assert_eq!(decode(&[&whole[..], b"\x00"].concat().into()).unwrap_err(), UnusableMessage::Malformed);
        assert_eq!(decode(&vec![0x96; MAX_MESSAGE_BYTES + 1].into()).unwrap_err(), UnusableMessage::TooLarge);
        // Lists that claim to be longer than the whole message.
        for bytes in [&b"\x96\xdd\xff\xff\xff\xff"[..], b"\xdd\xff\xff\xff\xff", b"\x96\xdb\xff\xff\xff\xff"] {
            assert_eq!(decode(&Bytes::copy_from_slice(bytes)).unwrap_err(), UnusableMessage::Malformed);
        }
    }

    #[test]
    fn answers_are_what_the_library_reads() {
        let (own, id) = (Uid::new(), Sid::new());
        let request = decode(&written(RequestTypeOut::FetchSockets, &everybody()).into()).unwrap();
        let of = |channel| LibraryAnswers::new(channel, (own, request.node_id, request.id));
        let answers = of("socket.io-request#/chat#").unwrap();
        assert_eq!(&*answers.channel(), format!("socket.io-response#/chat#{}#", request.node_id));
        assert!(of("socket.io#/chat#").is_none());
        let read = |said: &InquiryAnswer<'_>| -> Response<RemoteSocketData> {
            let (request_id, response): (Sid, _) = rmp_serde::from_slice(&answers.write(said).unwrap()).unwrap();
            assert_eq!(request_id, request.id);
            response
        };
        let sockets = read(&InquiryAnswer::Ids(vec![id.as_str(), "not of the library"])).into_fetch_sockets().unwrap();
        assert_eq!(sockets, [RemoteSocketData { id, server_id: own, ns: "/chat".into() }]);
        assert_eq!(read(&InquiryAnswer::Rooms(vec!["r".into()])).into_rooms().unwrap(), ["r".into()].into());
        assert_eq!(read(&InquiryAnswer::Asked(7)).r#type, ResponseType::BroadcastAckCount(7));
        let args = Args::from_wire("[1]".into(), vec![Bytes::from_static(b"x")]);
        let value = Value::Str("[1]".into(), Some([Bytes::from_static(b"x")].into()));
        assert_eq!(
            read(&InquiryAnswer::Acknowledged(id.as_str(), &args)).r#type,
            ResponseType::BroadcastAck((id, Ok(value)))
        );
    }
}
