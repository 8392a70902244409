//! Tests that notices (calls that inform a backend) reach the backend of their hook at least once and in order.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use roomcast::config;
use roomcast::hooks::outbox::{MAX_NOTICE_BYTES, MAX_STORED};
use roomcast::hooks::{HookRequest, Hooks, Notices};
use roomcast::redis::Redis;
use roomcast::telemetry::metrics::Metrics;

use super::{HOOK, SOON, caller, hooks, hooks_with, notices, section};
use crate::support::backend::{Backend, Reply};
use crate::support::redis::{RedisServer, eventually};

const LIST: &str = "roomcast:hook:v1:{songs}:notices";
const LEASE: &str = "roomcast:hook:v1:{songs}:lease";

fn gone(number: usize) -> HookRequest {
    HookRequest::disconnect(caller(), format!("reason {number}"))
}

fn send(outbox: &Notices, numbers: std::ops::RangeInclusive<usize>) {
    for number in numbers {
        assert!(outbox.send(HOOK, gone(number)));
    }
}

/// The numbers of the notices that the backend has accepted, in order, without repetitions.
fn taken(backend: &Backend) -> Vec<usize> {
    let mut known = HashSet::new();
    let requests = backend.seen();
    let events = requests.iter().map(crate::support::backend::Seen::event);
    let fresh = events.filter(|event| known.insert(event["id"].to_string()));
    fresh.map(|event| event["data"]["reason"].as_str().unwrap()["reason ".len()..].parse().unwrap()).collect()
}

/// The outbox of notices of a node, and the node's connection to Redis.
struct Node {
    outbox: Notices,
    _redis: Redis,
}

impl std::ops::Deref for Node {
    type Target = Notices;

    fn deref(&self) -> &Notices {
        &self.outbox
    }
}

async fn in_redis(server: &RedisServer, hooks: &Arc<Hooks>) -> Node {
    let config =
        config::RedisSettings { url: Some(config::Url::new(server.url())), ..config::RedisSettings::default() };
    let redis = Redis::connect(&config, "node", Arc::new(Metrics::new())).unwrap();
    eventually("Redis is up", SOON, || redis.is_up()).await;
    Node { outbox: Notices::in_redis(hooks.clone(), &redis), _redis: redis }
}

fn stored(server: &RedisServer) -> usize {
    let answer = server.command(&format!("LLEN {LIST}"));
    answer.lines().next().unwrap().trim_start_matches(':').trim().parse().unwrap()
}

#[tokio::test]
async fn notices_arrive_in_order_through_an_outage_of_the_backend() {
    let mut backend = Backend::start(|n, _| Reply::new(if n % 3 == 0 { 503 } else { 204 }, "")).await;
    let (hooks, metrics) = hooks(&backend.url());
    let outbox = Notices::in_memory(hooks);
    send(&outbox, 1..=5);
    eventually("the first are delivered", SOON, || outbox.at_risk() == 0).await;
    backend.stop().await;
    send(&outbox, 6..=10);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(outbox.at_risk(), 5);
    backend.restart().await;
    assert_eq!(outbox.close(SOON).await, 0);
    assert_eq!(taken(&backend), (1..=10).collect::<Vec<_>>());
    assert_eq!(notices(&metrics, "delivered"), 10);
    assert!(notices(&metrics, "retried") > 0);
}

