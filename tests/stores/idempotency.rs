//! Ids of publishes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use roomcast::idempotency::{
    ClaimResult, ClaimedId, IdStore, Idempotency, IdempotencyError, MAX_ID_BYTES, MAX_RESULT_BYTES, MemoryIds,
    PublishKey, RedisIds,
};
use roomcast::redis::Redis;
use roomcast::telemetry::metrics::Metrics;

use super::connect_counted;
use crate::support::redis::{RedisServer, eventually};

const TTL: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);

fn memory() -> Arc<MemoryIds> {
    Arc::default()
}

fn redis(redis: Redis) -> Arc<RedisIds> {
    Arc::new(RedisIds::new(redis))
}

on_every_form! {
    free_id_is_claimed_and_the_claim_is_seen
    completed_id_keeps_its_answer
    released_id_can_be_claimed_again
    claim_and_answer_end_with_their_time
    contracts_have_ids_of_their_own
    one_of_many_claims_wins
}

fn key(id: &str) -> PublishKey {
    PublishKey { scope: "c".into(), id: id.into() }
}

async fn free_id_is_claimed_and_the_claim_is_seen(ids: Arc<impl IdStore>) {
    for strange in ["1", "\r\nDEL x", "{}", "\u{0}", "é"] {
        assert_eq!(ids.claim(&key(strange), "first", TTL).await, Ok(None));
        assert_eq!(ids.claim(&key(strange), "second", TTL).await, Ok(Some("first".into())));
    }
}

async fn completed_id_keeps_its_answer(ids: Arc<impl IdStore>) {
    ids.claim(&key("1"), "claim", TTL).await.unwrap();
    ids.complete(&key("1"), "answer", TTL).await.unwrap();
    for _ in 0..2 {
        assert_eq!(ids.claim(&key("1"), "later", TTL).await, Ok(Some("answer".into())));
    }
}

async fn released_id_can_be_claimed_again(ids: Arc<impl IdStore>) {
    ids.claim(&key("1"), "wrong", TTL).await.unwrap();
    ids.release(&key("1")).await.unwrap();
    assert_eq!(ids.claim(&key("1"), "right", TTL).await, Ok(None));
}

async fn claim_and_answer_end_with_their_time(ids: Arc<impl IdStore>) {
    ids.claim(&key("claimed"), "claim", SHORT).await.unwrap();
    ids.claim(&key("completed"), "claim", TTL).await.unwrap();
    ids.complete(&key("completed"), "answer", SHORT).await.unwrap();
    ids.claim(&key("kept"), "claim", SHORT).await.unwrap();
    ids.complete(&key("kept"), "answer", TTL).await.unwrap();
    tokio::time::sleep(SHORT * 2).await;
    for id in ["claimed", "completed"] {
        assert_eq!(ids.claim(&key(id), "later", TTL).await, Ok(None), "{id}");
    }
    assert_eq!(ids.claim(&key("kept"), "later", TTL).await, Ok(Some("answer".into())));
}

async fn contracts_have_ids_of_their_own(ids: Arc<impl IdStore>) {
    for scope in ["one", "other"] {
        let key = PublishKey { scope: scope.into(), id: "1".into() };
        assert_eq!(ids.claim(&key, "entry", TTL).await, Ok(None));
    }
}

async fn one_of_many_claims_wins(ids: Arc<impl IdStore>) {
    let key = key("1");
    let claims = join_all((0..100).map(|_| ids.claim(&key, "entry", TTL))).await;
    assert_eq!(claims.iter().filter(|claim| **claim == Ok(None)).count(), 1);
    assert_eq!(claims.iter().filter(|claim| **claim == Ok(Some("entry".into()))).count(), 99);
}

// --- what is the same for every form ---

fn in_memory() -> (Idempotency, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    (Idempotency::in_memory(TTL, metrics.clone()), metrics)
}

async fn new(it: &Idempotency, id: &str, body: &[u8]) -> ClaimedId {
    match it.claim("c", id, body).await.unwrap() {
        ClaimResult::New(claimed) => claimed,
        other => panic!("not new: {other:?}"),
    }
}

