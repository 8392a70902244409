//! Packets: our codec reads what the official client writes, the client reads what our codec writes, and both accept or
//! refuse all other text alike.

use std::sync::{LazyLock, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use roomcast::engine::native::packet::{self, MalformedPacket, Parser};
use roomcast::error::{Code, Refusal};
use roomcast::event::{Args, Event};
use serde_json::{Value, json};

use super::cases;
use super::js::{Decoded, Reference};
use super::values::{Ours, Refused, UNREAD, binary, numbers, ours, take_binary, text, value};

static REFERENCE: LazyLock<Mutex<Reference>> = LazyLock::new(|| Mutex::new(Reference::start()));

fn decoded(messages: &[Value]) -> Decoded {
    REFERENCE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).decode(messages)
}

fn encoded(packet: &Value) -> Vec<Value> {
    REFERENCE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).encode(packet)
}

// === what is generated ===

fn namespace() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("/".to_owned()).boxed(),
        3 => "/[a-z]{1,8}".boxed(),
        1 => "/[a-z0-9/.:é中😀-]{0,12}".boxed(),
        1 => "/[a-z]{1,4}\\?[a-z]=[0-9a-z&=]{0,6}".boxed(),
    ]
}

fn name() -> impl Strategy<Value = String> {
    // Socket.IO reserves these event names.
    let reserved = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];
    text().prop_filter("a reserved name", move |name| !reserved.contains(&&**name))
}

/// A packet of a client, in the form of the official encoder.
fn client_packet() -> impl Strategy<Value = Value> {
    let id = || proptest::option::of(prop_oneof![0i64..20, 0i64..1 << 53]);
    let args = || proptest::collection::vec(value(true), 0..4);
    let members = proptest::collection::vec(("[a-z]{1,6}", value(false)), 0..3);
    let auth = proptest::option::of(members.prop_map(|members| members.into_iter().collect::<Value>()));
    prop_oneof![
        1 => (namespace(), auth).prop_map(|(nsp, auth)| json!({ "type": 0, "nsp": nsp, "data": auth })),
        1 => namespace().prop_map(|nsp| json!({ "type": 1, "nsp": nsp })),
        6 => (namespace(), id(), name(), args()).prop_map(|(nsp, id, name, mut args)| {
            args.insert(0, name.into());
            json!({ "type": 2, "nsp": nsp, "id": id, "data": args })
        }),
        2 => (namespace(), 0i64..1 << 53, args()).prop_map(|(nsp, id, args)| {
            json!({ "type": 3, "nsp": nsp, "id": id, "data": args })
        }),
    ]
}

/// The packet as our codec must report it: without the query of the namespace, which nothing uses.
fn meant(packet: &Value) -> Value {
    let mut packet = packet.clone();
    let nsp = packet["nsp"].as_str().unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
    let id = packet.get("id").cloned().unwrap_or(Value::Null);
    packet["nsp"] = nsp.into();
    packet["id"] = if packet["type"].as_f64().is_some_and(|kind| kind >= 2.0) { id } else { Value::Null };
    if packet.get("data").is_none() {
        packet["data"] = Value::Null;
    }
    if let Some(fields) = packet.as_object_mut() {
        fields.retain(|key, _| ["type", "nsp", "id", "data"].contains(&&**key));
    }
    numbers(&packet)
}

/// Splits WebSocket frames into Engine.IO messages.
fn messages(mut frames: &[u8]) -> Vec<Value> {
    let mut out = Vec::new();
    while let [first, second, ..] = *frames {
        let (length, at) = match second {
            126 => (usize::from(u16::from_be_bytes([frames[2], frames[3]])), 4),
            127 => (usize::try_from(u64::from_be_bytes(*frames[2..].first_chunk().unwrap())).unwrap(), 10),
            short => (usize::from(short), 2),
        };
        let payload = &frames[at..at + length];
        out.push(match first {
            0x81 => std::str::from_utf8(payload).unwrap().into(),
            0x82 => binary(payload),
            other => panic!("{other:x}"),
        });
        frames = &frames[at + length..];
    }
    out
}

