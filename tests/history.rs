//! Tests that both implementations of the history (memory and Redis) must pass, then tests of the Redis implementation.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use roomcast::config;
use roomcast::event::Event;
use roomcast::history::{
    History, HistoryError, HistoryQuery, HistoryStart, ListCopy, MAX_PAGE, PageOrder, Retention, RoomKey,
};
use roomcast::redis::Redis;
use roomcast::telemetry::metrics::Metrics;

use crate::support::redis::{RedisServer, eventually};

const KEEP: Retention = Retention { events: 5, ttl: Duration::from_secs(60) };
const NEWEST: HistoryQuery = HistoryQuery { limit: 100, since: None, order: PageOrder::Asc };

struct Cluster {
    server: RedisServer,
    redis: Redis,
    history: Arc<History>,
    metrics: Arc<Metrics>,
}

async fn cluster() -> Cluster {
    let server = RedisServer::start();
    let metrics = Arc::new(Metrics::new());
    let config = config::RedisSettings {
        url: Some(config::Url::new(server.url())),
        prefix: "p".into(),
        ..config::RedisSettings::default()
    };
    let redis = Redis::connect(&config, "n", metrics.clone()).unwrap();
    eventually("Redis is up", Duration::from_secs(5), || redis.is_up()).await;
    let history = Arc::new(History::in_redis(redis.clone(), metrics.clone()));
    Cluster { server, redis, history, metrics }
}

/// Runs a test against the history in memory and the history in Redis.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod in_memory {
            $( #[tokio::test] async fn $name() {
                let metrics = std::sync::Arc::new(super::Metrics::new());
                super::$name(std::sync::Arc::new(super::History::in_memory(metrics))).await;
            } )*
        }
        mod in_redis {
            $( #[tokio::test] async fn $name() {
                let cluster = super::cluster().await;
                super::$name(cluster.history.clone()).await;
                cluster.redis.close().await;
            } )*
        }
    };
}

on_both! {
    offsets_have_no_gap_and_rooms_do_not_mix
    history_is_trimmed_to_the_newest
    pages_follow_since_limit_and_order
    what_cannot_be_proven_whole_says_so
    absurd_places_are_answered_with_what_is_kept
    events_come_back_to_the_byte
    concurrent_appends_have_no_gap_and_no_copy
    forgotten_room_begins_a_new_epoch
    idle_room_is_forgotten_and_an_append_keeps_it
    any_time_to_live_is_taken
    page_is_bounded
}

fn room(name: &str) -> RoomKey {
    RoomKey { namespace: "/".into(), room: name.into() }
}

fn numbered(number: u64) -> Event {
    Event::encode("e", &[number]).unwrap()
}

async fn fill(history: &History, name: &str, count: u64) -> u64 {
    let mut epoch = 0;
    for number in 1..=count {
        let appended = history.append(&room(name), KEEP, None, &numbered(number)).await.unwrap();
        assert_eq!(appended.offset, number);
        assert!(epoch == 0 || epoch == appended.epoch);
        epoch = appended.epoch;
    }
    epoch
}

async fn offsets(
    history: &History,
    name: &str,
    limit: usize,
    since: Option<HistoryStart>,
    order: PageOrder,
) -> (Vec<u64>, bool) {
    let page = history.read(&room(name), HistoryQuery { limit, since, order }).await.unwrap();
    for (offset, event) in &page.events {
        assert_eq!(*event, numbered(*offset));
    }
    (page.events.iter().map(|(offset, _)| *offset).collect(), page.complete)
}

fn since(epoch: u64, offset: u64) -> Option<HistoryStart> {
    Some(HistoryStart { epoch: Some(epoch), offset })
}

async fn offsets_have_no_gap_and_rooms_do_not_mix(history: Arc<History>) {
    let one = fill(&history, "one", 3).await;
    let elsewhere = RoomKey { namespace: "/other".into(), room: "one".into() };
    let other = history.append(&elsewhere, KEEP, None, &numbered(1)).await.unwrap();
    assert_eq!(other.offset, 1);
    let page = history.read(&room("one"), NEWEST).await.unwrap();
    assert_eq!((page.epoch, page.first_offset, page.last_offset), (one, 1, 3));
    let page = history.read(&room("none"), NEWEST).await.unwrap();
    assert_eq!((page.epoch, page.first_offset, page.last_offset, page.events.len()), (0, 0, 0, 0));
    assert!(page.complete);
}

