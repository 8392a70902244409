//! Tests times, claims, modes and shapes of tokens.

use super::*;

#[tokio::test]
async fn claims_become_a_user() {
    let authenticator = authenticator(&shared()).await;
    let exp = soon(3600);
    let token = with(json!({ "roles": ["editor", 5, "admin"], "rooms": ["a:*"], "jti": "t1", "exp": exp }));
    let user = result(&authenticator, &token).unwrap();
    assert_eq!(&*user.id, "alice");
    assert_eq!(&*user.roles, ["editor", "admin"]);
    assert_eq!(user.claims.get("rooms"), Some(json!(["a:*"])));
    assert_eq!(user.token_id.as_deref(), Some("t1"));
    assert!(!user.anonymous);
    let seconds = user.expires_at.unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(i64::try_from(seconds).unwrap(), exp);
}

#[tokio::test]
async fn contract_says_where_id_and_roles_are() {
    let authenticator = authenticator(&shared()).await;
    let token = with(json!({ "uid": 42, "realm": { "roles": "admin" }, "a.b": "dotted", "sub": null }));
    let user = |user: &str, roles: &str| {
        let policy = AuthPolicy { user: user.into(), roles: roles.into(), ..policy(AuthMode::Required) };
        authenticator.authenticate(&policy, &bearing(&token))
    };
    let found = user("uid", "realm.roles").unwrap();
    assert_eq!((&*found.id, &*found.roles), ("42", &["admin".to_owned()][..]));
    assert_eq!(&*user("claims.uid", "none").unwrap().id, "42");
    assert_eq!(&*user("a.b", "uid").unwrap().id, "dotted");
    assert_eq!(user("sub", "roles").unwrap_err(), AuthError::Claim);
    assert_eq!(user("realm", "roles").unwrap_err(), AuthError::Claim);
}

#[tokio::test]
async fn user_needs_a_plain_id() {
    let authenticator = authenticator(&shared()).await;
    for sub in [json!(""), json!(true), json!(["a"]), json!({}), json!("a\u{0}b"), json!("a".repeat(257))] {
        let reason = reason(&authenticator, &with(json!({ "sub": sub })));
        assert!(["claim", "token_malformed"].contains(&reason), "{sub}: {reason}");
    }
}

#[tokio::test]
async fn times_are_checked_with_leeway() {
    let config = AuthSettings { leeway: Period::from_secs(30), ..shared() };
    let authenticator = authenticator(&config).await;
    for (claims, expected) in [
        (json!({ "exp": soon(-20) }), "ok"),
        (json!({ "exp": soon(-60) }), "token_expired"),
        (json!({ "exp": null }), "claim"),
        (json!({ "exp": "tomorrow" }), "claim"),
        (json!({ "exp": -1 }), "claim"),
        (json!({ "exp": 0 }), "token_expired"),
        (json!({ "nbf": soon(20) }), "ok"),
        (json!({ "nbf": soon(60) }), "token_not_yet_valid"),
        (json!({ "nbf": "yesterday" }), "claim"),
        (json!({ "exp": 1e300 }), "claim"),
    ] {
        let result = reason(&authenticator, &with(claims.clone()));
        // The outcome for an infinite or too large number is not defined, but the code must not panic.
        if claims != json!({ "exp": 1e300 }) {
            assert_eq!(result, expected, "{claims}");
        }
    }
}

#[tokio::test]
async fn issuer_and_audience_are_checked_where_configured() {
    let config = AuthSettings {
        issuer: vec!["one".into(), "two".into()],
        audience: vec!["us".into(), "them".into()],
        ..shared()
    };
    let strict = authenticator(&config).await;
    let lax = authenticator(&shared()).await;
    for (claims, expected) in [
        (json!({ "iss": "one", "aud": "us" }), "ok"),
        (json!({ "iss": "two", "aud": ["others", "them"] }), "ok"),
        (json!({ "iss": "three", "aud": "us" }), "issuer"),
        (json!({ "aud": "us" }), "issuer"),
        (json!({ "iss": 5, "aud": "us" }), "issuer"),
        (json!({ "iss": "one", "aud": "others" }), "audience"),
        (json!({ "iss": "one", "aud": [] }), "audience"),
        (json!({ "iss": "one" }), "audience"),
    ] {
        assert_eq!(reason(&strict, &with(claims.clone())), expected, "{claims}");
        assert_eq!(reason(&lax, &with(claims.clone())), "ok", "{claims}");
    }
}

