//! Tests the whole path from handler to delivery without a network: the clients record what they are sent.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use bytestring::ByteString;
use serde_json::{Value, json};

use super::{Gateway, GatewayClient, GatewayParts};
use crate::auth::{Authenticator, Handshake};
use crate::contract::load::{Source, load_sources};
use crate::error::Code;
use crate::event::Event;
use crate::hooks::{Hooks, Notices};
use crate::limits::Limits;
use crate::owners::Owners;
use crate::presence::{self, Policies};
use crate::publish::room_delivery::RoomDelivery;
use crate::publish::{ContractPublish, PlainEmit, Publisher, PublisherKind, RemoteOutcome};
use crate::room::Rooms;
use crate::session::recorder::{RecordedPacket, Recorder, peer};
use crate::session::{AckId, ClientFacts};
use crate::telemetry::metrics::Metrics;
use crate::user::User;

const CONTRACT: &str = r#"
name = "test"
namespace = "/"
summary = "Everything that the gateway does"

[auth]
mode = "none"

[errors]
event = "oops"
payload = { code = "{error.code}", text = "{error.message}" }
codes = { INVALID_PAYLOAD = "BAD" }

[connect]
join = ["lobby"]
greet = { event = "hello", data = { id = "{socket.id}", known = "{user.authenticated}" } }

[rooms.lobby]
name = "lobby"

[rooms.thing]
name = "thing:{id}"
join = 'owner(room) == "alice" || vars.id == "open"'

[client.enter]
payload = { shorthand = "id", schema = { type = "object", required = ["id"], properties = { id = { type = "string" } } } }
join = "thing"
reply = { event = "entered", data = { room = "{room}" } }

[client.exit]
payload = { shorthand = "id" }
leave = "thing"

[client.say]
payload = { schema = { type = "object", required = ["id"] } }
relay = { room = "thing", member = true, event = "said", add = { at = "{event.id}" } }
ack = { id = "{event.id}" }

[client.pass]
relay = { room = "lobby", others = true, event = "passed", data = "*" }
ack = "*"

[client.start]
payload = { schema = { type = "object", required = ["id"] } }
relay = { room = "thing", others = true, event = "started", data = { on = true } }
undo = "stop"

[client.stop]
payload = { schema = { type = "object", required = ["id"] } }
relay = { room = "thing", others = true, event = "stopped", data = { on = false } }

[client.direct]
payload = { args = ["to", "text"] }
relay = { to = "payload.to", event = "direct", data = { text = "{payload.text}" } }

[server.news]
rooms = ["thing", { room = "lobby", when = "has(payload.all)" }]
fill = { kind = "plain" }
"#;

/// Returns everything that a client was sent since the last call: `[name,args…]`, `ack id args`, or how it was closed.
fn take(recorder: &Recorder) -> Vec<String> {
    let text = |packet| match packet {
        RecordedPacket::Event(event) if event.attachments().is_empty() => event.text().to_string(),
        RecordedPacket::Event(event) => format!("{} +{}", event.text(), event.attachments().len()),
        RecordedPacket::Ack(id, args) => format!("ack {id} {}", args.text()),
        RecordedPacket::Close(how) => format!("{how:?}"),
    };
    recorder.take().into_iter().map(text).collect()
}

struct Bench {
    gateway: Arc<Gateway>,
    publisher: Arc<Publisher>,
    owners: Arc<Owners>,
}

struct Someone {
    client: Arc<GatewayClient>,
    tape: Recorder,
}

