//! Socket.IO v5 packets in Engine.IO v4 messages. This module reads the packets that clients send as text, and builds
//! outgoing packets for both parsers; `packed` reads the packets of `socket.io-msgpack-parser`.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::deflate::Deflate;
use super::{frame, msgpack_packet};
use crate::engine::MessageContent;
use crate::error::Refusal;
use crate::event::{Args, Event};
use crate::session::AckId;

use crate::protocol::MAX_ATTACHMENTS;

/// The maximum length of a namespace's path in a packet, in bytes.
pub(super) const MAX_NAMESPACE: usize = 256;

/// How a client encodes its packets. Its first packet decides it for the whole connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Parser {
    /// JSON text, and a message for each attachment.
    #[default]
    Json,
    /// `socket.io-msgpack-parser`: one binary message.
    MessagePack,
}

/// Why bytes are not a valid packet. As in Node.js, the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedPacket {
    /// The message is empty, or its type is missing, does not exist, or is sent by servers only.
    #[error("a client may not send a packet of this type")]
    Type,
    /// The number of attachments is missing or malformed, or larger than [`MAX_ATTACHMENTS`].
    #[error("the number of attachments is malformed")]
    Attachments,
    /// The namespace's path is longer than 256 bytes, or a packet in MessagePack has no namespace.
    #[error("the namespace is malformed")]
    Namespace,
    /// An acknowledgement has no number, or a number is too large or not an integer.
    #[error("the number of the acknowledgement is malformed")]
    Ack,
    /// A DISCONNECT packet has a payload.
    #[error("the packet has an unexpected part")]
    Payload,
    /// A binary message in text form is not base64.
    #[error("the attachment is not base64")]
    Base64,
    /// An attachment came without a packet that waits for it, or text came while a packet waits for its attachments, or
    /// a packet was encoded by another parser than the client's first packet.
    #[error("an attachment is out of place")]
    OutOfPlace,
    /// A packet of `socket.io-msgpack-parser` is not MessagePack, or not a map with the members of a packet.
    #[error("the packet is not a map in MessagePack")]
    MessagePack,
    /// A packet and its attachments are together longer than a message may be.
    #[error("the attachments together are longer than the limit")]
    TooLarge,
}

/// An Engine.IO message that a client sent as text.
#[derive(Debug, PartialEq, Eq)]
pub enum EngineMessage<'a> {
    /// A Socket.IO packet, without the digit of the message type.
    Packet(&'a str),
    /// The answer to a ping of this node.
    Pong,
    /// The client closes the connection.
    Close,
    /// An Engine.IO message that the node ignores.
    Noop,
    /// A binary message as base64, from a client that sends text only (`forceBase64`).
    Binary(Vec<u8>),
}

/// Accepts base64 with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl<'a> EngineMessage<'a> {
    /// Reads the type of a message.
    ///
    /// # Errors
    ///
    /// Returns [`MalformedPacket::Type`] for a type that a client of Engine.IO 4 does not send, such as a
    /// ping. Returns [`MalformedPacket::Base64`] for a binary message that is not base64.
    pub fn read(text: &'a str) -> Result<Self, MalformedPacket> {
        match text.as_bytes().first() {
            Some(b'4') => Ok(Self::Packet(&text[1..])),
            Some(b'3') => Ok(Self::Pong),
            Some(b'1') => Ok(Self::Close),
            Some(b'5' | b'6') => Ok(Self::Noop),
            Some(b'b') => BASE64.decode(&text[1..]).map(Self::Binary).map_err(|_| MalformedPacket::Base64),
            _ => Err(MalformedPacket::Type),
        }
    }
}

/// The kind of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketKind {
    /// The client asks to join a namespace.
    Connect,
    /// The client leaves a namespace.
    Disconnect,
    /// An event.
    Event,
    /// The answer to an event that this node sent.
    Ack,
}

/// A client's packet, split into its parts. Its JSON is not parsed.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The kind of the packet.
    pub kind: PacketKind,
    /// The number of binary attachments that follow.
    pub attachments: usize,
    /// The namespace's path.
    pub namespace: &'a str,
    /// The number of the acknowledgement that the client asks for or gives.
    pub ack: Option<AckId>,
    /// The JSON of the packet, which is not validated yet. May be empty.
    pub data: &'a str,
}

