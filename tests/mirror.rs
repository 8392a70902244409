//! Tests of the Redis keys that a contract writes for the application's other services.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use roomcast::config;
use roomcast::contract::model::{
    AuthMode, AuthPolicy, ConnectPolicy, ConnectionPolicy, Contract, ErrorShape, MirrorPolicy as Policy, RejectPolicy,
    RoomDef, UnknownEvent,
};
use roomcast::contract::room_name::RoomTemplate;
use roomcast::contract::template::Template;
use roomcast::mirror::Mirror;
use roomcast::redis::Redis;
use roomcast::room::Rooms;
use roomcast::session::{ClientFacts, Session};
use roomcast::telemetry::metrics::Metrics;
use roomcast::user::User;
use serde_json::json;

use crate::support::recorder::{Recorder, peer};
use crate::support::redis::{RedisServer, eventually};

fn template(value: serde_json::Value) -> Template {
    Template::compile(value).unwrap()
}

fn contract(mirror: Option<Policy>) -> Arc<Contract> {
    let room = RoomDef {
        key: "job".into(),
        contract: "feed".into(),
        name: RoomTemplate::compile("job:{jobId}", "").unwrap(),
        join: None,
        call: None,
        history: None,
        presence: None,
        idle: None,
        linger: None,
    };
    Arc::new(Contract {
        name: "feed".into(),
        namespace: "/jobs".into(),
        summary: String::new(),
        source: String::new(),
        digest: String::new(),
        auth: AuthPolicy {
            mode: AuthMode::Optional,
            tokens: Vec::new(),
            reject: RejectPolicy::ConnectError,
            user: "sub".into(),
            roles: "roles".into(),
            expiry: Default::default(),
        },
        errors: ErrorShape {
            event: None,
            payload: template(json!({})),
            ack: template(json!({})),
            codes: Default::default(),
            messages: Default::default(),
        },
        unknown: UnknownEvent::Refuse,
        hook_joins: Default::default(),
        handshake: Vec::new(),
        client_metadata: Default::default(),
        connect: ConnectPolicy::default(),
        disconnect: None,
        limits: ConnectionPolicy::default(),
        mirror,
        recovery: None,
        rooms: IndexMap::from([("job".to_owned(), Arc::new(room))]),
        client: IndexMap::new(),
        server: IndexMap::new(),
    })
}

fn policy() -> Policy {
    Policy {
        client: Some(template(json!("client:{socket.id}"))),
        subscriptions: Some(template(json!("subscriptions:{socket.id}"))),
        ttl: Duration::from_secs(86_400),
    }
}

fn session(id: &str, user: User) -> Arc<Session> {
    let peer = ClientFacts { user_agent: Some("test \"1\"".into()), ..peer() };
    Session::new(id.to_owned(), "/jobs".into(), Arc::new(user), peer, Box::new(Recorder::default()))
}

struct Fixture {
    server: RedisServer,
    redis: Redis,
    metrics: Arc<Metrics>,
    rooms: Rooms,
}

impl Fixture {
    async fn new() -> Self {
        let server = RedisServer::start();
        let metrics = Arc::new(Metrics::new());
        let config =
            config::RedisSettings { url: Some(config::Url::new(server.url())), ..config::RedisSettings::default() };
        let redis = Redis::connect(&config, "n", metrics.clone()).unwrap();
        eventually("Redis is up", Duration::from_secs(5), || redis.is_up()).await;
        let contract = contract(Some(policy()));
        let mirror = Mirror::start([&contract], redis.clone(), "node-1", metrics.clone()).unwrap();
        let rooms = Rooms::new(["/jobs".into()]).watched_by(mirror);
        Self { server, redis, metrics, rooms }
    }

    /// The values in Redis's answer to a command, sorted, without the lines that give the values' lengths.
    fn members(&self, command: &str) -> Vec<String> {
        let answer = self.server.command(command);
        let mut found: Vec<_> =
            answer.lines().skip(1).filter(|line| !line.starts_with(['$', '+'])).map(str::to_owned).collect();
        found.sort();
        found
    }
}

