//! The request to a hook: one CloudEvents 1.0 event in structured JSON.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tracing::Span;
use uuid::Uuid;

use crate::telemetry::trace;
use crate::time::iso8601;
use crate::user::{Claims, User};

/// The media type of a request.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Why a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// A client sent an event whose contract names a hook.
    Event,
    /// A client wants to connect.
    Connect,
    /// A client wants to join a room.
    Join,
    /// A client sent an event whose contract says `notify`. This is a notice: the answer is ignored.
    Notify,
    /// A client has connected. This is a notice.
    Connected,
    /// A client has disconnected. This is a notice.
    Disconnect,
}

impl HookKind {
    /// The CloudEvent's `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "io.roomcast.event",
            Self::Connect => "io.roomcast.connect",
            Self::Join => "io.roomcast.join",
            Self::Notify => "io.roomcast.notify",
            Self::Connected => "io.roomcast.connected",
            Self::Disconnect => "io.roomcast.disconnect",
        }
    }
}

/// The client on whose behalf a hook is called.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The contract that names the hook.
    pub contract: Arc<str>,
    /// The namespace's path.
    pub namespace: Arc<str>,
    /// The client's user.
    pub user: Arc<User>,
    /// The socket's id, which a backend can emit to or disconnect.
    pub socket_id: String,
    /// The client's address.
    pub ip: IpAddr,
    /// When the client connected.
    pub connected_at: SystemTime,
    /// The rooms that the client is in (for a disconnect: was in). May be left empty.
    pub rooms: Vec<Arc<str>>,
    /// The session's metadata, which may be left empty.
    pub metadata: Map<String, Value>,
}

/// One call of a hook.
#[derive(Debug, Clone)]
pub struct HookRequest {
    pub(super) kind: HookKind,
    pub(super) caller: Caller,
    event: Option<String>,
    payload: Option<Box<RawValue>>,
    args: Option<Vec<Box<RawValue>>>,
    attachments: Vec<Bytes>,
    pub(super) room: Option<Arc<str>>,
    reason: Option<String>,
    traceparent: Option<String>,
    pub(super) idempotent: bool,
    pub(super) timeout: Option<Duration>,
}

impl HookRequest {
    /// Creates a request about a client's event. Add the data with [`HookRequest::payload`] or [`HookRequest::args`].
    pub fn event(caller: Caller, event: impl Into<String>) -> Self {
        Self { event: Some(event.into()), ..Self::new(HookKind::Event, caller) }
    }

    /// Creates a request about a client that wants to connect.
    pub fn connect(caller: Caller) -> Self {
        Self::new(HookKind::Connect, caller)
    }

    /// Creates a request about a client that wants to join a room.
    pub fn join(caller: Caller, room: Arc<str>) -> Self {
        Self { room: Some(room), ..Self::new(HookKind::Join, caller) }
    }

    /// Creates a notice of a client's event. Add the data as for [`HookRequest::event`].
    pub fn notify(caller: Caller, event: impl Into<String>) -> Self {
        Self { kind: HookKind::Notify, ..Self::event(caller, event) }
    }

    /// Creates a notice that a client has connected.
    pub fn connected(caller: Caller) -> Self {
        Self::new(HookKind::Connected, caller)
    }

