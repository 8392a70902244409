//! Tests that backends with the crate `socketioxide-emitter` and servers of socketioxide work together with nodes of
//! both engines.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fred::clients::SubscriberClient;
use fred::interfaces::{ClientLike as _, EventInterface as _, PubsubInterface as _};
use fred::types::config::Config;
use fred::types::{Builder, RespVersion};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide_emitter::IoEmitter;
use socketioxide_redis::drivers::{ChanItem, Driver, MessageStream};
use socketioxide_redis::{CustomRedisAdapter, RedisAdapterConfig, RedisAdapterCtr};

use crate::support::client::{Client, Frame};
use crate::support::process::Process;
use crate::support::redis::RedisServer;

/// Maximum time to wait for a result. It is long because tests run in parallel.
const PATIENCE: Duration = Duration::from_secs(30);

fn start(redis: &str, engine: &str, wire: &str) -> Process {
    let contract = |name: &str| format!("{}/tests/js/fixtures/alone/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let files = [contract("emitter"), contract("emitter-other")];
    let config = format!(
        "[contracts]\nfiles = {files:?}\n[redis]\nurl = {redis:?}\n[log]\nformat = \"json\"\nlevel = \"warn\"\n\
         [drain]\ndelay = \"0s\"\n[[api.keys]]\nname = \"tests\"\n\
         secret = \"an-api-key-of-the-tests-0123456789abcdef\"\n"
    );
    Process::start(&config, "", &[("ROOMCAST_SERVER__ENGINE", engine), ("ROOMCAST_REDIS__WIRE", wire)])
}

/// A client and its socket id.
struct Someone {
    client: Client,
    id: String,
    namespace: &'static str,
}

impl Someone {
    async fn connect(node: &Process, namespace: &'static str) -> Self {
        let (client, answer) = Client::connect(&node.server, namespace, "").await;
        let said: Value = serde_json::from_str(&answer[answer.find('{').unwrap()..]).unwrap();
        Self { client, id: said["sid"].as_str().unwrap().to_owned(), namespace }
    }

    async fn ask(&mut self, event: &str, argument: &str) {
        let prefix = if self.namespace == "/" { String::new() } else { format!("{},", self.namespace) };
        self.client.send(&format!("42{prefix}7{}", json!([event, argument]))).await;
        loop {
            let text = self.client.text().await;
            if let Some(answer) = text.strip_prefix(&format!("43{prefix}7")) {
                let answer: Value = serde_json::from_str(answer).unwrap();
                assert_eq!(answer[0]["success"], true, "{event} {argument}: {text}");
                return;
            }
        }
    }

    /// The next event: its name and its first argument.
    async fn next(&mut self) -> (String, Value) {
        let text = self.client.text().await;
        let at = text.find('[').unwrap_or_else(|| panic!("no event: {text}"));
        let mut event: Vec<Value> = serde_json::from_str(&text[at..]).unwrap();
        let argument = if event.len() > 1 { event.swap_remove(1) } else { Value::Null };
        (event[0].as_str().unwrap().to_owned(), argument)
    }

    /// Receives all events before the next event with the name `mark`.
    async fn until(&mut self, fingerprint: &str) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        loop {
            let event = self.next().await;
            if event.0 == fingerprint {
                return all;
            }
            all.push(event);
        }
    }
}

fn events(all: &[(&str, Value)]) -> Vec<(String, Value)> {
    all.iter().map(|(name, argument)| ((*name).to_owned(), argument.clone())).collect()
}

/// The Redis connection of a process that is not a node, with or without sharded pub/sub.
#[derive(Clone)]
struct Bus {
    client: SubscriberClient,
    is_sharded: bool,
    streams: Arc<Mutex<HashMap<String, tokio::sync::mpsc::Sender<ChanItem>>>>,
}

