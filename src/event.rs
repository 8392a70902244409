//! An encoded Socket.IO event: encoded once and shared by every recipient.

use std::hash::{Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use bytestring::ByteString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer as _};
use serde_json::value::RawValue;

/// Why bytes are not an event.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EventError {
    /// The text is not a JSON array that starts with a string or a number.
    #[error("an event is a JSON array that starts with its name")]
    Malformed,
    /// The arguments are not JSON.
    #[error("the arguments of the event are not JSON: {0}")]
    Arguments(String),
}

/// An event's offset in the history of one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The room.
    pub room: Arc<str>,
    /// The history's epoch. Offsets of different epochs cannot be compared: a new epoch means that the older history is
    /// gone.
    pub epoch: u64,
    /// The event's number in the epoch, without gaps. The first is 1.
    pub offset: u64,
}

impl Stamp {
    /// A stamp for an event whose offset in the room's history is not known, because Redis did not answer when the
    /// event was appended. The stamp's epoch is 0, which no history has, and its offset is the event's short id.
    pub fn unsure(room: Arc<str>, mark: &RecoveryMark) -> Self {
        Self { room, epoch: 0, offset: mark.short() }
    }

    /// The short id of an event whose offset is not known; see [`Stamp::unsure`].
    pub fn unsure_id(&self) -> Option<u64> {
        (self.epoch == 0).then_some(self.offset)
    }
}

/// Data that a history stores with an event, so that a joining or returning client gets the event once, and only if the
/// event was for the client.
#[derive(Debug, PartialEq, Eq)]
pub struct RecoveryMark {
    /// The event's id, the same in every room that the event went to. A later event of the same node has a larger id.
    pub id: u128,
    /// Members of these rooms do not get the event.
    pub except: Vec<Arc<str>>,
}

impl RecoveryMark {
    /// Creates a mark with a new id.
    pub fn new(except: Vec<Arc<str>>) -> Self {
        Self { id: uuid::Uuid::now_v7().as_u128(), except }
    }

    /// The random half of the id, which is enough to distinguish the events that one client can receive.
    pub fn short(&self) -> u64 {
        // The cast keeps only the lower half of the bits.
        self.id as u64
    }
}

/// An encoded event: the JSON text `["name",arg,…]` and the binary attachments that its placeholders name.
///
/// Copies of an event share the bytes of the text and the attachments. The text is never decoded unless a contract asks
/// a question about it.
#[derive(Clone)]
pub struct Event {
    name: ByteString,
    text: ByteString,
    attachments: Vec<Bytes>,
    mark: Option<Arc<RecoveryMark>>,
    fence: Option<u64>,
    framed: CachedPacket,
    rare: RareEncodings,
    slow: SlowClientPolicy,
    lane: u64,
    tailed: EventWithOffset,
}

// Two events are equal whether or not packets were cached for them.
impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        let parts = |event: &Self| (event.fence, event.slow, event.lane);
        (&self.name, &self.text, &self.attachments, &self.mark, parts(self))
            == (&other.name, &other.text, &other.attachments, &other.mark, parts(other))
    }
}

impl Eq for Event {}

/// What happens to a client whose write queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SlowClientPolicy {
    /// The client does not get the event.
    #[default]
    Drop,
    /// The client's connection closes. The client reconnects and joins again.
    Disconnect,
    /// The event is kept until the client reads. If too many wait, the oldest are dropped.
    DropOldest,
    /// The event is kept until the client reads, and replaces an earlier one with the same name and rooms.
    KeepLatest,
}

impl SlowClientPolicy {
    /// Whether the event is kept for the client.
    pub const fn keeps(self) -> bool {
        matches!(self, Self::DropOldest | Self::KeepLatest)
    }
}

impl Event {
    /// Creates an event from the text and attachments of a received packet, without changing them. Only the event's
    /// name is parsed.
    ///
    /// # Errors
    /// Returns [`EventError::Malformed`] when the text does not begin with `["name"` or a number, which names the event
    /// `"7"`.
    pub fn from_wire(text: ByteString, attachments: Vec<Bytes>) -> Result<Self, EventError> {
        let name = read_name(&text).ok_or(EventError::Malformed)?;
        Ok(Self::of(name, text, attachments))
    }

