//! Reads the requests that socketioxide's servers and the emitter for Rust send to every server, in the protocol of
//! the library's Redis adapter.
//!
//! Broadcasts and commands are handled like those of the emitter for JavaScript. They do not go through the library's
//! adapter, which knows no contracts. Questions go to that adapter, if this node has one. Otherwise this node answers
//! that it has nothing, so that no server waits for it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize as _;
use socketioxide_core::adapter::remote_packet::{RequestIn, RequestTypeIn, Response, ResponseType};
use socketioxide_core::adapter::{BroadcastFlags, BroadcastOptions, Room};
use socketioxide_core::packet::{Packet, PacketData};
use socketioxide_core::{Uid, Value};
use socketioxide_redis::drivers::ChanItem;
use tokio::sync::mpsc;

use crate::cluster::socketio::{
    Act, Broadcast, MAX_ATTACHMENTS, MAX_DEPTH, MAX_MESSAGE_BYTES, MAX_TARGETS, Targets, Unusable, is_reserved,
    packed_event,
};
use crate::cluster::{Cluster, Foreign, PubSub, Requests, Wire};
use crate::engine::validate::validate;
use crate::event::Event;
use crate::limits::deeper_than;
use crate::redis::{Kind, Message};

/// The part of a request channel's name between the prefix and the namespace.
const REQUEST: &str = "-request#";

/// Reads the library's requests, and has its questions answered.
pub struct LibraryRequests {
    pubsub: Arc<PubSub>,
    /// The id of this server in answers. It is the id of the library's adapter, if that runs.
    own: OnceLock<Uid>,
    /// The channels that the library's adapter has subscribed to, with the queue of each.
    streams: Mutex<HashMap<String, mpsc::Sender<ChanItem>>>,
}

impl LibraryRequests {
    /// Begins to read requests. Must be called before the wire receives. Returns `None` on a node without a cluster.
    pub fn start(cluster: &Cluster) -> Option<Arc<Self>> {
        let (pubsub, wire) = (cluster.pubsub()?.clone(), cluster.wire()?);
        let requests = Arc::new(Self { pubsub, own: OnceLock::new(), streams: Mutex::default() });
        wire.read_requests_by(requests.clone());
        Some(requests)
    }

    /// Whether requests come on this channel.
    pub(super) fn are_on(channel: &str) -> bool {
        channel.contains(REQUEST)
    }

    /// Sets the id that the library's adapter uses for this server.
    pub(super) fn name(&self, own: Uid) {
        let _ = self.own.set(own);
    }

    /// Subscribes the library's adapter to the questions of a channel. At most `buffer` questions wait.
    pub(super) fn questions(&self, wire: &Wire, channel: String, buffer: usize) -> mpsc::Receiver<ChanItem> {
        let (stream, questions) = mpsc::channel(buffer);
        wire.hear_requests(&channel.as_str().into());
        self.streams.lock().expect("no panic while held").insert(channel, stream);
        questions
    }

    /// Ends the subscription of the library's adapter.
    pub(super) fn forget(&self, channel: &str) {
        self.streams.lock().expect("no panic while held").remove(channel);
    }

    /// Passes a question to the library's adapter. Returns false if the adapter does not take it.
    fn hand_over(&self, message: &Message) -> bool {
        let streams = self.streams.lock().expect("no panic while held");
        let question = || (message.channel.to_string(), message.body.to_vec());
        streams.get(&*message.channel).is_some_and(|stream| stream.try_send(question()).is_ok())
    }

    fn answer(&self, message: &Message, request: &RequestIn) {
        let own = *self.own.get_or_init(Uid::new);
        let Some((channel, answer)) = nothing(&message.channel, request, own) else { return };
        // Servers subscribe to answers in the same way as to requests.
        let kind = if message.kind == Kind::Sharded { Kind::Sharded } else { Kind::Plain };
        if let Err(why) = self.pubsub.send_as(kind, &channel.into(), answer) {
            tracing::debug!(reason = why.as_str(), "an answer to another server was not carried");
        }
    }
}

