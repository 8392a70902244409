//! Throttles of events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast::redis::Redis;
use roomcast::throttle::{DueEvent, MemoryThrottles, RedisThrottles, ThrottleDecision, ThrottleKey, ThrottleStore};

use super::connect;
use crate::support::redis::{RedisServer, eventually};

/// Longer than a test lasts.
const LONG: Duration = Duration::from_secs(600);
const EVERY: Duration = Duration::from_millis(100);

fn memory() -> Arc<MemoryThrottles> {
    Arc::default()
}

fn redis(redis: Redis) -> Arc<RedisThrottles> {
    Arc::new(RedisThrottles::new(redis))
}

on_every_form! {
    first_event_passes_and_the_newest_is_held_until_it_is_due
    burst_passes_at_the_rate_and_ends_with_the_newest
    numbers_grow
    completion_takes_what_is_held_and_has_the_greatest_number
    rooms_and_events_are_throttled_apart
}

fn key() -> ThrottleKey {
    ThrottleKey::new("/", "room", "progress")
}

fn is_held(decision: &ThrottleDecision, every: Duration) -> bool {
    matches!(decision, ThrottleDecision::Held(wait) if *wait <= every)
}

async fn first_event_passes_and_the_newest_is_held_until_it_is_due(throttles: Arc<impl ThrottleStore>) {
    assert_eq!(throttles.due(&key(), LONG).await, DueEvent::Nothing);
    assert!(matches!(throttles.offer(&key(), LONG, b"1").await, ThrottleDecision::Pass(_)));
    assert_eq!(throttles.due(&key(), LONG).await, DueEvent::Nothing, "it was sent");
    for value in [b"2", b"3"] {
        let held = throttles.offer(&key(), LONG, value).await;
        assert!(is_held(&held, LONG), "{held:?}");
    }
    assert!(matches!(throttles.due(&key(), LONG).await, DueEvent::Wait(wait) if wait <= LONG));

    let key = ThrottleKey::new("/", "room", "brief");
    throttles.offer(&key, EVERY, b"1").await;
    throttles.offer(&key, EVERY, b"2").await;
    let sent = eventually_due(&*throttles, &key).await;
    assert_eq!(sent, b"2");
    let held = throttles.offer(&key, LONG, b"3").await;
    assert!(is_held(&held, LONG), "a held event that was sent begins a new time: {held:?}");
}

async fn eventually_due(throttles: &impl ThrottleStore, key: &ThrottleKey) -> Vec<u8> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match throttles.due(key, LONG).await {
            DueEvent::Send(value, _) => return value,
            DueEvent::Wait(wait) => tokio::time::sleep(wait).await,
            DueEvent::Nothing => panic!("nothing is held"),
        }
        assert!(Instant::now() < until, "a held event is due after its time");
    }
}

async fn burst_passes_at_the_rate_and_ends_with_the_newest(throttles: Arc<impl ThrottleStore>) {
    let (mut sent, mut newest) = (Vec::new(), 0_u32);
    let started = Instant::now();
    while started.elapsed() < EVERY * 5 {
        newest += 1;
        if let ThrottleDecision::Pass(_) = throttles.offer(&key(), EVERY, &newest.to_be_bytes()).await {
            sent.push(newest);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        if let DueEvent::Send(value, _) = throttles.due(&key(), EVERY).await {
            sent.push(u32::from_be_bytes(value.try_into().unwrap()));
        }
    }
    if sent.last() != Some(&newest) {
        sent.push(u32::from_be_bytes(eventually_due(&*throttles, &key()).await.try_into().unwrap()));
    }
    // One more than the rate permits, because Redis measures the time in whole ms.
    let most = started.elapsed().as_millis() / EVERY.as_millis() + 2;
    assert!((2..=most).contains(&(sent.len() as u128)), "{sent:?} in {:?}", started.elapsed());
    assert!(sent.is_sorted() && sent.last() == Some(&newest), "{sent:?} of {newest}");
}

async fn numbers_grow(throttles: Arc<impl ThrottleStore>) {
    let mut last = 0;
    for event in 0..100 {
        let key = ThrottleKey::new("/", "room", &event.to_string());
        let ThrottleDecision::Pass(number) = throttles.offer(&key, LONG, b"1").await else { panic!("it passes") };
        assert!(number > last, "{last} {number}");
        last = number;
    }
}

async fn completion_takes_what_is_held_and_has_the_greatest_number(throttles: Arc<impl ThrottleStore>) {
    let other = ThrottleKey::new("/", "room", "steps");
    for key in [key(), other.clone()] {
        throttles.offer(&key, LONG, b"1").await;
        throttles.offer(&key, LONG, b"2").await;
    }
    let events = [key().event, other.event, "nothing is held of it".into()];
    let closing = throttles.close(&key().scope, &events).await;
    assert_eq!(closing.held.iter().map(|(value, _)| value.as_slice()).collect::<Vec<_>>(), [b"2", b"2"]);
    assert!(
        closing.held.iter().map(|(_, number)| *number).chain([closing.number]).is_sorted_by(|one, next| one < next)
    );
    assert_eq!(throttles.due(&key(), LONG).await, DueEvent::Nothing);
    let again = throttles.close(&key().scope, &events).await;
    assert!(again.held.is_empty() && again.number > closing.number);
    let next = throttles.offer(&key(), LONG, b"3").await;
    assert!(matches!(next, ThrottleDecision::Pass(number) if number > again.number), "a new run begins: {next:?}");
}

async fn rooms_and_events_are_throttled_apart(throttles: Arc<impl ThrottleStore>) {
    for (namespace, room, event) in [("/", "a", "x"), ("/", "b", "x"), ("/other", "a", "x"), ("/", "a", "y")] {
        let key = ThrottleKey::new(namespace, room, event);
        let first = throttles.offer(&key, LONG, b"1").await;
        assert!(matches!(first, ThrottleDecision::Pass(_)), "{namespace} {room} {event}: {first:?}");
    }
}

// --- only in Redis ---

#[tokio::test]
async fn nodes_share_the_rate_and_each_decides_alone_while_redis_is_away() {
    let mut server = RedisServer::start();
    let (one, other) = (connect(&server, "p").await, connect(&server, "p").await);
    let (here, there) = (redis(one.clone()), redis(other.clone()));
    assert!(matches!(here.offer(&key(), LONG, b"1").await, ThrottleDecision::Pass(_)));
    let held = there.offer(&key(), LONG, b"2").await;
    assert!(is_held(&held, LONG), "{held:?}");
    assert_eq!(here.close(&key().scope, &[key().event]).await.held[0].0, b"2", "another node takes what is held");
    server.kill();
    let away = || !one.is_up() && !other.is_up();
    eventually("Redis is away", Duration::from_secs(10), away).await;
    for node in [&here, &there] {
        assert!(matches!(node.offer(&key(), LONG, b"3").await, ThrottleDecision::Pass(_)));
        let held = node.offer(&key(), LONG, b"4").await;
        assert!(is_held(&held, LONG), "{held:?}");
    }
    server.restart();
    eventually("Redis is back", Duration::from_secs(10), || one.is_up()).await;
    let closing = here.close(&key().scope, &[key().event]).await;
    assert_eq!(closing.held[0].0, b"4", "what the node holds alone is not forgotten");
    assert!(closing.number > closing.held[0].1);
    one.close().await;
    other.close().await;
}