#[tokio::test]
async fn connection_and_its_rooms_are_readable_as_they_are() {
    let it = Fixture::new().await;
    let session = session("s1", User::named("alice"));
    it.rooms.add(&session);
    for room in ["job:1", "job:2", "job:3", "of another contract"] {
        it.rooms.join(&session, &room.into());
    }
    it.rooms.leave(&session, &"job:2".into());
    eventually("the rooms are written", Duration::from_secs(5), || {
        it.members("SMEMBERS subscriptions:s1") == ["job:1", "job:3"]
    })
    .await;
    assert!(it.server.command("TYPE client:s1").starts_with("+hash"));
    let fields = it.members("HGETALL client:s1");
    for known in ["socketId", "s1", "userId", "alice", "127.0.0.1", "test \"1\"", "/jobs", "node-1", "websocket"] {
        assert!(fields.iter().any(|field| field == known), "{known} in {fields:?}");
    }
    for key in ["client:s1", "subscriptions:s1"] {
        let ttl: i64 = it.server.command(&format!("TTL {key}")).lines().next().unwrap()[1..].parse().unwrap();
        assert!((86_300..=86_400).contains(&ttl), "{key} {ttl}");
    }
    it.rooms.remove(&session);
    it.rooms.add(&self::session("s2", User::anonymous()));
    eventually("a later client is written", Duration::from_secs(5), || !it.members("HGETALL client:s2").is_empty())
        .await;
    assert!(!it.members("HGETALL client:s2").contains(&"userId".to_owned()), "anonymous users have no id");
    assert_eq!(it.members("SMEMBERS subscriptions:s1"), ["job:1", "job:3"], "what was stays until its time is over");
    it.redis.close().await;
}

#[tokio::test]
async fn changes_of_a_socket_are_written_in_order() {
    let it = Fixture::new().await;
    let sessions: Vec<_> = (0..20).map(|number| session(&format!("s{number}"), User::named("u"))).collect();
    for session in &sessions {
        it.rooms.add(session);
    }
    for _ in 0..25 {
        for session in &sessions {
            it.rooms.join(session, &"job:1".into());
            it.rooms.leave(session, &"job:1".into());
        }
        tokio::task::yield_now().await;
    }
    for session in &sessions {
        it.rooms.join(session, &"job:last".into());
    }
    for number in 0..20 {
        eventually("the last change is written", Duration::from_secs(20), || {
            it.members(&format!("SMEMBERS subscriptions:s{number}")) == ["job:last"]
        })
        .await;
    }
    it.redis.close().await;
}

#[tokio::test]
async fn redis_away_costs_the_mirror_alone_and_is_counted() {
    let mut it = Fixture::new().await;
    it.server.kill();
    eventually("the loss is noticed", Duration::from_secs(5), || !it.redis.is_up()).await;
    let session = session("s1", User::named("alice"));
    it.rooms.add(&session);
    assert!(it.rooms.join(&session, &"job:1".into()));
    let dropped = it.metrics.mirror_dropped_total.with_label_values(&["away"]);
    eventually("the changes are counted", Duration::from_secs(5), || dropped.get() == 2).await;
    it.server.restart();
    eventually("Redis is back", Duration::from_secs(5), || it.redis.is_up()).await;
    it.rooms.join(&session, &"job:2".into());
    eventually("it goes on", Duration::from_secs(5), || it.members("SMEMBERS subscriptions:s1") == ["job:2"]).await;
    it.redis.close().await;
}

#[tokio::test]
async fn full_queue_never_holds_a_socket_up() {
    let it = Fixture::new().await;
    let session = session("s1", User::named("alice"));
    it.rooms.add(&session);
    // Nothing is awaited here, so the task that writes to Redis cannot run.
    for _ in 0..roomcast::mirror::MAX_WAITING {
        it.rooms.join(&session, &"job:1".into());
        it.rooms.leave(&session, &"job:1".into());
    }
    assert!(it.metrics.mirror_dropped_total.with_label_values(&["full"]).get() > 0);
}

#[tokio::test]
async fn contract_without_a_mirror_needs_none() {
    let it = Fixture::new().await;
    assert!(Mirror::start([&contract(None)], it.redis.clone(), "n", it.metrics.clone()).is_none());
    it.redis.close().await;
}