#[tokio::test]
async fn a_notice_that_can_never_be_taken_does_not_hold_the_others_up() {
    let backend = Backend::start(|n, _| match n {
        1 => Reply::new(422, ""),
        2 => Reply::new(403, r#"{"error":{"code":"NO"}}"#),
        _ => Reply::new(200, "thank you"),
    })
    .await;
    let (hooks, metrics) = hooks(&backend.url());
    let outbox = Notices::in_memory(hooks);
    send(&outbox, 1..=3);
    assert_eq!(outbox.close(SOON).await, 0);
    assert_eq!((notices(&metrics, "refused"), notices(&metrics, "delivered"), backend.count()), (2, 1, 3));
}

#[tokio::test]
async fn the_end_tells_how_many_notices_are_lost() {
    let backend =
        Backend::start(|n, _| Reply::new(204, "").after(Duration::from_secs(if n == 1 { 30 } else { 0 }))).await;
    let (hooks, _) = hooks(&backend.url());
    let outbox = Notices::in_memory(hooks);
    send(&outbox, 1..=7);
    assert_eq!(outbox.at_risk(), 7);
    assert_eq!(outbox.close(Duration::ZERO).await, 7);
}

#[tokio::test]
async fn a_large_notice_is_shortened() {
    let backend = Backend::start(|_, _| Reply::new(204, "")).await;
    let (hooks, _) = hooks(&backend.url());
    let outbox = Notices::in_memory(hooks);
    let mut caller = caller();
    caller.rooms = vec!["r".repeat(100).into(); 1000];
    outbox.send(HOOK, HookRequest::disconnect(caller, "transport close"));
    assert_eq!(outbox.close(SOON).await, 0);
    let seen = &backend.seen()[0];
    assert!(seen.body.len() <= MAX_NOTICE_BYTES);
    let data = &seen.event()["data"];
    assert_eq!((&data["reason"], &data["socket"]["id"]), (&"transport close".into(), &"s1".into()));
}

#[tokio::test]
async fn notices_in_redis_outlive_the_node_and_are_taken_over() {
    let server = RedisServer::start();
    let mut backend = Backend::start(|_, _| Reply::new(204, "")).await;
    let mut section = section(&backend.url());
    section.breaker.failures = 0;
    let (hooks, metrics) = hooks_with(section);
    backend.stop().await;
    let first = in_redis(&server, &hooks).await;
    send(&first, 1..=200);
    eventually("Redis has them", SOON, || first.at_risk() == 0).await;
    assert_eq!(first.close(SOON).await, 0);
    assert_eq!((stored(&server), notices(&metrics, "stored")), (200, 200));
    backend.restart().await;
    let second = in_redis(&server, &hooks).await;
    send(&second, 201..=300);
    eventually("all are delivered", SOON, || notices(&metrics, "delivered") >= 300).await;
    assert_eq!(taken(&backend), (1..=300).collect::<Vec<_>>());
    second.close(SOON).await;
    let left = server.command("KEYS *hook*");
    assert!(left.starts_with("*0"), "nothing is left in Redis: {left}");
}

#[tokio::test]
async fn two_nodes_deliver_one_at_a_time() {
    let server = RedisServer::start();
    let backend = Backend::start(|_, _| Reply::new(204, "").after(Duration::from_millis(2))).await;
    let (hooks, metrics) = hooks(&backend.url());
    let nodes = [in_redis(&server, &hooks).await, in_redis(&server, &hooks).await];
    for number in 1..=200 {
        send(&nodes[number % 2], number..=number);
    }
    eventually("all are delivered", SOON, || notices(&metrics, "delivered") >= 200).await;
    let numbers = taken(&backend);
    assert_eq!((numbers.len(), backend.count()), (200, 200), "none twice");
    for parity in 0..2 {
        let of_one_node: Vec<_> = numbers.iter().filter(|number| *number % 2 == parity).collect();
        assert!(of_one_node.is_sorted(), "{of_one_node:?}");
    }
    for node in nodes {
        node.close(SOON).await;
    }
}

#[tokio::test]
async fn a_node_waits_while_another_holds_the_lease_and_takes_over_when_it_ends() {
    let server = RedisServer::start();
    let backend = Backend::start(|_, _| Reply::new(204, "")).await;
    let (hooks, _) = hooks(&backend.url());
    server.command(&format!("SET {LEASE} a-node-that-died PX 1500"));
    let outbox = in_redis(&server, &hooks).await;
    send(&outbox, 1..=3);
    eventually("Redis has them", SOON, || stored(&server) == 3).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(backend.count(), 0);
    eventually("they are delivered", SOON, || backend.count() == 3).await;
    assert_eq!(taken(&backend), [1, 2, 3]);
    outbox.close(SOON).await;
}

#[tokio::test]
async fn notices_do_not_wait_for_redis() {
    let mut server = RedisServer::start();
    let backend = Backend::start(|_, _| Reply::new(204, "")).await;
    let (hooks, metrics) = hooks(&backend.url());
    let outbox = in_redis(&server, &hooks).await;
    send(&outbox, 1..=3);
    eventually("the first are delivered", SOON, || notices(&metrics, "delivered") == 3).await;
    server.kill();
    send(&outbox, 4..=6);
    eventually("the next are delivered without Redis", SOON, || backend.count() >= 6).await;
    server.restart();
    send(&outbox, 7..=9);
    eventually("and again with it", SOON, || taken(&backend).len() == 9).await;
    assert_eq!(taken(&backend), (1..=9).collect::<Vec<_>>());
    assert_eq!(outbox.close(SOON).await, 0);
}

#[tokio::test]
async fn the_list_in_redis_is_bounded_and_drops_are_counted() {
    let server = RedisServer::start();
    let mut backend = Backend::start(|_, _| Reply::new(204, "")).await;
    backend.stop().await;
    let (hooks, metrics) = hooks(&backend.url());
    let fill = format!("for i = 1, {MAX_STORED} do redis.call('RPUSH', '{LIST}', 'old') end");
    server.command(&format!("EVAL \"{fill}\" 0"));
    // Another node has the lease to deliver notices, so this node delivers none.
    server.command(&format!("SET {LEASE} another PX 60000"));
    let outbox = in_redis(&server, &hooks).await;
    send(&outbox, 1..=10);
    eventually("the oldest were dropped", SOON, || notices(&metrics, "dropped") == 10).await;
    assert_eq!(stored(&server), MAX_STORED);
    outbox.close(SOON).await;
}

#[tokio::test]
async fn what_is_no_notice_is_removed_from_the_list() {
    let server = RedisServer::start();
    let backend = Backend::start(|_, _| Reply::new(204, "")).await;
    let (hooks, _) = hooks(&backend.url());
    server.command(&format!("RPUSH {LIST} rubbish"));
    let outbox = in_redis(&server, &hooks).await;
    send(&outbox, 1..=1);
    eventually("the notice is delivered", SOON, || backend.count() == 1).await;
    eventually("the list is empty", SOON, || stored(&server) == 0).await;
    outbox.close(SOON).await;
}

#[tokio::test]
async fn notices_for_a_hook_that_is_not_configured_are_not_kept() {
    let hooks = Arc::new(Hooks::new("n", &Default::default(), Arc::new(Metrics::new())).unwrap());
    let outbox = Notices::in_memory(hooks);
    assert!(!outbox.send("other", gone(1)));
    assert_eq!(outbox.close(SOON).await, 0);
}
