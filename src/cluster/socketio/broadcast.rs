//! A broadcast: `[uid, packet, opts]` in MessagePack. Broadcasts of roomcast nodes have a fourth element, which only
//! roomcast nodes read.
//!
//! The fourth element of the list is binary. Node's adapter reads the first three elements and ignores the rest.

use bytes::{BufMut, Bytes, BytesMut};

use super::{MAX_MESSAGE_BYTES, MAX_TARGETS, UnusableMessage};
use crate::event::Event;
use crate::msgpack::{Json, MsgpackReader, Token, put_binary, put_json, put_names, put_text};
use crate::protocol::RESERVED_EVENTS;

/// The packet type of an event.
const EVENT: u64 = 2;

/// The packet type that old emitters write for an event with binary arguments. Such a packet contains the binary
/// arguments in its data, like a packet of type [`EVENT`].
const BINARY_EVENT: u64 = 5;

/// A message of which only the sender has been read.
#[derive(Debug)]
pub struct ReceivedBroadcast {
    /// The sender: six characters for a server, or `emitter`.
    pub uid: String,
    items: usize,
    rest: Bytes,
}

/// An event from another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast {
    /// The namespace's path.
    pub namespace: String,
    /// The event that clients get from the broadcast.
    pub event: Event,
    /// Rooms and socket ids that receive the event. Empty means every client.
    pub rooms: Vec<String>,
    /// Rooms and socket ids that do not receive the event.
    pub except: Vec<String>,
    /// True if clients that are not writable now do not receive the event.
    pub volatile: bool,
    /// The fourth element of the message, if the sender is a roomcast node.
    pub ours: Option<Bytes>,
}

/// Reads a broadcast of a server or emitter.
///
/// # Errors
/// Returns why the broadcast is ignored. Never panics, and never takes more memory than a small multiple of the
/// message.
pub fn decode(bytes: Bytes) -> Result<Broadcast, UnusableMessage> {
    ReceivedBroadcast::open(bytes)?.read()
}

impl ReceivedBroadcast {
    /// Reads only the sender of a broadcast.
    ///
    /// # Errors
    /// Returns why the message is ignored.
    pub fn open(bytes: Bytes) -> Result<Self, UnusableMessage> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(UnusableMessage::TooLarge);
        }
        let mut reader = MsgpackReader::new(bytes);
        let items = reader.array_head()?;
        if items < 3 {
            return Err(UnusableMessage::Malformed);
        }
        let uid = reader.text()?;
        Ok(Self { uid, items, rest: reader.rest() })
    }

    /// Reads the rest of the broadcast after the sender.
    ///
    /// # Errors
    /// Returns why the message is ignored.
    pub fn read(self) -> Result<Broadcast, UnusableMessage> {
        let mut reader = MsgpackReader::new(self.rest);
        let (event, namespace) = packet(&mut reader)?;
        let BroadcastOptions { rooms, except, volatile, .. } = options(&mut reader)?;
        let mut broadcast = Broadcast { namespace, event, rooms, except, volatile, ours: None };
        for at in 3..self.items {
            if at == 3 && reader.is_binary() {
                let Token::Bin(bytes) = reader.token()? else { return Err(UnusableMessage::Malformed) };
                broadcast.ours = Some(bytes);
            } else {
                reader.skip()?;
            }
        }
        if !reader.is_at_end() {
            return Err(UnusableMessage::Malformed);
        }
        Ok(broadcast)
    }
}

/// Reads `{type, data, nsp}`, in any order. Returns the event and its namespace.
pub(super) fn packet(reader: &mut MsgpackReader) -> Result<(Event, String), UnusableMessage> {
    let Token::Map(members) = reader.token()? else { return Err(UnusableMessage::Malformed) };
    let (mut event, mut namespace) = (None, None);
    for _ in 0..members {
        match reader.key()?.as_str() {
            "data" => event = Some(data(reader)?),
            "nsp" => namespace = reader.optional_text()?,
            "type" => match reader.token()? {
                Token::Uint(EVENT | BINARY_EVENT) => {}
                _ => return Err(UnusableMessage::Malformed),
            },
            _ => reader.skip()?,
        }
    }
    Ok((event.ok_or(UnusableMessage::Malformed)?, namespace.unwrap_or_else(|| "/".to_owned())))
}

