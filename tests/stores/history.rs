//! Histories of rooms.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use roomcast::event::{Event, RecoveryMark};
use roomcast::history::{
    History, HistoryError, HistoryQuery, HistoryStart, HistoryStore, ListCopy, MAX_PAGE, MemoryHistory, PageOrder,
    RedisHistory, Retention, RoomKey,
};
use roomcast::redis::Redis;
use roomcast::telemetry::metrics::Metrics;

use super::connect_counted;
use crate::support::redis::{RedisServer, eventually};

const KEEP: Retention = Retention { events: 5, ttl: Duration::from_secs(60) };
const NEWEST: HistoryQuery = HistoryQuery { limit: 100, since: None, order: PageOrder::Asc };

fn memory() -> Arc<MemoryHistory> {
    Arc::new(MemoryHistory::new(Arc::default()))
}

fn redis(redis: Redis) -> Arc<RedisHistory> {
    Arc::new(RedisHistory::new(redis, Arc::default()))
}

on_every_form! {
    offsets_have_no_gap_and_rooms_do_not_mix
    history_is_trimmed_to_the_newest
    pages_follow_since_limit_and_order
    what_cannot_be_proven_whole_says_so
    absurd_places_are_answered_with_what_is_kept
    events_come_back_to_the_byte
    events_keep_their_marks
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
    Event::encode("e", [number]).unwrap()
}

