//! Tests of an engine over real sockets, with one or several nodes. The tests replace the gateway by a simple gate.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use roomcast::auth::Handshake;
use roomcast::cluster::{Cluster, ClusterActions, MessageHandlers, RedisLink};
use roomcast::config::{self, EngineKind as Kind};
use roomcast::drain::Drain;
use roomcast::engine::socketioxide::LibraryRequests;
use roomcast::engine::{Broadcaster, Engine, Gate};
use roomcast::error::{Code, Refusal};
use roomcast::event::{Args, Event};
use roomcast::forward::Peers;
use roomcast::limits::Limits;
use roomcast::publish::{Delivery, Outgoing, RemoteDelivery, RemoteFailure};
use roomcast::redis::Redis;
use roomcast::room::Rooms;
use roomcast::session::{AckId, ClientFacts, Close, Link, MAX_ASKED, SendError, Session};
use roomcast::telemetry::metrics::Metrics;
use roomcast::user::User;
use tokio::sync::oneshot;

use super::slow;
use crate::support::client::{Client, Frame, http};
use crate::support::engine::Served;
use crate::support::node::plain_publisher;
use crate::support::redis::{RedisServer, eventually};

/// A gate that accepts every client unless the payload of CONNECT says `"refuse"`, and that carries out what events ask
/// for.
pub struct TestGate {
    pub rooms: Arc<Rooms>,
    delivery: Arc<dyn Delivery>,
    pub seen: Mutex<Vec<String>>,
    opened: AtomicUsize,
    closed: Mutex<Vec<&'static str>>,
}

impl Gate for TestGate {
    type Admission = (Arc<str>, Option<String>);
    type Client = Session;

    async fn admit(
        &self,
        namespace: &Arc<str>,
        _: &str,
        handshake: Handshake,
        _: &ClientFacts,
    ) -> Result<Self::Admission, Refusal> {
        tokio::task::yield_now().await;
        let says = handshake.auth.and_then(|auth| Some(auth.get("say")?.as_str()?.to_owned()));
        match says.as_deref() {
            Some("refuse") => Err(Refusal::new(Code::AuthenticationFailed, "no")),
            _ => Ok((namespace.clone(), says)),
        }
    }

    fn open(
        self: &Arc<Self>,
        (namespace, says): Self::Admission,
        id: &str,
        peer: ClientFacts,
        link: Box<dyn Link>,
    ) -> Option<Arc<Session>> {
        let greeting = Event::encode("hello", &[peer.transport]).unwrap();
        link.send(&greeting).unwrap();
        if says.as_deref() == Some("event") {
            link.send(&Event::encode("error", &["no"]).unwrap()).unwrap();
            link.close(Close::Namespace);
            return None;
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        let session = Session::new(id, namespace, Arc::new(User::named("u")), peer, link);
        self.rooms.add(&session);
        Some(session)
    }

    fn dispatch(self: &Arc<Self>, session: &Arc<Session>, event: Event, ack: Option<AckId>) {
        let args = event.args().unwrap().first().map(|arg| arg.get().trim_matches('"').to_owned()).unwrap_or_default();
        match event.name() {
            "join" => {
                self.rooms.join(session, &args.into());
            }
            "leave" => {
                self.rooms.leave(session, &args.into());
            }
            "relay" => {
                self.delivery.broadcast(&outgoing(session.namespace(), event.renamed("relayed"), &["r"]));
            }
            "bye" => session.close(if args == "transport" { Close::Transport } else { Close::Namespace }),
            _ => self.seen.lock().unwrap().push(event.text().to_string()),
        }
        if let Some(ack) = ack {
            session.ack(ack, &Args::of(&event)).unwrap();
        }
    }

    fn closed(self: &Arc<Self>, session: &Arc<Session>, reason: &'static str) {
        self.rooms.remove(session);
        self.closed.lock().unwrap().push(reason);
    }
}

pub fn outgoing(namespace: &Arc<str>, event: Event, rooms: &[&str]) -> Outgoing {
    Outgoing::new(namespace.clone(), event, rooms.iter().map(|&room| room.into()).collect())
}

pub struct Node {
    /// Whether it is the native engine.
    pub native: bool,
    pub address: String,
    pub gate: Arc<TestGate>,
    pub delivery: Arc<dyn Delivery>,
    pub engine: Arc<Engine<TestGate>>,
    pub limits: Arc<Limits>,
    pub metrics: Arc<Metrics>,
    redis: Option<Redis>,
    cluster: Arc<Cluster>,
    actions: Arc<ClusterActions>,
    _served: Served<TestGate>,
}

impl Node {
    pub async fn alone(engine: Kind) -> Self {
        Self::start(engine, config::ServerSettings::default(), None).await
    }