// === both ways ===

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn what_the_official_encoder_writes_is_read(packets in proptest::collection::vec(client_packet(), 1..4), b64 in any::<bool>()) {
        let mut written: Vec<Value> = packets.iter().flat_map(encoded).collect();
        if b64 {
            written.iter_mut().for_each(as_base64);
        }
        let read = ours(&written);
        prop_assert_eq!(&read.error, &None, "{:?}", written);
        prop_assert!(!read.waits);
        let wanted: Vec<Value> = packets.iter().map(meant).collect();
        prop_assert_eq!(&read.packets, &wanted, "{:?}", written);
        // The official decoder reads the same packets from what our codec wrote.
        let theirs = decoded(&written);
        prop_assert_eq!(theirs.packets.iter().map(meant).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn what_we_write_is_read_by_the_official_decoder(
        nsp in "/|/[a-zé😀]{1,8}",
        name in name(),
        args in proptest::collection::vec(value(true), 0..4),
        id in 0i64..1 << 53,
    ) {
        let mut attachments: Vec<Bytes> = Vec::new();
        let taken: Vec<Value> = args.iter().map(|arg| take_binary(arg, &mut attachments)).collect();
        let event = Event::encode(&name, &taken).unwrap().with_attachments(attachments);
        let mut whole = args.clone();
        whole.insert(0, name.clone().into());
        let wanted = meant(&json!({ "type": 2, "nsp": nsp, "data": whole }));
        let theirs = decoded(&messages(&packet::event(Parser::Json, &nsp, &event, None)));
        prop_assert_eq!(&theirs.error, &None);
        prop_assert_eq!(theirs.packets.iter().map(meant).collect::<Vec<_>>(), [wanted]);
        let theirs = decoded(&messages(&packet::acknowledgement(Parser::Json, &nsp, id, &Args::of(&event), None)));
        let wanted = meant(&json!({ "type": 3, "nsp": nsp, "id": id, "data": args }));
        prop_assert_eq!(theirs.packets.iter().map(meant).collect::<Vec<_>>(), [wanted]);
        prop_assert_eq!((theirs.error, theirs.waits), (None, false));
    }

    #[test]
    fn what_we_say_of_namespaces_is_read_by_the_official_decoder(
        nsp in "/|/[a-zé😀]{1,8}",
        sid in "[A-Za-z0-9_-]{20}",
        pid in proptest::option::of("[A-Za-z0-9_-]{20}"),
        words in ".{0,20}",
    ) {
        let refusal = Refusal::new(Code::Overloaded, words.clone());
        let frames = [
            packet::connected(Parser::Json, &nsp, &sid, pid.as_deref()),
            packet::disconnected(Parser::Json, &nsp),
            packet::refused(Parser::Json, &nsp, &refusal),
            packet::invalid_namespace(Parser::Json, &nsp),
        ];
        let theirs = decoded(&messages(&frames.concat()));
        prop_assert_eq!(&theirs.error, &None);
        let mut welcome = json!({ "sid": sid });
        if let Some(pid) = pid {
            welcome["pid"] = pid.into();
        }
        let data = json!({ "code": "OVERLOADED", "message": words });
        let wanted = [
            json!({ "type": 0, "nsp": nsp, "data": welcome }),
            json!({ "type": 1, "nsp": nsp }),
            json!({ "type": 4, "nsp": nsp, "data": { "message": refusal.to_string(), "data": data } }),
            json!({ "type": 4, "nsp": nsp, "data": { "message": "Invalid namespace" } }),
        ];
        prop_assert_eq!(theirs.packets.iter().map(meant).collect::<Vec<_>>(), wanted.iter().map(meant).collect::<Vec<_>>());
    }
}

/// Encodes a binary message as base64 text, for a client that must not receive binary frames.
fn as_base64(message: &mut Value) {
    use base64::Engine as _;
    if let Some(hex) = message["$b"].as_str() {
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        *message = format!("b{}", base64::engine::general_purpose::STANDARD.encode(bytes)).into();
    }
}

#[test]
fn packets_with_a_number_beyond_all_floats_are_refused() {
    // Events without binary pass unchanged, because nothing here reads their numbers.
    let credentials = vec!["40{\"token\":3e2944}".into()];
    let event = vec!["451-[\"e\",-1e309,{\"_placeholder\":true,\"num\":0}]".into(), binary(b"x")];
    for (messages, refused) in [(credentials, Refused::Connect), (event, Refused::Event)] {
        assert_eq!(ours(&messages).error, Some(refused));
        assert_eq!(agree(&messages, &ours(&messages), &decoded(&messages)), Ok(()));
    }
    assert!(!beyond_numbers("40{\"token\":x3e2944}"));
}

// === what no client writes ===

/// Whether our codec and the reference came to the same result. Intended differences are listed only here.
fn agree(messages: &[Value], ours: &Ours, theirs: &Decoded) -> Result<(), String> {
    let read: Vec<Value> = theirs.packets.iter().map(meant).collect();
    let same = ours.error.is_some() == theirs.error.is_some() && ours.waits == theirs.waits;
    if same && ours.packets == read {
        return Ok(());
    }
    if ours.waits && theirs.error.is_some() {
        // Our codec accepts or refuses an event only when all attachments of the event have arrived.
        let mut completed = messages.to_vec();
        while super::values::ours(&completed).waits {
            completed.push(binary(b""));
        }
        let whole = super::values::ours(&completed);
        let refused = whole.error.is_some() && whole.packets == ours.packets;
        let why = refused || why_milder(whole.packets.get(in_common(&whole.packets, &read)), messages).is_some();
        return if why {
            Ok(())
        } else {
            Err(format!("{whole:?} at last, but the reference {theirs:?}: {completed:?}"))
        };
    }
    // The reference reads a space before an event as the number 0, and a space after digits as another digit.
    if messages.iter().filter_map(Value::as_str).any(spaced) {
        return Ok(());
    }
    // Only the first difference counts: after it, one of the two decoders has stopped.
    let at = in_common(&ours.packets, &read);
    let why = why_stricter(ours, at, read.get(at), messages).or_else(|| why_milder(ours.packets.get(at), messages));
    why.map(|_| ()).ok_or_else(|| format!("{ours:?}, but the reference {theirs:?}: {messages:?}"))
}

/// Number of packets that both decoders read alike before the first difference.
fn in_common(ours: &[Value], theirs: &[Value]) -> usize {
    ours.iter().zip(theirs).take_while(|(ours, theirs)| ours == theirs).count()
}

/// Whether the text has a space where a packet may have its acknowledgement id.
fn spaced(text: &str) -> bool {
    let head = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let head = head.strip_prefix('-').unwrap_or(head);
    let head = if head.starts_with('/') { head.split_once(',').map_or("", |(_, rest)| rest) } else { head };
    head.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(char::is_whitespace)
}

/// The reason why our codec refuses a packet that the reference accepts, if that is intended.
fn why_stricter(ours: &Ours, at: usize, theirs: Option<&Value>, messages: &[Value]) -> Option<&'static str> {
    if at < ours.packets.len() {
        return None;
    }
    let kind = theirs.and_then(|packet| packet["type"].as_f64());
    match ours.error.as_ref()? {
        Refused::Malformed(MalformedPacket::Type) if kind == Some(4.0) => Some("only servers send CONNECT_ERROR"),
        Refused::Malformed(MalformedPacket::Type) if kind == Some(0.0) => {
            Some("it reads nothing, and a space, as the number 0")
        }
        Refused::Malformed(MalformedPacket::Ack) => {
            Some("an answer must say to what; and ids beyond 64 bits, which it rounds")
        }
        Refused::Malformed(MalformedPacket::Attachments) => Some("it reads 1e1, 0x2, + and spaces as numbers"),
        Refused::Malformed(MalformedPacket::Base64) => Some("it skips what is no base64"),
        Refused::Malformed(MalformedPacket::Namespace) => Some("a bound"),
        Refused::Event
            if theirs
                .is_some_and(|packet| packet["data"][0].as_str().is_some_and(|name| name.contains('\u{fffd}'))) =>
        {
            Some("a name with half a surrogate pair")
        }
        Refused::Connect | Refused::Event if messages.iter().filter_map(Value::as_str).any(beyond_numbers) => {
            Some("numbers beyond 1.8e308, which it takes for infinite")
        }
        Refused::Event if theirs.is_some_and(|packet| packet["data"].is_null()) => Some("an event without a name"),
        Refused::Event if theirs.is_some_and(|packet| packet["data"][0].is_number()) => Some("names are strings"),
        _ => None,
    }
}