impl Bus {
    async fn connect(url: &str, is_sharded: bool) -> Self {
        let mut config = Config::from_url(url).unwrap();
        // A connection that subscribes may also publish.
        config.version = RespVersion::RESP3;
        let client = Builder::from_config(config).build_subscriber_client().unwrap();
        client.init().await.unwrap();
        let streams = Arc::<Mutex<HashMap<String, tokio::sync::mpsc::Sender<ChanItem>>>>::default();
        let (mut messages, sinks) = (client.message_rx(), streams.clone());
        tokio::spawn(async move {
            while let Ok(message) = messages.recv().await {
                let stream = sinks.lock().unwrap().get(&*message.channel).cloned();
                let Some(stream) = stream else { continue };
                let body = message.value.into_owned_bytes().unwrap();
                let _ = stream.send((message.channel.to_string(), body)).await;
            }
        });
        Self { client, is_sharded, streams }
    }

    async fn send(&self, channel: String, bytes: Vec<u8>) -> Result<(), fred::error::Error> {
        match self.is_sharded {
            true => self.client.spublish(channel, bytes.as_slice()).await,
            false => self.client.publish(channel, bytes.as_slice()).await,
        }
    }
}

impl socketioxide_emitter::Driver for Bus {
    type Error = fred::error::Error;

    async fn emit(&self, channel: String, data: Vec<u8>) -> Result<(), Self::Error> {
        self.send(channel, data).await
    }
}

impl Driver for Bus {
    type Error = fred::error::Error;

    async fn publish(&self, channel: String, bytes: Vec<u8>) -> Result<(), Self::Error> {
        self.send(channel, bytes).await
    }

    async fn subscribe(&self, channel: String, size: usize) -> Result<MessageStream<ChanItem>, Self::Error> {
        let (stream, incoming) = tokio::sync::mpsc::channel(size);
        self.streams.lock().unwrap().insert(channel.clone(), stream);
        match self.is_sharded {
            true => self.client.ssubscribe(channel).await?,
            false => self.client.subscribe(channel).await?,
        }
        Ok(MessageStream::new(incoming))
    }

    async fn unsubscribe(&self, channel: String) -> Result<(), Self::Error> {
        self.streams.lock().unwrap().remove(&channel);
        Ok(())
    }

    async fn num_serv(&self, channel: &str) -> Result<u16, Self::Error> {
        let (_, servers): (String, u16) = match self.is_sharded {
            true => self.client.pubsub_shardnumsub(channel).await?,
            false => self.client.pubsub_numsub(channel).await?,
        };
        Ok(servers)
    }
}

/// Nodes of both engines and both wire formats, on one Redis.
async fn cluster(redis: RedisServer) -> (RedisServer, [Process; 2]) {
    let nodes =
        [("native", "compact"), ("socketioxide", "socketio")].map(|(engine, wire)| start(&redis.url(), engine, wire));
    for node in &nodes {
        node.ready().await;
    }
    (redis, nodes)
}

/// A client on each node, in these rooms.
async fn pair(nodes: &[Process; 2], rooms: &[&str]) -> [Someone; 2] {
    let mut clients = [Someone::connect(&nodes[0], "/").await, Someone::connect(&nodes[1], "/").await];
    for client in &mut clients {
        for room in rooms {
            client.ask("join", room).await;
        }
    }
    clients
}