    /// Encodes a name and its arguments.
    ///
    /// # Errors
    /// Returns [`EventError::Arguments`] when an argument cannot be written as JSON.
    pub fn encode<A: IntoIterator<Item: Serialize>>(name: &str, args: A) -> Result<Self, EventError> {
        let mut text = Vec::with_capacity(64);
        text.push(b'[');
        write_json(&mut text, name)?;
        for arg in args {
            text.push(b',');
            write_json(&mut text, &arg)?;
        }
        text.push(b']');
        let text = String::from_utf8(text).expect("serde_json writes UTF-8");
        Ok(Self::of(name.into(), text.into(), Vec::new()))
    }

    /// Returns the same arguments and attachments under another name.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Self {
        if self.name == name && self.is_named_by_string() {
            return self.clone();
        }
        let rest = args_text(&self.text);
        let mut text = Vec::with_capacity(name.len() + rest.len() + 3);
        text.push(b'[');
        write_json(&mut text, name).expect("a string is always JSON");
        text.extend_from_slice(rest.as_bytes());
        let text = String::from_utf8(text).expect("serde_json writes UTF-8");
        Self::of(name.into(), text.into(), self.attachments.clone())
    }

    /// Returns the same event with these attachments.
    #[must_use]
    pub fn with_attachments(mut self, attachments: Vec<Bytes>) -> Self {
        self.attachments = attachments;
        self.framed = CachedPacket::default();
        self.rare = RareEncodings::default();
        self.tailed = EventWithOffset::default();
        self
    }

    /// Returns the same event with this treatment for clients whose write queue is full. `rooms` are the rooms that the
    /// event goes to.
    #[must_use]
    pub fn with_slow(mut self, slow: SlowClientPolicy, rooms: &[Arc<str>]) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        (&*self.name, rooms).hash(&mut hasher);
        (self.slow, self.lane) = (slow, hasher.finish());
        self
    }

    /// How the event is treated for a client whose write queue is full.
    pub fn slow(&self) -> SlowClientPolicy {
        self.slow
    }

    /// Returns a hash that is the same for events with the same name and rooms. It is 0 before [`Event::with_slow`].
    pub fn lane(&self) -> u64 {
        self.lane
    }

    /// Returns the same event with the data that histories store with it.
    #[must_use]
    pub fn with_mark(mut self, mark: RecoveryMark) -> Self {
        self.mark = Some(Arc::new(mark));
        self
    }

    /// The data that histories store with the event.
    pub fn mark(&self) -> Option<&RecoveryMark> {
        self.mark.as_deref()
    }

    /// Sets the number of the lease under which the event is published; see [`Event::fence`].
    #[must_use]
    pub fn with_fence(mut self, fence: Option<u64>) -> Self {
        self.fence = fence;
        self
    }

    /// The number of the lease under which this node publishes the event on behalf of all nodes. A later lease has a
    /// larger number, and events of an earlier lease are refused. `None` when the event needs no lease.
    pub fn fence(&self) -> Option<u64> {
        self.fence
    }

    fn of(name: ByteString, text: ByteString, attachments: Vec<Bytes>) -> Self {
        Self {
            name,
            text,
            attachments,
            mark: None,
            fence: None,
            framed: CachedPacket::default(),
            rare: RareEncodings::default(),
            slow: SlowClientPolicy::Drop,
            lane: 0,
            tailed: EventWithOffset::default(),
        }
    }

    /// Runs `work` on the event with `tail` appended as one more argument. The longer event is made on the first call
    /// and shared by later calls with the same tail.
    pub fn tailed<T>(&self, tail: &str, work: impl FnOnce(&Self) -> T) -> T {
        let kept = self.tailed.0.get_or_init(|| Box::new((tail.into(), self.longer(tail))));
        if &*kept.0 == tail { work(&kept.1) } else { work(&self.longer(tail)) }
    }

    /// Whether the last member of the array is a string: an argument, or the name alone.
    pub fn ends_with_string(&self) -> bool {
        self.text.trim_end().strip_suffix(']').is_some_and(|text| text.trim_end().ends_with('"'))
    }

    /// Whether the event's name is a JSON string. JavaScript also accepts a number as a name; other clients may not.
    fn is_named_by_string(&self) -> bool {
        first_member(&self.text).is_some_and(|at| self.text.as_bytes()[at.start] == b'"')
    }

    fn longer(&self, tail: &str) -> Self {
        let end = self.text.rfind(']').unwrap_or(self.text.len());
        let mut text = String::with_capacity(end + tail.len() + 4);
        text.push_str(&self.text[..end]);
        // The tail contains no characters that JSON must escape.
        text.push_str(",\"");
        text.push_str(tail);
        text.push_str("\"]");
        Self::of(self.name.clone(), text.into(), self.attachments.clone())
    }

    /// The event's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the whole JSON array, including the name.
    pub fn text(&self) -> &ByteString {
        &self.text
    }

    /// The binary attachments, in the order of their placeholders.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// Returns the event as a packet of this namespace in the encoding `form`. The packet is encoded by the first call
    /// for an encoding, and shared by later calls.
    ///
    /// For one event, encoding and namespace, every caller must pass a `frame` that makes the same packet, because the
    /// first packet is cached.
    pub fn framed(&self, form: PacketEncoding, namespace: &Arc<str>, frame: impl FnOnce() -> Bytes) -> Bytes {
        match form {
            PacketEncoding::Json => self.framed.get(namespace, frame),
            rare => self.rare.get(rare).get(namespace, frame),
        }
    }

    /// The size of the text and the attachments together, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.text.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// Returns the arguments, split but not decoded.
    ///
    /// # Errors
    /// Returns [`EventError::Arguments`] when the text is not JSON.
    pub fn args(&self) -> Result<Vec<&RawValue>, EventError> {
        let mut all: Vec<&RawValue> =
            serde_json::from_str(&self.text).map_err(|error| EventError::Arguments(error.to_string()))?;
        if all.is_empty() {
            return Err(EventError::Malformed);
        }
        all.remove(0);
        Ok(all)
    }
}

