//! Tests the cluster: several nodes that share one redis-server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use roomcast::auth::Authenticator;
use roomcast::cluster::pubsub::Incoming;
use roomcast::cluster::{Cluster, ClusterActions, ClusterRevoker, MessageHandlers, PubSub, RedisLink};
use roomcast::config;
use roomcast::directory::{
    AckQuestion, Actions, MAX_REVOCATIONS, Revocation, Revoker, Selection, SendOutcome, Subject,
};
use roomcast::drain::Drain;
use roomcast::engine::Broadcaster;
use roomcast::engine::socketioxide::LibraryRequests;
use roomcast::event::Event;
use roomcast::forward::Peers;
use roomcast::publish::RemoteFailure;
use roomcast::redis::Redis;
use roomcast::room::Rooms;
use roomcast::telemetry::metrics::Metrics;

use crate::support::node::plain_publisher;
use tokio::sync::mpsc;

use crate::support::redis::{RedisServer, eventually};

fn config(url: &str) -> config::RedisSettings {
    config::RedisSettings { url: Some(config::Url::new(url)), ..config::RedisSettings::default() }
}

fn connect(server: &RedisServer, node: &str) -> Redis {
    Redis::connect(&config(&server.url()), node, Arc::new(Metrics::new())).unwrap()
}

#[tokio::test]
async fn node_starts_without_redis_and_finds_it_when_it_comes() {
    let mut server = RedisServer::stopped();
    let redis = connect(&server, "a");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!redis.is_up());
    assert!(!redis.health().is_good());
    server.restart();
    let took = eventually("Redis is up", Duration::from_secs(2), || redis.health().is_good()).await;
    println!("up after {took:?}, {:?}", redis.health());
    redis.close().await;
}

#[tokio::test]
async fn probe_notices_a_killed_redis_and_its_return() {
    let mut server = RedisServer::start();
    let redis = connect(&server, "a");
    let took = eventually("Redis is up", Duration::from_secs(2), || redis.health().is_good()).await;
    println!("up after {took:?}, {:?}", redis.health());
    for _ in 0..3 {
        server.kill();
        let took = eventually("Redis is away", Duration::from_secs(2), || !redis.health().is_good()).await;
        println!("away after {took:?}, {:?}", redis.health());
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.restart();
        let took = eventually("Redis is back", Duration::from_secs(2), || redis.health().is_good()).await;
        println!("back after {took:?}, {:?}", redis.health());
    }
    redis.close().await;
}

#[tokio::test]
async fn killed_listener_alone_comes_back() {
    let server = RedisServer::start();
    let redis = connect(&server, "a");
    eventually("Redis is up", Duration::from_secs(2), || redis.health().is_good()).await;
    server.command("CLIENT KILL TYPE pubsub");
    eventually("the loss is noticed", Duration::from_secs(2), || !redis.health().is_good()).await;
    assert!(redis.is_up(), "commands still work");
    let took = eventually("the listener is back", Duration::from_secs(2), || redis.health().is_good()).await;
    println!("back after {took:?}");
    redis.close().await;
}

/// The parts of a node that use the cluster.
struct Node {
    redis: Redis,
    pubsub: Arc<PubSub>,
    metrics: Arc<Metrics>,
    cluster: Arc<Cluster>,
    actions: Arc<ClusterActions>,
}

impl Node {
    fn start(server: &RedisServer, name: &str) -> Self {
        Self::with(server, name, |handlers| handlers)
    }

    /// Starts a node that has more handlers.
    fn with(server: &RedisServer, name: &str, more: impl FnOnce(MessageHandlers) -> MessageHandlers) -> Self {
        let metrics = Arc::new(Metrics::new());
        let config = config(&server.url());
        let redis = Redis::connect(&config, name, metrics.clone()).unwrap();
        let (identity, drain) = ((name, "contracts"), Drain::new(&config::DrainSettings::default(), metrics.clone()));
        let (link, inbox) = RedisLink::new(identity, ["/".into()], redis.clone(), drain, metrics.clone(), &config);
        let rooms = Arc::new(Rooms::new(["/".into()]));
        let cluster = Cluster::join(link, rooms.clone(), Peers::none());
        let publisher = plain_publisher(Broadcaster::new(&rooms, &cluster, &[], &metrics), &metrics);
        let actions = ClusterActions::new(&cluster, &publisher);
        let handlers = more(actions.handle(MessageHandlers::default()));
        inbox.start(&cluster, publisher, Arc::new(LibraryRequests::default()), handlers);
        let pubsub = cluster.pubsub().unwrap().clone();
        Self { redis, pubsub, metrics, cluster, actions }
    }