/// Whether the text is JSON except for a number that no float can hold.
fn beyond_numbers(text: &str) -> bool {
    // A namespace may also contain brackets.
    text.match_indices(['{', '[']).any(|(at, _)| {
        let wrong = serde_json::from_str::<Value>(&text[at..]).err();
        wrong.is_some_and(|wrong| wrong.to_string().starts_with("number out of range"))
    })
}

/// The reason why our codec accepts a packet that the reference refuses or reads differently, if that is intended.
fn why_milder(ours: Option<&Value>, messages: &[Value]) -> Option<&'static str> {
    let packet = ours?;
    let named = |names: &[&str]| packet["data"][0].as_str().is_some_and(|name| names.contains(&name));
    let reserved = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];
    if packet["type"] == json!(2.0) && named(&reserved) {
        return Some("names that Node.js keeps for itself: a contract says which there are");
    }
    if packet["data"] == UNREAD {
        return Some("read by those who can");
    }
    if packet["type"] == json!(3.0) {
        return Some("nothing asks for acknowledgements, so nobody looks at them");
    }
    if messages.iter().any(|message| message.as_str().is_some_and(|text| text.starts_with("450-"))) {
        return Some("older clients announce no attachments in this way");
    }
    None
}

/// Text that is a packet except for a few damaged characters.
fn spoiled(packet: &Value, spoils: &[(u8, prop::sample::Index, char)]) -> Vec<Value> {
    let mut written = encoded(packet);
    for (how, at, letter) in spoils {
        let which = at.index(written.len() + 1);
        match (how, which) {
            (0, which) if which < written.len() => drop(written.remove(which)),
            (1, _) => written.push(binary(b"x")),
            (2, _) => written.push("42[\"e\"]".into()),
            _ => {
                let Some(Value::String(text)) = written.first_mut() else { continue };
                let letters: Vec<char> = text.chars().collect();
                // The head of a packet is short and matters most, so about half of the changes are there.
                let at = at.index(if how % 2 == 0 { letters.len().min(12) } else { letters.len() }.max(1));
                let (before, after) = letters.split_at(at.min(letters.len()));
                let (before, after): (String, String) = (before.iter().collect(), after.iter().collect());
                *text = match how {
                    3 | 4 => format!("{before}{letter}{after}"),
                    5 | 6 => format!("{before}{letter}{}", after.chars().skip(1).collect::<String>()),
                    7 | 8 => format!("{before}{}", after.chars().skip(1).collect::<String>()),
                    _ => before,
                };
            }
        }
        if written.is_empty() {
            break;
        }
    }
    written
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn of_spoiled_packets_both_think_the_same(
        packet in client_packet(),
        spoils in proptest::collection::vec(
            (0u8..10, any::<prop::sample::Index>(), prop::sample::select("0123456789/,-[]{}\":.eE+ \\_nutl?b\u{e9}\u{1f600}".chars().collect::<Vec<_>>())),
            1..4,
        ),
    ) {
        let messages = spoiled(&packet, &spoils);
        if let Err(wrong) = agree(&messages, &ours(&messages), &decoded(&messages)) {
            prop_assert!(false, "{}", wrong);
        }
    }

    /// Text that consists of parts of packets in any order.
    #[test]
    fn of_pieces_in_any_order_both_think_the_same(
        texts in proptest::collection::vec(
            proptest::collection::vec(prop::sample::select(PIECES.to_vec()), 1..7).prop_map(|pieces| format!("4{}", pieces.concat())),
            1..3,
        ),
        attachments in 0usize..3,
    ) {
        let mut messages: Vec<Value> = texts.into_iter().map(Value::from).collect();
        (0..attachments).for_each(|_| messages.push(binary(b"\0\xff")));
        if let Err(wrong) = agree(&messages, &ours(&messages), &decoded(&messages)) {
            prop_assert!(false, "{}", wrong);
        }
    }
}