/// The encoding of an event's packet. Which encoding a client gets depends on its parser, its transport, and whether
/// its connection agreed on compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketEncoding {
    /// JSON, as most clients get it.
    Json,
    /// JSON, compressed for connections that agreed on compression.
    JsonDeflated,
    /// JSON with attachments, as base64 for polling clients.
    JsonPolled,
    /// MessagePack.
    Packed,
    /// MessagePack, compressed for connections that agreed on compression.
    PackedDeflated,
    /// MessagePack as base64, for polling clients.
    PackedPolled,
}

/// The cached packets of every encoding but [`PacketEncoding::Json`]. Most events never need these packets.
#[derive(Clone, Default)]
struct RareEncodings(OnceLock<Box<[CachedPacket; 5]>>);

impl RareEncodings {
    fn get(&self, form: PacketEncoding) -> &CachedPacket {
        &self.0.get_or_init(Box::default)[form as usize - 1]
    }
}

/// A cached packet of the event.
#[derive(Clone, Default)]
struct CachedPacket(OnceLock<Box<(Arc<str>, Bytes)>>);

impl CachedPacket {
    fn get(&self, namespace: &Arc<str>, frame: impl FnOnce() -> Bytes) -> Bytes {
        if let Some(kept) = self.0.get() {
            // An event may also go to a second namespace, whose packets are not cached.
            return if kept.0 == *namespace { kept.1.clone() } else { frame() };
        }
        let bytes = frame();
        let _ = self.0.set(Box::new((namespace.clone(), bytes.clone())));
        bytes
    }
}

/// The event with one more argument, cached.
#[derive(Clone, Default)]
struct EventWithOffset(OnceLock<Box<(Box<str>, Event)>>);

/// The arguments of an acknowledgement: the JSON text `[arg,…]` and its attachments.
#[derive(Clone, PartialEq, Eq)]
pub struct Args {
    text: ByteString,
    attachments: Vec<Bytes>,
}

