//! Owners of rooms.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast::owners::{MemoryOwners, OwnerStore, Owners, OwnersError, RedisOwners};
use roomcast::redis::Redis;
use roomcast::telemetry::metrics::Metrics;

use super::{COMMAND_TIMEOUT, connect};
use crate::support::redis::{RedisServer, eventually};

const HOUR: Duration = Duration::from_secs(3600);

fn memory() -> Arc<MemoryOwners> {
    Arc::default()
}

fn redis(redis: Redis) -> Arc<RedisOwners> {
    Arc::new(RedisOwners::new(redis))
}

on_every_form! {
    each_room_of_each_namespace_has_its_owner
    new_owner_replaces_the_earlier_one_at_once
    removed_owner_is_gone
    owner_ends_with_its_time
    new_record_begins_a_new_time
}

async fn each_room_of_each_namespace_has_its_owner(owners: Arc<impl OwnerStore>) {
    owners.set("/", "a", "ada", HOUR).await.unwrap();
    owners.set("/x", "a", "bob", HOUR).await.unwrap();
    assert_eq!(owners.get("/", "a").await, Ok(Some("ada".into())));
    assert_eq!(owners.get("/x", "a").await, Ok(Some("bob".into())));
    assert_eq!(owners.get("/", "never").await, Ok(None));
}

async fn new_owner_replaces_the_earlier_one_at_once(owners: Arc<impl OwnerStore>) {
    for owner in ["ada", "eve"] {
        owners.set("/", "a", owner, HOUR).await.unwrap();
        assert_eq!(owners.get("/", "a").await, Ok(Some(owner.into())));
    }
}

async fn removed_owner_is_gone(owners: Arc<impl OwnerStore>) {
    owners.set("/", "a", "ada", HOUR).await.unwrap();
    for _ in 0..2 {
        owners.remove("/", "a").await.unwrap();
        assert_eq!(owners.get("/", "a").await, Ok(None));
    }
}

async fn owner_ends_with_its_time(owners: Arc<impl OwnerStore>) {
    owners.set("/", "a", "ada", Duration::from_secs(1)).await.unwrap();
    eventually_gone(&*owners).await;
}

async fn new_record_begins_a_new_time(owners: Arc<impl OwnerStore>) {
    owners.set("/", "a", "ada", HOUR).await.unwrap();
    owners.set("/", "a", "ada", Duration::from_secs(1)).await.unwrap();
    eventually_gone(&*owners).await;
}

async fn eventually_gone(owners: &impl OwnerStore) {
    let until = Instant::now() + Duration::from_secs(5);
    while owners.get("/", "a").await != Ok(None) {
        assert!(Instant::now() < until, "an owner ends with its time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// --- only in Redis ---

#[tokio::test]
async fn every_node_knows_an_owner_at_once_and_a_new_one_within_a_second() {
    let server = RedisServer::start();
    let (one, other) = (connect(&server, "p").await, connect(&server, "p").await);
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
    let ttl = server.command("TTL p:owner:v1:{/#a}");
    let seconds: u64 = ttl.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap();
    assert!((3590..=3600).contains(&seconds), "every owner has a time to live: {ttl}");
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn while_redis_is_away_nobody_waits_and_nobody_is_told_no() {
    let mut server = RedisServer::start();
    let redis = connect(&server, "p").await;
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
