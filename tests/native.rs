//! Tests the native engine over real sockets: WebSocket and Engine.IO as their specifications define them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast::auth::Handshake;
use roomcast::cluster::Cluster;
use roomcast::config::{self, Period};
use roomcast::engine::{Broadcaster, Engine, Gate};
use roomcast::error::{Code, Refusal};
use roomcast::event::{Args, Event};
use roomcast::publish::{Delivery, DeliveryResult, Outgoing};
use roomcast::room::Rooms;
use roomcast::session::{AckId, ClientFacts, Link, Session};
use roomcast::telemetry::metrics::Metrics;
use roomcast::user::User;

use crate::support::client::{Client, Frame};
use crate::support::engine::Served;
use crate::support::redis::eventually;

/// A gate that refuses clients with a payload in CONNECT, and returns each event to its sender: as the acknowledgement
/// if one is asked for, or else as an event.
struct Echo {
    rooms: Arc<Rooms>,
    ended: std::sync::Mutex<Vec<&'static str>>,
}

impl Gate for Echo {
    type Admission = Arc<str>;
    type Client = Session;

    async fn admit(
        &self,
        namespace: &Arc<str>,
        _: &str,
        handshake: Handshake,
        _: &ClientFacts,
    ) -> Result<Arc<str>, Refusal> {
        match handshake.auth {
            Some(_) => Err(Refusal::new(Code::Overloaded, "later").retry_after(Duration::from_secs(2))),
            None => Ok(namespace.clone()),
        }
    }

    fn open(
        self: &Arc<Self>,
        namespace: Arc<str>,
        id: &str,
        peer: ClientFacts,
        link: Box<dyn Link>,
    ) -> Option<Arc<Session>> {
        let session = Session::new(id, namespace, Arc::new(User::named("u")), peer, link);
        self.rooms.add(&session);
        Some(session)
    }

    fn dispatch(self: &Arc<Self>, session: &Arc<Session>, event: Event, ack: Option<AckId>) {
        match ack {
            Some(ack) => session.ack(ack, &Args::of(&event)).unwrap(),
            None => session.send(&event).unwrap(),
        }
    }

    fn closed(self: &Arc<Self>, session: &Arc<Session>, reason: &'static str) {
        self.rooms.remove(session);
        self.ended.lock().unwrap().push(reason);
    }
}

struct Node {
    address: String,
    gate: Arc<Echo>,
    delivery: Arc<Broadcaster>,
    engine: Arc<Engine<Echo>>,
    _served: Served<Echo>,
}

impl Node {
    async fn start(server: config::ServerSettings) -> Self {
        let metrics = Arc::new(Metrics::new());
        let rooms = Arc::new(Rooms::new(["/".into(), "/other".into()]));
        let cluster = Cluster::alone("n", rooms.clone());
        let delivery = Broadcaster::new(&rooms, &cluster, &[], &metrics);
        let namespaces: Vec<_> = rooms.namespaces().cloned().collect();
        let gate = Arc::new(Echo { rooms, ended: std::sync::Mutex::default() });
        let served = Served::start((&server, &config::LimitsSettings::default()), &namespaces, &gate, &metrics).await;
        let (address, engine) = (served.address.clone(), served.engine.clone());
        Self { address, gate, delivery, engine, _served: served }
    }

