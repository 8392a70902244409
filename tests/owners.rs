//! Owners of rooms: tests that both implementations (memory and Redis) must pass, then tests of the Redis
//! implementation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast::config;
use roomcast::owners::{Owners, OwnersError};
use roomcast::redis::Redis;
use roomcast::telemetry::metrics::Metrics;

use crate::support::redis::{RedisServer, eventually};

const HOUR: Duration = Duration::from_secs(3600);
const COMMAND_TIMEOUT: Duration = Duration::from_millis(500);

async fn connect(server: &RedisServer, node: &str) -> Redis {
    let config = config::RedisSettings {
        url: Some(config::Url::new(server.url())),
        prefix: "p".into(),
        command_timeout: COMMAND_TIMEOUT.into(),
        ..config::RedisSettings::default()
    };
    let redis = Redis::connect(&config, node, Arc::new(Metrics::new())).unwrap();
    eventually("Redis is up", Duration::from_secs(5), || redis.is_up()).await;
    redis
}

async fn keeps_the_promises_of_every_backend(owners: &Owners) {
    owners.set("/", "a", "ada", HOUR).await.unwrap();
    owners.set("/x", "a", "bob", HOUR).await.unwrap();
    assert_eq!(owners.get("/", "a").await, Ok(Some("ada".into())));
    assert_eq!(owners.get("/x", "a").await, Ok(Some("bob".into())));
    assert_eq!(owners.get("/", "never").await, Ok(None));
    owners.set("/", "a", "eve", HOUR).await.unwrap();
    assert_eq!(owners.get("/", "a").await, Ok(Some("eve".into())), "what was just replaced is not remembered");
    owners.remove("/", "a").await.unwrap();
    owners.remove("/", "a").await.unwrap();
    assert_eq!(owners.get("/", "a").await, Ok(None));
    owners.set("/", "short", "ada", Duration::from_secs(1)).await.unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while owners.get("/", "short").await != Ok(None) {
        assert!(Instant::now() < until, "an owner ends with its time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn owners_in_memory_keep_the_promises() {
    keeps_the_promises_of_every_backend(&Owners::in_memory(Arc::new(Metrics::new()))).await;
}

#[tokio::test]
async fn owners_in_redis_keep_the_promises() {
    let server = RedisServer::start();
    let redis = connect(&server, "n").await;
    keeps_the_promises_of_every_backend(&Owners::in_redis(redis.clone(), Arc::new(Metrics::new()))).await;
    redis.close().await;
}

#[tokio::test]
async fn every_node_knows_an_owner_at_once_and_a_new_one_within_a_second() {
    let server = RedisServer::start();
    let (one, other) = (connect(&server, "one").await, connect(&server, "other").await);
    let here = Owners::in_redis(one.clone(), Arc::new(Metrics::new()));
    let there = Owners::in_redis(other.clone(), Arc::new(Metrics::new()));
    assert_eq!(there.get("/", "a").await, Ok(None), "that nobody owns it is not remembered");
    here.set("/", "a", "ada", HOUR).await.unwrap();
    assert_eq!(there.get("/", "a").await, Ok(Some("ada".into())));
    here.set("/", "a", "eve", HOUR).await.unwrap();
    let changed = Instant::now();
    while there.get("/", "a").await != Ok(Some("eve".into())) {
        assert!(changed.elapsed() < Duration::from_millis(1500), "an earlier owner is believed for a second");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ttl = server.command("TTL p:owner:{/#a}");
    let seconds: u64 = ttl.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap();
    assert!((3590..=3600).contains(&seconds), "every owner has a time to live: {ttl}");
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn while_redis_is_away_nobody_waits_and_nobody_is_told_no() {
    let mut server = RedisServer::start();
    let redis = connect(&server, "n").await;
    let owners = Owners::in_redis(redis.clone(), Arc::new(Metrics::new()));
    owners.set("/", "a", "ada", HOUR).await.unwrap();
    server.pause();
    let asked = Instant::now();
    assert_eq!(owners.get("/", "b").await, Err(OwnersError::Unavailable));
    assert!(asked.elapsed() < COMMAND_TIMEOUT * 2, "a silent Redis is waited for as long as a command may take");
    server.resume();
    server.kill();
    eventually("Redis is away", Duration::from_secs(5), || !redis.is_up()).await;
    let asked = Instant::now();
    assert_eq!(owners.get("/", "b").await, Err(OwnersError::Unavailable));
    assert_eq!(owners.set("/", "b", "ada", HOUR).await, Err(OwnersError::Unavailable));
    assert_eq!(owners.remove("/", "b").await, Err(OwnersError::Unavailable));
    assert!(asked.elapsed() < COMMAND_TIMEOUT, "a Redis that is known to be away is not waited for");
    redis.close().await;
}
