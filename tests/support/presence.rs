//! Test nodes that consist only of rooms and presence.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use roomcast::config;
use roomcast::contract::load::{Source, load_sources};
use roomcast::directory::{DirectoryError, Page, PageRequest};
use roomcast::presence::{
    MemberChange, MemberKey, Policies, Presence, PresenceRecorder, RoomChange, in_memory, in_redis,
};
use roomcast::redis::Redis;
use roomcast::room::Rooms;
use roomcast::session::{MetadataSetter, Session};
use roomcast::telemetry::metrics::Metrics;
use roomcast::user::User;
use serde_json::Value;

use super::recorder;
use super::redis::RedisServer;

const NS: &str = "/";

/// Rooms named `told:…` announce joins and leaves of users. Rooms named `seen:…` announce those of sockets, and changes
/// of metadata.
const CONTRACT: &str = r#"
name = "test"
[rooms.told]
name     = "told:{id}"
presence = { joined = "came", left = "went" }
[rooms.seen]
name     = "seen:{id}"
presence = { each = "socket", joined = "came", left = "went", changed = "seen" }
"#;

fn policies() -> Policies {
    let namespaces = load_sources(vec![Source { name: "test.toml".into(), text: CONTRACT.into() }]).unwrap();
    Policies::new(&namespaces.into_iter().map(Arc::new).collect::<Vec<_>>())
}

/// A node that consists of rooms and presence only.
pub struct Node {
    pub id: String,
    pub presence: Arc<dyn Presence>,
    pub rooms: Arc<Rooms>,
    pub told: Arc<Mutex<Vec<RoomChange>>>,
    pub metrics: Arc<Metrics>,
}

impl Node {
    pub fn memory(id: &str) -> Self {
        let metrics = Arc::new(Metrics::new());
        let ttl = Duration::from_secs(60);
        Self::of(id, in_memory(id, policies(), ttl, metrics.clone()), metrics)
    }

    pub fn redis(url: &str, id: &str, change: impl Fn(&mut config::PresenceSettings)) -> Self {
        let metrics = Arc::new(Metrics::new());
        let redis = config::RedisSettings {
            url: Some(config::Url::new(url)),
            prefix: "test".into(),
            command_timeout: config::Period::from_secs(1),
            ..config::RedisSettings::default()
        };
        let redis = Redis::connect(&redis, id, metrics.clone()).unwrap();
        let mut config =
            config::PresenceSettings { heartbeat: config::Period::from_secs(1), ..config::PresenceSettings::default() };
        change(&mut config);
        let recorder = in_redis(&config, redis, id, [NS.into()], policies(), metrics.clone());
        Self::of(id, recorder, metrics)
    }

    fn of(id: &str, recorder: PresenceRecorder, metrics: Arc<Metrics>) -> Self {
        let rooms = Arc::new(Rooms::new([NS.into()]).watched_by(recorder.watcher()));
        let told: Arc<Mutex<Vec<RoomChange>>> = Arc::default();
        let sink = told.clone();
        let (presence, changes) = recorder.start(rooms.clone());
        tokio::spawn(changes.announce(move |some| {
            sink.lock().unwrap().extend(some);
            std::future::ready(())
        }));
        Self { id: id.to_owned(), presence, rooms, told, metrics }
    }

    pub fn connect(&self, id: &str, user: &str) -> Client {
        let user = if user.is_empty() { User::anonymous() } else { User::named(user) };
        let session = recorder::Recorder::default().session(NS, id, user);
        self.rooms.add(&session);
        Client { rooms: self.rooms.clone(), presence: self.presence.clone(), session }
    }

    pub async fn settled_within(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while Instant::now() < until {
            if self.presence.settle().await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }
}

/// A client of a node.
#[derive(Clone)]
pub struct Client {
    rooms: Arc<Rooms>,
    presence: Arc<dyn Presence>,
    session: Arc<Session>,
}

impl Client {
    pub fn id(&self) -> String {
        self.session.id().to_owned()
    }
    pub fn join(&self, room: &str) {
        self.rooms.join(&self.session, &room.into());
    }
    pub fn leave(&self, room: &str) {
        self.rooms.leave(&self.session, &room.into());
    }
    pub fn close(&self) {
        self.rooms.remove(&self.session);
    }
    pub fn set_metadata(&self, members: &Value) {
        self.rooms.merge_metadata(&self.session, members.as_object().unwrap(), MetadataSetter::Event);
    }
    pub fn set_status(&self, status: &Value) -> bool {
        self.presence.set_status(&self.session, status)
    }
}

/// Some nodes, and their Redis if they have one.
pub struct World {
    pub nodes: Vec<Node>,
    pub heartbeat: Duration,
    server: Option<RedisServer>,
    clients: Mutex<HashMap<String, Client>>,
}

impl World {
    pub fn memory() -> Self {
        Self::of(vec![Node::memory("n0")], None)
    }

    pub async fn redis(nodes: usize) -> Self {
        Self::redis_with(nodes, |_| {}).await
    }