async fn history_is_trimmed_to_the_newest(history: Arc<History>) {
    fill(&history, "r", 12).await;
    let page = history.read(&room("r"), NEWEST).await.unwrap();
    assert_eq!((page.first_offset, page.last_offset), (8, 12));
    assert_eq!(offsets(&history, "r", 100, None, PageOrder::Asc).await, (vec![8, 9, 10, 11, 12], true));
}

async fn pages_follow_since_limit_and_order(history: Arc<History>) {
    let epoch = fill(&history, "r", 5).await;
    assert_eq!(offsets(&history, "r", 2, None, PageOrder::Asc).await, (vec![4, 5], true));
    assert_eq!(offsets(&history, "r", 2, None, PageOrder::Desc).await, (vec![5, 4], true));
    assert_eq!(offsets(&history, "r", 2, since(epoch, 1), PageOrder::Asc).await, (vec![2, 3], true));
    assert_eq!(offsets(&history, "r", 2, since(epoch, 1), PageOrder::Desc).await, (vec![5, 4], false));
    assert_eq!(offsets(&history, "r", 9, since(epoch, 3), PageOrder::Desc).await, (vec![5, 4], true));
    assert_eq!(offsets(&history, "r", 9, since(epoch, 5), PageOrder::Asc).await, (vec![], true));
}

async fn what_cannot_be_proven_whole_says_so(history: Arc<History>) {
    let epoch = fill(&history, "r", 7).await;
    let all = vec![3, 4, 5, 6, 7];
    assert_eq!(offsets(&history, "r", 9, since(epoch, 2), PageOrder::Asc).await, (all.clone(), true));
    assert_eq!(offsets(&history, "r", 9, since(epoch, 1), PageOrder::Asc).await, (all.clone(), false), "trimmed");
    assert_eq!(
        offsets(&history, "r", 9, since(epoch + 1, 6), PageOrder::Asc).await,
        (all.clone(), false),
        "other epoch"
    );
    let bare = |offset| Some(HistoryStart { epoch: None, offset });
    assert_eq!(offsets(&history, "r", 9, bare(6), PageOrder::Asc).await, (vec![7], false), "no epoch");
    assert_eq!(offsets(&history, "r", 9, bare(0), PageOrder::Asc).await, (all, false), "the start is gone");
    assert_eq!(offsets(&history, "none", 9, since(epoch, 2), PageOrder::Asc).await, (vec![], false), "forgotten");
    fill(&history, "young", 2).await;
    assert_eq!(offsets(&history, "young", 9, bare(0), PageOrder::Asc).await, (vec![1, 2], true));
}

async fn absurd_places_are_answered_with_what_is_kept(history: Arc<History>) {
    let epoch = fill(&history, "r", 2).await;
    for offset in [3, 1 << 53, u64::MAX] {
        assert_eq!(offsets(&history, "r", 9, since(epoch, offset), PageOrder::Asc).await, (vec![1, 2], false));
        assert_eq!(offsets(&history, "r", 9, since(u64::MAX, offset), PageOrder::Desc).await, (vec![2, 1], false));
    }
    let page = history.read(&room("r"), HistoryQuery { limit: 0, ..NEWEST }).await.unwrap();
    assert_eq!(page.last_offset, 2);
}

