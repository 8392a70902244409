//! Tests that the memory for data that waits for an unresponsive Redis is bounded. This suite runs alone, because it
//! measures the memory of its process.

#[expect(dead_code, reason = "the program `it` uses the rest")]
mod support {
    pub mod node;
    #[path = "../../src/session/recorder.rs"]
    pub mod recorder;
    pub mod redis;
}

use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast::publish::{ContractPublish, PublisherKind, RemoteFailure, RemoteOutcome};
use serde_json::json;
use support::node::Node;
use support::redis::{RedisServer, eventually};

const MEBIBYTE: usize = 1 << 20;

/// The maximum growth of the process's memory. Three limits are 64 MiB each: events that wait to be published, events
/// that wait for their history, and scripts without an answer. An event is copied into several encodings on its way.
const MOST: usize = 700 * MEBIBYTE;

/// The resident memory of this process.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_that_wait_for_a_frozen_redis_are_bounded_and_every_loss_is_told() {
    let server = RedisServer::start();
    let node = Arc::new(Node::start(&server.url(), "a", |_| {}).await);
    node.ready(1).await;
    server.pause();
    let (before, until) = (resident(), Instant::now() + Duration::from_secs(6));
    let (mut most, mut publishes, mut direct) = (0, Vec::new(), Vec::new());
    let text = "x".repeat(MEBIBYTE);
    let channel: Arc<str> = "frozen".into();
    // Publishes at most 3 GiB of events, with and without a history.
    while Instant::now() < until && publishes.len() + direct.len() < 3000 {
        let data = serde_json::value::to_raw_value(&json!({ "log": publishes.len() % 8, "pad": text })).unwrap();
        let publish =
            ContractPublish { contract: "c".into(), event: "entry".into(), args: vec![data], params: json!(null) };
        let publisher = node.publisher.clone();
        publishes
            .push(tokio::spawn(async move { publisher.contract_event(publish, PublisherKind::Api).await.unwrap() }));
        for _ in 0..20 {
            let receipt = node.cluster.pubsub().unwrap().publish(&channel, || text.as_bytes().to_vec());
            direct.push(receipt.map(tokio::spawn));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        most = most.max(resident().saturating_sub(before));
    }
    let events = publishes.len() + direct.len();
    println!("{events} events of 1 MiB, {} MiB more in memory at most", most / MEBIBYTE);
    assert!(events > 2 * MOST / MEBIBYTE, "more than would fit: {events}");
    assert!(most < MOST, "{} MiB", most / MEBIBYTE);
    let mut full = 0;
    for publish in publishes {
        let published = publish.await.unwrap();
        assert_ne!(published.remote, RemoteOutcome::Carried);
        full += usize::from(published.remote == RemoteOutcome::NotCarried(RemoteFailure::Full));
    }
    for receipt in direct {
        match receipt {
            Ok(receipt) => assert!(receipt.await.unwrap().is_err()),
            Err(why) => full += usize::from(why == RemoteFailure::Full),
        }
    }
    assert!(full > 0, "some were refused for the bound, and their publishers were told");
    server.resume();
    eventually("it goes on", Duration::from_secs(30), || node.redis.health().is_good()).await;
    let published = node.publish("l", 1).await;
    assert_eq!(published.remote, RemoteOutcome::Carried);
}
