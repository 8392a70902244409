//! Clients join while events are published: no event is missing or repeated, and history precedes newer events, in
//! memory and in Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use roomcast::config;
use roomcast::contract::model::{HistoryPolicy, ReplayPolicy, RoomDef};
use roomcast::contract::room_name::RoomTemplate;
use roomcast::event::Event;
use roomcast::gateway::replay::{ReplayOutcome, join_with_replay};
use roomcast::history::{History, HistoryStart, RoomRecord};
use roomcast::redis::Redis;
use roomcast::room::Rooms;
use roomcast::session::{RoomName, Session};
use roomcast::telemetry::metrics::Metrics;
use roomcast::user::User;

use crate::support::recorder::{RecordedPacket, Recorder};
use crate::support::redis::{RedisServer, eventually};

const JOINS: usize = 10_000;
const CLIENTS: usize = 10;

/// The numbers that a client received.
fn received(client: &Recorder) -> Vec<u64> {
    split(client).0
}

/// The texts of the events without a number that a client received.
fn told(client: &Recorder) -> Vec<String> {
    split(client).1
}

fn split(client: &Recorder) -> (Vec<u64>, Vec<String>) {
    let (mut numbers, mut others) = (Vec::new(), Vec::new());
    for packet in client.packets() {
        let RecordedPacket::Event(event) = packet else { continue };
        match event.args().unwrap()[0].get().parse() {
            Ok(number) => numbers.push(number),
            Err(_) => others.push(event.text().to_string()),
        }
    }
    (numbers, others)
}

struct Node {
    rooms: Rooms,
    history: History,
    def: RoomDef,
    room: RoomName,
    namespace: Arc<str>,
    /// The number of the last event that has been delivered to all members.
    delivered: AtomicU64,
    serial: AtomicU64,
}

impl Node {
    fn new(history: History, replay: ReplayPolicy, events: u32) -> Arc<Self> {
        let policy = HistoryPolicy { events, ttl: Duration::from_secs(600), replay, key: None, incomplete: None };
        let def = RoomDef {
            key: "r".into(),
            contract: "c".into(),
            name: RoomTemplate::compile("r:{id}", "").unwrap(),
            join: None,
            call: None,
            history: Some(policy),
            presence: None,
            idle: None,
            linger: None,
        };
        Arc::new(Self {
            rooms: Rooms::new(["/".into()]),
            history,
            def,
            room: "r:1".into(),
            namespace: "/".into(),
            delivered: AtomicU64::new(0),
            serial: AtomicU64::new(0),
        })
    }

    fn client(&self) -> (Arc<Session>, Recorder) {
        let wire = Recorder::default();
        let id = format!("s{}", self.serial.fetch_add(1, Ordering::Relaxed));
        let session = wire.session(&self.namespace, &id, User::named("u"));
        self.rooms.add(&session);
        (session, wire)
    }

    /// Publishes an event as the node does: records the event in the history, then delivers it.
    async fn publish(&self, number: u64) {
        let event = Event::encode("e", [number]).unwrap();
        let keeping = RoomRecord::of(&self.def, &self.namespace, &self.room, &[], false).unwrap();
        let recorded = self.history.record(&[keeping], &event).await;
        self.deliver(&event, &recorded.stamps);
    }

    fn deliver(&self, event: &Event, stamps: &[roomcast::event::Stamp]) {
        let to = std::slice::from_ref(&self.room);
        for session in self.rooms.recipients(&self.namespace, to, &[]) {
            let _ = session.deliver(event, to, stamps);
        }
    }

    async fn join(&self, session: &Arc<Session>, since: Option<HistoryStart>) -> ReplayOutcome {
        let joined = join_with_replay(&self.rooms, &self.history, session, &self.room, &self.def, since).await;
        joined.replay.unwrap()
    }
}

