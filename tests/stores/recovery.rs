//! Sessions of clients that may return.

use std::sync::Arc;
use std::time::Duration;

use roomcast::recovery::{
    EndedSession, MemorySessionStore, RecoveryFailure, RedisSessionStore, SessionStore, StoredSession,
};
use roomcast::redis::Redis;
use roomcast::session::offsets::HistoryPoint;
use serde_json::json;

use super::connect;
use crate::support::redis::{RedisServer, eventually};

const WINDOW: Duration = Duration::from_secs(60);

fn memory() -> Arc<MemorySessionStore> {
    Arc::new(MemorySessionStore::new(100, Arc::default()))
}

fn redis(redis: Redis) -> Arc<RedisSessionStore> {
    Arc::new(RedisSessionStore::new(redis, "n", Arc::default(), |_| {}))
}

on_every_form! {
    session_is_given_once_and_to_its_user
    session_comes_back_as_it_was_in_its_next_generation
    session_is_unknown_after_its_window
    session_whose_client_may_not_return_is_unknown
    session_that_was_taken_can_be_stored_again
    node_without_sessions_is_alive
}

/// Alice's session with this version, when it ends for the first time.
fn ended(version: u64, window: Duration) -> EndedSession {
    let state = StoredSession {
        id: "s1".into(),
        rooms: vec![("é\"".into(), Some(HistoryPoint { epoch: 1 << 50, offset: 3 })), ("b".into(), None)],
        metadata: json!({ "device": "phone" }).as_object().unwrap().clone(),
        set_by_hooks: ["device".to_owned()].into(),
        generation: 0,
        version,
    };
    EndedSession { key: "k".into(), digest: "alice".into(), state, window, was_saved: false, is_whole: true }
}

async fn take(sessions: &impl SessionStore, digest: &str) -> Result<StoredSession, RecoveryFailure> {
    sessions.take(&"/".into(), &"k".into(), digest).await
}

async fn session_is_given_once_and_to_its_user(sessions: Arc<impl SessionStore>) {
    assert_eq!(take(&*sessions, "alice").await, Err(RecoveryFailure::Unknown));
    sessions.keep(ended(1, WINDOW)).await.unwrap();
    assert_eq!(take(&*sessions, "bob").await, Err(RecoveryFailure::Refused));
    assert!(take(&*sessions, "alice").await.is_ok());
    assert_eq!(take(&*sessions, "alice").await, Err(RecoveryFailure::Unknown));
}

async fn session_comes_back_as_it_was_in_its_next_generation(sessions: Arc<impl SessionStore>) {
    sessions.keep(ended(1, WINDOW)).await.unwrap();
    sessions.keep(ended(2, WINDOW)).await.unwrap();
    let stored = StoredSession { generation: 1, ..ended(2, WINDOW).state };
    assert_eq!(take(&*sessions, "alice").await, Ok(stored));
}

async fn session_is_unknown_after_its_window(sessions: Arc<impl SessionStore>) {
    sessions.keep(ended(1, Duration::from_millis(100))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(take(&*sessions, "alice").await, Err(RecoveryFailure::Unknown));
}

async fn session_whose_client_may_not_return_is_unknown(sessions: Arc<impl SessionStore>) {
    sessions.keep(ended(1, Duration::ZERO)).await.unwrap();
    assert_eq!(take(&*sessions, "alice").await, Err(RecoveryFailure::Unknown));
}

async fn session_that_was_taken_can_be_stored_again(sessions: Arc<impl SessionStore>) {
    sessions.keep(ended(1, WINDOW)).await.unwrap();
    for generation in 1..=3 {
        let state = take(&*sessions, "alice").await.unwrap();
        assert_eq!(state.generation, generation);
        sessions.keep(EndedSession { state, ..ended(1, WINDOW) }).await.unwrap();
    }
}

async fn node_without_sessions_is_alive(sessions: Arc<impl SessionStore>) {
    for longest in [WINDOW, Duration::ZERO] {
        assert!(sessions.tend(longest).await);
    }
}

// --- only in Redis ---

#[tokio::test]
async fn session_that_another_node_has_taken_is_not_stored_by_the_first() {
    let server = RedisServer::start();
    let (one, other) = (connect(&server, "p").await, connect(&server, "p").await);
    let (here, there) = (redis(one.clone()), redis(other.clone()));
    here.keep(ended(1, WINDOW)).await.unwrap();
    let state = take(&*there, "alice").await.unwrap();
    here.keep(EndedSession { was_saved: true, ..ended(2, WINDOW) }).await.unwrap();
    assert_eq!(take(&*here, "alice").await, Err(RecoveryFailure::Unknown));
    there.keep(EndedSession { state, ..ended(1, WINDOW) }).await.unwrap();
    here.keep(EndedSession { was_saved: true, ..ended(3, WINDOW) }).await.unwrap();
    let kept = take(&*here, "alice").await.unwrap();
    assert_eq!((kept.version, kept.generation), (1, 2), "the state of the node that had taken it");
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn session_is_not_recovered_from_an_older_state_and_tending_removes_it() {
    let server = RedisServer::start();
    let redis = connect(&server, "p").await;
    let (sessions, other) = (self::redis(redis.clone()), self::redis(redis.clone()));
    sessions.keep(ended(1, WINDOW)).await.unwrap();
    server.pause();
    let later = EndedSession { was_saved: true, is_whole: false, ..ended(2, WINDOW) };
    assert!(sessions.keep(later).await.is_err());
    server.resume();
    eventually("Redis is back", Duration::from_secs(10), || redis.is_up()).await;
    assert_eq!(take(&*sessions, "alice").await, Err(RecoveryFailure::Unknown));
    while !sessions.tend(WINDOW).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(take(&*other, "alice").await, Err(RecoveryFailure::Unknown), "Redis has it no more");
    redis.close().await;
}