    pub async fn start(engine: Kind, server: config::ServerSettings, redis: Option<(&RedisServer, &str)>) -> Self {
        Self::limited(engine, server, config::LimitsSettings::default(), redis).await
    }

    pub async fn limited(
        engine: Kind,
        server: config::ServerSettings,
        limits: config::LimitsSettings,
        redis: Option<(&RedisServer, &str)>,
    ) -> Self {
        let native = engine == Kind::Native;
        let server = config::ServerSettings { engine, ..server };
        let metrics = Arc::new(Metrics::new());
        let paths = ["/".into(), "/other".into()];
        let rooms = Rooms::new(paths.clone());
        let joined = redis.map(|(server, name)| {
            let config =
                config::RedisSettings { url: Some(config::Url::new(server.url())), ..config::RedisSettings::default() };
            let redis = Redis::connect(&config, name, metrics.clone()).unwrap();
            let (identity, drain) =
                ((name, "contracts"), Drain::new(&config::DrainSettings::default(), metrics.clone()));
            (redis.clone(), RedisLink::new(identity, paths, redis, drain, metrics.clone(), &config))
        });
        let (rooms, cluster, redis, inbox) = match joined {
            None => {
                let rooms = Arc::new(rooms);
                (rooms.clone(), Cluster::alone("n", rooms), None, None)
            }
            Some((redis, (link, inbox))) => {
                let rooms = Arc::new(rooms.subscribed_by(link.wire().clone()));
                let cluster = Cluster::join(link, rooms.clone(), Peers::none());
                (rooms, cluster, Some(redis), Some(inbox))
            }
        };
        let delivery: Arc<dyn Delivery> = Broadcaster::new(&rooms, &cluster, &slow::contracts(), &metrics);
        let publisher = plain_publisher(delivery.clone(), &metrics);
        let actions = ClusterActions::new(&cluster, &publisher);
        if let Some(inbox) = inbox {
            let handlers = actions.handle(MessageHandlers::default());
            inbox.start(&cluster, publisher, Arc::new(LibraryRequests::default()), handlers);
        }
        let namespaces: Vec<_> = rooms.namespaces().cloned().collect();
        let gate = Arc::new(TestGate {
            rooms,
            delivery: delivery.clone(),
            seen: Mutex::default(),
            opened: AtomicUsize::new(0),
            closed: Mutex::default(),
        });
        let served = Served::start((&server, &limits), &namespaces, &gate, &metrics).await;
        let (address, engine, limits) = (served.address.clone(), served.engine.clone(), served.limits.clone());
        Self { native, address, gate, delivery, engine, limits, metrics, redis, cluster, actions, _served: served }
    }