impl<'a> Packet<'a> {
    /// Splits a packet.
    ///
    /// # Errors
    /// Returns a [`MalformedPacket`] that says what is wrong.
    pub fn read(text: &'a str) -> Result<Self, MalformedPacket> {
        let (kind, binary) = match text.as_bytes().first() {
            Some(b'0') => (PacketKind::Connect, false),
            Some(b'1') => (PacketKind::Disconnect, false),
            Some(b'2') => (PacketKind::Event, false),
            Some(b'3') => (PacketKind::Ack, false),
            Some(b'5') => (PacketKind::Event, true),
            Some(b'6') => (PacketKind::Ack, true),
            _ => return Err(MalformedPacket::Type),
        };
        let (attachments, rest) = if binary { attachments(&text[1..])? } else { (0, &text[1..]) };
        let (namespace, rest) = namespace(rest)?;
        let (ack, data) = ack(rest)?;
        if kind == PacketKind::Ack && ack.is_none() {
            return Err(MalformedPacket::Ack);
        }
        if kind == PacketKind::Disconnect && !data.is_empty() {
            return Err(MalformedPacket::Payload);
        }
        Ok(Self { kind, attachments, namespace, ack, data })
    }
}

fn attachments(text: &str) -> Result<(usize, &str), MalformedPacket> {
    let (count, rest) = text.split_once('-').ok_or(MalformedPacket::Attachments)?;
    let plain = !count.is_empty() && count.len() <= 4 && count.bytes().all(|byte| byte.is_ascii_digit());
    let count = count.parse().ok().filter(|count| plain && *count <= MAX_ATTACHMENTS);
    Ok((count.ok_or(MalformedPacket::Attachments)?, rest))
}

fn namespace(text: &str) -> Result<(&str, &str), MalformedPacket> {
    if !text.starts_with('/') {
        return Ok(("/", text));
    }
    // Like on the Node.js server, the namespace is the rest of the packet if there is no comma.
    let (name, rest) = text.split_once(',').unwrap_or((text, ""));
    if name.len() > MAX_NAMESPACE {
        return Err(MalformedPacket::Namespace);
    }
    Ok((path(name), rest))
}

/// Returns the namespace without the query that clients of protocol version 3 append to it.
pub(super) fn path(namespace: &str) -> &str {
    namespace.split_once('?').map_or(namespace, |(path, _)| path)
}

fn ack(text: &str) -> Result<(Option<AckId>, &str), MalformedPacket> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Ok((None, text));
    }
    let id = text[..digits].parse().map_err(|_| MalformedPacket::Ack)?;
    Ok((Some(id), &text[digits..]))
}

/// A packet whose attachments have not all arrived.
#[derive(Debug)]
pub struct Assembly {
    /// The packet's namespace.
    pub namespace: ByteString,
    /// The kind of the packet.
    pub kind: PacketKind,
    /// The number of the acknowledgement that the client asks for or gives.
    pub ack: Option<AckId>,
    /// The JSON of the packet.
    pub data: ByteString,
    /// The attachments that have arrived.
    pub attachments: Vec<Bytes>,
    missing: usize,
    size_bytes: usize,
}

impl Assembly {
    /// Begins to collect the attachments of a packet. It must have at least one.
    pub fn of(packet: &Packet<'_>) -> Self {
        Self {
            namespace: packet.namespace.into(),
            kind: packet.kind,
            ack: packet.ack,
            data: packet.data.into(),
            attachments: Vec::new(),
            missing: packet.attachments,
            size_bytes: packet.data.len(),
        }
    }

    /// Adds an attachment. Returns true if it was the last one.
    ///
    /// # Errors
    ///
    /// Returns [`MalformedPacket::TooLarge`] if the packet and its attachments are longer than `max_payload`
    /// bytes together.
    pub fn take(&mut self, attachment: &[u8], max_payload: usize) -> Result<bool, MalformedPacket> {
        self.size_bytes += attachment.len();
        if self.size_bytes > max_payload {
            return Err(MalformedPacket::TooLarge);
        }
        self.attachments.push(Bytes::copy_from_slice(attachment));
        self.missing -= 1;
        Ok(self.missing == 0)
    }
}