async fn events_come_back_to_the_byte(history: Arc<History>) {
    let texts = [r#"["e",{"x": 1.50, "é":"\u00e9 \"]["}]"#, r#"["q\"","\u0000"]"#, r#"["e"]"#, "[ \"e\" , {} ]"];
    for text in texts {
        history.append(&room("r"), KEEP, None, &Event::from_wire(text.into(), Vec::new()).unwrap()).await.unwrap();
    }
    let attachments: Vec<Bytes> =
        vec![Bytes::from_static(&[0, 255, 10, 13, 128]), Bytes::new(), Bytes::from(vec![7; 100_000])];
    let text = r#"["b",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}]"#;
    let binary = Event::from_wire(text.into(), attachments).unwrap();
    history.append(&room("r"), KEEP, None, &binary).await.unwrap();
    let page = history.read(&room("r"), NEWEST).await.unwrap();
    let read: Vec<_> = page.events.iter().map(|(_, event)| event).collect();
    for (text, event) in texts.iter().zip(&read) {
        assert_eq!(event.text(), text);
    }
    assert_eq!(*read[4], binary);
}

async fn concurrent_appends_have_no_gap_and_no_copy(history: Arc<History>) {
    let keep = Retention { events: 1000, ..KEEP };
    let tasks: Vec<_> = (0..8u64)
        .map(|task| {
            let history = history.clone();
            tokio::spawn(async move {
                let mut places = Vec::new();
                for number in 0..50 {
                    let event = numbered(task * 50 + number);
                    places.push(history.append(&room("r"), keep, None, &event).await.unwrap());
                }
                places
            })
        })
        .collect();
    let mut seen = HashSet::new();
    for task in tasks {
        for place in task.await.unwrap() {
            assert!(seen.insert((place.epoch, place.offset)));
        }
    }
    let page = history.read(&room("r"), HistoryQuery { limit: 1000, ..NEWEST }).await.unwrap();
    assert_eq!(page.events.len(), 400);
    assert!((1..=400).all(|offset| seen.contains(&(page.epoch, offset))));
}

async fn forgotten_room_begins_a_new_epoch(history: Arc<History>) {
    let brief = Retention { events: 5, ttl: Duration::from_millis(100) };
    let epoch = history.append(&room("r"), brief, None, &numbered(1)).await.unwrap().epoch;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(offsets(&history, "r", 9, None, PageOrder::Asc).await.0, Vec::<u64>::new());
    let again = history.append(&room("r"), KEEP, None, &numbered(1)).await.unwrap();
    assert_eq!(again.offset, 1);
    assert_ne!(again.epoch, epoch);
    assert_eq!(offsets(&history, "r", 9, since(epoch, 1), PageOrder::Asc).await, (vec![1], false));
}

async fn idle_room_is_forgotten_and_an_append_keeps_it(history: Arc<History>) {
    let keep = Retention { events: 5, ttl: Duration::from_millis(400) };
    for number in 1..=4 {
        let appended = history.append(&room("r"), keep, None, &numbered(number)).await.unwrap();
        assert_eq!(appended.offset, number, "an append renews the time");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(history.read(&room("r"), NEWEST).await.unwrap().epoch, 0);
}

async fn any_time_to_live_is_taken(history: Arc<History>) {
    let keep = Retention { events: 5, ttl: Duration::MAX };
    history.append(&room("r"), keep, None, &numbered(1)).await.unwrap();
    assert_eq!(history.read(&room("r"), NEWEST).await.unwrap().events.len(), 1);
}

async fn page_is_bounded(history: Arc<History>) {
    let keep = Retention { events: 2000, ..KEEP };
    for number in 1..=(MAX_PAGE as u64 + 5) {
        history.append(&room("r"), keep, None, &numbered(number)).await.unwrap();
    }
    let page = history.read(&room("r"), HistoryQuery { limit: usize::MAX, ..NEWEST }).await.unwrap();
    assert_eq!(page.events.len(), MAX_PAGE);
    assert_eq!((page.first_offset, page.oldest()), (1, Some(6)));
}

// --- Redis only ---

/// Extracts the bulk strings from Redis's answer to an inline command.
fn bulks(answer: &str) -> Vec<String> {
    let mut lines = answer.split("\r\n");
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with('$') {
            found.extend(lines.next().map(str::to_owned));
        }
    }
    found
}

#[tokio::test]
async fn list_of_payloads_is_as_other_services_read_it() {
    let it = cluster().await;
    for number in 1..=105 {
        let payload = format!(r#"{{"jobId":"7","number":{number}}}"#);
        let copy = ListCopy { key: "job-history:7", payload: &payload, events: 100, ttl: Duration::from_secs(86_400) };
        it.history.append(&room("job:7"), KEEP, Some(copy), &numbered(number)).await.unwrap();
    }
    assert!(it.server.command("TYPE job-history:7").starts_with("+list"));
    let list = bulks(&it.server.command("LRANGE job-history:7 0 -1"));
    assert_eq!(list.len(), 100);
    assert_eq!(list.first().unwrap(), r#"{"jobId":"7","number":6}"#);
    assert_eq!(list.last().unwrap(), r#"{"jobId":"7","number":105}"#);
    let ttl: u64 = it.server.command("TTL job-history:7").lines().next().unwrap()[1..].parse().unwrap();
    assert!((86_300..=86_400).contains(&ttl), "{ttl}");
    it.redis.close().await;
}

#[tokio::test]
async fn list_key_that_holds_something_else_costs_the_copy_alone() {
    let it = cluster().await;
    it.server.command("SET job-history:7 x");
    let copy = ListCopy { key: "job-history:7", payload: "{}", events: 100, ttl: Duration::from_secs(60) };
    let appended = it.history.append(&room("job:7"), KEEP, Some(copy), &numbered(1)).await.unwrap();
    assert_eq!(appended.offset, 1);
    assert_eq!(it.metrics.history_errors_total.with_label_values(&["copy", "refused"]).get(), 1);
    it.redis.close().await;
}

#[tokio::test]
async fn database_holds_one_key_a_room_and_it_has_a_life() {
    let it = cluster().await;
    fill(&it.history, "job:{7}", 3).await;
    assert_eq!(bulks(&it.server.command("KEYS *")), ["p:history:{/#job:{7}}:events"]);
    let ttl: i64 = it.server.command("PTTL p:history:{/#job:{7}}:events").lines().next().unwrap()[1..].parse().unwrap();
    assert!((1..=60_000).contains(&ttl), "{ttl}");
    it.redis.close().await;
}

#[tokio::test]
async fn flushed_redis_begins_a_new_epoch_and_needs_the_scripts_again() {
    let it = cluster().await;
    let epoch = fill(&it.history, "r", 3).await;
    it.server.command("FLUSHALL");
    it.server.command("SCRIPT FLUSH");
    let (kept, complete) = offsets(&it.history, "r", 9, since(epoch, 3), PageOrder::Asc).await;
    assert_eq!((kept, complete), (vec![], false));
    let appended = it.history.append(&room("r"), KEEP, None, &numbered(1)).await.unwrap();
    assert_eq!(appended.offset, 1);
    assert_ne!(appended.epoch, epoch);
    it.redis.close().await;
}

#[tokio::test]
async fn redis_away_is_said_at_once_and_counted() {
    let mut it = cluster().await;
    fill(&it.history, "r", 1).await;
    it.server.kill();
    eventually("the loss is noticed", Duration::from_secs(5), || !it.redis.is_up()).await;
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(it.history.append(&room("r"), KEEP, None, &numbered(1)).await, Err(HistoryError::Unavailable));
        assert_eq!(it.history.read(&room("r"), NEWEST).await, Err(HistoryError::Unavailable));
    }
    assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
    for op in ["append", "read"] {
        assert_eq!(it.metrics.history_errors_total.with_label_values(&[op, "unavailable"]).get(), 100);
    }
    it.server.restart();
    eventually("Redis is back", Duration::from_secs(5), || it.redis.is_up()).await;
    assert_eq!(it.history.append(&room("r"), KEEP, None, &numbered(1)).await.unwrap().offset, 1);
    it.redis.close().await;
}

#[tokio::test]
async fn something_else_under_the_key_is_refused() {
    let it = cluster().await;
    it.server.command("SET p:history:{/#r}:events x");
    assert!(matches!(it.history.append(&room("r"), KEEP, None, &numbered(1)).await, Err(HistoryError::Refused(_))));
    assert!(matches!(it.history.read(&room("r"), NEWEST).await, Err(HistoryError::Refused(_))));
    it.server.command("DEL p:history:{/#r}:events");
    it.server.command("XADD p:history:{/#r}:events 5-5 foo bar");
    assert!(matches!(it.history.read(&room("r"), NEWEST).await, Err(HistoryError::Refused(_))));
    it.redis.close().await;
}