    /// Waits until this node receives messages from Redis, and sees this number of nodes in the cluster.
    async fn ready(&self, nodes: usize) {
        let good = || self.redis.health().is_good() && self.cluster.view().nodes.len() == nodes;
        eventually("the nodes know each other", Duration::from_secs(5), good).await;
    }

    fn not_carried(&self) -> u64 {
        let reasons = [
            RemoteFailure::Away,
            RemoteFailure::Full,
            RemoteFailure::Timeout,
            RemoteFailure::Refused,
            RemoteFailure::Unheard,
        ];
        reasons.iter().map(|why| self.metrics.cluster_not_carried_total.with_label_values(&[why.as_str()]).get()).sum()
    }

    fn ambiguous(&self) -> u64 {
        self.metrics.cluster_not_carried_total.with_label_values(&["timeout"]).get()
    }

    fn delivery_result(&self) -> u64 {
        self.metrics.cluster_carried_total.with_label_values::<&str>(&[]).get()
    }

    fn missed(&self) -> u64 {
        self.metrics.cluster_missed_total.with_label_values::<&str>(&[]).get()
    }

    fn dropped(&self) -> u64 {
        ["lagged", "full", "unreadable"]
            .iter()
            .map(|why| self.metrics.cluster_dropped_total.with_label_values(&[why]).get())
            .sum()
    }
}