// === outgoing packets ===

/// The Engine.IO ping.
pub const PING: Bytes = Bytes::from_static(b"\x81\x012");

/// The packet that tells a polling client that its session is closed.
pub const CLOSE: Bytes = Bytes::from_static(CLOSE_FRAME);

const CLOSE_FRAME: &[u8] = b"\x81\x011";

/// Whether a framed packet is [`CLOSE`].
pub fn is_close(frame: &[u8]) -> bool {
    frame == CLOSE_FRAME
}

/// A packet without meaning, which ends a poll.
pub const NOOP: Bytes = Bytes::from_static(b"\x81\x016");

/// Returns the frames of an event in a namespace: its text, and then its attachments.
pub fn event(parser: Parser, namespace: &str, event: &Event, deflate: Option<&Deflate>) -> Bytes {
    frames(parser, ('2', '5'), namespace, None, event.text(), event.attachments(), deflate)
}

/// Returns the frames of an event that the client must acknowledge with the number `id`.
pub fn question(parser: Parser, namespace: &str, id: AckId, event: &Event, deflate: Option<&Deflate>) -> Bytes {
    frames(parser, ('2', '5'), namespace, Some(id), event.text(), event.attachments(), deflate)
}

/// Returns the frames of an acknowledgement.
pub fn acknowledgement(parser: Parser, namespace: &str, id: AckId, args: &Args, deflate: Option<&Deflate>) -> Bytes {
    frames(parser, ('3', '6'), namespace, Some(id), args.text(), args.attachments(), deflate)
}

/// Frames a message of a protocol other than Socket.IO.
pub fn message(content: MessageContent<'_>) -> Bytes {
    let mut out = BytesMut::new();
    match content {
        MessageContent::Text(text) => frame::put_message(&mut out, true, &[b"4", text.as_bytes()], None),
        MessageContent::Binary(bytes) => frame::put_message(&mut out, false, &[bytes], None),
    }
    out.freeze()
}

