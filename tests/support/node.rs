//! A whole node without network sockets: its clients are connections in memory that record the packets that they
//! receive, and that reconnect like the official client.

use std::sync::Arc;
use std::time::Duration;

use roomcast::auth::{Authenticator, Handshake};
use roomcast::cluster::{Cluster, MessageHandlers, RedisLink};
use roomcast::config;
use roomcast::contract::load::{Source, load_sources};
use roomcast::drain::Drain;
use roomcast::engine::Broadcaster;
use roomcast::engine::socketioxide::LibraryRequests;
use roomcast::event::Event;
use roomcast::forward::Peers;
use roomcast::gateway::{self, Gateway, GatewayClient};
use roomcast::history::History;
use roomcast::hooks::{Hooks, Notices};
use roomcast::limits::Limits;
use roomcast::owners::Owners;
use roomcast::presence::{self, Policies};
use roomcast::publish::{self, ContractPublish, Delivery, Published, Publisher, PublisherKind};
use roomcast::recovery::Recovery;
use roomcast::redis::Redis;
use roomcast::room::Rooms;
use roomcast::telemetry::metrics::Metrics;
use roomcast::throttle::Throttles;
use serde_json::{Value, json};

use super::recorder::{RecordedPacket, Recorder, peer};
use super::redis::eventually;

pub const CONTRACT: &str = r#"
name = "c"
namespace = "/"
summary = "Rooms whose clients come back"

[auth]
mode = "none"

[recovery]
window = "1m"

[rooms.log]
name = "log:{log}"

[rooms.kept]
name = "kept:{kept}"
history = { events = 500, ttl = "10m" }

[client.follow]
payload = { shorthand = "log", schema = { type = "object", required = ["log"] } }
join = "log"

[client.keep]
payload = { shorthand = "kept", schema = { type = "object", required = ["kept"] } }
join = "kept"

[server.entry]
rooms = ["log"]

[server.line]
rooms = ["kept"]
"#;

/// A contract without recovery. Its boards have no history, and the event of a board has a rule. Its tapes have a
/// history that joining clients get.
pub const BARE: &str = r#"
name = "bare"
namespace = "/bare"
summary = "Rooms whose clients do not come back"

[auth]
mode = "none"

[rooms.board]
name = "board:{board}"

[rooms.tape]
name = "tape:{tape}"
history = { events = 500, ttl = "10m", replay = "all" }

[client.watch]
payload = { shorthand = "board", schema = { type = "object", required = ["board"] } }
join = "board"

[client.wind]
payload = { shorthand = "tape", schema = { type = "object", required = ["tape"] } }
join = "tape"

[server.post]
rooms = ["board"]
schema = { type = "object", required = ["n"] }

[server.take]
rooms = ["tape"]
"#;

/// A node of a cluster.
pub struct Node {
    pub redis: Redis,
    pub rooms: Arc<Rooms>,
    pub history: Arc<History>,
    pub cluster: Arc<Cluster>,
    pub publisher: Arc<Publisher>,
    pub gateway: Arc<Gateway>,
    pub metrics: Arc<Metrics>,
}

/// A publisher that knows no contract.
pub fn plain_publisher(delivery: Arc<dyn Delivery>, metrics: &Arc<Metrics>) -> Arc<Publisher> {
    Publisher::new(publish::PublisherParts {
        namespaces: Vec::new(),
        delivery,
        throttles: Throttles::in_memory(metrics.clone()),
        history: Arc::new(History::in_memory(metrics.clone())),
        presence: presence::in_memory("plain", Policies::default(), Duration::ZERO, metrics.clone())
            .start(Arc::default())
            .0,
        metrics: metrics.clone(),
    })
}

/// A client that is connected, or was.
pub struct Someone {
    client: Arc<GatewayClient>,
    /// What the client was sent over all its connections.
    tape: Recorder,
    pid: String,
    /// Whether the client's session was recovered.
    pub recovered: bool,
}

impl Node {
    pub async fn start(url: &str, name: &str, change: impl FnOnce(&mut config::RedisSettings)) -> Self {
        let mut config = config::RedisSettings { url: Some(config::Url::new(url)), ..config::RedisSettings::default() };
        change(&mut config);
        let source = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
        let sources = vec![source("test.toml", CONTRACT), source("bare.toml", BARE)];
        let namespaces: Vec<_> = load_sources(sources).unwrap().into_iter().map(Arc::new).collect();
        let contracts: Vec<_> = namespaces.iter().flat_map(|namespace| namespace.contracts.clone()).collect();
        let metrics = Arc::new(Metrics::new());
        let redis = Redis::connect(&config, name, metrics.clone()).unwrap();
        let hour = Duration::from_secs(3600);
        let recorder = presence::in_memory(name, Policies::default(), hour, metrics.clone());
        let paths = namespaces.iter().map(|namespace| namespace.path.clone());
        let (identity, drain) = ((name, "contracts"), Drain::new(&config::DrainSettings::default(), metrics.clone()));
        let (link, inbox) = RedisLink::new(identity, paths.clone(), redis.clone(), drain, metrics.clone(), &config);
        let rooms = Rooms::new(paths).watched_by(recorder.watcher()).subscribed_by(link.wire().clone());
        let rooms = Arc::new(rooms);
        let (presence, _) = recorder.start(rooms.clone());
        let cluster = Cluster::join(link, rooms.clone(), Peers::none());
        let delivery = Broadcaster::new(&rooms, &cluster, &contracts, &metrics);
        let history = Arc::new(History::in_redis(redis.clone(), metrics.clone()));
        let publisher = Publisher::new(publish::PublisherParts {
            namespaces: namespaces.clone(),
            delivery,
            throttles: Throttles::in_redis(redis.clone(), metrics.clone()),
            history: history.clone(),
            presence: presence.clone(),
            metrics: metrics.clone(),
        });
        let (window, store) = (Duration::from_secs(60), (redis.clone(), name));
        let recovery = Recovery::in_redis(&Default::default(), store, window, history.clone(), metrics.clone(), |_| {});
        let hooks = Arc::new(Hooks::new(name, &Default::default(), metrics.clone()).unwrap());
        let gateway = Gateway::new(gateway::GatewayParts {
            auth: Authenticator::new(&config::AuthSettings::default(), metrics.clone()).await.unwrap(),
            limits: Arc::new(Limits::new(&config::LimitsSettings::default(), &contracts, metrics.clone())),
            namespaces,
            rooms: rooms.clone(),
            publisher: publisher.clone(),
            owners: Arc::new(Owners::in_memory(metrics.clone())),
            presence,
            recovery,
            history: history.clone(),
            hooks: hooks.clone(),
            notices: Notices::in_memory(hooks),
            metrics: metrics.clone(),
            pending: roomcast::gateway::PendingBounds { events: 256, bytes: 4 << 20, node_bytes: 64 << 20 },
        });
        inbox.start(&cluster, publisher.clone(), Arc::new(LibraryRequests::default()), MessageHandlers::default());
        Self { redis, rooms, history, cluster, publisher, gateway, metrics }
    }