impl Requests for LibraryRequests {
    fn read(&self, message: &Message) -> Result<Foreign, Unusable> {
        let request = decode(&message.body)?;
        if self.own.get() == Some(&request.node_id) {
            return Ok(Foreign::Own);
        }
        let options = request.opts.as_ref();
        match &request.r#type {
            RequestTypeIn::Broadcast(packet) => broadcast(packet, targets(options)?),
            RequestTypeIn::DisconnectSockets => act(options, Act::Disconnect { close: false }),
            RequestTypeIn::AddSockets(rooms) => act(options, Act::Join(names(rooms))),
            RequestTypeIn::DelSockets(rooms) => act(options, Act::Leave(names(rooms))),
            RequestTypeIn::AllRooms | RequestTypeIn::FetchSockets | RequestTypeIn::BroadcastWithAck(_) => {
                if !self.hand_over(message) {
                    self.answer(message, &request);
                }
                Ok(Foreign::Question)
            }
            _ => Err(Unusable::UnknownType),
        }
    }
}

fn decode(body: &Bytes) -> Result<RequestIn, Unusable> {
    if body.len() > MAX_MESSAGE_BYTES {
        return Err(Unusable::TooLarge);
    }
    let mut reader = rmp_serde::Deserializer::new(&body[..]);
    let request = RequestIn::deserialize(&mut reader).map_err(|_| Unusable::Malformed)?;
    if reader.get_ref().is_empty() { Ok(request) } else { Err(Unusable::Malformed) }
}

fn act(options: Option<&BroadcastOptions>, act: Act) -> Result<Foreign, Unusable> {
    let (targets, _) = targets(options)?;
    let rooms = match &act {
        Act::Join(rooms) | Act::Leave(rooms) => rooms.len(),
        Act::Disconnect { .. } => 0,
    };
    if rooms > MAX_TARGETS { Err(Unusable::TooLarge) } else { Ok(Foreign::Act(targets, act)) }
}

/// The clients that a request is meant for, and whether its event is volatile.
fn targets(options: Option<&BroadcastOptions>) -> Result<(Targets, bool), Unusable> {
    let options = options.ok_or(Unusable::Malformed)?;
    let (mut rooms, mut except) = (names(&options.rooms), names(&options.except));
    let sender = options.sid.map(|sid| sid.to_string());
    // Select clients as the library's adapter does. With the flag `Broadcast`, the sender is left out. Without the
    // flag and without rooms, only the sender is meant.
    if options.has_flag(BroadcastFlags::Broadcast) {
        except.extend(sender);
    } else if rooms.is_empty() {
        // With an empty list, the event would go to every client.
        rooms.push(sender.ok_or(Unusable::Malformed)?);
    }
    if rooms.len() + except.len() > MAX_TARGETS {
        return Err(Unusable::TooLarge);
    }
    Ok((Targets { rooms, except }, options.has_flag(BroadcastFlags::Volatile)))
}

fn names(rooms: &[Room]) -> Vec<String> {
    rooms.iter().map(|room| room.to_string()).collect()
}

fn broadcast(packet: &Packet, (targets, volatile): (Targets, bool)) -> Result<Foreign, Unusable> {
    let (PacketData::Event(value, _) | PacketData::BinaryEvent(value, _)) = &packet.inner else {
        return Err(Unusable::Malformed);
    };
    let Targets { rooms, except } = targets;
    let namespace = packet.ns.to_string();
    let broadcast = Broadcast { namespace, event: event(value)?, rooms, except, volatile, ours: None };
    Ok(Foreign::Broadcast(Box::new(broadcast)))
}

/// Reads the event of a broadcast. Its sender may not have checked that clients can parse it.
fn event(value: &Value) -> Result<Event, Unusable> {
    let (text, attachments) = match value {
        Value::Str(text, attachments) => (text, attachments),
        // An emitter that uses the MessagePack parser sends bytes.
        Value::Bytes(bytes) => return packed_event(bytes.clone()),
    };
    let attachments: Vec<Bytes> = attachments.iter().flatten().cloned().collect();
    if attachments.len() > MAX_ATTACHMENTS {
        return Err(Unusable::TooLarge);
    }
    if deeper_than(text, MAX_DEPTH) {
        return Err(Unusable::TooLarge);
    }
    validate(text, attachments.len()).map_err(|_| Unusable::Malformed)?;
    let event = Event::from_wire(ByteString::from(text.as_str()), attachments).map_err(|_| Unusable::Malformed)?;
    if is_reserved(event.name()) { Err(Unusable::ReservedEvent) } else { Ok(event) }
}