impl Args {
    /// Encodes arguments.
    ///
    /// # Errors
    /// Returns [`EventError::Arguments`] when an argument cannot be written as JSON.
    pub fn encode<A: IntoIterator<Item: Serialize>>(args: A) -> Result<Self, EventError> {
        let mut text = Vec::with_capacity(64);
        let written = (&mut serde_json::Serializer::new(&mut text)).collect_seq(args);
        written.map_err(|error| EventError::Arguments(error.to_string()))?;
        let text = String::from_utf8(text).expect("serde_json writes UTF-8");
        Ok(Self { text: text.into(), attachments: Vec::new() })
    }

    /// Creates arguments from the text of a JSON array and its attachments, without parsing the text.
    pub fn from_wire(text: ByteString, attachments: Vec<Bytes>) -> Self {
        Self { text, attachments }
    }

    /// Returns the arguments of an event, unchanged.
    pub fn of(event: &Event) -> Self {
        let rest = args_text(&event.text);
        let text = match rest.trim_start().strip_prefix(',') {
            Some(args) => format!("[{args}"),
            None => "[]".to_owned(),
        };
        Self { text: text.into(), attachments: event.attachments.clone() }
    }

    /// The JSON array.
    pub fn text(&self) -> &ByteString {
        &self.text
    }

    /// The binary attachments in the order of their placeholders.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// The size of the text and the attachments together, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.text.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }
}

// The debug output shows no payloads, which must stay out of logs.
impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args").field("size_bytes", &self.text.len()).finish_non_exhaustive()
    }
}

// The debug output shows only the name and the size, because payloads must stay out of logs.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event")
            .field("name", &self.name)
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}

fn write_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), EventError> {
    serde_json::to_writer(out, value).map_err(|error| EventError::Arguments(error.to_string()))
}

/// Reads the event's name, without a copy if the name contains no escape.
fn read_name(text: &ByteString) -> Option<ByteString> {
    let at = first_member(text)?;
    let member = &text[at.clone()];
    match member.strip_prefix('"') {
        None => number_name(member).map(ByteString::from),
        Some(quoted) if quoted.contains('\\') => crate::json::read::<String>(member).ok().map(ByteString::from),
        Some(_) => Some(text.slice_ref(&text[at.start + 1..at.end - 1])),
    }
}

/// The name of an event that is named by a number, written as JavaScript converts it to a string: `7`, `1.5`. Unlike
/// JavaScript, it never uses an exponent.
fn number_name(text: &str) -> Option<String> {
    /// Integers up to 2^53 are exact in JavaScript.
    const EXACT: u64 = 1 << 53;
    let number: serde_json::Number = serde_json::from_str(text).ok()?;
    match number.as_i64() {
        Some(integer) if integer.unsigned_abs() <= EXACT => Some(integer.to_string()),
        // Adding zero to a number turns -0 into 0.
        _ => Some((number.as_f64()? + 0.0).to_string()),
    }
}

/// The range of the array's first member: a string with its quotes, or a number.
fn first_member(text: &str) -> Option<Range<usize>> {
    let body = text.trim_start().strip_prefix('[')?.trim_start();
    let start = text.len() - body.len();
    let bytes = body.as_bytes();
    let length = match bytes.first()? {
        b'"' => string_length(bytes)?,
        b'-' | b'0'..=b'9' => {
            bytes.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')).count()
        }
        _ => return None,
    };
    Some(start..start + length)
}

