//! Notices that wait for a hook's backend. `hooks/notices.rs` has the tests with a backend.

use std::sync::Arc;
use std::time::Duration;

use roomcast::hooks::outbox::{EncodedRequest, MAX_WAITING, MemoryOutbox, Outbox, RedisOutbox};
use roomcast::redis::Redis;
use roomcast::telemetry::metrics::Metrics;
use tokio::time::timeout;

use super::connect;
use crate::support::redis::{RedisServer, eventually};

const HOOK: &str = "songs";
const SOON: Duration = Duration::from_secs(10);

fn memory() -> Arc<MemoryOutbox> {
    Arc::new(MemoryOutbox::new(HOOK, MAX_WAITING, &Metrics::new()))
}

fn redis(redis: Redis) -> Arc<RedisOutbox> {
    Arc::new(RedisOutbox::new(redis, HOOK, Duration::from_secs(5), &Metrics::new()))
}

on_every_form! {
    oldest_notice_is_given_again_until_it_is_done
    notices_come_back_in_order_and_to_the_byte
    outbox_waits_for_a_notice
    released_notice_is_given_again
    nothing_is_at_risk_when_all_is_done
}

fn notice(number: usize) -> EncodedRequest {
    let event = format!(r#"{{ "id":"{number}", "traceparent":"00-{number}", "data":{{"é":"\u00e9",  "n":1.50}} }}"#);
    EncodedRequest::open(event.into()).unwrap()
}

async fn oldest(outbox: &impl Outbox) -> EncodedRequest {
    timeout(SOON, outbox.oldest()).await.expect("a notice waits")
}

async fn oldest_notice_is_given_again_until_it_is_done(outbox: Arc<impl Outbox>) {
    outbox.put(notice(1));
    outbox.put(notice(2));
    for number in 1..=2 {
        assert_eq!(oldest(&*outbox).await, notice(number));
        assert_eq!(oldest(&*outbox).await, notice(number));
        outbox.done(&notice(number)).await;
    }
    outbox.done(&notice(1)).await;
    outbox.put(notice(3));
    assert_eq!(oldest(&*outbox).await, notice(3), "a notice that was removed twice takes no other with it");
}

async fn notices_come_back_in_order_and_to_the_byte(outbox: Arc<impl Outbox>) {
    (1..=200).for_each(|number| outbox.put(notice(number)));
    for number in 1..=200 {
        let given = oldest(&*outbox).await;
        assert_eq!(given, notice(number));
        outbox.done(&given).await;
    }
}

async fn outbox_waits_for_a_notice(outbox: Arc<impl Outbox>) {
    let (given, ()) = tokio::join!(oldest(&*outbox), async {
        tokio::task::yield_now().await;
        outbox.put(notice(1));
    });
    assert_eq!(given, notice(1));
}

async fn released_notice_is_given_again(outbox: Arc<impl Outbox>) {
    outbox.put(notice(1));
    assert_eq!(oldest(&*outbox).await, notice(1));
    outbox.release().await;
    assert_eq!(oldest(&*outbox).await, notice(1));
}

async fn nothing_is_at_risk_when_all_is_done(outbox: Arc<impl Outbox>) {
    assert_eq!(outbox.at_risk(), 0);
    outbox.put(notice(1));
    outbox.done(&oldest(&*outbox).await).await;
    eventually("nothing is at risk", SOON, || outbox.at_risk() == 0).await;
}

// --- only in Redis ---

#[tokio::test]
async fn node_that_releases_the_lease_lets_another_deliver() {
    let server = RedisServer::start();
    let (one, other) = (connect(&server, "p").await, connect(&server, "p").await);
    let (here, there) = (redis(one.clone()), redis(other.clone()));
    here.put(notice(1));
    assert_eq!(oldest(&*here).await, notice(1));
    eventually("Redis has it", SOON, || here.at_risk() == 0).await;
    assert!(timeout(Duration::from_millis(200), there.oldest()).await.is_err(), "one node delivers at a time");
    here.release().await;
    assert_eq!(oldest(&*there).await, notice(1));
    one.close().await;
    other.close().await;
}
