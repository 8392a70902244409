//! Tests published key sets with a server on loopback whose answer changes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use jsonwebtoken::jwk::Jwk;

use super::*;
use crate::config::{JwksSettings, Url};

/// A server of key sets.
#[derive(Clone)]
struct Publisher {
    answer: Arc<Mutex<(StatusCode, String)>>,
    asked: Arc<AtomicUsize>,
    url: String,
}

impl Publisher {
    async fn start(body: &Value) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let publisher =
            Self { answer: Arc::new(Mutex::new((StatusCode::OK, body.to_string()))), asked: Arc::default(), url };
        let shared = publisher.clone();
        let route = axum::routing::get(move || async move {
            shared.asked.fetch_add(1, Ordering::SeqCst);
            shared.answer.lock().unwrap().clone()
        });
        let router = axum::Router::new().route("/keys", route);
        tokio::spawn(async move { axum::serve(listener, router).await });
        publisher
    }

    fn answer(&self, status: StatusCode, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// The configuration of a node that fetches its keys from this server.
    fn auth(&self, refresh: Duration) -> AuthSettings {
        let jwks = JwksSettings {
            url: Some(Url::new(&*self.url)),
            refresh: refresh.into(),
            algorithms: ALGORITHMS.into_iter().filter(|algorithm| !algorithm.is_symmetric()).collect(),
            ..JwksSettings::default()
        };
        AuthSettings { jwks: Some(jwks), ..AuthSettings::default() }
    }
}

fn jwk(key: &EncodingKey, algorithm: Algorithm, kid: Option<&str>) -> Value {
    let mut jwk = Jwk::from_encoding_key(key, algorithm.into()).unwrap();
    jwk.common.key_id = kid.map(str::to_owned);
    serde_json::to_value(jwk).unwrap()
}

fn published(algorithm: Algorithm, kid: &str) -> Value {
    jwk(&signing(algorithm), algorithm, Some(kid))
}

fn set(keys: &[Value]) -> Value {
    json!({ "keys": keys })
}

fn other_key() -> EncodingKey {
    EncodingKey::from_rsa_pem(RSA_OTHER.as_bytes()).unwrap()
}

fn token_of_other_key(kid: &str) -> String {
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
    header.kid = Some(kid.into());
    jsonwebtoken::encode(&header, &json!({ "sub": "alice", "exp": soon(60) }), &other_key()).unwrap()
}

fn good(algorithm: Algorithm, kid: &str) -> String {
    token(algorithm, Some(kid), &json!({ "sub": "alice", "exp": soon(60) }))
}

/// Waits until a condition holds, with a deadline.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come true");
}