/// The channel for the answer to a question, and an answer which says that this server has nothing.
fn nothing(channel: &str, request: &RequestIn, own: Uid) -> Option<(String, Bytes)> {
    let r#type = match request.r#type {
        RequestTypeIn::AllRooms => ResponseType::<()>::AllRooms(HashSet::new()),
        RequestTypeIn::FetchSockets => ResponseType::FetchSockets(Vec::new()),
        RequestTypeIn::BroadcastWithAck(_) => ResponseType::BroadcastAckCount(0),
        _ => return None,
    };
    let (prefix, rest) = channel.rsplit_once(REQUEST)?;
    let namespace = rest.split('#').next()?;
    let answer = rmp_serde::to_vec(&(request.id, Response { node_id: own, r#type })).ok()?;
    Some((format!("{prefix}-response#{namespace}#{}#", request.node_id), answer.into()))
}

#[cfg(test)]
mod tests {
    use socketioxide_core::Sid;
    use socketioxide_core::adapter::remote_packet::{RequestOut, RequestTypeOut};

    use super::*;

    fn everybody() -> BroadcastOptions {
        let mut options = BroadcastOptions::default();
        options.add_flag(BroadcastFlags::Broadcast);
        options
    }

    fn written(what: RequestTypeOut<'_>, options: &BroadcastOptions) -> Vec<u8> {
        rmp_serde::to_vec(&RequestOut::new(Uid::new(), what, options)).unwrap()
    }

    fn said(text: &str, attachments: &[&'static [u8]]) -> Result<Event, Unusable> {
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
        assert_eq!(of(&BroadcastOptions::default()), Err(Unusable::Malformed), "nobody is not everybody");
        assert_eq!(targets(None).unwrap_err(), Unusable::Malformed);
        options.rooms.extend((0..MAX_TARGETS).map(|n| n.to_string().into()));
        assert_eq!(of(&options), Err(Unusable::TooLarge));
    }

    #[test]
    fn an_event_is_read_only_if_clients_can_read_it() {
        let binary = r#"["bin",{"_placeholder":true,"num":0}]"#;
        assert_eq!(said(binary, &[b"\x00"]).unwrap().attachments(), [&b"\x00"[..]]);
        assert_eq!(said(r#"["e",{"a":1.50}]"#, &[]).unwrap().text(), r#"["e",{"a":1.50}]"#);
        for text in [r#"["e""#, r#"{"a":1}"#, "[]", "", r#"["e"]x"#] {
            assert_eq!(said(text, &[]), Err(Unusable::Malformed), "{text}");
        }
        let deep = format!("[\"e\",{}{}]", "[".repeat(500), "]".repeat(500));
        assert_eq!(said(&deep, &[]), Err(Unusable::TooLarge));
        assert_eq!(said(r#"["connect",1]"#, &[]), Err(Unusable::ReservedEvent));
        let many = vec![&b"x"[..]; MAX_ATTACHMENTS + 1];
        assert_eq!(said(binary, &many), Err(Unusable::TooLarge));
        // `["hi", 1, <9>]` as the MessagePack parser encodes it.
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
            assert_eq!(decode(&Bytes::copy_from_slice(&whole[..cut])).unwrap_err(), Unusable::Malformed, "{cut}");
        }
        assert_eq!(decode(&[&whole[..], b"\x00"].concat().into()).unwrap_err(), Unusable::Malformed);
        assert_eq!(decode(&vec![0x96; MAX_MESSAGE_BYTES + 1].into()).unwrap_err(), Unusable::TooLarge);
        // These lists claim to be longer than the whole message.
        for bytes in [&b"\x96\xdd\xff\xff\xff\xff"[..], b"\xdd\xff\xff\xff\xff", b"\x96\xdb\xff\xff\xff\xff"] {
            assert_eq!(decode(&Bytes::copy_from_slice(bytes)).unwrap_err(), Unusable::Malformed);
        }
    }

    #[test]
    fn a_question_is_answered_with_nothing() {
        let own = Uid::new();
        let request = decode(&written(RequestTypeOut::FetchSockets, &everybody()).into()).unwrap();
        let (channel, answer) = nothing("socket.io-request#/chat#", &request, own).unwrap();
        assert_eq!(channel, format!("socket.io-response#/chat#{}#", request.node_id));
        let (id, response): (Sid, Response<Sid>) = rmp_serde::from_slice(&answer).unwrap();
        assert_eq!((id, response.node_id), (request.id, own));
        assert_eq!(response.into_fetch_sockets().unwrap(), []);
        let act = decode(&written(RequestTypeOut::DisconnectSockets, &everybody()).into()).unwrap();
        assert!(nothing("socket.io-request#/#", &act, own).is_none());
    }
}