#[tokio::test]
async fn same_id_gets_the_first_answer_again() {
    let (it, metrics) = in_memory();
    let claimed = new(&it, "1", b"body").await;
    assert!(matches!(it.claim("c", "1", b"body").await, Ok(ClaimResult::Seen(None))), "there is no answer yet");
    it.complete(claimed, r#"{"accepted": true, "local": 3}"#).await;
    for _ in 0..2 {
        let ClaimResult::Seen(Some(result)) = it.claim("c", "1", b"body").await.unwrap() else { panic!("not seen") };
        assert_eq!(result, r#"{"accepted": true, "local": 3}"#);
    }
    assert_eq!(metrics.idempotent_duplicates_total.with_label_values(&["c"]).get(), 3);
    let claimed = new(&it, "2", b"body").await;
    it.complete(claimed, &"x".repeat(MAX_RESULT_BYTES + 1)).await;
    assert!(matches!(it.claim("c", "2", b"body").await, Ok(ClaimResult::Seen(None))), "too large to be stored");
}

#[tokio::test]
async fn id_for_something_else_is_a_conflict_until_it_is_released() {
    let (it, _) = in_memory();
    let claimed = new(&it, "1", b"body").await;
    assert!(matches!(it.claim("c", "1", b"other").await, Ok(ClaimResult::Conflict)));
    it.complete(claimed, "{}").await;
    assert!(matches!(it.claim("c", "1", b"other").await, Ok(ClaimResult::Conflict)));
    let claimed = new(&it, "2", b"wrong").await;
    it.release(claimed).await;
    let _ = new(&it, "2", b"right").await;
}

#[tokio::test]
async fn absurd_ids_are_refused() {
    let (it, _) = in_memory();
    assert_eq!(it.claim("c", "", b"").await.unwrap_err(), IdempotencyError::Length(0));
    let long = "x".repeat(MAX_ID_BYTES + 1);
    assert_eq!(it.claim("c", &long, b"").await.unwrap_err(), IdempotencyError::Length(MAX_ID_BYTES + 1));
}

// --- only in Redis ---

#[tokio::test]
async fn every_id_has_a_life_and_a_dead_nodes_claim_is_short() {
    let metrics = Arc::new(Metrics::new());
    let server = RedisServer::start();
    let redis = connect_counted(&server, "p", &metrics).await;
    let it = Idempotency::in_redis(redis.clone(), Duration::from_secs(600), metrics);
    let ttl = || -> i64 { server.command("PTTL p:publish:v1:c:1").lines().next().unwrap()[1..].parse().unwrap() };
    let claimed = new(&it, "1", b"body").await;
    assert!((1..=30_000).contains(&ttl()), "{}", ttl());
    it.complete(claimed, "{}").await;
    assert!((590_000..=600_000).contains(&ttl()), "{}", ttl());
    redis.close().await;
}

#[tokio::test]
async fn one_of_several_nodes_wins() {
    let metrics = Arc::new(Metrics::new());
    let server = RedisServer::start();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Idempotency::in_redis(connect_counted(&server, "p", &metrics).await, TTL, metrics.clone()));
    }
    for id in 0..50 {
        let id = id.to_string();
        let claims = join_all(nodes.iter().map(|node| node.claim("c", &id, b"body"))).await;
        assert_eq!(claims.iter().filter(|claim| matches!(claim, Ok(ClaimResult::New(_)))).count(), 1);
    }
}

#[tokio::test]
async fn redis_away_is_said_at_once_and_counted() {
    let metrics = Arc::new(Metrics::new());
    let mut server = RedisServer::start();
    let redis = connect_counted(&server, "p", &metrics).await;
    let it = Idempotency::in_redis(redis.clone(), TTL, metrics.clone());
    let claimed = new(&it, "1", b"body").await;
    server.kill();
    eventually("the loss is noticed", Duration::from_secs(5), || !redis.is_up()).await;
    let started = std::time::Instant::now();
    assert_eq!(it.claim("c", "2", b"body").await.unwrap_err(), IdempotencyError::Unavailable);
    it.complete(claimed, "{}").await;
    assert!(started.elapsed() < Duration::from_millis(100));
    assert_eq!(metrics.idempotent_errors_total.with_label_values(&["claim"]).get(), 1);
    assert_eq!(metrics.idempotent_errors_total.with_label_values(&["complete"]).get(), 1);
    redis.close().await;
}
