//! One-room capabilities.

use super::*;
use crate::contract::scope::Capabilities;

fn capability(claims: Value) -> String {
    let mut all = json!({ "use": "room", "room": "job:7", "sub": null });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    with(all)
}

#[tokio::test]
async fn capability_opens_its_room_and_no_other() {
    let authenticator = authenticator(&shared()).await;
    let token = capability(json!({}));
    assert!(authenticator.grants(&token, "job:7", "alice"));
    assert!(authenticator.grants(&token, "job:7", ""), "without a `sub` it is whoever holds it");
    for other in ["job:8", "job:", "job:77", "JOB:7", ""] {
        assert!(!authenticator.grants(&token, other, "alice"), "{other}");
    }
    assert!(!authenticator.grants(&capability(json!({ "room": ["job:7"] })), "job:7", "alice"));
    assert!(!authenticator.grants(&capability(json!({ "room": "*" })), "job:7", "alice"));
}

#[tokio::test]
async fn capability_of_a_user_is_no_other_users() {
    let authenticator = authenticator(&shared()).await;
    let token = capability(json!({ "sub": "alice" }));
    assert!(authenticator.grants(&token, "job:7", "alice"));
    assert!(!authenticator.grants(&token, "job:7", "bob"));
    assert!(!authenticator.grants(&token, "job:7", ""));
    for sub in [json!(""), json!(5), json!(["alice"])] {
        let token = capability(json!({ "sub": sub }));
        assert!(!authenticator.grants(&token, "job:7", ""), "{sub}");
        assert!(!authenticator.grants(&token, "job:7", "alice"), "{sub}");
    }
}

#[tokio::test]
async fn capability_ends() {
    let authenticator = authenticator(&shared()).await;
    assert!(!authenticator.grants(&capability(json!({ "exp": soon(-3600) })), "job:7", "alice"));
    assert!(!authenticator.grants(&capability(json!({ "exp": null })), "job:7", "alice"));
    assert!(!authenticator.grants(&capability(json!({ "nbf": soon(3600) })), "job:7", "alice"));
}

#[tokio::test]
async fn capability_and_users_token_do_not_stand_in_for_each_other() {
    let authenticator = authenticator(&shared()).await;
    let capability = capability(json!({ "sub": "alice" }));
    assert_eq!(reason(&authenticator, &capability), "wrong_use");
    for use_ in [json!(null), json!("Room"), json!(["room"]), json!("session")] {
        let token = with(json!({ "use": use_, "room": "job:7" }));
        assert!(!authenticator.grants(&token, "job:7", "alice"), "{use_}");
        assert_eq!(reason(&authenticator, &token), "ok");
    }
}

#[tokio::test]
async fn capability_needs_a_signature() {
    let authenticator = authenticator(&shared()).await;
    let claims = json!({ "use": "room", "room": "job:7", "exp": soon(60) });
    assert!(!authenticator.grants(&forged(&json!({ "alg": "none" }), &claims, b""), "job:7", "alice"));
    assert!(!authenticator.grants("", "job:7", "alice"));
    let count = authenticator.metrics.capabilities_total.with_label_values(&["algorithm"]).get();
    assert_eq!(count, 1);
}