    async fn ended(&self, wanted: &[&'static str]) {
        let ended = || *self.gate.ended.lock().unwrap() == wanted;
        eventually("the sessions have ended", Duration::from_secs(5), ended).await;
    }

    fn publish(&self, text: &str) -> DeliveryResult {
        let event = Event::from_wire(text.to_owned().into(), Vec::new()).unwrap();
        self.delivery.broadcast(&Outgoing::new("/".into(), event, Vec::new()))
    }
}

fn quick() -> config::ServerSettings {
    let period = |text: &str| text.parse::<Period>().unwrap();
    config::ServerSettings {
        ping_interval: period("300ms"),
        ping_timeout: period("300ms"),
        connect_timeout: period("400ms"),
        ..config::ServerSettings::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_ping_comes_after_one_interval_and_silence_ends_the_session() {
    let node = Node::start(quick()).await;
    let started = Instant::now();
    let (mut client, answer) = Client::connect(&node.address, "/", "").await;
    assert!(answer.starts_with("40{"));
    for beat in 1..=3 {
        assert_eq!(client.frame().await, Frame::Text("2".into()));
        assert!(started.elapsed() >= Duration::from_millis(290) * beat, "{beat}: {:?}", started.elapsed());
        client.send("3").await;
    }
    assert_eq!(client.silent_until_closed().await, ["2"]);
    node.ended(&["ping timeout"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_comes_into_no_namespace_is_disconnected() {
    let node = Node::start(quick()).await;
    let mut client = Client::open(&node.address).await;
    let started = Instant::now();
    let packets = client.until_closed().await;
    assert!(packets.iter().all(|packet| packet == "2"), "{packets:?}");
    assert!(started.elapsed() < Duration::from_secs(3));
    eventually("its place is free", Duration::from_secs(5), || node.engine.hub().open() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_have_ids_of_their_own_and_none_is_the_connections() {
    let node = Node::start(config::ServerSettings::default()).await;
    let mut client = Client::open(&node.address).await;
    let ids = [client.join("/", "").await, client.join("/other", "").await];
    let ids: Vec<_> = ids.iter().map(|packet| packet.split('"').nth(3).unwrap().to_owned()).collect();
    assert!(ids[0] != ids[1] && !ids.contains(&client.sid), "{ids:?}");
    assert!(ids.iter().all(|id| id.len() == 16 && node.gate.rooms.session("/", id).is_some() == (*id == ids[0])));
    // A client may not send a second CONNECT to the same namespace, so the node closes the connection.
    client.send("40").await;
    client.until_closed().await;
    node.ended(&["parse error", "parse error"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_has_data_and_the_client_may_try_again() {
    let node = Node::start(config::ServerSettings::default()).await;
    let (mut client, answer) = Client::connect(&node.address, "/", r#"{"a":1}"#).await;
    let data = r#"{"code":"OVERLOADED","message":"later","retryAfterMs":2000}"#;
    assert_eq!(answer, format!(r#"44{{"message":"OVERLOADED: later","data":{data}}}"#));
    assert!(client.join("/", "").await.starts_with("40{"));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_pieces_and_large_ones_come_back_whole() {
    let node = Node::start(config::ServerSettings::default()).await;
    let (mut client, _) = Client::connect(&node.address, "/", "").await;
    client.write(0x01, br#"42["a","#).await;
    client.write(0x89, b"are you there").await;
    client.write(0x00, b"\"\xc3").await;
    client.write(0x80, b"\xa9\"]").await;
    assert_eq!(client.text().await, "42[\"a\",\"\u{e9}\"]");
    for length in [100, 125, 126, 65_000, 65_536, 900_000] {
        let text = format!(r#"427["a","{}"]"#, "x".repeat(length));
        client.send(&text).await;
        assert_eq!(client.text().await, format!(r#"437["{}"]"#, "x".repeat(length)));
    }
    client.send_binary(&[0]).await;
    client.until_closed().await;
    let (mut client, _) = Client::connect(&node.address, "/", "").await;
    client.send(&format!(r#"42["a","{}"]"#, "x".repeat(1_000_000))).await;
    client.until_closed().await;
    node.ended(&["parse error", "transport error"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_frame_ends_the_connection() {
    let node = Node::start(config::ServerSettings::default()).await;
    for (head, payload) in [(0xC1, &b"2"[..]), (0x83, b""), (0x09, b"x"), (0x80, b"x"), (0x81, b"\xff")] {
        let (mut client, _) = Client::connect(&node.address, "/", "").await;
        client.write(head, payload).await;
        client.until_closed().await;
    }
    let (mut client, _) = Client::connect(&node.address, "/", "").await;
    client.write(0x88, &[0x03, 0xE8]).await;
    client.until_closed().await;
    node.ended(&[
        "transport error",
        "transport error",
        "transport error",
        "transport error",
        "transport error",
        "transport close",
    ])
    .await;
    eventually("all places are free", Duration::from_secs(5), || node.engine.hub().open() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_stops_reading_is_given_up_and_others_get_everything() {
    let server = config::ServerSettings { queue: 100_000, ping_interval: "60s".parse().unwrap(), ..quick() };
    let node = Node::start(server).await;
    let (deaf, _) = Client::connect(&node.address, "/", "").await;
    let (mut client, _) = Client::connect(&node.address, "/", "").await;
    let text = "x".repeat(10_000);
    let reading = tokio::spawn(async move {
        for n in 0..3000 {
            assert!(client.text().await.starts_with(&format!(r#"42["n",{n},"#)), "{n}");
        }
    });
    for n in 0..3000 {
        node.publish(&format!(r#"["n",{n},"{text}"]"#));
        if n % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    reading.await.unwrap();
    eventually("the deaf one is gone", Duration::from_secs(5), || node.engine.hub().open() <= 1).await;
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_goes_closes_every_connection_and_ends() {
    let node = Node::start(config::ServerSettings::default()).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::connect(&node.address, "/", "").await.0);
    }
    assert_eq!(node.publish(r#"["last"]"#).local, 20);
    node.engine.hub().accept(false);
    node.engine.close_all();
    for client in &mut clients {
        assert_eq!(client.until_closed().await, [r#"42["last"]"#]);
    }
    drop(clients);
    node.ended(&["server transport close"; 20]).await;
    eventually("nobody is left", Duration::from_secs(5), || node.engine.hub().open() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_queued_is_read_before_the_end() {
    let node = Node::start(config::ServerSettings::default()).await;
    let (mut client, _) = Client::connect(&node.address, "/", "").await;
    let text = "x".repeat(10_000);
    for n in 0..300 {
        assert_eq!(node.publish(&format!(r#"["n",{n},"{text}"]"#)).local, 1);
    }
    node.engine.close_all();
    let packets = client.until_closed().await;
    assert_eq!(packets.len(), 300);
    assert!(packets.iter().enumerate().all(|(n, packet)| packet.starts_with(&format!(r#"42["n",{n},"#))));
}

/// Large and small events, attachments, fragments, pings and acknowledgements of many clients, through broadcasts to
/// all of them: no event is lost, overtaken by a later event, or damaged.
#[tokio::test(flavor = "multi_thread")]
async fn mixed_traffic_keeps_order_and_content() {
    const CLIENTS: u64 = 12;
    const EACH: u64 = 150;
    const BROADCASTS: u64 = 600;
    let node = Node::start(config::ServerSettings { queue: 100_000, ..config::ServerSettings::default() }).await;
    let mut tasks = Vec::new();
    for seed in 1..=CLIENTS {
        let (client, _) = Client::connect(&node.address, "/", "").await;
        tasks.push(tokio::spawn(busy(client, seed, EACH, BROADCASTS)));
    }
    for n in 0..BROADCASTS {
        let delivery_result = node.publish(&format!(r#"["all",{n}]"#));
        assert_eq!((delivery_result.local, delivery_result.dropped), (CLIENTS as usize, 0));
        if n % 8 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn busy(mut client: Client, seed: u64, each: u64, broadcasts: u64) {
    let mut state = seed;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let (mut answered, mut heard) = (0, 0);
    let mut wanted = std::collections::VecDeque::new();
    for n in 0..each {
        let filling = "y".repeat(usize::try_from(random(20_000) >> random(12)).unwrap());
        match random(3) {
            0 => {
                client.send(&format!(r#"42{n}["e","{filling}"]"#)).await;
                wanted.push_back((format!(r#"43{n}["{filling}"]"#), None));
            }
            1 => {
                let text = format!(r#"42{n}["e","{filling}"]"#);
                let (head, client_offset) = text.as_bytes().split_at(text.len() / 2);
                client.write(0x01, head).await;
                client.write(0x89, b"?").await;
                client.write(0x80, client_offset).await;
                wanted.push_back((format!(r#"43{n}["{filling}"]"#), None));
            }
            _ => {
                client.send(&format!(r#"451-{n}["e",{{"_placeholder":true,"num":0}}]"#)).await;
                client.send_binary(filling.as_bytes()).await;
                wanted.push_back((format!(r#"461-{n}[{{"_placeholder":true,"num":0}}]"#), Some(filling.into_bytes())));
            }
        }
        while wanted.len() > 8 {
            hear(&mut client, &mut wanted, &mut answered, &mut heard).await;
        }
    }
    while answered < each || heard < broadcasts {
        hear(&mut client, &mut wanted, &mut answered, &mut heard).await;
    }
}

type Wanted = std::collections::VecDeque<(String, Option<Vec<u8>>)>;

async fn hear(client: &mut Client, wanted: &mut Wanted, answered: &mut u64, heard: &mut u64) {
    let text = client.text().await;
    if text.starts_with(r#"42["all""#) {
        assert_eq!(text, format!(r#"42["all",{heard}]"#));
        *heard += 1;
        return;
    }
    let (packet, attachment) = wanted.pop_front().expect("nobody asked for this");
    assert_eq!(text, packet);
    if let Some(attachment) = attachment {
        assert_eq!(client.frame().await, Frame::Binary(attachment));
    }
    *answered += 1;
}