impl Bench {
    async fn new() -> Self {
        let source = Source { name: "test.toml".into(), text: CONTRACT.into() };
        let namespaces: Vec<_> = load_sources(vec![source]).unwrap().into_iter().map(Arc::new).collect();
        let contracts: Vec<_> = namespaces.iter().flat_map(|namespace| namespace.contracts.clone()).collect();
        let metrics = Arc::new(Metrics::new());
        let hour = std::time::Duration::from_secs(3600);
        let recorder = presence::in_memory("test", Policies::default(), hour, metrics.clone());
        let paths = namespaces.iter().map(|namespace| namespace.path.clone());
        let rooms = Arc::new(Rooms::new(paths).watched_by(recorder.watcher()));
        let (presence, _) = recorder.start(rooms.clone());
        let delivery = Arc::new(RoomDelivery::new(rooms.clone(), metrics.clone()));
        let parts = crate::publish::PublisherParts::alone(&namespaces, delivery, metrics.clone());
        let history = parts.history.clone();
        let publisher = Publisher::new(parts);
        let hooks = Arc::new(Hooks::new("test", &Default::default(), metrics.clone()).unwrap());
        let owners = Arc::new(Owners::in_memory(metrics.clone()));
        let gateway = Gateway::new(GatewayParts {
            auth: Authenticator::new(&crate::config::AuthSettings::default(), metrics.clone()).await.unwrap(),
            limits: Arc::new(Limits::new(&crate::config::LimitsSettings::default(), &contracts, metrics.clone())),
            namespaces,
            rooms,
            publisher: publisher.clone(),
            owners: owners.clone(),
            presence,
            recovery: crate::recovery::Recovery::in_memory(&Default::default(), history.clone(), metrics.clone()),
            history,
            hooks: hooks.clone(),
            notices: Notices::in_memory(hooks),
            metrics,
            pending: super::PendingBounds { events: 256, bytes: 4 << 20, node_bytes: 64 << 20 },
        });
        Self { gateway, publisher, owners }
    }

    async fn connect(&self, id: &str) -> Someone {
        let peer = peer();
        let admission = self.gateway.admit("/", id, &Handshake::default(), &peer).await.unwrap();
        let tape = Recorder::default();
        let client = self.gateway.open(admission, id, peer, Box::new(tape.clone()));
        take(&tape);
        Someone { client, tape }
    }

    fn send(&self, from: &Someone, text: &str, ack: Option<AckId>) -> Vec<String> {
        let event = Event::from_wire(ByteString::from(text), Vec::new()).unwrap();
        if self.gateway.permit(&from.client, &event, ack) {
            self.gateway.dispatch(&from.client, event, ack);
        }
        take(&from.tape)
    }
}