    pub async fn redis_with(nodes: usize, change: impl Fn(&mut config::PresenceSettings)) -> Self {
        Self::on(RedisServer::start(), nodes, change).await
    }

    /// Starts this number of nodes with a Redis Cluster.
    pub async fn redis_cluster(nodes: usize) -> Self {
        Self::on(RedisServer::cluster(), nodes, |_| {}).await
    }

    async fn on(server: RedisServer, nodes: usize, change: impl Fn(&mut config::PresenceSettings)) -> Self {
        let nodes: Vec<_> = (0..nodes).map(|n| Node::redis(&server.url(), &format!("n{n}"), &change)).collect();
        let world = Self::of(nodes, Some(server));
        world.settle().await;
        world
    }

    fn of(nodes: Vec<Node>, server: Option<RedisServer>) -> Self {
        Self { nodes, heartbeat: Duration::from_secs(1), server, clients: Mutex::default() }
    }

    /// Connects a client to one of the nodes, in turn.
    pub fn connect(&self, n: usize, user: &str) -> Client {
        let client = self.nodes[n % self.nodes.len()].connect(&format!("s{n:04}"), user);
        self.clients.lock().unwrap().insert(client.id(), client.clone());
        client
    }

    pub fn session(&self, id: &str) -> Client {
        self.clients.lock().unwrap()[id].clone()
    }

    /// Waits until every node has written all changes of presence to Redis.
    pub async fn settle(&self) {
        for node in &self.nodes {
            assert!(node.settled_within(Duration::from_secs(10)).await, "{} does not settle", node.id);
        }
    }

    /// The announced joins and leaves of all nodes, sorted.
    pub fn told(&self) -> Vec<(String, String, Told)> {
        let mut told: Vec<_> = self.all_told().iter().filter_map(told_of).collect();
        told.sort_by_key(|(room, user, what)| (*what == Told::Left, room.clone(), user.clone()));
        told
    }

    pub fn all_told(&self) -> Vec<RoomChange> {
        self.nodes.iter().flat_map(|node| node.told.lock().unwrap().clone()).collect()
    }

    pub async fn eventually_told(&self, expected: &[(&str, &str, Told)]) {
        let expected: Vec<_> =
            expected.iter().map(|(room, user, what)| ((*room).to_owned(), (*user).to_owned(), *what)).collect();
        let until = Instant::now() + Duration::from_secs(5);
        while self.told() != expected && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.told(), expected);
    }

    pub fn server(&self) -> &RedisServer {
        self.server.as_ref().unwrap()
    }

    pub fn server_mut(&mut self) -> &mut RedisServer {
        self.server.as_mut().unwrap()
    }

    pub fn keys(&self) -> Vec<(String, i64)> {
        keys(self.server())
    }

    pub async fn end(self) -> Option<RedisServer> {
        for node in &self.nodes {
            node.presence.stop().await;
        }
        self.server
    }
}

/// Every key and its TTL in ms, sorted, without the keys by which nodes prove that Redis accepts writes.
pub fn keys(server: &RedisServer) -> Vec<(String, i64)> {
    let line = |answer: String| answer.lines().map(str::to_owned).collect::<Vec<_>>();
    let kept = |key: &String| key.starts_with("test:") && !key.starts_with("test:probe:");
    let mut keys: Vec<_> = line(server.command("KEYS *")).into_iter().filter(kept).collect();
    keys.sort();
    keys.into_iter()
        .map(|key| {
            let ttl = line(server.command(&format!("PTTL \"{}\"", key.replace('\0', "\\x00"))));
            let ttl = ttl.iter().find_map(|line| line.strip_prefix(':')?.parse().ok()).unwrap();
            (key, ttl)
        })
        .collect()
}

/// Requests all pages of a list, and returns all items.
pub async fn all_pages<'a, T, F>(limit: usize, mut ask: F) -> Vec<T>
where
    F: FnMut(PageRequest) -> BoxFuture<'a, Result<Page<T>, DirectoryError>>,
{
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let page = ask(PageRequest { limit, cursor }).await.unwrap();
        assert!(page.items.len() <= limit);
        all.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return all;
        }
    }
}

/// Waits for a condition that needs a request.
pub async fn eventually_async<F: Future<Output = bool>>(what: &str, within: Duration, mut fact: impl FnMut() -> F) {
    let until = Instant::now() + within;
    while !fact().await {
        assert!(Instant::now() < until, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An announced change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Joined,
    Left,
}

/// The room, the member and the change of an announced join or leave. A member that is a socket has the prefix
/// `socket:`.
fn told_of(change: &RoomChange) -> Option<(String, String, Told)> {
    let (member, told) = match &change.what {
        MemberChange::Joined(member) => (member, Told::Joined),
        MemberChange::Left(member) => (member, Told::Left),
        MemberChange::Metadata => return None,
    };
    let member = match &member.key {
        MemberKey::User(id) => id.to_string(),
        MemberKey::Socket(id) => format!("socket:{id}"),
    };
    Some((change.room.to_string(), member, told))
}