/// Reads an event from a list in MessagePack: the name and then the arguments.
///
/// # Errors
/// Returns why the event is ignored.
pub fn packed_event(bytes: Bytes) -> Result<Event, UnusableMessage> {
    let mut reader = MsgpackReader::new(bytes);
    let event = data(&mut reader)?;
    if reader.is_at_end() { Ok(event) } else { Err(UnusableMessage::Malformed) }
}

/// Whether Socket.IO's clients and servers reserve the name for their own events.
pub fn is_reserved(event: &str) -> bool {
    RESERVED_EVENTS.contains(&event)
}

fn data(reader: &mut MsgpackReader) -> Result<Event, UnusableMessage> {
    let items = reader.array_head()?;
    if items == 0 {
        return Err(UnusableMessage::Malformed);
    }
    let name = reader.text()?;
    if is_reserved(&name) {
        return Err(UnusableMessage::ReservedEvent);
    }
    let mut out = Json::default();
    out.raw("[");
    out.string(&name);
    for _ in 1..items {
        out.raw(",");
        reader.json(&mut out, 1)?;
    }
    out.raw("]");
    let (text, attachments) = out.finish();
    Event::from_wire(text, attachments).map_err(|_| UnusableMessage::Malformed)
}

/// The recipients of a broadcast, and its flags.
#[derive(Default)]
pub(super) struct BroadcastOptions {
    pub(super) rooms: Vec<String>,
    pub(super) except: Vec<String>,
    pub(super) volatile: bool,
    /// How long to wait for acknowledgements, in milliseconds.
    pub(super) timeout: Option<u64>,
}

/// Reads `{rooms, except, flags}`, in any order.
pub(super) fn options(reader: &mut MsgpackReader) -> Result<BroadcastOptions, UnusableMessage> {
    let Token::Map(members) = reader.token()? else { return Err(UnusableMessage::Malformed) };
    let mut options = BroadcastOptions::default();
    for _ in 0..members {
        match reader.key()?.as_str() {
            "rooms" => options.rooms = names(reader)?,
            "except" => options.except = names(reader)?,
            "flags" => options.flags(reader)?,
            _ => reader.skip()?,
        }
    }
    if options.rooms.len() + options.except.len() > MAX_TARGETS {
        return Err(UnusableMessage::TooLarge);
    }
    Ok(options)
}