#[tokio::test]
async fn published_keys_of_every_type_verify() {
    let kinds = [Algorithm::RS256, Algorithm::PS384, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
    let keys: Vec<Value> = kinds.iter().map(|kind| published(*kind, &format!("{kind:?}"))).collect();
    let publisher = Publisher::start(&set(&keys)).await;
    let authenticator = authenticator(&publisher.auth(Duration::from_secs(300))).await;
    for kind in kinds {
        assert_eq!(reason(&authenticator, &good(kind, &format!("{kind:?}"))), "ok", "{kind:?}");
    }
    assert_eq!(reason(&authenticator, &good(Algorithm::RS512, "RS256")), "algorithm");
    assert_eq!(authenticator.metrics.jwks_keys.with_label_values::<&str>(&[]).get(), 5);
}

#[tokio::test]
async fn key_without_an_algorithm_has_the_first_that_fits_it() {
    let strip = |mut key: Value| {
        key.as_object_mut().unwrap().remove("alg");
        key
    };
    let keys = [strip(published(Algorithm::RS256, "r")), strip(published(Algorithm::ES384, "e"))];
    let publisher = Publisher::start(&set(&keys)).await;
    let mut config = publisher.auth(Duration::from_secs(300));
    config.jwks.as_mut().unwrap().algorithms = vec![Algorithm::PS256, Algorithm::RS256, Algorithm::ES384];
    let authenticator = authenticator(&config).await;
    assert_eq!(reason(&authenticator, &good(Algorithm::PS256, "r")), "ok");
    assert_eq!(reason(&authenticator, &good(Algorithm::RS256, "r")), "algorithm");
    assert_eq!(reason(&authenticator, &good(Algorithm::ES384, "e")), "ok");
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_left_out_and_the_others_serve() {
    let shared = json!({ "kty": "oct", "alg": "HS256", "kid": "h", "k": URL_SAFE_NO_PAD.encode(SECRET) });
    let mut encrypting = published(Algorithm::RS256, "enc");
    encrypting["use"] = json!("enc");
    let odd = json!({ "kty": "AKP", "alg": "ML-DSA-44", "kid": "o" });
    let mismatched = json!({ "kty": "RSA", "alg": "ES256", "kid": "m", "n": "AQAB", "e": "AQAB" });
    let tiny = json!({ "kty": "RSA", "alg": "RS256", "kid": "t", "n": "AQAB", "e": "AQAB" });
    let off_curve = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "c", "x": "AQAB", "y": "AQAB" });
    let ours = published(Algorithm::ES256, "good");
    let keys = [shared, encrypting, odd, mismatched, tiny, off_curve, json!("rubbish"), json!({}), ours];
    let publisher = Publisher::start(&set(&keys)).await;
    let authenticator = authenticator(&publisher.auth(Duration::from_secs(300))).await;
    assert_eq!(authenticator.metrics.jwks_keys.with_label_values::<&str>(&[]).get(), 1);
    assert_eq!(reason(&authenticator, &good(Algorithm::ES256, "good")), "ok");
    assert_eq!(reason(&authenticator, &good(Algorithm::HS256, "h")), "key_unknown");
    assert_eq!(reason(&authenticator, &good(Algorithm::RS256, "enc")), "key_unknown");
}

#[tokio::test]
async fn refresh_brings_new_keys_and_takes_old_ones_away() {
    let publisher = Publisher::start(&set(&[published(Algorithm::RS256, "old")])).await;
    let authenticator = authenticator(&publisher.auth(Duration::from_millis(20))).await;
    assert_eq!(reason(&authenticator, &good(Algorithm::RS256, "old")), "ok");
    publisher.answer(StatusCode::OK, &set(&[jwk(&other_key(), Algorithm::RS256, Some("new"))]).to_string());
    let new = token_of_other_key("new");
    eventually("the new key", || reason(&authenticator, &new) == "ok").await;
    assert_eq!(reason(&authenticator, &good(Algorithm::RS256, "old")), "key_unknown");
}

#[tokio::test]
async fn last_good_set_is_kept_whatever_the_publisher_answers() {
    let publisher = Publisher::start(&set(&[published(Algorithm::RS256, "a")])).await;
    let authenticator = authenticator(&publisher.auth(Duration::from_millis(20))).await;
    let too_large = format!("{{\"keys\":[],\"padding\":\"{}\"}}", "x".repeat(300 * 1024));
    let token = good(Algorithm::RS256, "a");
    let failed = authenticator.metrics.jwks_refreshes_total.with_label_values(&["failed"]);
    for (status, body) in [
        (StatusCode::INTERNAL_SERVER_ERROR, "{}"),
        (StatusCode::OK, "<html>"),
        (StatusCode::OK, "{\"keys\":[]}"),
        (StatusCode::OK, "{\"keys\":{}}"),
        (StatusCode::OK, &too_large),
    ] {
        publisher.answer(status, body);
        let before = failed.get();
        eventually("two failed fetches", || failed.get() >= before + 2).await;
        assert_eq!(reason(&authenticator, &token), "ok", "{status}");
    }
}