    /// Creates a notice that a client has disconnected, and why.
    pub fn disconnect(caller: Caller, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(HookKind::Disconnect, caller) }
    }

    /// Adds the event's payload, as the client sent it.
    #[must_use]
    pub fn payload(mut self, payload: Option<Box<RawValue>>) -> Self {
        self.payload = payload;
        self
    }

    /// Adds all arguments of the event, for an event that has further arguments besides its payload.
    #[must_use]
    pub fn args(mut self, args: Vec<Box<RawValue>>) -> Self {
        self.args = Some(args);
        self
    }

    /// Adds the binary attachments that placeholders in the payload name. They are sent as base64.
    #[must_use]
    pub fn attachments(mut self, attachments: Vec<Bytes>) -> Self {
        self.attachments = attachments;
        self
    }

    /// Sets whether a failed attempt may be repeated.
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Sets how long to wait for the answer, in place of the hook's own time-out.
    #[must_use]
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Returns the same request without the parts that may be large: claims, metadata and rooms.
    pub(super) fn shortened(mut self) -> Self {
        let short = User { claims: Claims::default(), ..(*self.caller.user).clone() };
        self.caller.user = Arc::new(short);
        self.caller.rooms.clear();
        self.caller.metadata.clear();
        self
    }

    fn new(kind: HookKind, caller: Caller) -> Self {
        Self {
            kind,
            caller,
            event: None,
            payload: None,
            args: None,
            attachments: Vec::new(),
            room: None,
            reason: None,
            traceparent: None,
            idempotent: false,
            timeout: None,
        }
    }

    /// The tracing span of the call.
    pub(super) fn span(&self, hook: &str) -> Span {
        let Caller { contract, socket_id, .. } = &self.caller;
        let span = tracing::info_span!(
            "hook.call",
            otel.kind = "client",
            hook,
            hook.kind = self.kind.as_str(),
            contract = %contract,
            event = self.event,
            socket.id = socket_id,
        );
        trace::adopt(&span, self.traceparent.as_deref());
        span
    }

    /// Makes the request part of the span's trace, if spans are exported.
    pub(super) fn within(self, span: &Span) -> Self {
        Self { traceparent: trace::traceparent(span).or(self.traceparent), ..self }
    }

    fn subject(&self) -> &str {
        let room = self.room.as_deref();
        room.or(self.event.as_deref()).filter(|subject| !subject.is_empty()).unwrap_or(&self.caller.socket_id)
    }
}

/// A request to a hook in the form in which it is sent. All attempts send the same envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRequest {
    /// The CloudEvent's id, a UUID of version 7.
    pub id: String,
    /// The `traceparent` that is sent with the request.
    pub traceparent: String,
    /// The CloudEvent.
    pub body: Bytes,
}

impl EncodedRequest {
    /// Encodes a request of this node, and gives it an id.
    pub fn seal(node: &str, request: &HookRequest, now: SystemTime) -> Self {
        let id = Uuid::now_v7().to_string();
        let traceparent = trace::parent_or_new(request.traceparent.as_deref());
        let event = CloudEvent {
            specversion: "1.0",
            id: &id,
            source: &source(node),
            kind: request.kind.as_str(),
            subject: request.subject(),
            time: iso8601(now),
            datacontenttype: "application/json",
            traceparent: &traceparent,
            data: EventData::of(request),
        };
        let body = serde_json::to_vec(&event).expect("maps have string keys, and nothing else can fail");
        Self { id, traceparent, body: body.into() }
    }

    /// Reads an envelope back from its CloudEvent. Returns `None` when roomcast did not write the CloudEvent.
    pub fn open(body: Bytes) -> Option<Self> {
        #[derive(Deserialize)]
        struct Head {
            id: String,
            traceparent: String,
        }
        let head: Head = serde_json::from_slice(&body).ok()?;
        // The id and the `traceparent` are sent as header values, so both must be visible ASCII text.
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let ours = plain(&head.id) && plain(&head.traceparent);
        ours.then(|| Self { id: head.id, traceparent: head.traceparent, body })
    }
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    traceparent: &'a str,
    data: EventData<'a>,
}

#[derive(Serialize)]
struct EventData<'a> {
    contract: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<&'a [Box<RawValue>]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    user: UserData<'a>,
    socket: SocketData<'a>,
}

#[derive(Serialize)]
struct UserData<'a> {
    id: &'a str,
    roles: &'a [String],
    anonymous: bool,
    #[serde(skip_serializing_if = "Claims::is_empty")]
    claims: &'a Claims,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SocketData<'a> {
    id: &'a str,
    ip: IpAddr,
    connected_at: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rooms: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: &'a Map<String, Value>,
}

impl<'a> EventData<'a> {
    fn of(request: &'a HookRequest) -> Self {
        let caller = &request.caller;
        Self {
            contract: &caller.contract,
            namespace: &caller.namespace,
            event: request.event.as_deref(),
            payload: request.payload.as_deref(),
            args: request.args.as_deref(),
            attachments: request.attachments.iter().map(|bytes| STANDARD.encode(bytes)).collect(),
            room: request.room.as_deref(),
            reason: request.reason.as_deref(),
            user: UserData {
                id: &caller.user.id,
                roles: &caller.user.roles,
                anonymous: caller.user.anonymous,
                claims: &caller.user.claims,
            },
            socket: SocketData {
                id: &caller.socket_id,
                ip: caller.ip,
                connected_at: iso8601(caller.connected_at),
                rooms: &caller.rooms,
                metadata: &caller.metadata,
            },
        }
    }
}