    pub async fn client(&self) -> Client {
        let (mut client, connect) = Client::connect(&self.address, "/", "").await;
        assert!(connect.starts_with(r#"40{"sid":"#), "{connect}");
        assert_eq!(client.text().await, r#"42["hello","websocket"]"#);
        // socketioxide sends the first ping about 1 ms after the handshake. If the client's queue is full at that
        // moment, socketioxide ends the connection. So no test may fill a queue before the first ping.
        if !self.native {
            client.first_ping().await;
        }
        client
    }

    pub async fn member(&self, room: &str) -> Client {
        let mut client = self.client().await;
        client.send(&format!(r#"421["join","{room}"]"#)).await;
        assert_eq!(client.text().await, format!(r#"431["{room}"]"#));
        // Waits until the node has subscribed to the room, so that events of other nodes arrive from now on.
        self.gate.rooms.settled(&"/".into(), &room.into()).await;
        client
    }

    pub fn publish(&self, text: &str, rooms: &[&str]) -> roomcast::publish::DeliveryResult {
        let event = Event::from_wire(text.to_owned().into(), Vec::new()).unwrap();
        self.delivery.broadcast(&outgoing(&"/".into(), event, rooms))
    }

    async fn knows(&self, nodes: usize) {
        let redis = self.redis.as_ref().unwrap();
        let known = || redis.health().is_good() && self.cluster.view().nodes.len() == nodes;
        eventually("the nodes know each other", Duration::from_secs(5), known).await;
    }
}

async fn greeting_follows_connect_and_events_keep_their_order(engine: Kind) {
    let node = Node::alone(engine).await;
    let mut client = Client::open(&node.address).await;
    // The client sends all events without waiting for the greeting, so they must wait until the session is open.
    client.send("40").await;
    assert!(client.text().await.starts_with("40{"));
    for n in 0..5000 {
        client.send(&format!(r#"42["n",{n}]"#)).await;
    }
    client.send(r#"427["last"]"#).await;
    assert_eq!(client.text().await, r#"42["hello","websocket"]"#);
    assert_eq!(client.text().await, "437[]");
    let seen = node.gate.seen.lock().unwrap();
    assert_eq!(seen.len(), 5001);
    for (n, text) in seen[..5000].iter().enumerate() {
        assert_eq!(*text, format!(r#"["n",{n}]"#));
    }
}

async fn refusal_is_a_connect_error_or_an_event_and_a_disconnect(engine: Kind) {
    let node = Node::alone(engine).await;
    let (_, answer) = Client::connect(&node.address, "/", r#"{"say":"refuse"}"#).await;
    // socketioxide cannot send `data` in a CONNECT_ERROR packet.
    let data = if engine == Kind::Native { r#","data":{"code":"AUTHENTICATION_FAILED","message":"no"}"# } else { "" };
    assert_eq!(answer, format!(r#"44{{"message":"AUTHENTICATION_FAILED: no"{data}}}"#));
    let (_, answer) = Client::connect(&node.address, "/", "{bad").await;
    assert!(answer.starts_with(r#"44{"message":"INVALID_PAYLOAD: "#), "{answer}");
    let (mut client, answer) = Client::connect(&node.address, "/", r#"{"say":"event"}"#).await;
    assert!(answer.starts_with("40{"));
    assert_eq!(client.text().await, r#"42["hello","websocket"]"#);
    assert_eq!(client.text().await, r#"42["error","no"]"#);
    assert_eq!(client.text().await, "41");
    assert_eq!(node.gate.opened.load(Ordering::SeqCst), 0);
    let (_, answer) = Client::connect(&node.address, "/nowhere", "").await;
    assert_eq!(answer, r#"44/nowhere,{"message":"Invalid namespace"}"#);
}

async fn binary_attachments_pass_unchanged_both_ways(engine: Kind) {
    let node = Node::alone(engine).await;
    let (mut sender, mut other) = (node.member("r").await, node.member("r").await);
    sender.send(r#"451-9["relay",{"x":{"_placeholder":true,"num":0}}]"#).await;
    sender.send_binary(&[0, 1, 255]).await;
    assert_eq!(other.text().await, r#"451-["relayed",{"x":{"_placeholder":true,"num":0}}]"#);
    assert_eq!(other.frame().await, Frame::Binary(vec![0, 1, 255]));
    assert_eq!(sender.text().await, r#"451-["relayed",{"x":{"_placeholder":true,"num":0}}]"#);
    assert_eq!(sender.frame().await, Frame::Binary(vec![0, 1, 255]));
    assert_eq!(sender.text().await, r#"461-9[{"x":{"_placeholder":true,"num":0}}]"#);
    assert_eq!(sender.frame().await, Frame::Binary(vec![0, 1, 255]));
}

async fn a_client_acknowledges_what_it_is_asked_also_with_binary_and_in_any_order(engine: Kind) {
    let node = Node::alone(engine).await;
    let mut client = node.member("r").await;
    let session = node.gate.rooms.recipients("/", &["r".into()], &[]).remove(0);
    let ask = |text: &str| {
        let (reply, said) = oneshot::channel();
        session.ask(&Event::from_wire(text.to_owned().into(), Vec::new()).unwrap(), reply).map(|()| said)
    };
    let (first, second) = (ask(r#"["q",1]"#).unwrap(), ask(r#"["q",2]"#).unwrap());
    let mut numbers = Vec::new();
    for n in 1..=2 {
        let text = client.text().await;
        let number = text.strip_prefix("42").and_then(|text| text.strip_suffix(&format!(r#"["q",{n}]"#)));
        numbers.push(number.unwrap_or_else(|| panic!("{text}")).to_owned());
    }
    assert_ne!(numbers[0], numbers[1]);
    // The node ignores an acknowledgement that no event asked for, and a second acknowledgement with the same id.
    client.send(r#"43999999["?"]"#).await;
    client.send(&format!(r#"461-{}[{{"_placeholder":true,"num":0}},"b"]"#, numbers[1])).await;
    client.send_binary(&[0, 255]).await;
    client.send(&format!(r#"43{}["late"]"#, numbers[1])).await;
    client.send(&format!("43{}[]", numbers[0])).await;
    let said = second.await.unwrap();
    assert_eq!(said.text().to_string(), r#"[{"_placeholder":true,"num":0},"b"]"#);
    assert_eq!(said.attachments(), [&[0, 255][..]]);
    assert_eq!(first.await.unwrap().text().to_string(), "[]");
    // When the client disconnects, the caller that waits for the acknowledgement gets an error.
    let unanswered = ask(r#"["q",3]"#).unwrap();
    drop(client);
    assert!(unanswered.await.is_err());
}

async fn acknowledgements_that_are_awaited_of_one_client_are_bounded(engine: Kind) {
    let node = Node::alone(engine).await;
    let _client = node.member("r").await;
    let session = node.gate.rooms.recipients("/", &["r".into()], &[]).remove(0);
    let ask = || {
        let (reply, said) = oneshot::channel();
        session.ask(&Event::encode("q", [(); 0]).unwrap(), reply).map(|()| said)
    };
    let waiting: Vec<_> = (0..MAX_ASKED).map(|_| ask().unwrap()).collect();
    assert_eq!(ask().unwrap_err(), SendError::Full);
    drop(waiting);
    eventually("they are forgotten", Duration::from_secs(5), || ask().is_ok()).await;
}

async fn packet_that_others_could_not_read_ends_its_sender_alone(engine: Kind) {
    let node = Node::alone(engine).await;
    let mut other = node.member("r").await;
    for packet in [r#"42["relay",{bad]"#, r#"42["relay"]x"#, r#"451-["relay",{"_placeholder":true,"num":4}]"#] {
        let mut hostile = node.client().await;
        hostile.send(packet).await;
        hostile.send_binary(&[1]).await;
        hostile.until_closed().await;
    }
    node.publish(r#"["fine"]"#, &["r"]);
    assert_eq!(other.text().await, r#"42["fine"]"#);
    let malformed = node.metrics.events_received_total.with_label_values(&["unknown", "unknown", "INVALID_PAYLOAD"]);
    // socketioxide itself refuses text after the array, so the node does not count that event.
    assert_eq!(malformed.get(), if engine == Kind::Native { 3 } else { 2 });
}

async fn client_in_several_rooms_gets_one_copy_and_counts_are_true(engine: Kind) {
    let node = Node::alone(engine).await;
    let mut both = node.member("a").await;
    both.send(r#"422["join","b"]"#).await;
    assert_eq!(both.text().await, r#"432["b"]"#);
    let (mut only, mut none) = (node.member("b").await, node.client().await);
    let delivery_result = node.publish(r#"["x",1]"#, &["a", "b"]);
    assert_eq!((delivery_result.local, delivery_result.dropped), (2, 0));
    assert!(matches!(delivery_result.remote, RemoteDelivery::Alone));
    assert_eq!(node.publish(r#"["all"]"#, &[]).local, 3);
    for client in [&mut both, &mut only] {
        assert_eq!(client.text().await, r#"42["x",1]"#);
    }
    for client in [&mut both, &mut only, &mut none] {
        assert_eq!(client.text().await, r#"42["all"]"#);
    }
    only.send(r#"423["leave","b"]"#).await;
    assert_eq!(only.text().await, r#"433["b"]"#);
    assert_eq!(node.publish(r#"["x"]"#, &["b"]).local, 1);
    assert_eq!(node.metrics.deliveries_total.with_label_values(&["/"]).get(), 6);
}

async fn client_that_does_not_read_loses_events_and_each_is_counted(engine: Kind) {
    let server = config::ServerSettings { queue: 16, ..config::ServerSettings::default() };
    let node = Node::start(engine, server, None).await;
    let _client = node.member("r").await;
    let large = format!(r#"["x","{}"]"#, "y".repeat(100_000));
    let (mut queued, mut dropped) = (0, 0);
    for _ in 0..500 {
        let delivery_result = node.publish(&large, &["r"]);
        queued += delivery_result.local;
        dropped += delivery_result.dropped;
    }
    assert_eq!(queued + dropped, 500);
    assert!(dropped > 100, "{dropped}");
    let counter = node.metrics.deliveries_dropped_total.with_label_values(&["/", "queue_full"]);
    assert_eq!(counter.get(), dropped as u64);
}

async fn both_ways_of_closing_end_the_session_once(engine: Kind) {
    let node = Node::alone(engine).await;
    let mut client = node.client().await;
    client.send(r#"42["bye"]"#).await;
    assert_eq!(client.text().await, "41");
    // The connection stays open, and the client may connect to the namespace again, with the same id.
    assert!(client.join("/", "").await.starts_with("40{"));
    assert_eq!(client.text().await, r#"42["hello","websocket"]"#);
    client.send(r#"421["join","r"]"#).await;
    assert_eq!(client.text().await, r#"431["r"]"#);
    assert_eq!(node.publish(r#"["x"]"#, &["r"]).local, 1);
    assert_eq!(client.text().await, r#"42["x"]"#);
    client.send(r#"42["bye","transport"]"#).await;
    assert_eq!(client.until_closed().await, Vec::<String>::new());
    let closed = || node.gate.closed.lock().unwrap().clone();
    eventually("both ends are reported", Duration::from_secs(2), || closed().len() == 2).await;
    assert_eq!(closed()[0], "server namespace disconnect");
    assert_eq!(node.gate.rooms.session_count("/"), 0);
    eventually("the connection is gone", Duration::from_secs(2), || node.engine.hub().open() == 0).await;
}

async fn namespaces_of_one_connection_are_sessions_of_their_own(engine: Kind) {
    let node = Node::alone(engine).await;
    let mut client = node.client().await;
    assert!(client.join("/other", "").await.starts_with("40/other,{"));
    assert_eq!(client.text().await, r#"42/other,["hello","websocket"]"#);
    client.send(r#"42/other,5["join","r"]"#).await;
    assert_eq!(client.text().await, r#"43/other,5["r"]"#);
    assert_eq!(node.publish(r#"["x"]"#, &["r"]).local, 0);
    assert_eq!((node.gate.opened.load(Ordering::SeqCst), node.engine.hub().open()), (2, 1));
    drop(client);
    let closed = || node.gate.closed.lock().unwrap().len() == 2;
    eventually("both ends are reported", Duration::from_secs(2), closed).await;
}

async fn connections_are_limited_and_given_back(engine: Kind) {
    let server = config::ServerSettings { max_connections: 2, ..config::ServerSettings::default() };
    let node = Node::start(engine, server, None).await;
    let first = node.client().await;
    let (status, open) = http(&node.address, "GET /socket.io/?EIO=4&transport=polling", "").await;
    assert_eq!((status, open.starts_with("0{")), (200, true));
    let (status, body) = http(&node.address, "GET /socket.io/?EIO=4&transport=polling", "").await;
    assert_eq!(status, 503);
    assert!(body.starts_with(r#"{"error":{"code":"OVERLOADED""#), "{body}");
    // A client of another protocol version is told so, and does not count as a connection.
    assert_eq!(http(&node.address, "GET /socket.io/?EIO=3&transport=polling", "").await.0, 400);
    drop(first);
    eventually("a place is free", Duration::from_secs(2), || node.engine.hub().open() == 1).await;
    assert_eq!(http(&node.address, "GET /socket.io/?EIO=3&transport=polling", "").await.0, 400);
    assert_eq!(node.engine.hub().open(), 1);
    node.client().await;
}

async fn polling_client_learns_that_its_transport_was_closed(engine: Kind) {
    let node = Node::alone(engine).await;
    let (_, open) = http(&node.address, "GET /socket.io/?EIO=4&transport=polling", "").await;
    let sid = open.split_once(r#""sid":""#).unwrap().1.split('"').next().unwrap().to_owned();
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    assert_eq!(http(&node.address, &format!("POST {path}"), "40").await.1, "ok");
    let mut got = String::new();
    while !got.contains("hello") {
        got += &http(&node.address, &format!("GET {path}"), "").await.1;
    }
    assert!(got.contains(r#"42["hello","polling"]"#), "{got}");
    let body = "421[\"x\"]\u{1e}42[\"bye\",\"transport\"]";
    assert_eq!(http(&node.address, &format!("POST {path}"), body).await.1, "ok");
    let gone = || node.gate.closed.lock().unwrap().len() == 1;
    eventually("the session has ended", Duration::from_secs(5), gone).await;
    if engine == Kind::Native {
        // The acknowledgement and the close packet come in separate payloads: in a common payload, the official client
        // would handle the acknowledgement after the close packet.
        assert_eq!(http(&node.address, &format!("GET {path}"), "").await.1, "431[]");
    }
    let (status, body) = http(&node.address, &format!("GET {path}"), "").await;
    assert_eq!((status, body.ends_with('1')), (200, true), "{body}");
    assert_eq!(node.gate.closed.lock().unwrap()[..], ["server transport close"]);
    eventually("the connection is gone", Duration::from_secs(2), || node.engine.hub().open() == 0).await;
}

async fn pages_of_other_origins_may_not_connect(engine: Kind) {
    let server = config::ServerSettings {
        cors_origins: vec!["https://app.example".into()],
        ..config::ServerSettings::default()
    };
    let node = Node::start(engine, server, None).await;
    let get = |origin: &str| format!("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nOrigin: {origin}\r\nX-Rest:");
    assert_eq!(http(&node.address, &get("https://evil.example"), "").await.0, 403);
    assert_eq!(http(&node.address, &get("https://app.example"), "").await.0, 200);
}

async fn events_reach_the_other_node_to_the_byte_and_once(engine: Kind) {
    let server = RedisServer::start();
    let a = Node::start(engine, config::ServerSettings::default(), Some((&server, "a"))).await;
    let b = Node::start(engine, config::ServerSettings::default(), Some((&server, "b"))).await;
    a.knows(2).await;
    b.knows(2).await;
    assert!(server.command("PUBSUB SHARDCHANNELS").contains("roomcast:events:/other"));
    let mut near = a.member("r").await;
    let mut far = b.member("r").await;
    far.send(r#"422["join","s"]"#).await;
    assert_eq!(far.text().await, r#"432["s"]"#);
    let event =
        Event::from_wire(r#"["x",{"_placeholder":true,"num":0}, 1.50]"#.into(), vec![Bytes::from_static(b"\xff\0")]);
    let delivery_result = a.delivery.broadcast(&outgoing(&"/".into(), event.unwrap(), &["r", "s"]));
    assert_eq!(delivery_result.local, 1);
    let RemoteDelivery::Handed(receipt) = delivery_result.remote else { panic!("not handed over") };
    receipt.await.unwrap();
    for client in [&mut near, &mut far] {
        assert_eq!(client.text().await, r#"451-["x",{"_placeholder":true,"num":0}, 1.50]"#);
        assert_eq!(client.frame().await, Frame::Binary(vec![255, 0]));
    }
    a.publish(r#"["end"]"#, &["r"]);
    assert_eq!(far.text().await, r#"42["end"]"#);
    assert_eq!(near.text().await, r#"42["end"]"#);
    let received = |node: &Node| node.metrics.cluster_received_total.with_label_values(&["/"]).get();
    assert_eq!((received(&a), received(&b)), (0, 2));
}

async fn burst_to_a_room_arrives_completely_on_both_nodes(engine: Kind) {
    let server = RedisServer::start();
    let config = config::ServerSettings { queue: 8192, ..config::ServerSettings::default() };
    let a = Node::start(engine, config.clone(), Some((&server, "a"))).await;
    let b = Node::start(engine, config, Some((&server, "b"))).await;
    a.knows(2).await;
    b.knows(2).await;
    let (mut near, mut far) = (a.member("r").await, b.member("r").await);
    for n in 0..5000 {
        let delivery_result = a.publish(&format!(r#"["n",{n}]"#), &["r"]);
        assert_eq!((delivery_result.local, delivery_result.dropped), (1, 0));
    }
    for client in [&mut near, &mut far] {
        for n in 0..5000 {
            assert_eq!(client.text().await, format!(r#"42["n",{n}]"#));
        }
    }
}

async fn local_clients_lose_nothing_while_redis_is_away(engine: Kind) {
    let mut server = RedisServer::start();
    let a = Node::start(engine, config::ServerSettings::default(), Some((&server, "a"))).await;
    let b = Node::start(engine, config::ServerSettings::default(), Some((&server, "b"))).await;
    a.knows(2).await;
    b.knows(2).await;
    let (mut near, mut far) = (a.member("r").await, b.member("r").await);
    // A node counts missed events on a room's channel from the first event that arrived on this channel.
    a.publish(r#"["first"]"#, &["r"]);
    assert_eq!(near.text().await, r#"42["first"]"#);
    assert_eq!(far.text().await, r#"42["first"]"#);
    server.kill();
    let redis = a.redis.as_ref().unwrap();
    eventually("the loss is noticed", Duration::from_secs(2), || !redis.is_up()).await;
    let started = std::time::Instant::now();
    for n in 0..100 {
        let delivery_result = a.publish(&format!(r#"["n",{n}]"#), &["r"]);
        assert_eq!(delivery_result.local, 1);
        assert!(matches!(delivery_result.remote, RemoteDelivery::NotCarried(RemoteFailure::Away)));
    }
    assert!(started.elapsed() < Duration::from_secs(1));
    for n in 0..100 {
        assert_eq!(near.text().await, format!(r#"42["n",{n}]"#));
    }
    assert_eq!(a.metrics.cluster_not_carried_total.with_label_values(&["away"]).get(), 100);
    server.restart();
    a.knows(2).await;
    b.knows(2).await;
    a.publish(r#"["back"]"#, &["r"]);
    assert_eq!(far.text().await, r#"42["back"]"#);
    assert_eq!(b.metrics.cluster_missed_total.with_label_values::<&str>(&[]).get(), 100);
}

async fn actions_reach_clients_of_both_nodes(engine: Kind) {
    use roomcast::directory::{ActionResult, Actions, Selection, SendOutcome};
    let server = RedisServer::start();
    let a = Node::start(engine, config::ServerSettings::default(), Some((&server, "a"))).await;
    let b = Node::start(engine, config::ServerSettings::default(), Some((&server, "b"))).await;
    a.knows(2).await;
    b.knows(2).await;
    let (mut near, mut far) = (a.client().await, b.client().await);
    // The gate greets a client before it has joined its rooms.
    let there = |node: &Node| node.gate.rooms.count("/", &["$user:u".into()], &[]) == 1;
    eventually("both are in their rooms", Duration::from_secs(2), || there(&a) && there(&b)).await;
    let everyone = Selection { namespace: "/".into(), users: vec!["u".into()], ..Selection::default() };
    let done = a.actions.join(&everyone, "r").await.unwrap();
    assert_eq!(done, ActionResult { local: 1, remote: SendOutcome::Carried });
    eventually("the far client has joined", Duration::from_secs(2), || {
        b.gate.rooms.count("/", &["r".into()], &[]) == 1
    })
    .await;
    b.gate.rooms.settled(&"/".into(), &"r".into()).await;
    a.publish(r#"["x"]"#, &["r"]);
    assert_eq!(near.text().await, r#"42["x"]"#);
    assert_eq!(far.text().await, r#"42["x"]"#);
    let nobody = Selection { namespace: "/".into(), ..Selection::default() };
    assert_eq!(a.actions.disconnect(&nobody, false).await.unwrap().local, 0);
    a.actions.disconnect(&everyone, false).await.unwrap();
    assert_eq!(near.text().await, "41");
    assert_eq!(far.text().await, "41");
}

on_both_engines! {
    greeting_follows_connect_and_events_keep_their_order
    refusal_is_a_connect_error_or_an_event_and_a_disconnect
    binary_attachments_pass_unchanged_both_ways
    a_client_acknowledges_what_it_is_asked_also_with_binary_and_in_any_order
    acknowledgements_that_are_awaited_of_one_client_are_bounded
    packet_that_others_could_not_read_ends_its_sender_alone
    client_in_several_rooms_gets_one_copy_and_counts_are_true
    client_that_does_not_read_loses_events_and_each_is_counted
    both_ways_of_closing_end_the_session_once
    namespaces_of_one_connection_are_sessions_of_their_own
    connections_are_limited_and_given_back
    polling_client_learns_that_its_transport_was_closed
    pages_of_other_origins_may_not_connect
    events_reach_the_other_node_to_the_byte_and_once
    burst_to_a_room_arrives_completely_on_both_nodes
    local_clients_lose_nothing_while_redis_is_away
    actions_reach_clients_of_both_nodes
}