/// Returns the length of the string at the start of the bytes, including its quotes.
fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// Returns the text after the name: `,arg,…]` or `]`.
fn args_text(text: &str) -> &str {
    first_member(text).and_then(|at| text.get(at.end..)).unwrap_or("]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(text: &'static str) -> Result<Event, EventError> {
        Event::from_wire(ByteString::from_static(text), Vec::new())
    }

    #[test]
    fn name_is_read_without_decoding_the_rest() {
        assert_eq!(wire(r#"["a:b",{not json"#).unwrap().name(), "a:b");
        assert_eq!(wire(r#" [ "x" ]"#).unwrap().name(), "x");
        assert_eq!(wire(r#"["q\"\u00e9"]"#).unwrap().name(), "q\"é");
        assert_eq!(wire(r#"["nice \ud83d"]"#).unwrap().name(), "nice \u{fffd}");
    }

    #[test]
    fn number_names_an_event_as_in_javascript() {
        for (text, name) in
            [("[7]", "7"), ("[ -7 ,1]", "-7"), ("[7.0]", "7"), ("[1.5]", "1.5"), ("[1e3]", "1000"), ("[-0]", "0")]
        {
            assert_eq!(wire(text).unwrap().name(), name, "{text}");
        }
        let event = wire(r#"[7,{"x": 1.0}]"#).unwrap();
        assert_eq!(event.renamed("7").text(), r#"["7",{"x": 1.0}]"#);
        assert_eq!(Args::of(&event).text(), r#"[{"x": 1.0}]"#);
        assert_eq!(event.args().unwrap().len(), 1);
    }

    #[test]
    fn rubbish_is_refused() {
        for text in
            ["", "[", "[]", "[-]", "[1.2.3]", "[01]", "[null]", "[[1]]", "{}", r#"["open"#, r#"["open\"#, "null"]
        {
            assert_eq!(wire(text).unwrap_err(), EventError::Malformed, "{text}");
        }
    }

    #[test]
    fn renaming_keeps_the_arguments_to_the_byte() {
        let event = wire(r#"["a",{"x": 1.0},"]"]"#).unwrap();
        assert_eq!(event.renamed("b\"").text(), r#"["b\"",{"x": 1.0},"]"]"#);
        assert_eq!(wire(r#"["a"]"#).unwrap().renamed("b").text(), r#"["b"]"#);
    }

    #[test]
    fn event_is_framed_once_for_a_namespace() {
        let event = wire(r#"["a"]"#).unwrap();
        let frame = |text: &'static str| move || Bytes::from_static(text.as_bytes());
        for form in [PacketEncoding::Json, PacketEncoding::JsonDeflated, PacketEncoding::PackedPolled] {
            assert_eq!(event.framed(form, &"/".into(), frame("1")), "1");
            assert_eq!(event.clone().framed(form, &"/".into(), frame("2")), "1");
            assert_eq!(event.framed(form, &"/other".into(), frame("3")), "3");
            assert_eq!(event.renamed("b").framed(form, &"/".into(), frame("4")), "4");
        }
        assert_eq!(
            event.framed(PacketEncoding::Packed, &"/".into(), frame("5")),
            "5",
            "each form is a packet of its own"
        );
        assert_eq!(event, wire(r#"["a"]"#).unwrap());
    }

    #[test]
    fn tail_is_the_last_argument() {
        for (text, longer) in [
            (r#"["a"]"#, r#"["a","t"]"#),
            (r#"["a",{"x":"]"}]"#, r#"["a",{"x":"]"},"t"]"#),
            (r#"["a", "b" ] "#, r#"["a", "b" ,"t"]"#),
        ] {
            let event = wire(text).unwrap();
            assert_eq!(event.tailed("t", |event| event.text().clone()), longer);
            assert_eq!(event.tailed("t", |event| event.text().clone()), longer);
            assert!(event.tailed("u", |event| event.text().ends_with(r#","u"]"#)));
        }
        for (text, string) in
            [(r#"["a"]"#, true), (r#"["a",1]"#, false), (r#"["a","x" ] "#, true), (r#"["a",["x"]]"#, false)]
        {
            assert_eq!(wire(text).unwrap().ends_with_string(), string, "{text}");
        }
    }

    #[test]
    fn ack_arguments_are_the_events_own() {
        assert_eq!(Args::of(&wire(r#"["a", {"x":1},2]"#).unwrap()).text(), r#"[ {"x":1},2]"#);
        assert_eq!(Args::of(&wire(r#"["a"]"#).unwrap()).text(), "[]");
    }

    #[test]
    fn arguments_stay_encoded() {
        let event = wire(r#"["a",{"n":1.50}, [2]]"#).unwrap();
        let args: Vec<_> = event.args().unwrap().iter().map(|a| a.get()).collect();
        assert_eq!(args, [r#"{"n":1.50}"#, "[2]"]);
    }
}
