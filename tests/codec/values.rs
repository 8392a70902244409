//! Generates JSON values that contain binary, and converts our codec's results to the reference's representation.

use bytes::Bytes;
use proptest::prelude::*;
use roomcast::engine::native::packet::{Assembly, EngineMessage, MalformedPacket, Packet, PacketKind};
use roomcast::engine::validate::validate;
use roomcast::event::Event;
use serde_json::{Map, Value, json};

/// Maximum size of the messages of a packet together.
const MAX_PAYLOAD: usize = 1 << 20;

/// Stands for a value that our JSON parser cannot represent.
pub const UNREAD: &str = "unread";

/// Any value that survives encoding and decoding in JavaScript.
pub fn value(binary: bool) -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1i64 << 53)..1 << 53).prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        text().prop_map(Value::from),
    ];
    let leaf = if binary { prop_oneof![3 => leaf, 2 => bytes()].boxed() } else { leaf.boxed() };
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((key(), inner), 0..5).prop_map(|members| members.into_iter().collect()),
        ]
    })
    .boxed()
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z]{1,5}".boxed(), 1 => Just("num".to_owned()).boxed(), 1 => "[A-ZäöÜ€😀 \"\\\\/.-]{1,4}".boxed()]
}

/// Texts of all lengths, with characters that need escapes, and separators.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z0-9/,?\\-\\[\\]{}\":\\\\]{0,12}".boxed(),
        2 => "[aäß€中😀\u{1f468}\u{200d}\u{2028}\u{feff}\u{7f}]{0,8}".boxed(),
        1 => ".{0,12}".boxed(),
        1 => "[\u{0}-\u{1f}]{0,6}".boxed(),
    ]
}

/// Generates binary in the notation that both codecs of these tests use.
fn bytes() -> impl Strategy<Value = Value> {
    proptest::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| binary(&bytes))
}

pub fn binary(bytes: &[u8]) -> Value {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "$b": hex })
}

fn unhex(value: &Value) -> Option<Vec<u8>> {
    let hex = value.as_object().filter(|map| map.len() == 1)?.get("$b")?.as_str()?;
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()).collect()
}

/// Replaces binary by placeholders, numbered in the order of the text, as in packets.
pub fn take_binary(value: &Value, out: &mut Vec<Bytes>) -> Value {
    if let Some(bytes) = unhex(value) {
        out.push(bytes.into());
        return json!({ "_placeholder": true, "num": out.len() - 1 });
    }
    match value {
        Value::Array(items) => items.iter().map(|item| take_binary(item, out)).collect(),
        Value::Object(map) => map.iter().map(|(key, item)| (key.clone(), take_binary(item, out))).collect(),
        other => other.clone(),
    }
}

/// Replaces placeholders by the attachments that they name.
fn put_binary(value: &Value, attachments: &[Bytes]) -> Value {
    match value {
        Value::Object(map) if map.get("_placeholder") == Some(&Value::Bool(true)) && !attachments.is_empty() => {
            let number = map.get("num").and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
            number.and_then(|number| attachments.get(number)).map_or(Value::Null, |bytes| binary(bytes))
        }
        Value::Array(items) => items.iter().map(|item| put_binary(item, attachments)).collect(),
        Value::Object(map) => map.iter().map(|(key, item)| (key.clone(), put_binary(item, attachments))).collect(),
        other => other.clone(),
    }
}

/// Numbers as JavaScript prints them.
pub fn numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(numbers).collect(),
        Value::Object(map) => map.iter().map(|(key, item)| (key.clone(), numbers(item))).collect(),
        other => other.clone(),
    }
}

/// The result of our codec for the messages of one connection. The codec is used as in the native engine.
#[derive(Debug, Default)]
pub struct Ours {
    pub packets: Vec<Value>,
    pub error: Option<Refused>,
    pub waits: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    Malformed(MalformedPacket),
    /// The packet is not an event, or is an event that clients could not read.
    Event,
    /// The payload of CONNECT is invalid, and the client is told.
    Connect,
}

impl From<MalformedPacket> for Refused {
    fn from(malformed: MalformedPacket) -> Self {
        Self::Malformed(malformed)
    }
}

/// Decodes Engine.IO messages (strings and binary) with our codec.
pub fn ours(messages: &[Value]) -> Ours {
    let mut ours = Ours::default();
    let mut assembly = None;
    for message in messages {
        match one(message, &mut assembly) {
            Ok(packet) => ours.packets.extend(packet),
            Err(refused) => {
                ours.error = Some(refused);
                return ours;
            }
        }
    }
    ours.waits = assembly.is_some();
    ours
}

fn one(message: &Value, assembly: &mut Option<Assembly>) -> Result<Option<Value>, Refused> {
    let Some(text) = message.as_str() else { return attachment(&unhex(message).unwrap(), assembly) };
    let text = match EngineMessage::read(text)? {
        EngineMessage::Packet(text) => text,
        EngineMessage::Binary(bytes) => return attachment(&bytes, assembly),
        _ => return Ok(None),
    };
    if assembly.is_some() {
        return Err(MalformedPacket::OutOfPlace.into());
    }
    let packet = Packet::read(text)?;
    if packet.attachments > 0 {
        *assembly = Some(Assembly::of(&packet));
        return Ok(None);
    }
    whole(packet.kind, packet.namespace, packet.ack, packet.data, Vec::new()).map(Some)
}

fn attachment(bytes: &[u8], waiting: &mut Option<Assembly>) -> Result<Option<Value>, Refused> {
    let assembly = waiting.as_mut().ok_or(MalformedPacket::OutOfPlace)?;
    if !assembly.take(bytes, MAX_PAYLOAD)? {
        return Ok(None);
    }
    let Assembly { namespace, kind, ack, data, attachments, .. } = waiting.take().unwrap();
    whole(kind, &namespace, ack, &data, attachments).map(Some)
}

fn whole(kind: PacketKind, nsp: &str, id: Option<i64>, data: &str, attachments: Vec<Bytes>) -> Result<Value, Refused> {
    let packet = |number: u8, data: Value| {
        let id = if kind == PacketKind::Connect || kind == PacketKind::Disconnect { None } else { id };
        numbers(&json!({ "type": number, "nsp": nsp, "id": id, "data": data }))
    };
    let parsed = || serde_json::from_str::<Value>(data).map(|data| put_binary(&data, &attachments));
    match kind {
        PacketKind::Connect if data.is_empty() => Ok(packet(0, Value::Null)),
        PacketKind::Connect => match serde_json::from_str::<Map<String, Value>>(data) {
            Ok(auth) => Ok(packet(0, auth.into())),
            Err(_) => Err(Refused::Connect),
        },
        PacketKind::Disconnect => Ok(packet(1, Value::Null)),
        PacketKind::Event => {
            let event = Event::from_wire(data.into(), attachments.clone()).map_err(|_| Refused::Event)?;
            validate(event.text(), event.attachments().len()).map_err(|_| Refused::Event)?;
            // Numbers beyond 64 bits and halves of surrogate pairs are accepted: JavaScript can read these values, and
            // this server need not.
            let Ok(value) = parsed() else { return Ok(packet(2, UNREAD.into())) };
            assert_eq!(value[0].as_str(), Some(event.name()), "{data}");
            Ok(packet(2, value))
        }
        // No sender here asks for acknowledgements, so the contents of acknowledgements do not matter.
        PacketKind::Ack => Ok(packet(3, parsed().unwrap_or(Value::Null))),
    }
}