/// Returns a CONNECT packet, which tells the client its id, and the secret with which it can recover its session.
pub fn connected(parser: Parser, namespace: &str, id: &str, pid: Option<&str>) -> Bytes {
    let mut data = String::with_capacity(64 + id.len());
    data.push_str(r#"{"sid":""#);
    data.push_str(id);
    if let Some(pid) = pid {
        data.push_str(r#"","pid":""#);
        data.push_str(pid);
    }
    data.push_str(r#""}"#);
    frames(parser, ('0', '0'), namespace, None, &data, &[], None)
}

/// Returns a DISCONNECT packet for a namespace.
pub fn disconnected(parser: Parser, namespace: &str) -> Bytes {
    frames(parser, ('1', '1'), namespace, None, "", &[], None)
}

/// CONNECT_ERROR. `err.message` is the same text as on the other engine; `err.data` is for programs.
pub fn refused(parser: Parser, namespace: &str, refusal: &Refusal) -> Bytes {
    let mut data = serde_json::json!({ "code": refusal.shown_code(), "message": refusal.message });
    if let Some(wait) = refusal.retry_after {
        data["retryAfterMs"] = crate::time::millis(wait).into();
    }
    let error = serde_json::json!({ "message": refusal.to_string(), "data": data });
    frames(parser, ('4', '4'), namespace, None, &error.to_string(), &[], None)
}

/// Returns CONNECT_ERROR for a namespace that does not exist, in the words of the Node.js server.
pub fn invalid_namespace(parser: Parser, namespace: &str) -> Bytes {
    frames(parser, ('4', '4'), namespace, None, r#"{"message":"Invalid namespace"}"#, &[], None)
}

/// The first message on a connection. Only the session id differs between connections.
pub struct OpenPacket(String);

impl OpenPacket {
    /// Builds the message with the heartbeat's times and the maximum length of a client's message in bytes.
    pub fn new(ping_interval_ms: u128, ping_timeout_ms: u128, max_payload: usize) -> Self {
        Self(format!(
            r#"],"pingInterval":{ping_interval_ms},"pingTimeout":{ping_timeout_ms},"maxPayload":{max_payload}}}"#
        ))
    }

    /// Writes the message as a frame, for a connection that opened with a WebSocket.
    pub fn put(&self, out: &mut BytesMut, sid: &str) {
        let parts = [br#"0{"sid":""#, sid.as_bytes(), br#"","upgrades":["#, self.0.as_bytes()];
        frame::put_message(out, true, &parts, None);
    }

    /// Returns the message as text, for a polling client.
    pub fn polled(&self, sid: &str) -> String {
        [r#"0{"sid":""#, sid, r#"","upgrades":["websocket""#, &self.0].concat()
    }
}

/// Builds a packet's frames. `types` has the packet type without and with attachments. The result is empty if the
/// client uses MessagePack and the data is not JSON, because such data cannot be converted.
#[expect(clippy::too_many_arguments, reason = "the parts of a packet, which every caller has at hand")]
fn frames(
    parser: Parser,
    types: (char, char),
    namespace: &str,
    id: Option<AckId>,
    data: &str,
    attachments: &[Bytes],
    deflate: Option<&Deflate>,
) -> Bytes {
    if parser == Parser::MessagePack {
        return msgpack_packet::frame(types.0 as u8 - b'0', namespace, id, data, attachments, deflate);
    }
    let mut head = String::with_capacity(8 + namespace.len());
    head.push('4');
    if attachments.is_empty() {
        head.push(types.0);
    } else {
        head.push(types.1);
        head.push_str(&attachments.len().to_string());
        head.push('-');
    }
    if namespace != "/" {
        head.push_str(namespace);
        head.push(',');
    }
    if let Some(id) = id {
        head.push_str(&id.to_string());
    }
    let text = head.len() + data.len();
    let binary: usize = attachments.iter().map(|bytes| frame::framed_length(bytes.len())).sum();
    let mut out = BytesMut::with_capacity(frame::framed_length(text) + binary);
    frame::put_message(&mut out, true, &[head.as_bytes(), data.as_bytes()], deflate);
    attachments.iter().for_each(|bytes| frame::put_message(&mut out, false, &[bytes], deflate));
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Code;

    fn read(text: &str) -> Result<Packet<'_>, MalformedPacket> {
        Packet::read(text)
    }

    #[test]
    fn packets_of_the_official_client_are_split() {
        let packet = |kind, attachments, namespace, ack, data| Packet { kind, attachments, namespace, ack, data };
        for (text, wanted) in [
            ("0", packet(PacketKind::Connect, 0, "/", None, "")),
            (r#"0/admin,{"a":1}"#, packet(PacketKind::Connect, 0, "/admin", None, r#"{"a":1}"#)),
            ("0/admin", packet(PacketKind::Connect, 0, "/admin", None, "")),
            ("0/admin?q=1,", packet(PacketKind::Connect, 0, "/admin", None, "")),
            ("1/admin,", packet(PacketKind::Disconnect, 0, "/admin", None, "")),
            (r#"2["e",1]"#, packet(PacketKind::Event, 0, "/", None, r#"["e",1]"#)),
            (r#"2/a,12["e"]"#, packet(PacketKind::Event, 0, "/a", Some(12), r#"["e"]"#)),
            ("3/a,0[]", packet(PacketKind::Ack, 0, "/a", Some(0), "[]")),
            (r#"52-/a,7["e",{}]"#, packet(PacketKind::Event, 2, "/a", Some(7), r#"["e",{}]"#)),
            (r#"50-["e"]"#, packet(PacketKind::Event, 0, "/", None, r#"["e"]"#)),
        ] {
            assert_eq!(read(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_no_client_sends_is_refused() {
        for text in ["", "4", "7", "x", r#"5["e"]"#, "5-[]", "5x-[]", "5+1-[]", "59999-[]", "3[]", "2-1"] {
            let outcome = read(text);
            assert!(outcome.is_err() || text == "2-1", "{text}");
        }
        assert_eq!(read("299999999999999999999[]"), Err(MalformedPacket::Ack));
        assert_eq!(read(&format!("0/{},", "x".repeat(MAX_NAMESPACE))), Err(MalformedPacket::Namespace));
        assert_eq!(read("1{}"), Err(MalformedPacket::Payload));
        assert_eq!(EngineMessage::read("2"), Err(MalformedPacket::Type));
        assert_eq!(EngineMessage::read("bA"), Err(MalformedPacket::Base64));
        assert_eq!(EngineMessage::read("bAP8="), Ok(EngineMessage::Binary(vec![0, 255])));
        assert_eq!(EngineMessage::read("bAP8"), Ok(EngineMessage::Binary(vec![0, 255])));
        assert_eq!(EngineMessage::read(""), Err(MalformedPacket::Type));
    }

    #[test]
    fn attachments_are_bounded_in_size() {
        let mut assembly = Assembly::of(&read("52-[]").unwrap());
        assert_eq!(assembly.take(&[1; 8], 16), Ok(false));
        assert_eq!(assembly.take(&[1; 8], 16), Err(MalformedPacket::TooLarge));
        let mut assembly = Assembly::of(&read("51-[]").unwrap());
        assert_eq!(assembly.take(&[1, 2], 16), Ok(true));
        assert_eq!(assembly.attachments, [Bytes::from_static(&[1, 2])]);
    }

    #[test]
    fn frames_are_those_of_the_protocol() {
        let plain = Event::encode("e", [1]).unwrap();
        assert_eq!(&event(Parser::Json, "/", &plain, None)[..], b"\x81\x0942[\"e\",1]");
        assert_eq!(&event(Parser::Json, "/a", &plain, None)[..], b"\x81\x0c42/a,[\"e\",1]");
        let binary = plain.with_attachments(vec![Bytes::from_static(b"\x01")]);
        assert_eq!(&event(Parser::Json, "/", &binary, None)[..], b"\x81\x0b451-[\"e\",1]\x82\x01\x01");
        assert_eq!(
            &acknowledgement(Parser::Json, "/a", 7, &Args::encode([true]).unwrap(), None)[..],
            b"\x81\x0c43/a,7[true]"
        );
        assert_eq!(&disconnected(Parser::Json, "/")[..], b"\x81\x0241");
        assert_eq!(&connected(Parser::Json, "/a", "x", None)[..], b"\x81\x1040/a,{\"sid\":\"x\"}");
        assert_eq!(&connected(Parser::Json, "/", "x", Some("y"))[2..], br#"40{"sid":"x","pid":"y"}"#);
        let mut open = BytesMut::new();
        OpenPacket::new(25_000, 20_000, 1_000_000).put(&mut open, "x");
        let wanted = br#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
        assert_eq!((open[1] as usize, &open[2..]), (wanted.len(), &wanted[..]));
        let refusal = Refusal::new(Code::Overloaded, "x").retry_after(std::time::Duration::from_millis(1500));
        let wanted =
            br#"44/a,{"message":"OVERLOADED: x","data":{"code":"OVERLOADED","message":"x","retryAfterMs":1500}}"#;
        assert_eq!(&refused(Parser::Json, "/a", &refusal)[2..], wanted);
    }

    proptest! {
        #[test]
        fn any_text_is_split_or_refused(text in ".{0,40}") {
            if let Ok(EngineMessage::Packet(text)) = EngineMessage::read(&text) {
                let _ = read(text);
            }
            let _ = read(&text);
        }

        #[test]
        fn what_we_send_could_be_read(name in "[a-z]{1,8}", namespace in "/[a-z]{0,8}", id in 0i64..) {
            let event = Event::encode(&name, [1]).unwrap();
            let bytes = frames(Parser::Json, ('2', '5'), &namespace, Some(id), event.text(), &[], None);
            let text = std::str::from_utf8(&bytes[2..]).unwrap();
            let Ok(EngineMessage::Packet(text)) = EngineMessage::read(text) else { panic!() };
            let packet = read(text).unwrap();
            prop_assert_eq!((packet.namespace, packet.ack, packet.data), (&*namespace, Some(id), &**event.text()));
        }
    }
}