fn body(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn number(incoming: &Incoming) -> u64 {
    u64::from_be_bytes(incoming.frame.body[..].try_into().unwrap())
}

/// Counts the events that arrive, and checks their order.
fn count_arrivals(mut incoming: mpsc::Receiver<Incoming>) -> Arc<AtomicU64> {
    let arrived = Arc::new(AtomicU64::new(0));
    let counter = arrived.clone();
    tokio::spawn(async move {
        let mut last = None;
        while let Some(message) = incoming.recv().await {
            let number = number(&message);
            assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
            last = Some(number);
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    arrived
}

#[tokio::test]
async fn burst_arrives_completely_and_in_order_at_the_other_node() {
    let server = RedisServer::start();
    let (a, b) = (Node::start(&server, "a"), Node::start(&server, "b"));
    let channel: Arc<str> = "roomcast:test".into();
    let own = count_arrivals(a.pubsub.subscribe(&channel, 65_536));
    let arrived = count_arrivals(b.pubsub.subscribe(&channel, 65_536));
    a.ready(2).await;
    b.ready(2).await;
    let receipts: Vec<_> = (0..5000).map(|n| a.pubsub.publish(&channel, || body(n)).unwrap()).collect();
    let took = eventually("all arrived", Duration::from_secs(10), || arrived.load(Ordering::SeqCst) == 5000).await;
    println!("5000 in {took:?}");
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert_eq!((a.delivery_result(), a.not_carried(), b.missed(), b.dropped()), (5000, 0, 0, 0));
    assert_eq!(own.load(Ordering::SeqCst), 0, "a node does not hear itself");
}

#[tokio::test]
async fn publishing_goes_on_around_a_killed_redis_and_every_loss_is_counted() {
    let mut server = RedisServer::start();
    let (a, b) = (Node::start(&server, "a"), Node::start(&server, "b"));
    let channel: Arc<str> = "roomcast:test".into();
    let arrived = count_arrivals(b.pubsub.subscribe(&channel, 65_536));
    a.ready(2).await;
    b.ready(2).await;
    let (mut published, mut refused, mut receipts) = (0, 0, Vec::new());
    for round in 0..3 {
        for step in 0..300 {
            match step {
                50 => server.kill(),
                150 => server.restart(),
                _ => {}
            }
            match a.pubsub.publish(&channel, || body(published)) {
                Ok(receipt) => receipts.push(receipt),
                Err(RemoteFailure::Away) => refused += 1,
                Err(other) => panic!("{other}"),
            }
            published += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let before = arrived.load(Ordering::SeqCst);
        let started = std::time::Instant::now();
        while arrived.load(Ordering::SeqCst) == before {
            assert!(started.elapsed() < Duration::from_secs(2), "round {round}: cross-node delivery is not back");
            if let Ok(receipt) = a.pubsub.publish(&channel, || body(published)) {
                receipts.push(receipt);
            } else {
                refused += 1;
            }
            published += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("round {round}: back within {:?} of the last step", started.elapsed());
    }
    let mut failed = 0;
    for receipt in receipts {
        failed += u64::from(receipt.await.is_err());
    }
    // The publishing node counts every event as either carried or not carried.
    assert_eq!(a.not_carried(), refused + failed);
    assert_eq!(a.delivery_result(), published - refused - failed);
    a.ready(2).await;
    b.ready(2).await;
    a.pubsub.publish(&channel, || body(published)).unwrap().await.unwrap();
    let got = || arrived.load(Ordering::SeqCst);
    eventually("every number is accounted for", Duration::from_secs(2), || got() + b.missed() == published + 1).await;
    println!("published {published}, arrived {}, missed {}, not carried {}", got(), b.missed(), a.not_carried());
    assert_eq!(b.dropped(), 0);
    assert!(refused > 0);
    // Events that were counted as not carried did not arrive. For events that were in flight when Redis died, nothing
    // is known.
    let lost = published + 1 - got();
    assert!((a.not_carried() - a.ambiguous()..=a.not_carried()).contains(&lost), "{lost} lost");
}

#[tokio::test]
async fn full_buffer_refuses_and_counts_instead_of_waiting() {
    let server = RedisServer::start();
    let metrics = Arc::new(Metrics::new());
    let redis = Redis::connect(&config(&server.url()), "a", metrics.clone()).unwrap();
    eventually("Redis is up", Duration::from_secs(3), || redis.health().is_good()).await;
    let pubsub = PubSub::start(redis, "a", metrics.clone(), 10);
    // The task that writes to Redis cannot run before this task yields, so the events fill the buffer.
    let outcomes: Vec<_> = (0..15).map(|n| pubsub.publish(&"roomcast:test".into(), || body(n)).err()).collect();
    assert_eq!(outcomes.iter().filter(|why| **why == Some(RemoteFailure::Full)).count(), 5);
    assert_eq!(metrics.cluster_not_carried_total.with_label_values(&["full"]).get(), 5);
}

#[tokio::test]
async fn nodes_know_each_other_and_notice_who_goes() {
    let server = RedisServer::start();
    let (a, b, c) = (Node::start(&server, "a"), Node::start(&server, "b"), Node::start(&server, "c"));
    for node in [&a, &b, &c] {
        node.ready(3).await;
    }
    b.cluster.leave().await;
    b.redis.close().await;
    eventually("b has left", Duration::from_secs(1), || a.cluster.view().nodes.len() == 2).await;
    // Closes the connection without announcing the node's end, like a node that is killed.
    c.redis.close().await;
    eventually("c is silent", Duration::from_secs(6), || a.cluster.view().nodes.len() == 1).await;
    let (told, channel) = (a.cluster.tell("nobody", &1).await, Arc::from("roomcast:test"));
    assert_eq!(told, roomcast::directory::SendOutcome::Carried);
    a.pubsub.publish(&channel, || b"x").unwrap().await.unwrap();
}

#[tokio::test]
async fn what_a_node_tells_reaches_all_others_once() {
    let server = RedisServer::start();
    let heard: [Arc<AtomicU64>; 2] = Default::default();
    let [a, _b] = ["a", "b"].map(|name| {
        let heard = heard[usize::from(name == "b")].clone();
        Node::with(&server, name, |handlers| {
            handlers.on("test", move |from, data: serde_json::Value| {
                assert_eq!((from, data), ("a", serde_json::json!({"x": 1})));
                heard.fetch_add(1, Ordering::SeqCst);
            })
        })
    });
    a.ready(2).await;
    a.cluster.tell("test", &serde_json::json!({"x": 1})).await;
    eventually("b has heard", Duration::from_secs(1), || heard[1].load(Ordering::SeqCst) == 1).await;
    assert_eq!(heard[0].load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_script_fails_at_once_while_redis_is_away() {
    let mut server = RedisServer::start();
    let redis = connect(&server, "a");
    eventually("Redis is up", Duration::from_secs(2), || redis.is_up()).await;
    let script = roomcast::redis::script::Script::new("return 1");
    assert!(script.run(&redis, Vec::new(), Vec::new()).await.is_ok());
    server.kill();
    eventually("Redis is away", Duration::from_secs(2), || !redis.is_up()).await;
    // fred, the Redis client, notices the loss only when its first reconnection attempt begins. Until then each command
    // takes its whole time-out.
    for attempt in 1.. {
        let started = std::time::Instant::now();
        assert!(script.run(&redis, Vec::new(), Vec::new()).await.is_err());
        if started.elapsed() < Duration::from_millis(500) {
            break;
        }
        assert!(attempt < 3, "{:?}", started.elapsed());
    }
    redis.close().await;
}

#[tokio::test]
async fn redis_that_hangs_holds_nobody_up() {
    let server = RedisServer::start();
    let (a, b) = (Node::start(&server, "a"), Node::start(&server, "b"));
    let channel: Arc<str> = "roomcast:test".into();
    let arrived = count_arrivals(b.pubsub.subscribe(&channel, 65_536));
    a.ready(2).await;
    b.ready(2).await;
    server.pause();
    let mut receipts = Vec::new();
    let mut published = 0;
    let mut slowest = Duration::ZERO;
    while a.redis.is_up() {
        let started = std::time::Instant::now();
        receipts.extend(a.pubsub.publish(&channel, || body(published)));
        slowest = slowest.max(started.elapsed());
        published += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(published < 1000, "nobody noticed that Redis hangs");
    }
    println!("noticed after {published} events, slowest publish {slowest:?}");
    assert!(matches!(a.pubsub.publish(&channel, || body(published)), Err(RemoteFailure::Away)));
    for receipt in receipts {
        assert!(receipt.await.is_err());
    }
    assert_eq!(a.not_carried(), published + 1);
    server.resume();
    let took = eventually("Redis is back", Duration::from_secs(3), || a.redis.health().is_good()).await;
    b.ready(2).await;
    println!("back after {took:?}");
    a.pubsub.publish(&channel, || body(published + 1)).unwrap().await.unwrap();
    eventually("the next event arrives", Duration::from_secs(1), || arrived.load(Ordering::SeqCst) > 0).await;
}

#[tokio::test]
async fn subscriptions_are_renewed_without_a_flicker() {
    let server = RedisServer::start();
    let a = Node::start(&server, "a");
    a.ready(1).await;
    let calls = || {
        let stats = server.command("INFO commandstats");
        let count =
            stats.split("cmdstat_ssubscribe:calls=").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
        count.unwrap_or(0_u64)
    };
    let before = calls();
    let mut flickers = 0;
    eventually("subscriptions are sent again", Duration::from_secs(15), || {
        flickers += usize::from(!a.redis.health().is_good() || !a.redis.subscriber().is_complete());
        calls() > before
    })
    .await;
    assert_eq!(flickers, 0);
}

/// A stand-in for a node that has subscribed to the control channel, but has not announced itself yet.
fn stranger(redis: &Redis, answers: bool) -> Arc<PubSub> {
    let control = Arc::from(redis.keys().control_channel());
    let pubsub = PubSub::start(redis.clone(), "stranger", Arc::new(Metrics::new()), 64);
    let mut requests = pubsub.subscribe(&control, 64);
    let told = pubsub.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let control_message: serde_json::Value = serde_json::from_slice(&request.frame.body).unwrap();
            if answers && control_message["topic"] == "ask" {
                let id = &control_message["data"]["id"];
                let said = serde_json::json!([["a-client", "[\"yes\"]", []]]);
                let data = serde_json::json!({ "id": id, "asked": 1, "not_asked": 0, "too_large": 0, "said": said });
                let body = serde_json::json!({ "topic": "acknowledged", "data": data }).to_string();
                told.tell(&control, body.as_bytes()).unwrap().await.unwrap();
            }
        }
    });
    pubsub
}

#[tokio::test]
async fn a_question_waits_for_a_node_that_listens_and_is_not_known_yet() {
    let server = RedisServer::start();
    let a = Node::start(&server, "a");
    a.ready(1).await;
    let selection = Selection { namespace: "/".into(), users: vec!["ada".into()], ..Selection::default() };
    let ask = || async {
        let question = AckQuestion {
            selection: selection.clone(),
            event: Event::encode("confirm", [(); 0]).unwrap(),
            patience: Duration::from_secs(20),
        };
        let began = Instant::now();
        (a.actions.ask(question).await.unwrap(), began.elapsed())
    };
    let (alone, _) = ask().await;
    assert_eq!((alone.asked, alone.missing_nodes.len()), (0, 0));

    let redis = connect(&server, "stranger");
    let pubsub = stranger(&redis, true);
    let listens = || redis.health().is_good() && redis.subscriber().is_complete();
    eventually("the stranger listens", Duration::from_secs(5), listens).await;
    for _ in 0..5 {
        let (done, _) = ask().await;
        assert_eq!((done.asked, done.said.len()), (1, 1));
        assert_eq!(done.said[0].args.text(), "[\"yes\"]");
    }
    drop(pubsub);
    redis.close().await;

    // A node does not wait long for a subscriber that never announces itself, such as the connection of a node that is
    // gone.
    let redis = connect(&server, "mute");
    let _pubsub = stranger(&redis, false);
    let listens = || redis.health().is_good() && redis.subscriber().is_complete();
    eventually("the mute one listens", Duration::from_secs(5), listens).await;
    let (done, took) = ask().await;
    assert_eq!((done.asked, done.missing_nodes.len()), (0, 0));
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Redis has the maximum number of revocations, and this node does not know them. A revocation that Redis does not take
/// is counted, whether the node waits for Redis' answer or stores the revocation later.
#[tokio::test]
async fn revocations_that_do_not_fit_into_redis_are_counted() {
    let server = RedisServer::start();
    let script = "for i=1,ARGV[1] do redis.call('zadd',KEYS[2],9e15,'token:'..i) end \
                  redis.call('hset',KEYS[1],'#epoch','1','#number','1')";
    let keys = ["entries", "ends"].map(|part| format!("roomcast:revocations:v1:{{all}}:{part}"));
    server.command(&format!("EVAL \"{script}\" 2 {} {} {MAX_REVOCATIONS}", keys[0], keys[1]));
    let node = Node::start(&server, "a");
    let auth = Authenticator::new(&config::AuthSettings::default(), node.metrics.clone()).await.unwrap();
    let rooms = Arc::new(Rooms::new(["/".into()]));
    let redis = Some(node.redis.clone());
    let revoker = ClusterRevoker::start(&node.cluster, auth.revocations(), &rooms, redis, Arc::new(|_| {}));
    node.ready(1).await;
    let forever = Revocation { since: 0, until: 9_000_000_000_000_000, spares_newer: false };
    let revoke = async |user: &str| revoker.revoke(vec![Subject::User(user.into())], forever).await.unwrap();
    let dropped = || node.metrics.revocations_dropped_total.with_label_values(&["full"]).get();
    let revoked = revoke("ada").await;
    assert_eq!((revoked.changed, revoked.remote, dropped()), (1, SendOutcome::NotCarried("full"), 1));

    server.pause();
    let revoked = revoke("bea").await;
    assert_eq!((revoked.changed, revoked.remote, dropped()), (1, SendOutcome::NotCarried("away"), 1));
    server.resume();
    eventually("the later attempt is counted", Duration::from_secs(20), || dropped() == 2).await;

    server.command(&format!("ZREM {} token:1", keys[1]));
    eventually("Redis answers", Duration::from_secs(20), || node.redis.takes_writes()).await;
    let revoked = revoke("cleo").await;
    assert!(matches!(revoked.remote, SendOutcome::Carried | SendOutcome::NotCarried("unheard")), "{revoked:?}");
    assert_eq!(dropped(), 2);
}