/// Reads a list of rooms. Numbers become text. Ports of the emitter write `""` or `null` for an empty list.
fn names(reader: &mut MsgpackReader) -> Result<Vec<String>, UnusableMessage> {
    let count = match reader.token()? {
        Token::Array(count) => count,
        token if token.is_none() => 0,
        _ => return Err(UnusableMessage::Malformed),
    };
    if count > MAX_TARGETS {
        return Err(UnusableMessage::TooLarge);
    }
    (0..count)
        .map(|_| match reader.token()? {
            Token::Str(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Token::Uint(number) => Ok(number.to_string()),
            Token::Int(number) => Ok(number.to_string()),
            Token::Float(number) => Ok(number.to_string()),
            _ => Err(UnusableMessage::Malformed),
        })
        .collect()
}

impl BroadcastOptions {
    fn flags(&mut self, reader: &mut MsgpackReader) -> Result<(), UnusableMessage> {
        let members = match reader.token()? {
            Token::Map(members) => members,
            token if token.is_none() => 0,
            _ => return Err(UnusableMessage::Malformed),
        };
        for _ in 0..members {
            match reader.key()?.as_str() {
                "volatile" => self.volatile = reader.flag()?,
                "timeout" => {
                    self.timeout = match reader.token()? {
                        Token::Uint(milliseconds) => Some(milliseconds),
                        // JavaScript may write the time as a float. The cast turns a negative number and NaN into 0.
                        Token::Float(milliseconds) => Some(milliseconds as u64),
                        _ => None,
                    }
                }
                _ => reader.skip()?,
            }
        }
        Ok(())
    }
}

/// Writes a broadcast in the format of Node's adapter, followed by roomcast's own fourth element if `broadcast.ours` is
/// set.
///
/// # Errors
/// [`UnusableMessage::Malformed`] if the event's text is not JSON. Other clients could not read it either.
pub fn encode(uid: &str, broadcast: &Broadcast) -> Result<Bytes, UnusableMessage> {
    match &broadcast.ours {
        Some(ours) => Ok(close(encode_open(uid, broadcast, 4)?, ours)),
        None => Ok(encode_open(uid, broadcast, 3)?.freeze()),
    }
}

/// Writes a broadcast without roomcast's own fourth element, which [`close`] adds.
///
/// # Errors
/// Returns the same errors as [`encode`].
pub fn open(uid: &str, broadcast: &Broadcast) -> Result<BytesMut, UnusableMessage> {
    encode_open(uid, broadcast, 4)
}

/// Adds roomcast's own fourth element to a broadcast that [`open`] has written.
pub fn close(mut open: BytesMut, ours: &[u8]) -> Bytes {
    put_binary(&mut open, ours);
    open.freeze()
}

fn encode_open(uid: &str, broadcast: &Broadcast, items: u8) -> Result<BytesMut, UnusableMessage> {
    let event = &broadcast.event;
    let mut out = BytesMut::with_capacity(256 + event.size_bytes());
    out.put_u8(0x90 | items);
    put_text(&mut out, uid);
    out.put_u8(0x83);
    put_text(&mut out, "type");
    out.put_u8(0x02);
    put_text(&mut out, "data");
    put_json(&mut out, event.text(), event.attachments())?;
    put_text(&mut out, "nsp");
    put_text(&mut out, &broadcast.namespace);
    out.put_u8(0x83);
    put_text(&mut out, "rooms");
    put_names(&mut out, &broadcast.rooms);
    put_text(&mut out, "except");
    put_names(&mut out, &broadcast.except);
    put_text(&mut out, "flags");
    if broadcast.volatile {
        out.put_u8(0x81);
        put_text(&mut out, "volatile");
        out.put_u8(0xc3);
    } else {
        out.put_u8(0x80);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Captured from Node's emitter: `emitter.to("lobby").emit("ev", "x")`.
    const CAPTURED: &[u8] =
        b"\x93\xa7emitter\x83\xa4type\x02\xa4data\x92\xa2ev\xa1x\xa3nsp\xa1/\x83\xa5rooms\x91\xa5lobby\xa5flags\x80\xa6except\x90";

    fn read(bytes: &'static [u8]) -> Result<Broadcast, UnusableMessage> {
        decode(Bytes::from_static(bytes))
    }

    #[test]
    fn what_the_emitter_sends_is_read() {
        let got = read(CAPTURED).unwrap();
        assert_eq!(got.event.text(), r#"["ev","x"]"#);
        assert_eq!((got.namespace.as_str(), got.rooms, got.except), ("/", vec!["lobby".to_owned()], Vec::new()));
        assert_eq!(ReceivedBroadcast::open(Bytes::from_static(CAPTURED)).unwrap().uid, "emitter");
        // A message without namespace, flags and excluded rooms, with a number as a room, and with unknown members.
        let bare = read(b"\x93\xa1u\x82\xa1x\x91\x01\xa4data\x91\xa2hi\x81\xa5rooms\x92\x2a\xa1r").unwrap();
        assert_eq!((bare.namespace.as_str(), bare.rooms), ("/", vec!["42".to_owned(), "r".to_owned()]));
    }

    #[test]
    fn what_ports_write_where_there_is_nothing_is_read_as_javascript_reads_it() {
        // Written by `socket.io-emitter` 0.1.5 of PyPI for `To("lobby").Emit("ev", "x")` and for `Emit("ev", "x")`.
        let room = b"\x93\xa7emitter\x83\xa4data\x92\xa2ev\xa1x\xa4type\x02\xa3nsp\xa1/\x82\xa5flags\xa0\xa5rooms\x91\xa5lobby";
        let all = b"\x93\xa7emitter\x83\xa4data\x92\xa2ev\xa1x\xa4type\x02\xa3nsp\xa1/\x82\xa5flags\xa0\xa5rooms\xa0";
        let got = read(room).unwrap();
        assert_eq!((got.event.text().to_string(), got.rooms), (r#"["ev","x"]"#.to_owned(), vec!["lobby".to_owned()]));
        assert_eq!(read(all).unwrap().rooms, Vec::<String>::new());
        // Every way in which an emitter can write an empty value. The packet has the type that old emitters use for
        // binary events.
        for nothing in ["\u{0}", "\u{80}", "\u{90}", "\u{a0}", "\u{c0}", "\u{c2}"] {
            let nothing: Vec<u8> = nothing.chars().map(|byte| byte as u8).collect();
            let packet = b"\x93\xa1u\x83\xa4type\x05\xa4data\x91\xa1e\xa3nsp\xc0\x83";
            let members = [&b"\xa5rooms"[..], b"\xa6except", b"\xa5flags"].map(|key| [key, &nothing].concat()).concat();
            let got = decode([&packet[..], &members].concat().into()).unwrap();
            assert_eq!((got.namespace.as_str(), got.rooms.len() + got.except.len(), got.volatile), ("/", 0, false));
        }
        let flags = |value: &[u8]| {
            let head = b"\x93\xa1u\x81\xa4data\x91\xa1e\x81\xa5flags\x81\xa8volatile";
            decode([&head[..], value].concat().into()).map(|broadcast| broadcast.volatile)
        };
        assert_eq!(
            [flags(b"\x01"), flags(b"\x91\x00"), flags(b"\xa0"), flags(b"\xc0")],
            [Ok(true), Ok(true), Ok(false), Ok(false)]
        );
        assert_eq!(read(b"\x93\xa1u\x81\xa4data\x91\xa1e\x81\xa5rooms\xa1r").unwrap_err(), UnusableMessage::Malformed);
    }

    #[test]
    fn binary_becomes_attachments_that_share_the_message() {
        let got = read(b"\x93\xa1u\x81\xa4data\x93\xa3bin\xc4\x03\x00\x01\x02\x81\xa1b\xc4\x01\x09\x80").unwrap();
        assert_eq!(got.event.text(), r#"["bin",{"_placeholder":true,"num":0},{"b":{"_placeholder":true,"num":1}}]"#);
        assert_eq!(got.event.attachments(), [&b"\x00\x01\x02"[..], b"\x09"]);
    }

    #[test]
    fn what_kills_other_servers_is_refused() {
        for bytes in [&b""[..], b"garbage", b"\x93\xa1", b"\xc0", b"\x90", b"{", b"null", b"\x93\xa1u\xc0\xc0"] {
            assert_eq!(read(bytes).unwrap_err(), UnusableMessage::Malformed);
        }
        let trailing = Bytes::from([CAPTURED, b"\x00"].concat());
        assert_eq!(decode(trailing).unwrap_err(), UnusableMessage::Malformed);
        for cut in 0..CAPTURED.len() {
            assert!(read(&CAPTURED[..cut]).is_err(), "{cut}");
        }
        let reserved = read(b"\x93\xa1u\x81\xa4data\x91\xaadisconnect\x80");
        assert_eq!(reserved.unwrap_err(), UnusableMessage::ReservedEvent);
        assert_eq!(
            read(b"\x93\xa1u\x81\xa4data\x91\x01\x80").unwrap_err(),
            UnusableMessage::Malformed,
            "a number as a name"
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text =
            r#"["e",{"_placeholder":true,"num":0},[1,-2,300,70000,5000000000,1.5,null,true,"\u00e9"],{"a":{"b":[]}}]"#;
        let event = Event::from_wire(text.into(), vec![Bytes::from_static(b"\0\x01")]).unwrap();
        let sent = Broadcast {
            namespace: "/n".into(),
            event,
            rooms: (0..20).map(|n| n.to_string()).collect(),
            except: vec!["x".repeat(300)],
            volatile: true,
            ours: Some(Bytes::from_static(b"ours")),
        };
        let bytes = encode("abcdef", &sent).unwrap();
        assert_eq!(ReceivedBroadcast::open(bytes.clone()).unwrap().uid, "abcdef");
        let got = decode(bytes).unwrap();
        assert_eq!(got.event.text(), &text.replace("\\u00e9", "é"));
        assert_eq!(got.event.attachments(), sent.event.attachments());
        assert_eq!((got.rooms, got.except, got.volatile, got.ours), (sent.rooms, sent.except, true, sent.ours));
        let rubbish = Broadcast {
            event: Event::from_wire("[\"e\",".into(), Vec::new()).unwrap(),
            ..decode(Bytes::from_static(CAPTURED)).unwrap()
        };
        assert_eq!(encode("u", &rubbish).unwrap_err(), UnusableMessage::Malformed);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 0..CAPTURED.len()) {
            let _ = decode(bytes.clone().into());
            let mixed = [&CAPTURED[..cut], &bytes].concat();
            let _ = decode(mixed.into());
        }
    }
}