    /// Waits until this node receives messages from Redis, and sees this number of nodes in the cluster.
    pub async fn ready(&self, nodes: usize) {
        let good = || self.redis.health().is_good() && self.cluster.view().nodes.len() == nodes;
        eventually("the nodes know each other", Duration::from_secs(20), good).await;
    }

    pub async fn connect(&self, id: &str) -> Someone {
        self.open("/", id, json!({}), Recorder::default()).await
    }

    /// Connects to the namespace without recovery.
    pub async fn connect_bare(&self, id: &str) -> Someone {
        self.open("/bare", id, json!({}), Recorder::default()).await
    }

    /// Reconnects an earlier client as the official client does: with the session's secret and the last offset string.
    pub async fn come_back(&self, earlier: &Someone, id: &str) -> Someone {
        let auth = json!({ "pid": earlier.pid, "offset": earlier.offset() });
        self.open("/", id, auth, earlier.tape.clone()).await
    }

    async fn open(&self, namespace: &str, id: &str, auth: Value, tape: Recorder) -> Someone {
        let peer = peer();
        let handshake = Handshake {
            auth: Some(auth),
            authorization: None,
            query: None,
            cookies: None,
            headers: Vec::new(),
            recoverable: true,
        };
        let admission = self.gateway.admit(namespace, id, &handshake, &peer).await.unwrap();
        let (back, pid) = admission.pass();
        let id = back.clone().unwrap_or_else(|| id.to_owned());
        let client = self.gateway.open(admission, &id, peer, Box::new(tape.clone()));
        let pid = pid.map(|pid| pid.expose().to_owned()).unwrap_or_default();
        Someone { client, tape, pid, recovered: back.is_some() }
    }

    /// Publishes the event of a log, as a backend does.
    pub async fn publish(&self, log: &str, n: u64) -> Published {
        self.publish_event("c", "entry", &json!({ "log": log, "n": n })).await
    }

    /// Publishes an event of a contract, as a backend does.
    pub async fn publish_event(&self, contract: &str, event: &str, data: &Value) -> Published {
        let args = vec![serde_json::value::to_raw_value(data).unwrap()];
        let publish = ContractPublish { contract: contract.into(), event: event.into(), args, params: Value::Null };
        self.publisher.contract_event(publish, PublisherKind::Api).await.unwrap()
    }
}

impl Someone {
    /// Joins the room of a log, and waits for the acknowledgement.
    pub async fn follow(&self, node: &Node, log: &str) {
        self.join(node, "follow", log).await;
    }

    /// Sends an event that joins a room, and waits for the acknowledgement.
    pub async fn join(&self, node: &Node, event: &str, name: &str) {
        let before = self.acks().len();
        node.gateway.dispatch(&self.client, Event::encode(event, &[name]).unwrap(), Some(1));
        eventually("the join is answered", Duration::from_secs(20), || self.acks().len() > before).await;
        assert_eq!(self.acks().last().unwrap()[0]["success"], true);
    }

    fn acks(&self) -> Vec<Value> {
        let ack = |packet| match packet {
            RecordedPacket::Ack(_, args) => Some(serde_json::from_str(args.text()).unwrap()),
            _ => None,
        };
        self.tape.packets().into_iter().filter_map(ack).collect()
    }

    /// The numbers of the events that the client received, over all its connections.
    pub fn numbers(&self) -> Vec<u64> {
        let number = |text: String| serde_json::from_str::<Value>(&text).unwrap()[1]["n"].as_u64();
        self.tape.events().into_iter().filter_map(number).collect()
    }

    /// The last offset string that the client received, at the end of an event.
    fn offset(&self) -> Option<String> {
        let last = |text: String| serde_json::from_str::<Vec<Value>>(&text).unwrap().pop()?.as_str().map(str::to_owned);
        self.tape.events().into_iter().rev().find_map(last)
    }

    /// Breaks the client's connection.
    pub fn cut(&self, node: &Node) {
        node.gateway.closed(&self.client, "transport close");
    }
}
