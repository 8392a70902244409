//! Several nodes and one redis-server.

#[path = "support/redis.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use roomcast::config;
use roomcast::redis::Redis;
use roomcast::telemetry::metrics::Metrics;
use support::{RedisServer, eventually};

fn config(url: &str) -> config::Redis {
    config::Redis { url: Some(config::Url::new(url)), ..config::Redis::default() }
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