#[tokio::test]
async fn the_emitter_for_rust_reaches_the_clients_that_it_means() {
    let (redis, nodes) = cluster(RedisServer::start()).await;
    for (is_sharded, prefix) in [(false, "socket.io"), (true, "socket.io"), (false, "roomcast"), (true, "roomcast")] {
        let bus = Bus::connect(&redis.url(), is_sharded).await;
        let io = || IoEmitter::new().prefix(prefix);
        let [mut a, mut b] = pair(&nodes, &["r1"]).await;
        b.ask("join", "r2").await;
        let mut other = Someone::connect(&nodes[1], "/other").await;
        other.ask("join", "r1").await;

        io().emit("all", &1, &bus).await.unwrap();
        io().to("r1").emit("room", &2, &bus).await.unwrap();
        io().to(["r1", "r2"]).emit("both", &3, &bus).await.unwrap();
        io().within("r1").except("r2").emit("but", &4, &bus).await.unwrap();
        io().to(a.id.clone()).emit("one", &5, &bus).await.unwrap();
        io().except(a.id.clone()).emit("others", &6, &bus).await.unwrap();
        io().to("nobody").emit("nothing", &7, &bus).await.unwrap();
        io().emit("connect", &8, &bus).await.unwrap();
        io().of("/other").to("r1").emit("other", &9, &bus).await.unwrap();
        io().to(a.id.clone()).join(["x", "$sid:stolen"], &bus).await.unwrap();
        io().to("x").emit("x", &10, &bus).await.unwrap();
        io().to("x").leave("x", &bus).await.unwrap();
        io().to("x").emit("left", &11, &bus).await.unwrap();
        io().emit("mark", &json!({ "deep": [null, 1.5, "\u{e9}"] }), &bus).await.unwrap();
        let got = [a.until("mark").await, b.until("mark").await];
        let all = |rest: &[(&str, Value)]| {
            let first = [("all", json!(1)), ("room", json!(2)), ("both", json!(3))];
            events(&[&first, rest].concat())
        };
        assert_eq!(got[0], all(&[("but", json!(4)), ("one", json!(5)), ("x", json!(10))]), "{is_sharded} {prefix}");
        assert_eq!(got[1], all(&[("others", json!(6))]), "{is_sharded} {prefix}");
        assert_eq!(other.next().await, ("other".to_owned(), json!(9)));

        for client in [&mut a, &mut b] {
            io().to(client.id.clone()).emit("bin", &bytes::Bytes::from_static(b"\x00\x01"), &bus).await.unwrap();
            let placeholder = json!({ "_placeholder": true, "num": 0 });
            assert_eq!(client.next().await, ("bin".to_owned(), placeholder));
            assert_eq!(client.client.frame().await, Frame::Binary(vec![0, 1]));
        }
        io().to("r1").disconnect(&bus).await.unwrap();
        assert_eq!([a.client.text().await, b.client.text().await], ["41", "41"]);
        for node in &nodes {
            let dropped = node.metric("roomcast_socketio_dropped_total", r#"reason="reserved_event""#).await;
            assert!(dropped >= 1.0, "{dropped}");
        }
    }
}

#[tokio::test]
async fn rules_and_histories_hold_for_the_emitter_for_rust() {
    rules_hold(RedisServer::start()).await;
}

#[tokio::test]
async fn rules_and_histories_hold_in_a_redis_cluster_too() {
    rules_hold(RedisServer::cluster()).await;
}

async fn rules_hold(redis: RedisServer) {
    let (redis, nodes) = cluster(redis).await;
    for is_sharded in [false, true] {
        let bus = Bus::connect(&redis.url(), is_sharded).await;
        let story = || IoEmitter::new().to("story-s");
        let kept = format!("kept-{is_sharded}");
        let mut clients = pair(&nodes, &[]).await;
        for client in &mut clients {
            client.ask("story", "s").await;
            client.ask("keep", &is_sharded.to_string()).await;
        }
        // Within a second the nodes agree on the node that publishes emitters' events.
        let until = Instant::now() + PATIENCE;
        let served = || async { nodes[0].metric("roomcast_deliveries_total", r#""/""#).await };
        let before = served().await;
        while served().await == before {
            assert!(Instant::now() < until, "one node publishes");
            story().emit("step", &json!({ "n": 0 }), &bus).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        story().emit("step", &json!({ "n": 1 }), &bus).await.unwrap();
        story().emit("step", &json!({ "wrong": true }), &bus).await.unwrap();
        for n in 0..5 {
            IoEmitter::new().to(kept.clone()).emit("k", &n, &bus).await.unwrap();
        }
        story().emit("step", &json!({ "n": 2 }), &bus).await.unwrap();
        for client in &mut clients {
            let mut steps = Vec::new();
            let mut lines = Vec::new();
            while steps.last() != Some(&2) {
                let (name, argument) = client.next().await;
                match &*name {
                    "step" => {
                        assert!(argument["at"].is_string(), "filled in: {argument}");
                        steps.push(argument["n"].as_u64().unwrap());
                    }
                    _ => lines.push((name, argument)),
                }
            }
            steps.retain(|n| *n > 0);
            assert_eq!(steps, [1, 2], "once, and nothing that the contract refuses");
            let all: Vec<_> = (0..5).map(|n| ("k".to_owned(), json!(n))).collect();
            assert_eq!(lines, all, "once");
        }
        let mut late = Someone::connect(&nodes[1], "/").await;
        late.client.send(&format!("420{}", json!(["keep", is_sharded.to_string()]))).await;
        let mut replayed = Vec::new();
        while replayed.len() < 5 {
            let text = late.client.text().await;
            if let Some(event) = text.strip_prefix("42") {
                let event: Value = serde_json::from_str(event).unwrap();
                replayed.push(event[1].clone());
            }
        }
        assert_eq!(replayed, (0..5).map(Value::from).collect::<Vec<_>>(), "the history has them");
    }
    let refused = async |node: &Process| node.metric("roomcast_socketio_dropped_total", r#"reason="refused""#).await;
    assert_eq!(refused(&nodes[0]).await + refused(&nodes[1]).await, 2.0);
}

#[tokio::test]
async fn a_server_of_socketioxide_reaches_the_clients_of_nodes_and_asks_about_them() {
    let (redis, nodes) = cluster(RedisServer::start()).await;
    let [mut a, mut b] = pair(&nodes, &["r1"]).await;
    for is_sharded in [false, true] {
        let bus = Bus::connect(&redis.url(), is_sharded).await;
        let adapter = RedisAdapterCtr::new_with_driver(bus, RedisAdapterConfig::new());
        let (_service, io) = SocketIo::builder().with_adapter::<CustomRedisAdapter<_, Bus>>(adapter).build_svc();
        io.ns("/", async || {}).await.unwrap();
        io.to("r1").emit("news", &is_sharded).await.unwrap();
        for client in [&mut a, &mut b] {
            assert_eq!(client.next().await, ("news".to_owned(), json!(is_sharded)));
        }
        let asked = Instant::now();
        let sockets = io.to("r1").fetch_sockets().await.unwrap();
        let mut ids: Vec<_> = sockets.iter().map(|socket| socket.data().id.to_string()).collect();
        ids.sort();
        // Without sharded pub/sub, the socketioxide server does not count a node with `wire = "compact"` among the
        // servers.
        let mut counted = if is_sharded { vec![a.id.clone(), b.id.clone()] } else { vec![b.id.clone()] };
        counted.sort();
        assert_eq!(ids, counted, "{is_sharded}");
        assert_eq!(io.rooms().await.unwrap(), ["r1"], "{is_sharded}");
        let waited = asked.elapsed();
        assert!(waited < Duration::from_secs(5), "the library's own time-out is 5 s: {waited:?}");
        for socket in sockets {
            socket.emit("direct", &1).await.unwrap();
            socket.join("r2").await.unwrap();
        }
        io.to("r2").emit("second", &2).await.unwrap();
        let answers = io.to("r1").emit_with_ack::<_, Value>("ask", &3).await.unwrap();
        let answers = tokio::spawn(answers.collect::<Vec<_>>());
        for client in [&mut a, &mut b] {
            if !counted.contains(&client.id) {
                continue;
            }
            assert_eq!(client.next().await, ("direct".to_owned(), json!(1)));
            assert_eq!(client.next().await, ("second".to_owned(), json!(2)));
            let question = client.client.text().await;
            let id: String = question[2..].chars().take_while(char::is_ascii_digit).collect();
            assert_eq!(question, format!(r#"42{id}["ask",3]"#));
            client.client.send(&format!("43{id}{}", json!([{ "from": client.id }]))).await;
        }
        let answers = answers.await.unwrap().into_iter();
        let mut said: Vec<_> = answers.map(|(id, answer)| (id.to_string(), answer.unwrap()["from"].clone())).collect();
        said.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(said, counted.iter().map(|id| (id.clone(), json!(id))).collect::<Vec<_>>());
        for client in [&mut a, &mut b] {
            client.ask("leave", "r2").await;
        }
    }
    for node in &nodes {
        assert!(node.metric("roomcast_socketio_received_total", r#"kind="question""#).await >= 3.0);
    }
}

#[test]
fn the_example_of_the_manual_is_compiled() {
    assert!(include_str!("../docs/emitter.md").contains(include_str!("../examples/emitter.rs")));
}
