//! Tests that all features work with a Redis Cluster: no command uses keys of different hash slots.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast::config;
use roomcast::event::Event;
use roomcast::history::{History, HistoryQuery, HistoryStart, ListCopy, PageOrder, Retention, RoomKey};
use roomcast::redis::Redis;
use roomcast::telemetry::metrics::Metrics;

use crate::support::redis::RedisServer;

async fn connect(cluster: &RedisServer) -> (Redis, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let config =
        config::RedisSettings { url: Some(config::Url::new(cluster.url())), ..config::RedisSettings::default() };
    let redis = Redis::connect(&config, "n", metrics.clone()).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while !redis.is_up() {
        assert!(Instant::now() < until, "not up: {:?}", redis.health());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(redis.is_clustered());
    (redis, metrics)
}

#[tokio::test]
async fn history_and_its_list_live_in_different_slots() {
    let cluster = RedisServer::cluster();
    let (redis, metrics) = connect(&cluster).await;
    let history = History::in_redis(redis.clone(), metrics.clone());
    let keep = Retention { events: 5, ttl: Duration::from_secs(60) };
    for room in ["job:1", "job:2", "job:{3}"] {
        let key = RoomKey { namespace: "/jobs".into(), room: room.into() };
        let list = format!("job-history:{room}");
        let mut epoch = 0;
        for number in 1..=7_u64 {
            let payload = number.to_string();
            let copy = ListCopy { key: &list, payload: &payload, events: 5, ttl: Duration::from_secs(60) };
            let event = Event::encode("e", &[number]).unwrap();
            let appended = history.append(&key, keep, Some(copy), &event).await.unwrap();
            assert_eq!(appended.offset, number);
            epoch = appended.epoch;
        }
        let query = HistoryQuery {
            limit: 9,
            since: Some(HistoryStart { epoch: Some(epoch), offset: 4 }),
            order: PageOrder::Asc,
        };
        let page = history.read(&key, query).await.unwrap();
        assert!(page.complete);
        assert_eq!(page.events.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [5, 6, 7]);
        let answer = cluster.command(&format!("LRANGE {list} 0 -1"));
        let items: Vec<_> = answer.lines().skip(1).filter(|line| !line.starts_with(['$', '+'])).collect();
        assert_eq!(items, ["3", "4", "5", "6", "7"]);
    }
    assert_eq!(metrics.history_errors_total.with_label_values(&["copy", "refused"]).get(), 0);
    redis.close().await;
}