#[tokio::test]
async fn rubbish_is_refused_without_a_panic() {
    let authenticator = authenticator(&shared()).await;
    for rubbish in ["x", "a.b", "a.b.c", "a.b.c.d", "..", "....", "é.é.é", "e30.e30.e30", "bnVsbA.e30.", "\0.\0.\0"]
    {
        let reason = reason(&authenticator, rubbish);
        assert_eq!(reason, "token_malformed", "{rubbish}");
    }
    let no_object = forged(&json!({ "alg": "HS256" }), &json!(["claims"]), b"");
    assert_eq!(reason(&authenticator, &no_object), "signature_invalid");
    let long = with(json!({ "padding": "x".repeat(8 * 1024) }));
    assert_eq!(reason(&authenticator, &long), "token_too_long");
}

#[tokio::test]
async fn claims_that_are_said_twice_are_refused() {
    let authenticator = authenticator(&shared()).await;
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = format!("{{\"sub\":\"alice\",\"exp\":1,\"exp\":{}}}", soon(60));
    let message = format!("{}.{}", part("{\"alg\":\"HS256\"}"), part(&claims));
    let key = signing(Algorithm::HS256);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    assert_eq!(reason(&authenticator, &format!("{message}.{signature}")), "token_malformed");
}

#[tokio::test]
async fn modes_decide_who_may_come_without_a_token() {
    let authenticator = authenticator(&shared()).await;
    let ask = |mode, handshake: &Handshake| {
        authenticator.authenticate(&policy(mode), handshake).map(|user| user.anonymous).map_err(AuthError::reason)
    };
    let nothing = Handshake::default();
    let empty = Handshake { auth: Some(json!({ "token": "" })), ..Handshake::default() };
    for none in [&nothing, &empty] {
        assert_eq!(ask(AuthMode::Required, none), Err("token_missing"));
        assert_eq!(ask(AuthMode::Optional, none), Ok(true));
        assert_eq!(ask(AuthMode::None, none), Ok(true));
    }
    let good = bearing(&with(json!({})));
    assert_eq!(ask(AuthMode::Required, &good), Ok(false));
    assert_eq!(ask(AuthMode::Optional, &good), Ok(false));
    assert_eq!(ask(AuthMode::None, &good), Ok(true));
}

#[tokio::test]
async fn bad_token_is_never_anonymous_and_no_later_source_saves_it() {
    let authenticator = authenticator(&shared()).await;
    for bad in ["x", &with(json!({ "exp": soon(-3600) }))] {
        let handshake = Handshake { authorization: Some(format!("Bearer {}", with(json!({})))), ..bearing(bad) };
        for mode in [AuthMode::Required, AuthMode::Optional] {
            assert!(authenticator.authenticate(&policy(mode), &handshake).is_err(), "{bad}");
        }
    }
    let odd = Handshake { auth: Some(json!({ "token": { "not": "text" } })), ..Handshake::default() };
    assert_eq!(authenticator.authenticate(&policy(AuthMode::Optional), &odd).unwrap_err(), AuthError::TokenMalformed);
}

#[tokio::test]
async fn refusal_is_a_sentence_with_the_code_and_nothing_of_the_token() {
    let authenticator = authenticator(&shared()).await;
    let token = with(json!({ "exp": soon(-3600) }));
    let refusal = crate::error::Refusal::from(result(&authenticator, &token).unwrap_err());
    assert_eq!(refusal.to_string(), "AUTHENTICATION_FAILED: the token has expired");
    for error in AuthError::ALL {
        assert!(error.reason().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    }
}

#[tokio::test]
async fn results_are_counted() {
    let metrics = Arc::new(Metrics::new());
    let authenticator = Authenticator::new(&shared(), metrics.clone()).await.unwrap();
    _ = result(&authenticator, &with(json!({})));
    _ = result(&authenticator, "x");
    let count = |label: &str| metrics.authentications_total.with_label_values(&[label]).get();
    assert_eq!((count("ok"), count("token_malformed"), count("anonymous")), (1, 1, 0));
}

proptest::proptest! {
    #[test]
    fn nothing_that_a_stranger_sends_is_a_user_or_a_panic(
        text in ".{0,200}",
        header in proptest::collection::vec(proptest::num::u8::ANY, 0..60),
        claims in proptest::collection::vec(proptest::num::u8::ANY, 0..60),
        alg in "(HS256|RS256|ES256|EdDSA|none|.{0,5})",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let config = keys(vec![verifying(Algorithm::HS256, None), verifying(Algorithm::ES256, None)]);
        let authenticator = runtime.block_on(authenticator(&config));
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let known = json!({ "alg": alg }).to_string();
        for token in [
            text.clone(),
            format!("{}.{}.{}", part(&header), part(&claims), part(&header)),
            format!("{}.{}.{}", part(known.as_bytes()), part(&claims), part(&header)),
            format!("{}.{text}.{text}", part(known.as_bytes())),
        ] {
            let handshake = Handshake { query: Some(format!("token={token}")), cookies: Some(text.clone()), ..bearing(&token) };
            let user = authenticator.authenticate(&policy(AuthMode::Required), &handshake);
            proptest::prop_assert!(user.is_err());
        }
    }
}
