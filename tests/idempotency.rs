//! Tests that both implementations of idempotent publishing (memory and Redis) must pass, then tests of the Redis
//! implementation.

use std::sync::Arc;
use std::time::Duration;

use roomcast::config;
use roomcast::idempotency::{ClaimResult, Idempotency, IdempotencyError, MAX_ID_BYTES, MAX_RESULT_BYTES};
use roomcast::redis::Redis;
use roomcast::telemetry::metrics::Metrics;

use crate::support::redis::{RedisServer, eventually};

const TTL: Duration = Duration::from_secs(60);

async fn connect(server: &RedisServer, metrics: &Arc<Metrics>) -> Redis {
    let config = config::RedisSettings {
        url: Some(config::Url::new(server.url())),
        prefix: "p".into(),
        ..config::RedisSettings::default()
    };
    let redis = Redis::connect(&config, "n", metrics.clone()).unwrap();
    eventually("Redis is up", Duration::from_secs(5), || redis.is_up()).await;
    redis
}

/// Runs a test against the implementation in memory and the implementation in Redis.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod in_memory {
            $( #[tokio::test] async fn $name() {
                let metrics = std::sync::Arc::new(super::Metrics::new());
                super::$name(&|ttl| super::Idempotency::in_memory(ttl, metrics.clone()), &metrics).await;
            } )*
        }
        mod in_redis {
            $( #[tokio::test] async fn $name() {
                let metrics = std::sync::Arc::new(super::Metrics::new());
                let server = super::RedisServer::start();
                let redis = super::connect(&server, &metrics).await;
                super::$name(&|ttl| super::Idempotency::in_redis(redis.clone(), ttl, metrics.clone()), &metrics).await;
                redis.close().await;
            } )*
        }
    };
}

on_both! {
    same_id_gets_the_first_answer_again
    id_in_flight_is_seen_without_an_answer
    id_for_something_else_is_a_conflict
    released_id_can_be_used_again
    id_is_forgotten_after_its_time
    one_of_many_claims_wins
    absurd_ids_are_refused
}

type Make<'a> = &'a dyn Fn(Duration) -> Idempotency;

async fn new(it: &Idempotency, id: &str, body: &[u8]) -> roomcast::idempotency::ClaimedId {
    match it.claim("c", id, body).await.unwrap() {
        ClaimResult::New(claimed) => claimed,
        other => panic!("not new: {other:?}"),
    }
}

async fn same_id_gets_the_first_answer_again(make: Make<'_>, metrics: &Arc<Metrics>) {
    let it = make(TTL);
    let claimed = new(&it, "1", b"body").await;
    it.complete(claimed, r#"{"accepted": true, "local": 3}"#).await;
    for _ in 0..2 {
        let ClaimResult::Seen(Some(result)) = it.claim("c", "1", b"body").await.unwrap() else { panic!("not seen") };
        assert_eq!(result, r#"{"accepted": true, "local": 3}"#);
    }
    assert_eq!(metrics.idempotent_duplicates_total.with_label_values(&["c"]).get(), 2);
    assert!(matches!(it.claim("other contract", "1", b"body").await, Ok(ClaimResult::New(_))));
    let claimed = new(&it, "2", b"body").await;
    it.complete(claimed, &"x".repeat(MAX_RESULT_BYTES + 1)).await;
    assert!(matches!(it.claim("c", "2", b"body").await, Ok(ClaimResult::Seen(None))));
}

async fn id_in_flight_is_seen_without_an_answer(make: Make<'_>, _: &Arc<Metrics>) {
    let it = make(TTL);
    let claimed = new(&it, "1", b"body").await;
    assert!(matches!(it.claim("c", "1", b"body").await, Ok(ClaimResult::Seen(None))));
    it.complete(claimed, "{}").await;
    assert!(matches!(it.claim("c", "1", b"body").await, Ok(ClaimResult::Seen(Some(_)))));
}

async fn id_for_something_else_is_a_conflict(make: Make<'_>, _: &Arc<Metrics>) {
    let it = make(TTL);
    let claimed = new(&it, "1", b"body").await;
    assert!(matches!(it.claim("c", "1", b"other").await, Ok(ClaimResult::Conflict)));
    it.complete(claimed, "{}").await;
    assert!(matches!(it.claim("c", "1", b"other").await, Ok(ClaimResult::Conflict)));
}

async fn released_id_can_be_used_again(make: Make<'_>, _: &Arc<Metrics>) {
    let it = make(TTL);
    let claimed = new(&it, "1", b"wrong").await;
    it.release(claimed).await;
    assert!(matches!(it.claim("c", "1", b"right").await, Ok(ClaimResult::New(_))));
}

async fn id_is_forgotten_after_its_time(make: Make<'_>, _: &Arc<Metrics>) {
    let it = make(Duration::from_millis(100));
    let claimed = new(&it, "1", b"body").await;
    it.complete(claimed, "{}").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(matches!(it.claim("c", "1", b"body").await, Ok(ClaimResult::New(_))));
}

async fn one_of_many_claims_wins(make: Make<'_>, _: &Arc<Metrics>) {
    let it = make(TTL);
    let claims = (0..100).map(|_| it.claim("c", "1", b"body"));
    let won = futures_util::future::join_all(claims).await;
    assert_eq!(won.iter().filter(|claim| matches!(claim, Ok(ClaimResult::New(_)))).count(), 1);
    assert_eq!(won.iter().filter(|claim| matches!(claim, Ok(ClaimResult::Seen(None)))).count(), 99);
}

async fn absurd_ids_are_refused(make: Make<'_>, _: &Arc<Metrics>) {
    let it = make(TTL);
    assert_eq!(it.claim("c", "", b"").await.unwrap_err(), IdempotencyError::Length(0));
    let long = "x".repeat(MAX_ID_BYTES + 1);
    assert_eq!(it.claim("c", &long, b"").await.unwrap_err(), IdempotencyError::Length(MAX_ID_BYTES + 1));
    for strange in ["\r\nDEL x", "{}", "\u{0}", "é"] {
        assert!(matches!(it.claim("c", strange, b"").await, Ok(ClaimResult::New(_))));
    }
}

// --- Redis only ---

#[tokio::test]
async fn every_id_has_a_life_and_a_dead_nodes_claim_is_short() {
    let metrics = Arc::new(Metrics::new());
    let server = RedisServer::start();
    let redis = connect(&server, &metrics).await;
    let it = Idempotency::in_redis(redis.clone(), Duration::from_secs(600), metrics);
    let ttl = || -> i64 { server.command("PTTL p:publish:c:1").lines().next().unwrap()[1..].parse().unwrap() };
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
        nodes.push(Idempotency::in_redis(connect(&server, &metrics).await, TTL, metrics.clone()));
    }
    for id in 0..50 {
        let id = id.to_string();
        let claims = futures_util::future::join_all(nodes.iter().map(|node| node.claim("c", &id, b"body"))).await;
        assert_eq!(claims.iter().filter(|claim| matches!(claim, Ok(ClaimResult::New(_)))).count(), 1);
    }
}

#[tokio::test]
async fn redis_away_is_said_at_once_and_counted() {
    let metrics = Arc::new(Metrics::new());
    let mut server = RedisServer::start();
    let redis = connect(&server, &metrics).await;
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