#[tokio::test]
async fn a_client_is_greeted_and_put_into_the_rooms_that_the_contract_names() {
    let bench = Bench::new().await;
    let peer = peer();
    let admission = bench.gateway.admit("/", "s1", &Handshake::default(), &peer).await.unwrap();
    let tape = Recorder::default();
    let client = bench.gateway.open(admission, "s1", peer, Box::new(tape.clone()));
    assert_eq!(take(&tape), [r#"["hello",{"id":"s1","known":false}]"#]);
    assert!(client.session.is_in("lobby") && client.session.is_in("$sid:s1"));
}

#[tokio::test]
async fn joining_asks_the_rule_and_the_recorded_owner() {
    let bench = Bench::new().await;
    let one = bench.connect("s1").await;
    let denied = bench.send(&one, r#"["enter","7"]"#, Some(1));
    assert_eq!(denied.len(), 1);
    assert!(denied[0].starts_with(r#"ack 1 [{"success":false,"error":{"code":"AUTHORIZATION_FAILED""#), "{denied:?}");
    bench.owners.set("/", "thing:7", "alice", std::time::Duration::from_secs(60)).await.unwrap();
    let granted = bench.send(&one, r#"["enter",{"id":"7"}]"#, Some(2));
    assert_eq!(granted, [r#"["entered",{"room":"thing:7"}]"#, r#"ack 2 [{"success":true,"room":"thing:7"}]"#]);
}

#[tokio::test]
async fn errors_go_to_the_ack_and_without_one_to_the_contracts_event() {
    let bench = Bench::new().await;
    let one = bench.connect("s1").await;
    let told = bench.send(&one, r#"["enter",5.5]"#, None);
    assert!(told[0].starts_with(r#"["oops",{"code":"BAD""#), "{told:?}");
    let unknown = bench.send(&one, r#"["what"]"#, None);
    assert!(unknown[0].starts_with(r#"["oops",{"code":"UNKNOWN_EVENT""#), "{unknown:?}");
    let unknown = bench.send(&one, r#"["what"]"#, Some(9));
    assert!(unknown[0].starts_with("ack 9 "), "{unknown:?}");
}

#[tokio::test]
async fn a_relay_reaches_the_room_and_needs_membership() {
    let bench = Bench::new().await;
    let (one, two) = (bench.connect("s1").await, bench.connect("s2").await);
    let refused = bench.send(&one, r#"["say",{"id":"open"}]"#, Some(1));
    assert!(refused[0].contains("AUTHORIZATION_FAILED"), "{refused:?}");
    bench.send(&one, r#"["enter","open"]"#, None);
    bench.send(&two, r#"["enter","open"]"#, None);
    take(&two.tape);
    let own = bench.send(&one, r#"["say",{"id":"open","x":1}]"#, Some(2));
    let event: Value = serde_json::from_str(&own[0]).unwrap();
    assert_eq!((&event[0], &event[1]["id"], &event[1]["x"]), (&json!("said"), &json!("open"), &json!(1)));
    let ack: Value = serde_json::from_str(own[1].strip_prefix("ack 2 ").unwrap()).unwrap();
    assert_eq!(ack[0]["id"], event[1]["at"]);
    assert_eq!(take(&two.tape), own[..1]);
}

#[tokio::test]
async fn arguments_pass_through_to_the_byte_with_their_attachments() {
    let bench = Bench::new().await;
    let (one, two) = (bench.connect("s1").await, bench.connect("s2").await);
    let text = r#"["pass", {"n": 1.50},{"_placeholder":true,"num":0}]"#;
    let event = Event::from_wire(ByteString::from(text), vec![Bytes::from_static(b"\0\xff")]).unwrap();
    bench.gateway.dispatch(&one.client, event, Some(3));
    assert_eq!(take(&one.tape), [r#"ack 3 [ {"n": 1.50},{"_placeholder":true,"num":0}]"#]);
    assert_eq!(take(&two.tape), [r#"["passed", {"n": 1.50},{"_placeholder":true,"num":0}] +1"#]);
}

#[tokio::test]
async fn what_was_started_is_stopped_when_the_room_is_left_or_the_client_goes() {
    let bench = Bench::new().await;
    let (one, two) = (bench.connect("s1").await, bench.connect("s2").await);
    for someone in [&one, &two] {
        bench.send(someone, r#"["enter","open"]"#, None);
    }
    bench.send(&one, r#"["start",{"id":"open"}]"#, None);
    bench.send(&one, r#"["exit","open"]"#, None);
    assert_eq!(take(&two.tape), [r#"["started",{"on":true}]"#, r#"["stopped",{"on":false}]"#]);
    bench.send(&one, r#"["enter","open"]"#, None);
    bench.send(&one, r#"["start",{"id":"open"}]"#, None);
    bench.gateway.closed(&one.client, "client");
    assert_eq!(take(&two.tape), [r#"["started",{"on":true}]"#, r#"["stopped",{"on":false}]"#]);
    bench.gateway.closed(&one.client, "client");
    assert_eq!(take(&two.tape), Vec::<String>::new(), "once");
}

#[tokio::test]
async fn one_socket_can_be_addressed() {
    let bench = Bench::new().await;
    let (one, two) = (bench.connect("s1").await, bench.connect("s2").await);
    assert!(bench.send(&one, r#"["direct","s2","hi"]"#, None).is_empty());
    assert_eq!(take(&two.tape), [r#"["direct",{"text":"hi"}]"#]);
}

#[tokio::test]
async fn a_backends_event_reaches_each_member_once_and_is_filled_in() {
    let bench = Bench::new().await;
    let one = bench.connect("s1").await;
    bench.send(&one, r#"["enter","open"]"#, None);
    let publish = |data: Value| ContractPublish {
        contract: "test".into(),
        event: "news".into(),
        args: vec![serde_json::value::to_raw_value(&data).unwrap()],
        params: Value::Null,
    };
    let both =
        bench.publisher.contract_event(publish(json!({"id": "open", "all": true})), PublisherKind::Api).await.unwrap();
    assert_eq!((both.local, both.rooms.len(), both.remote), (1, 2, RemoteOutcome::Alone));
    assert_eq!(take(&one.tape), [r#"["news",{"id":"open","all":true,"kind":"plain"}]"#]);
    let missing = bench.publisher.contract_event(publish(json!({})), PublisherKind::Api).await.unwrap_err();
    assert_eq!(missing.code, Code::InvalidRoom);
}

#[tokio::test]
async fn a_plain_emit_goes_to_rooms_users_sockets_or_everyone() {
    let bench = Bench::new().await;
    let (one, two) = (bench.connect("s1").await, bench.connect("s2").await);
    let emit = |rooms: &[&str], except: &[&str]| PlainEmit {
        namespace: "/".into(),
        rooms: rooms.iter().map(ToString::to_string).collect(),
        users: Vec::new(),
        sockets: Vec::new(),
        except: except.iter().map(ToString::to_string).collect(),
        event: "x".into(),
        args: Vec::new(),
        volatile: false,
    };
    assert_eq!(bench.publisher.plain(emit(&["lobby"], &["s1"]), PublisherKind::Api).await.unwrap().local, 1);
    assert_eq!((take(&one.tape).len(), take(&two.tape).len()), (0, 1));
    assert_eq!(bench.publisher.plain(emit(&[], &[]), PublisherKind::Api).await.unwrap().local, 2);
    let refused = bench.publisher.plain(emit(&["$sid:s1"], &[]), PublisherKind::Api).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidRoom);
}

#[tokio::test]
async fn a_rejected_handshake_says_why() {
    let bench = Bench::new().await;
    let peer = ClientFacts { transport: "polling", ..peer() };
    let refusal = bench.gateway.admit("/nowhere", "s1", &Handshake::default(), &peer).await.err().unwrap();
    assert_eq!(refusal.to_string(), "NOT_FOUND: no such namespace");
}

#[tokio::test]
async fn only_clients_whose_token_ends_are_in_the_list_and_none_stays() {
    let bench = Bench::new().await;
    let (one, two) = (bench.connect("s1").await, bench.connect("s2").await);
    assert_eq!(bench.gateway.clock.len(), 0, "anonymous clients cost nothing");
    let now = SystemTime::now();
    for someone in [&one, &two] {
        let expires_at = Some(now + Duration::from_secs(60));
        someone.client.session.set_user(Arc::new(User { expires_at, ..User::named("ada") }));
        bench.gateway.watch_end(&someone.client);
    }
    assert_eq!(bench.gateway.clock.len(), 2);
    bench.gateway.closed(&two.client, "client");
    assert_eq!(bench.gateway.clock.len(), 1, "whoever goes is forgotten");
    bench.gateway.watch_end(&two.client);
    assert_eq!(bench.gateway.clock.len(), 1, "and not noted again");
    bench.gateway.tick(now + Duration::from_secs(89));
    assert_eq!(take(&one.tape), Vec::<String>::new(), "the leeway is not over");
    bench.gateway.tick(now + Duration::from_secs(91));
    let told = take(&one.tape);
    assert!(told[0].contains("AUTHENTICATION_FAILED") && told[1] == "Namespace", "{told:?}");
    assert_eq!(bench.gateway.clock.len(), 0);
}

/// The future of an event is initialized for every event, so it must not contain the parts that only some events wait
/// for.
#[tokio::test]
async fn the_future_of_an_event_is_small() {
    let it = Bench::new().await;
    let someone = it.connect("a").await;
    let event = Event::encode("say", [(); 0]).unwrap();
    let handling = it.gateway.handle(&someone.client, &event, None, std::time::Instant::now());
    let bytes = size_of_val(&handling);
    assert!(bytes <= 2560, "{bytes} bytes");
}