async fn fill(history: &impl HistoryStore, name: &str, count: u64) -> u64 {
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
    history: &impl HistoryStore,
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

async fn offsets_have_no_gap_and_rooms_do_not_mix(history: Arc<impl HistoryStore>) {
    let one = fill(&*history, "one", 3).await;
    let elsewhere = RoomKey { namespace: "/other".into(), room: "one".into() };
    let other = history.append(&elsewhere, KEEP, None, &numbered(1)).await.unwrap();
    assert_eq!(other.offset, 1);
    let page = history.read(&room("one"), NEWEST).await.unwrap();
    assert_eq!((page.epoch, page.first_offset, page.last_offset), (one, 1, 3));
    let page = history.read(&room("none"), NEWEST).await.unwrap();
    assert_eq!((page.epoch, page.first_offset, page.last_offset, page.events.len()), (0, 0, 0, 0));
    assert!(page.complete);
}

async fn history_is_trimmed_to_the_newest(history: Arc<impl HistoryStore>) {
    fill(&*history, "r", 12).await;
    let page = history.read(&room("r"), NEWEST).await.unwrap();
    assert_eq!((page.first_offset, page.last_offset), (8, 12));
    assert_eq!(offsets(&*history, "r", 100, None, PageOrder::Asc).await, (vec![8, 9, 10, 11, 12], true));
}

async fn pages_follow_since_limit_and_order(history: Arc<impl HistoryStore>) {
    let epoch = fill(&*history, "r", 5).await;
    assert_eq!(offsets(&*history, "r", 2, None, PageOrder::Asc).await, (vec![4, 5], true));
    assert_eq!(offsets(&*history, "r", 2, None, PageOrder::Desc).await, (vec![5, 4], true));
    assert_eq!(offsets(&*history, "r", 2, since(epoch, 1), PageOrder::Asc).await, (vec![2, 3], true));
    assert_eq!(offsets(&*history, "r", 2, since(epoch, 1), PageOrder::Desc).await, (vec![5, 4], false));
    assert_eq!(offsets(&*history, "r", 9, since(epoch, 3), PageOrder::Desc).await, (vec![5, 4], true));
    assert_eq!(offsets(&*history, "r", 9, since(epoch, 5), PageOrder::Asc).await, (vec![], true));
}

async fn what_cannot_be_proven_whole_says_so(history: Arc<impl HistoryStore>) {
    let epoch = fill(&*history, "r", 7).await;
    let all = vec![3, 4, 5, 6, 7];
    assert_eq!(offsets(&*history, "r", 9, since(epoch, 2), PageOrder::Asc).await, (all.clone(), true));
    assert_eq!(offsets(&*history, "r", 9, since(epoch, 1), PageOrder::Asc).await, (all.clone(), false), "trimmed");
    assert_eq!(
        offsets(&*history, "r", 9, since(epoch + 1, 6), PageOrder::Asc).await,
        (all.clone(), false),
        "other epoch"
    );
    let bare = |offset| Some(HistoryStart { epoch: None, offset });
    assert_eq!(offsets(&*history, "r", 9, bare(6), PageOrder::Asc).await, (vec![7], false), "no epoch");
    assert_eq!(offsets(&*history, "r", 9, bare(0), PageOrder::Asc).await, (all, false), "the start is gone");
    assert_eq!(offsets(&*history, "none", 9, since(epoch, 2), PageOrder::Asc).await, (vec![], false), "forgotten");
    fill(&*history, "young", 2).await;
    assert_eq!(offsets(&*history, "young", 9, bare(0), PageOrder::Asc).await, (vec![1, 2], true));
}

async fn absurd_places_are_answered_with_what_is_kept(history: Arc<impl HistoryStore>) {
    let epoch = fill(&*history, "r", 2).await;
    for offset in [3, 1 << 53, u64::MAX] {
        assert_eq!(offsets(&*history, "r", 9, since(epoch, offset), PageOrder::Asc).await, (vec![1, 2], false));
        assert_eq!(offsets(&*history, "r", 9, since(u64::MAX, offset), PageOrder::Desc).await, (vec![2, 1], false));
    }
    let page = history.read(&room("r"), HistoryQuery { limit: 0, ..NEWEST }).await.unwrap();
    assert_eq!(page.last_offset, 2);
}

async fn events_come_back_to_the_byte(history: Arc<impl HistoryStore>) {
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

async fn events_keep_their_marks(history: Arc<impl HistoryStore>) {
    let marked = numbered(1).with_mark(RecoveryMark::new(vec!["r2".into(), "é".into()]));
    for event in [&marked, &numbered(2)] {
        history.append(&room("r"), KEEP, None, event).await.unwrap();
    }
    let page = history.read(&room("r"), NEWEST).await.unwrap();
    assert_eq!(page.events.iter().map(|(_, event)| event.mark()).collect::<Vec<_>>(), [marked.mark(), None]);
}

async fn concurrent_appends_have_no_gap_and_no_copy(history: Arc<impl HistoryStore + 'static>) {
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

async fn forgotten_room_begins_a_new_epoch(history: Arc<impl HistoryStore>) {
    let brief = Retention { events: 5, ttl: Duration::from_millis(100) };
    let epoch = history.append(&room("r"), brief, None, &numbered(1)).await.unwrap().epoch;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(offsets(&*history, "r", 9, None, PageOrder::Asc).await.0, Vec::<u64>::new());
    let again = history.append(&room("r"), KEEP, None, &numbered(1)).await.unwrap();
    assert_eq!(again.offset, 1);
    assert_ne!(again.epoch, epoch);
    assert_eq!(offsets(&*history, "r", 9, since(epoch, 1), PageOrder::Asc).await, (vec![1], false));
}

async fn idle_room_is_forgotten_and_an_append_keeps_it(history: Arc<impl HistoryStore>) {
    let keep = Retention { events: 5, ttl: Duration::from_millis(400) };
    for number in 1..=4 {
        let appended = history.append(&room("r"), keep, None, &numbered(number)).await.unwrap();
        assert_eq!(appended.offset, number, "an append renews the time");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(history.read(&room("r"), NEWEST).await.unwrap().epoch, 0);
}

async fn any_time_to_live_is_taken(history: Arc<impl HistoryStore>) {
    let keep = Retention { events: 5, ttl: Duration::MAX };
    history.append(&room("r"), keep, None, &numbered(1)).await.unwrap();
    assert_eq!(history.read(&room("r"), NEWEST).await.unwrap().events.len(), 1);
}

async fn page_is_bounded(history: Arc<impl HistoryStore>) {
    let keep = Retention { events: 2000, ..KEEP };
    for number in 1..=(MAX_PAGE as u64 + 5) {
        history.append(&room("r"), keep, None, &numbered(number)).await.unwrap();
    }
    let page = history.read(&room("r"), HistoryQuery { limit: usize::MAX, ..NEWEST }).await.unwrap();
    assert_eq!(page.events.len(), MAX_PAGE);
    assert_eq!((page.first_offset, page.oldest()), (1, Some(6)));
}

// --- only in Redis ---

struct Cluster {
    server: RedisServer,
    redis: Redis,
    history: RedisHistory,
    metrics: Arc<Metrics>,
}

async fn cluster() -> Cluster {
    let (server, metrics) = (RedisServer::start(), Arc::new(Metrics::new()));
    let redis = connect_counted(&server, "p", &metrics).await;
    let history = RedisHistory::new(redis.clone(), metrics.clone());
    Cluster { server, redis, history, metrics }
}

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
    assert_eq!(bulks(&it.server.command("KEYS *")), ["p:history:v1:{/#job:{7}}:events"]);
    let ttl: i64 =
        it.server.command("PTTL p:history:v1:{/#job:{7}}:events").lines().next().unwrap()[1..].parse().unwrap();
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
    let history = History::in_redis(it.redis.clone(), it.metrics.clone());
    it.server.kill();
    eventually("the loss is noticed", Duration::from_secs(5), || !it.redis.is_up()).await;
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(history.append(&room("r"), KEEP, None, &numbered(1)).await, Err(HistoryError::Unavailable));
        assert_eq!(history.read(&room("r"), NEWEST).await, Err(HistoryError::Unavailable));
    }
    assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
    for op in ["append", "read"] {
        assert_eq!(it.metrics.history_errors_total.with_label_values(&[op, "unavailable"]).get(), 100);
    }
    it.server.restart();
    eventually("Redis is back", Duration::from_secs(5), || it.redis.is_up()).await;
    assert_eq!(history.append(&room("r"), KEEP, None, &numbered(1)).await.unwrap().offset, 1);
    it.redis.close().await;
}

#[tokio::test]
async fn something_else_under_the_key_is_refused() {
    let it = cluster().await;
    it.server.command("SET p:history:v1:{/#r}:events x");
    assert!(matches!(it.history.append(&room("r"), KEEP, None, &numbered(1)).await, Err(HistoryError::Refused(_))));
    assert!(matches!(it.history.read(&room("r"), NEWEST).await, Err(HistoryError::Refused(_))));
    it.server.command("DEL p:history:v1:{/#r}:events");
    it.server.command("XADD p:history:v1:{/#r}:events 5-5 foo bar");
    assert!(matches!(it.history.read(&room("r"), NEWEST).await, Err(HistoryError::Refused(_))));
    it.redis.close().await;
}

#[tokio::test]
async fn history_and_its_list_live_in_different_slots() {
    let (cluster, metrics) = (RedisServer::cluster(), Arc::new(Metrics::new()));
    let redis = connect_counted(&cluster, "p", &metrics).await;
    let history = RedisHistory::new(redis.clone(), metrics.clone());
    for room in ["job:1", "job:2", "job:{3}"] {
        let key = RoomKey { namespace: "/jobs".into(), room: room.into() };
        let list = format!("job-history:{room}");
        let mut epoch = 0;
        for number in 1..=7_u64 {
            let payload = number.to_string();
            let copy = ListCopy { key: &list, payload: &payload, events: 5, ttl: Duration::from_secs(60) };
            let appended = history.append(&key, KEEP, Some(copy), &numbered(number)).await.unwrap();
            assert_eq!(appended.offset, number);
            epoch = appended.epoch;
        }
        let query = HistoryQuery { since: since(epoch, 4), ..NEWEST };
        let page = history.read(&key, query).await.unwrap();
        assert!(page.complete);
        assert_eq!(page.events.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [5, 6, 7]);
        let answer = cluster.command(&format!("LRANGE {list} 0 -1"));
        assert_eq!(bulks(&answer), ["3", "4", "5", "6", "7"]);
    }
    assert_eq!(metrics.history_errors_total.with_label_values(&["copy", "refused"]).get(), 0);
    redis.close().await;
}