async fn redis(server: &RedisServer, metrics: &Arc<Metrics>) -> Redis {
    let config = config::RedisSettings {
        url: Some(config::Url::new(server.url())),
        command_timeout: Duration::from_secs(1).into(),
        ..config::RedisSettings::default()
    };
    let redis = Redis::connect(&config, "n", metrics.clone()).unwrap();
    eventually("Redis is up", Duration::from_secs(5), || redis.is_up()).await;
    redis
}

fn in_memory() -> History {
    History::in_memory(Arc::new(Metrics::new()))
}

/// Publishes without a pause until `JOINS` clients have joined, stayed a moment and left. Each must have received every
/// event from the first of its replay to the last before it left, once and in order.
async fn race(node: Arc<Node>) {
    let publisher = tokio::spawn({
        let node = node.clone();
        async move {
            for number in 1.. {
                node.publish(number).await;
                node.delivered.store(number, Ordering::SeqCst);
                if number % 4 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    while node.delivered.load(Ordering::SeqCst) < 100 {
        tokio::task::yield_now().await;
    }
    let clients = (0..CLIENTS).map(|client| {
        let node = node.clone();
        tokio::spawn(async move {
            for turn in 0..JOINS / CLIENTS {
                join_once(&node, client + turn).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    publisher.abort();
    println!("{JOINS} joins against {} events", node.delivered.load(Ordering::SeqCst));
}

async fn join_once(node: &Node, seed: usize) {
    let policy = node.def.history.as_ref().unwrap();
    let (session, wire) = node.client();
    let before = node.delivered.load(Ordering::SeqCst);
    // In this test an event's offset equals its number. Some clients ask for events that are no longer in the history.
    let since = (policy.replay == ReplayPolicy::Since).then(|| before.saturating_sub([3, 20, 1000][seed % 3]));
    let epoch = node.history.read(&key(node), newest()).await.unwrap().epoch;
    let outcome = node.join(&session, since.map(|offset| HistoryStart { epoch: Some(epoch), offset })).await;
    for _ in 0..seed % 5 {
        tokio::task::yield_now().await;
    }
    let after = node.delivered.load(Ordering::SeqCst);
    node.rooms.remove(&session);
    let received = received(&wire);
    let first = received[0];
    assert!(received.windows(2).all(|pair| pair[1] == pair[0] + 1), "a gap, a copy or disorder: {received:?}");
    assert!(*received.last().unwrap() >= after, "the newest are missing: {} < {after}", received.last().unwrap());
    assert_eq!(first + outcome.replayed as u64 - 1, outcome.offset, "the replay ends where it says");
    assert!(outcome.offset >= before);
    match (policy.replay, since) {
        (ReplayPolicy::Last, _) => assert_eq!((outcome.replayed, outcome.complete), (1, true)),
        (ReplayPolicy::All, _) => assert_eq!((outcome.replayed, outcome.complete), (policy.events as usize, true)),
        (_, Some(since)) => assert_eq!(outcome.complete, first == since + 1, "complete when nothing lies between"),
        _ => unreachable!(),
    }
}

fn key(node: &Node) -> roomcast::history::RoomKey {
    roomcast::history::RoomKey { namespace: node.namespace.clone(), room: node.room.clone() }
}

fn newest() -> roomcast::history::HistoryQuery {
    roomcast::history::HistoryQuery { limit: 1, since: None, order: roomcast::history::PageOrder::Asc }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_joins_in_memory_show_the_last() {
    race(Node::new(in_memory(), ReplayPolicy::Last, 50)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_joins_in_memory_show_all() {
    race(Node::new(in_memory(), ReplayPolicy::All, 50)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_joins_in_memory_show_what_came_since() {
    race(Node::new(in_memory(), ReplayPolicy::Since, 50)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_joins_with_redis_show_what_came_since() {
    let metrics = Arc::new(Metrics::new());
    let server = RedisServer::start();
    let redis = redis(&server, &metrics).await;
    race(Node::new(History::in_redis(redis.clone(), metrics), ReplayPolicy::Since, 50)).await;
    redis.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_joins_with_redis_show_the_last() {
    let metrics = Arc::new(Metrics::new());
    let server = RedisServer::start();
    let redis = redis(&server, &metrics).await;
    race(Node::new(History::in_redis(redis.clone(), metrics), ReplayPolicy::Last, 50)).await;
    assert!(server.command("KEYS *history*").starts_with("*1\r\n"), "one key a room");
    redis.close().await;
}

/// Each event of another node is delivered once, even if it arrives late and out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn late_copies_of_another_node_come_once() {
    let node = Node::new(in_memory(), ReplayPolicy::All, 200);
    let publisher = tokio::spawn({
        let node = node.clone();
        async move {
            for number in 1.. {
                let event = Event::encode("e", [number]).unwrap();
                let keeping = RoomRecord::of(&node.def, &node.namespace, &node.room, &[], false).unwrap();
                let stamps = node.history.record(&[keeping], &event).await.stamps;
                let late = node.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_micros(number * 7919 % 3000)).await;
                    late.deliver(&event, &stamps);
                });
                node.delivered.store(number, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
    });
    let mut clients = Vec::new();
    for _ in 0..500 {
        let (session, wire) = node.client();
        let outcome = node.join(&session, None).await;
        clients.push((session, wire, outcome));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    publisher.abort();
    let _ = publisher.await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let last = node.delivered.load(Ordering::SeqCst);
    for (_, wire, outcome) in clients {
        let mut received = received(&wire);
        let replayed: Vec<_> = received[..outcome.replayed].to_vec();
        assert!(replayed.is_sorted(), "the replay comes first, in order");
        received.sort_unstable();
        assert!(received.windows(2).all(|pair| pair[1] == pair[0] + 1), "each once: {received:?}");
        assert_eq!(received.last().copied().unwrap_or(last), last);
    }
}

#[tokio::test]
async fn history_away_costs_the_replay_and_nothing_else() {
    let metrics = Arc::new(Metrics::new());
    let mut server = RedisServer::start();
    let redis = redis(&server, &metrics).await;
    let node = Node::new(History::in_redis(redis.clone(), metrics.clone()), ReplayPolicy::All, 50);
    node.publish(1).await;
    server.kill();
    eventually("the loss is noticed", Duration::from_secs(5), || !redis.is_up()).await;
    let (session, wire) = node.client();
    let outcome = node.join(&session, None).await;
    assert_eq!((outcome.complete, outcome.replayed, outcome.epoch), (false, 0, 0));
    node.publish(2).await;
    assert_eq!(received(&wire), [2], "live events go on");
    assert_eq!(metrics.history_incomplete_total.with_label_values(&["unavailable"]).get(), 1);
    redis.close().await;
}

#[tokio::test]
async fn joining_again_shows_it_again_and_a_room_without_history_shows_nothing() {
    let node = Node::new(in_memory(), ReplayPolicy::Last, 50);
    let (session, wire) = node.client();
    let outcome = node.join(&session, None).await;
    assert_eq!((outcome.complete, outcome.replayed, outcome.offset), (true, 0, 0));
    node.publish(1).await;
    node.publish(2).await;
    assert_eq!(node.join(&session, None).await.replayed, 1);
    node.publish(3).await;
    assert_eq!(received(&wire), [1, 2, 2, 3]);
    let def = RoomDef { history: None, ..Node::new(in_memory(), ReplayPolicy::None, 1).def_of() };
    let joined = join_with_replay(&node.rooms, &node.history, &session, &"other".into(), &def, None).await;
    assert!(joined.new && joined.replay.is_none());
}

/// Checks that the whole history is replayed, even if the history is longer than one page.
async fn long_history(history: History) {
    let node = Node::new(history, ReplayPolicy::Since, 2500);
    for number in 1..=2600 {
        node.publish(number).await;
    }
    let (session, wire) = node.client();
    let outcome = node.join(&session, None).await;
    assert_eq!((outcome.complete, outcome.replayed, outcome.offset), (true, 2500, 2600));
    assert_eq!(received(&wire), (101..=2600).collect::<Vec<_>>());
    node.publish(2601).await;
    assert_eq!(received(&wire).last(), Some(&2601));

    for (offset, complete, first) in [(300, true, 301), (1601, true, 1602), (2601, true, 2602), (50, false, 102)] {
        let (session, wire) = node.client();
        let since = HistoryStart { epoch: Some(outcome.epoch), offset };
        let back = node.join(&session, Some(since)).await;
        assert_eq!((back.complete, back.offset), (complete, 2601), "since {offset}");
        assert_eq!(received(&wire), (first..=2601).collect::<Vec<_>>(), "since {offset}");
    }
}

#[tokio::test]
async fn long_history_is_shown_whole_from_memory() {
    long_history(in_memory()).await;
}

#[tokio::test]
async fn long_history_is_shown_whole_from_redis() {
    let (server, metrics) = (RedisServer::start(), Arc::new(Metrics::new()));
    let redis = redis(&server, &metrics).await;
    long_history(History::in_redis(redis.clone(), metrics)).await;
    redis.close().await;
}

#[tokio::test]
async fn client_is_told_of_a_replay_that_is_not_whole() {
    let mut node = Node::new(in_memory(), ReplayPolicy::Since, 3);
    let policy = Arc::get_mut(&mut node).unwrap().def.history.as_mut().unwrap();
    policy.incomplete = Some("incomplete".into());
    for number in 1..=5 {
        node.publish(number).await;
    }
    let (session, wire) = node.client();
    let since = |offset| Some(HistoryStart { epoch: None, offset });
    let outcome = node.join(&session, since(0)).await;
    assert!(!outcome.complete);
    assert_eq!(received(&wire), [3, 4, 5]);
    assert_eq!(told(&wire), [format!(r#"["incomplete",{}]"#, outcome.to_json())]);
    node.join(&session, None).await;
    assert_eq!(told(&wire).len(), 1, "what is kept was shown whole");
}

#[tokio::test(start_paused = true)]
async fn slow_client_gets_it_in_order_or_is_told() {
    let node = Node::new(in_memory(), ReplayPolicy::All, 50);
    for number in 1..=20 {
        node.publish(number).await;
    }
    let (session, wire) = node.client();
    wire.set_space(5);
    let joining = tokio::spawn({
        let (node, session) = (node.clone(), session.clone());
        async move { node.join(&session, None).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.publish(21).await;
    assert_eq!(received(&wire).len(), 5);
    wire.set_space(usize::MAX);
    assert!(joining.await.unwrap().complete);
    assert_eq!(received(&wire), (1..=21).collect::<Vec<_>>());

    let (session, wire) = node.client();
    wire.set_space(5);
    let outcome = node.join(&session, None).await;
    assert_eq!((outcome.complete, outcome.replayed), (false, 5));
    wire.set_space(usize::MAX);
    node.publish(22).await;
    assert_eq!(received(&wire), [1, 2, 3, 4, 5, 22], "live events go on");
}

#[tokio::test]
async fn join_that_is_given_up_holds_nothing_back() {
    let node = Node::new(in_memory(), ReplayPolicy::All, 50);
    node.publish(1).await;
    let (session, wire) = node.client();
    wire.set_space(1);
    session.send(&Event::encode("e", [0]).unwrap()).unwrap();
    let joining = tokio::time::timeout(Duration::from_millis(50), node.join(&session, None)).await;
    assert!(joining.is_err(), "the client's queue is full");
    wire.set_space(usize::MAX);
    node.publish(2).await;
    assert_eq!(received(&wire), [0, 2]);
}

impl Node {
    fn def_of(&self) -> RoomDef {
        RoomDef {
            key: self.def.key.clone(),
            contract: self.def.contract.clone(),
            name: self.def.name.clone(),
            join: None,
            call: None,
            history: None,
            presence: None,
            idle: None,
            linger: None,
        }
    }
}
