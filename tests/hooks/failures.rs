//! Tests hooks whose backend is slow, fails, or cannot be reached.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use roomcast::config;
use roomcast::error::{Code, Refusal};
use roomcast::hooks::HookError;

use super::{HOOK, SOON, counted, event, hooks, hooks_with, requests, section};
use crate::support::backend::{Backend, Reply};
use crate::support::redis::eventually;

fn retries(metrics: &roomcast::telemetry::metrics::Metrics) -> u64 {
    counted(metrics, r#"roomcast_hook_retries_total{hook="songs"}"#)
}

#[tokio::test]
async fn a_slow_backend_is_not_waited_for_longer_than_the_time_out() {
    let backend = Backend::start(|_, _| Reply::new(204, "").after(Duration::from_secs(30))).await;
    let (hooks, metrics) = hooks(&backend.url());
    let timeout = Duration::from_millis(200);
    let started = Instant::now();
    let error = hooks.call(HOOK, event().idempotent(true).timeout(Some(timeout))).await.unwrap_err();
    assert_eq!(error, HookError::Timeout(timeout));
    assert!((timeout..timeout * 10).contains(&started.elapsed()));
    assert_eq!(Refusal::from(error).code, Code::CallFailed);
    assert_eq!((requests(&metrics, "timeout"), retries(&metrics)), (1, 0));
}

#[tokio::test]
async fn an_idempotent_call_is_repeated_with_the_same_id_and_another_is_not() {
    let backend = Backend::start(|n, _| Reply::new(if n == 3 { 204 } else { 500 }, "")).await;
    let (hooks, metrics) = hooks(&backend.url());
    hooks.call(HOOK, event().idempotent(true)).await.unwrap();
    let seen = backend.seen();
    assert_eq!((seen.len(), retries(&metrics)), (3, 2));
    assert!(seen.iter().all(|request| request.body == seen[0].body));
    let error = hooks.call(HOOK, event()).await.unwrap_err();
    assert_eq!(error, HookError::Status { status: 500, retry_after: None });
    assert_eq!(backend.count(), 4);
}

#[tokio::test]
async fn retries_end_at_their_number() {
    let backend = Backend::start(|_, _| Reply::new(503, "")).await;
    let (hooks, _) = hooks(&backend.url());
    assert!(hooks.call(HOOK, event().idempotent(true)).await.is_err());
    assert_eq!(backend.count(), 3);
}

#[tokio::test]
async fn a_retry_that_would_come_too_late_is_not_waited_for() {
    let backend = Backend::start(|_, _| Reply::new(503, "").header("retry-after", "60")).await;
    let (hooks, _) = hooks(&backend.url());
    let started = Instant::now();
    let error = hooks.call(HOOK, event().idempotent(true)).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(4));
    let refusal = Refusal::from(error);
    assert_eq!((refusal.code, refusal.retry_after), (Code::Unavailable, Some(Duration::from_secs(60))));
}

#[tokio::test]
async fn a_refusal_is_never_repeated() {
    let backend = Backend::start(|_, _| Reply::new(422, r#"{"error":{"code":"NO"}}"#)).await;
    let (hooks, _) = hooks(&backend.url());
    assert!(matches!(hooks.call(HOOK, event().idempotent(true)).await, Err(HookError::Refused(_))));
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_backend_that_is_away_is_an_error_at_once() {
    let mut backend = Backend::start(|_, _| Reply::new(204, "")).await;
    backend.stop().await;
    let (hooks, metrics) = hooks(&backend.url());
    assert_eq!(hooks.call(HOOK, event()).await.unwrap_err(), HookError::Unreachable);
    assert_eq!(requests(&metrics, "unreachable"), 1);
}

#[tokio::test]
async fn the_breaker_leaves_an_ill_backend_alone_and_finds_out_when_it_is_well() {
    let backend = Backend::start(|n, _| Reply::new(if n <= 4 { 500 } else { 204 }, "")).await;
    let mut section = section(&backend.url());
    section.breaker = config::BreakerSettings { failures: 3, open: config::Period::from_millis(300) };
    let (hooks, metrics) = hooks_with(section);
    let gauge = || counted(&metrics, r#"roomcast_hook_breaker_open{hook="songs"}"#);
    for _ in 0..3 {
        assert!(matches!(hooks.call(HOOK, event()).await, Err(HookError::Status { .. })));
    }
    assert_eq!(gauge(), 1);
    for _ in 0..50 {
        let refusal = Refusal::from(hooks.call(HOOK, event()).await.unwrap_err());
        assert_eq!(refusal.code, Code::Unavailable);
        assert!(refusal.retry_after.is_some_and(|wait| wait <= Duration::from_millis(300)));
    }
    assert_eq!((backend.count(), requests(&metrics, "open")), (3, 50), "the backend was left alone");
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(matches!(hooks.call(HOOK, event()).await, Err(HookError::Status { .. })), "one call finds out");
    assert!(matches!(hooks.call(HOOK, event()).await, Err(HookError::Open(_))));
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(hooks.call(HOOK, event()).await.is_ok());
    assert_eq!((gauge(), backend.count()), (0, 5));
}

#[tokio::test]
async fn overload_is_an_error_and_never_memory() {
    let backend = Backend::start(|_, _| Reply::new(204, "").after(Duration::from_millis(300))).await;
    let mut section = section(&backend.url());
    (section.concurrency, section.queue) = (4, 8);
    let (hooks, metrics) = hooks_with(section);
    let answers = join_all((0..100).map(|_| hooks.call(HOOK, event()))).await;
    let (served, turned_away): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((served.len(), turned_away.len()), (12, 88));
    for error in turned_away {
        let refusal = Refusal::from(error.unwrap_err());
        assert_eq!((refusal.code, refusal.retry_after), (Code::Overloaded, Some(Duration::from_secs(1))));
    }
    assert_eq!(requests(&metrics, "overloaded"), 88);
    assert_eq!(counted(&metrics, r#"roomcast_hook_queue{hook="songs"}"#), 0);
}

#[tokio::test]
async fn an_abandoned_call_gives_its_slot_back() {
    let backend =
        Backend::start(|n, _| Reply::new(204, "").after(Duration::from_secs(if n == 1 { 30 } else { 0 }))).await;
    let mut section = section(&backend.url());
    (section.concurrency, section.queue) = (1, 0);
    let (hooks, _) = hooks_with(section);
    let abandoned = tokio::spawn({
        let hooks = hooks.clone();
        async move { hooks.call(HOOK, event()).await }
    });
    eventually("the call is under way", SOON, || backend.count() == 1).await;
    assert!(matches!(hooks.call(HOOK, event()).await, Err(HookError::Overloaded { waiting: 0 })));
    abandoned.abort();
    let _ = abandoned.await;
    assert!(hooks.call(HOOK, event()).await.is_ok());
}