const PIECES: [&str; 34] = [
    "0",
    "1",
    "2",
    "3",
    "5",
    "51-",
    "52-",
    "53-",
    "12",
    "7",
    "/",
    "/a",
    "/a,",
    "/a/b?c=d,",
    ",",
    "-",
    "[",
    "]",
    "{",
    "}",
    "[\"e\"]",
    "[\"e\",1]",
    "[\"e\",{\"_placeholder\":true,\"num\":0}]",
    "[\"e\",{\"_placeholder\":true,\"num\":1}]",
    "{\"_placeholder\":true,\"num\":0}",
    "{\"num\":2,\"_placeholder\":true}",
    "{\"_placeholder\":false,\"num\":9}",
    "{\"a\":\"b\"}",
    "\"e\"",
    "null",
    "true",
    "1.5",
    "\"\\u00e9\\ud83d\\ude00\"",
    "[\"\\n\",[]]",
];

#[test]
fn messages_of_engine_io_are_of_the_same_types() {
    use roomcast::engine::native::packet::EngineMessage;
    // A client sends neither the open packet nor pings.
    for (text, wanted) in [
        ("0{}", Err(MalformedPacket::Type)),
        ("1", Ok(EngineMessage::Close)),
        ("2", Err(MalformedPacket::Type)),
        ("3", Ok(EngineMessage::Pong)),
        ("42[]", Ok(EngineMessage::Packet("2[]"))),
        ("5", Ok(EngineMessage::Noop)),
        ("6", Ok(EngineMessage::Noop)),
        ("7", Err(MalformedPacket::Type)),
        ("", Err(MalformedPacket::Type)),
        ("bAP8=", Ok(EngineMessage::Binary(vec![0, 255]))),
    ] {
        assert_eq!(EngineMessage::read(text), wanted, "{text}");
    }
    let refused = |text: &str| decoded(&[text.into()]).error.is_some();
    assert!(refused("7") && refused("") && !refused("3"));
}