#[tokio::test]
async fn node_starts_without_its_publisher_and_learns_the_keys_later() {
    let publisher = Publisher::start(&set(&[published(Algorithm::RS256, "a")])).await;
    publisher.answer(StatusCode::SERVICE_UNAVAILABLE, "");
    let authenticator = authenticator(&publisher.auth(Duration::from_millis(20))).await;
    assert_eq!(reason(&authenticator, &good(Algorithm::RS256, "a")), "key_unknown");
    publisher.answer(StatusCode::OK, &set(&[published(Algorithm::RS256, "a")]).to_string());
    let token = good(Algorithm::RS256, "a");
    eventually("the key", || reason(&authenticator, &token) == "ok").await;
}

#[tokio::test]
async fn unknown_kid_asks_once_more_and_then_not_for_a_while() {
    let publisher = Publisher::start(&set(&[published(Algorithm::RS256, "a")])).await;
    let authenticator = authenticator(&publisher.auth(Duration::from_secs(300))).await;
    assert_eq!(publisher.asked(), 1);
    let token = token_of_other_key("b");
    for _ in 0..50 {
        assert_eq!(reason(&authenticator, &token), "key_unknown");
    }
    eventually("the extra fetch", || publisher.asked() == 2).await;
    for _ in 0..50 {
        assert_eq!(reason(&authenticator, &token), "key_unknown");
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(publisher.asked(), 2);
}

#[tokio::test]
async fn token_of_a_key_that_was_just_published_can_wait_for_it() {
    let publisher = Publisher::start(&set(&[published(Algorithm::RS256, "a")])).await;
    let authenticator = authenticator(&publisher.auth(Duration::from_secs(300))).await;
    publisher.answer(StatusCode::OK, &set(&[jwk(&other_key(), Algorithm::RS256, Some("b"))]).to_string());
    let required = policy(AuthMode::Required);
    let waiting = |kid: &str| bearing(&token_of_other_key(kid));
    let (first, second) = (waiting("b"), waiting("b"));
    let both = tokio::join!(
        authenticator.authenticate_or_refresh(&required, &first),
        authenticator.authenticate_or_refresh(&required, &second)
    );
    assert!(both.0.is_ok() && both.1.is_ok());
    assert_eq!(publisher.asked(), 2);
    // No fetch is under way for this token, so it is refused at once.
    let never = waiting("never");
    let refused = authenticator.authenticate_or_refresh(&required, &never);
    let refused = tokio::time::timeout(Duration::from_millis(500), refused).await.expect("no wait");
    assert_eq!(refused.unwrap_err(), AuthError::KeyUnknown);
}

#[tokio::test]
async fn set_is_read_from_a_file_too_and_must_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.json");
    let config = |refresh| AuthSettings {
        jwks: Some(JwksSettings {
            file: Some(file.clone()),
            refresh: Period::from_millis(refresh),
            ..JwksSettings::default()
        }),
        ..AuthSettings::default()
    };
    std::fs::write(&file, "{}").unwrap();
    let error = Authenticator::new(&config(10), Arc::default()).await.unwrap_err();
    assert!(error.to_string().starts_with("auth.jwks.file: the answer is not a key set"), "{error}");
    std::fs::write(&file, set(&[published(Algorithm::RS256, "a")]).to_string()).unwrap();
    let authenticator = authenticator(&config(10)).await;
    assert_eq!(reason(&authenticator, &good(Algorithm::RS256, "a")), "ok");
    std::fs::write(&file, set(&[jwk(&other_key(), Algorithm::RS256, Some("b"))]).to_string()).unwrap();
    let new = token_of_other_key("b");
    eventually("the new key", || reason(&authenticator, &new) == "ok").await;
}

#[tokio::test]
async fn published_key_is_no_shared_secret() {
    let publisher = Publisher::start(&set(&[published(Algorithm::RS256, "a")])).await;
    let authenticator = authenticator(&publisher.auth(Duration::from_secs(300))).await;
    let n = published(Algorithm::RS256, "a")["n"].as_str().unwrap().to_owned();
    for secret in [n.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(&n).unwrap(), RSA_PUBLIC.into()] {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        header.kid = Some("a".into());
        let claims = json!({ "sub": "mallory", "exp": soon(60) });
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(reason(&authenticator, &token), "algorithm");
    }
}