/// The source of the CloudEvent is `/roomcast/<node>`, a URI reference. Characters that a URI may not contain are
/// percent-encoded.
fn source(node: &str) -> String {
    let mut source = String::from("/roomcast/");
    for byte in node.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            source.push(char::from(byte));
        } else {
            source.push_str(&format!("%{byte:02X}"));
        }
    }
    source
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::json;

    use super::*;

    fn caller() -> Caller {
        Caller {
            contract: "songs".into(),
            namespace: "/".into(),
            user: Arc::new(User { roles: Arc::new(["admin".to_owned()]), ..User::named("u1") }),
            socket_id: "s1".into(),
            ip: [127, 0, 0, 1].into(),
            connected_at: UNIX_EPOCH,
            rooms: vec!["r1".into()],
            metadata: Map::new(),
        }
    }

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn seal(request: &HookRequest) -> (EncodedRequest, Value) {
        let envelope = EncodedRequest::seal("node 1", request, UNIX_EPOCH + Duration::from_millis(1500));
        let value = serde_json::from_slice(&envelope.body).unwrap();
        (envelope, value)
    }

    #[test]
    fn an_event_is_a_cloud_event_with_everything_a_backend_needs() {
        let request = HookRequest::event(caller(), "cancel").payload(Some(raw(r#"{"id":"g1"}"#)));
        let (envelope, mut value) = seal(&request);
        assert_eq!(value["id"], envelope.id);
        assert_eq!(value["traceparent"], envelope.traceparent);
        for random in ["id", "traceparent"] {
            value.as_object_mut().unwrap().remove(random);
        }
        let expected = json!({
            "specversion": "1.0", "source": "/roomcast/node%201", "type": "io.roomcast.event", "subject": "cancel",
            "time": "1970-01-01T00:00:01.500Z", "datacontenttype": "application/json",
            "data": {
                "contract": "songs", "namespace": "/", "event": "cancel", "payload": { "id": "g1" },
                "user": { "id": "u1", "roles": ["admin"], "anonymous": false },
                "socket": { "id": "s1", "ip": "127.0.0.1", "connectedAt": "1970-01-01T00:00:00.000Z", "rooms": ["r1"] },
            },
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_payload_passes_through_to_the_byte() {
        let text = r#"{"n": 1.50,  "big":123456789012345678901234567890}"#;
        let (envelope, _) = seal(&HookRequest::event(caller(), "e").payload(Some(raw(text))));
        assert!(std::str::from_utf8(&envelope.body).unwrap().contains(text));
    }

    #[test]
    fn every_kind_has_its_type_and_subject() {
        for (request, kind, subject) in [
            (HookRequest::connect(caller()), "io.roomcast.connect", "s1"),
            (HookRequest::join(caller(), "room 1".into()), "io.roomcast.join", "room 1"),
            (HookRequest::disconnect(caller(), "transport close"), "io.roomcast.disconnect", "s1"),
            (HookRequest::event(caller(), ""), "io.roomcast.event", "s1"),
        ] {
            let (_, value) = seal(&request);
            assert_eq!((value["type"].as_str(), value["subject"].as_str()), (Some(kind), Some(subject)));
        }
        let (_, gone) = seal(&HookRequest::disconnect(caller(), "transport close"));
        assert_eq!(gone["data"]["reason"], "transport close");
    }

    #[test]
    fn arguments_and_attachments_are_carried() {
        let placeholder = r#"{"_placeholder":true,"num":0}"#;
        let request = HookRequest::event(caller(), "e")
            .args(vec![raw("1"), raw(placeholder)])
            .attachments(vec![Bytes::from_static(b"\x00\xff")]);
        let (_, value) = seal(&request);
        assert_eq!(value["data"]["args"][0], 1);
        assert_eq!(value["data"]["attachments"], json!(["AP8="]));
    }

    #[test]
    fn a_sealed_request_can_be_opened_again() {
        let (envelope, _) = seal(&HookRequest::connect(caller()));
        assert_eq!(EncodedRequest::open(envelope.body.clone()), Some(envelope));
        for rubbish in ["", "{}", r#"{"id":"a\r\nb","traceparent":"x"}"#, r#"{"id":"","traceparent":"x"}"#] {
            assert_eq!(EncodedRequest::open(Bytes::from_static(rubbish.as_bytes())), None, "{rubbish}");
        }
    }
}
