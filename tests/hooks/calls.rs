//! Tests the contents of a hook's requests, and how the node handles the backend's answers.

use std::time::Duration;

use roomcast::error::{Code, Refusal};
use roomcast::hooks::{Denial, HookError, HookRequest, MAX_ANSWER_BYTES};
use roomcast::user::User;
use serde_json::json;
use serde_json::value::RawValue;

use super::{HOOK, SECRET, caller, counted, event, hooks, hooks_with, requests, section};
use crate::support::backend::{Backend, Reply};

#[tokio::test]
async fn a_call_is_a_signed_cloud_event_and_its_answer_comes_back() {
    let backend =
        Backend::start(|_, _| Reply::json(json!({ "ack": { "done": true }, "metadata": { "plan": "pro" } }))).await;
    let (hooks, metrics) = hooks(&backend.url());
    let payload = RawValue::from_string(r#"{"generationId":  "g1"}"#.into()).unwrap();
    let answer = hooks.call(HOOK, event().payload(Some(payload))).await.unwrap();
    assert_eq!(answer.ack.unwrap()[0].get(), r#"{"done":true}"#);
    assert_eq!(answer.metadata["plan"], "pro");

    let seen = &backend.seen()[0];
    let sent = seen.event();
    assert_eq!(seen.header("content-type"), "application/cloudevents+json");
    assert_eq!(seen.header("roomcast-id"), sent["id"]);
    assert_eq!(seen.header("traceparent"), sent["traceparent"]);
    assert!(std::str::from_utf8(&seen.body).unwrap().contains(r#""payload":{"generationId":  "g1"}"#));
    assert_eq!((&sent["source"], &sent["data"]["user"]["id"]), (&json!("/roomcast/node-1"), &json!("u1")));
    assert!(seen.is_signed_with(SECRET) && !seen.is_signed_with("another secret"));
    assert_eq!(requests(&metrics, "ok"), 1);
    assert_eq!(counted(&metrics, r#"roomcast_hook_seconds_count{hook="songs"}"#), 1);
}

#[tokio::test]
async fn both_secrets_sign_while_they_rotate() {
    let backend = Backend::start(|_, _| Reply::new(204, "")).await;
    let mut section = section(&backend.url());
    section.previous_secret = Some(roomcast::config::Secret::new("the one before"));
    let (hooks, _) = hooks_with(section);
    hooks.call(HOOK, event()).await.unwrap();
    let seen = &backend.seen()[0];
    for secret in [SECRET, "the one before"] {
        assert!(seen.is_signed_with(secret), "{secret}");
    }
}

#[tokio::test]
async fn connections_are_kept_between_calls() {
    let backend = Backend::start(|_, _| Reply::new(204, "")).await;
    let (hooks, _) = hooks(&backend.url());
    for _ in 0..20 {
        hooks.call(HOOK, event()).await.unwrap();
    }
    assert_eq!((backend.count(), backend.connections()), (20, 1));
}

#[tokio::test]
async fn a_refusal_is_passed_on_with_its_code() {
    let backend = Backend::start(|n, _| match n {
        1 => Reply::new(409, r#"{"error":{"code":"TOO_LATE","message":"it is finished"}}"#),
        2 => Reply::new(404, r#"{"error":{"code":"NOT_FOUND","message":"no such song"}}"#),
        _ => Reply::json(json!({ "ok": false })),
    })
    .await;
    let (hooks, metrics) = hooks(&backend.url());
    let mut refusals = Vec::new();
    for _ in 0..3 {
        refusals.push(Refusal::from(hooks.call(HOOK, event()).await.unwrap_err()));
    }
    let told: Vec<_> = refusals.iter().map(|refusal| (refusal.code, refusal.shown_code(), &*refusal.message)).collect();
    assert_eq!(told[0], (Code::CallFailed, "TOO_LATE", "it is finished"));
    assert_eq!(told[1], (Code::NotFound, "NOT_FOUND", "no such song"));
    assert_eq!(told[2], (Code::CallFailed, "CALL_FAILED", "the backend refused"));
    assert_eq!(requests(&metrics, "refused"), 3);
}

#[tokio::test]
async fn a_no_without_a_code_to_come_in_is_a_matter_of_permission() {
    let backend = Backend::start(|_, _| Reply::json(json!({ "ok": false, "ttl": 60 }))).await;
    let (hooks, _) = hooks(&backend.url());
    let refused = hooks.call(HOOK, HookRequest::connect(caller())).await.unwrap_err();
    assert_eq!(Refusal::from(refused).code, Code::AuthorizationFailed);
    for _ in 0..2 {
        let refused = hooks.may_join(HOOK, HookRequest::join(caller(), "room".into())).await.unwrap_err();
        assert_eq!(Refusal::from(refused).code, Code::AuthorizationFailed);
    }
    assert_eq!(backend.count(), 2, "remembered with its code");
}

#[tokio::test]
async fn what_is_no_answer_fails_and_tells_the_client_nothing() {
    let backend = Backend::start(|n, _| match n {
        1 => Reply::new(200, "<html>hello</html>"),
        2 => Reply::json(json!({ "okay": true })),
        3 => Reply::new(200, vec![b' '; MAX_ANSWER_BYTES + 1]),
        4 => Reply::new(302, "").header("location", "/elsewhere"),
        _ => Reply::new(404, "<html>not found</html>"),
    })
    .await;
    let (hooks, metrics) = hooks(&backend.url());
    for status in [None, None, None, Some(302), Some(404)] {
        let error = hooks.call(HOOK, event()).await.unwrap_err();
        match (&error, status) {
            (HookError::BadAnswer(_), None) => {}
            (HookError::Status { status: got, .. }, Some(wanted)) if *got == wanted => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(Refusal::from(error), Refusal::new(Code::CallFailed, "the backend failed"));
    }
    assert_eq!((requests(&metrics, "bad_answer"), requests(&metrics, "status"), backend.count()), (3, 2, 5));
}

#[tokio::test]
async fn an_answer_of_exactly_the_bound_is_read() {
    let backend = Backend::start(|_, _| {
        let mut body = br#"{"ok":true}"#.to_vec();
        body.resize(MAX_ANSWER_BYTES, b' ');
        Reply::new(200, body)
    })
    .await;
    assert!(hooks(&backend.url()).0.call(HOOK, event()).await.is_ok());
}

#[tokio::test]
async fn a_hook_that_is_not_configured_is_an_error() {
    let (hooks, _) = hooks("http://127.0.0.1:9/");
    assert!(hooks.has(HOOK) && !hooks.has("other"));
    assert_eq!(hooks.call("other", event()).await.unwrap_err(), HookError::Unknown("other".into()));
}

#[tokio::test]
async fn a_join_answer_is_remembered_as_long_as_the_backend_says() {
    let backend = Backend::start(|_, seen| match seen.event()["data"]["room"].as_str() {
        Some("mine") => Reply::json(json!({ "ttl": 60 })),
        Some("short") => Reply::json(json!({ "ttl": "150ms" })),
        Some("theirs") => Reply::new(403, r#"{"error":{"code":"NOT_YOURS"},"ttl":60}"#),
        _ => Reply::new(204, ""),
    })
    .await;
    let (hooks, metrics) = hooks(&backend.url());
    let ask = |room: &str| hooks.may_join(HOOK, HookRequest::join(caller(), room.into()));
    for _ in 0..3 {
        assert!(ask("mine").await.is_ok());
    }
    assert_eq!(backend.count(), 1, "remembered");
    for _ in 0..3 {
        let Err(HookError::Refused(Denial { code, .. })) = ask("theirs").await else { panic!("refused") };
        assert_eq!(code.as_deref(), Some("NOT_YOURS"));
    }
    assert_eq!(backend.count(), 2, "a no is remembered too");
    for _ in 0..3 {
        assert!(ask("unstated").await.is_ok());
    }
    assert_eq!(backend.count(), 5, "not remembered unless the backend says so");
    assert!(ask("short").await.is_ok());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(ask("short").await.is_ok());
    assert_eq!(backend.count(), 7, "asked again after the time");
    assert_eq!(counted(&metrics, r#"roomcast_hook_cache_total{hook="songs",result="hit"}"#), 4);
}

#[tokio::test]
async fn a_join_answer_is_for_one_user_one_room_and_one_namespace() {
    let backend = Backend::start(|_, _| Reply::json(json!({ "ttl": 60 }))).await;
    let (hooks, _) = hooks(&backend.url());
    let mut other_user = caller();
    other_user.user = User::named("u2").into();
    let mut other_namespace = caller();
    other_namespace.namespace = "/other".into();
    let mut anonymous = caller();
    anonymous.user = User::anonymous().into();
    let mut anonymous_too = anonymous.clone();
    anonymous_too.socket_id = "s2".into();
    for who in [caller(), other_user, other_namespace, anonymous, anonymous_too] {
        for _ in 0..2 {
            hooks.may_join(HOOK, HookRequest::join(who.clone(), "room".into())).await.unwrap();
        }
    }
    assert_eq!(backend.count(), 5);
}
