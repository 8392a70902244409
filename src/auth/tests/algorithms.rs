//! Tests every algorithm, alone and together with others.

use super::*;

#[tokio::test]
async fn every_algorithm_verifies_its_own_tokens_and_no_other() {
    let claims = json!({ "sub": "alice", "exp": soon(60) });
    let tokens = ALGORITHMS.map(|algorithm| (algorithm, token(algorithm, None, &claims)));
    for ours in ALGORITHMS {
        let authenticator = authenticator(&keys(vec![verifying(ours, None)])).await;
        for (theirs, token) in &tokens {
            let expected = if ours == *theirs { "ok" } else { "algorithm" };
            assert_eq!(reason(&authenticator, token), expected, "{ours:?} {theirs:?}");
        }
    }
}

#[tokio::test]
async fn keys_of_every_algorithm_stand_side_by_side() {
    let claims = json!({ "sub": "alice", "exp": soon(60) });
    let kid = |algorithm: Algorithm| format!("{algorithm:?}");
    let all = ALGORITHMS.map(|algorithm| verifying(algorithm, Some(&kid(algorithm))));
    let authenticator = authenticator(&keys(all.to_vec())).await;
    for algorithm in ALGORITHMS {
        assert_eq!(reason(&authenticator, &token(algorithm, Some(&kid(algorithm)), &claims)), "ok", "{algorithm:?}");
        assert_eq!(reason(&authenticator, &token(algorithm, None, &claims)), "ok", "{algorithm:?} without a kid");
    }
}

#[tokio::test]
async fn rotation_keeps_both_keys_valid() {
    let old =
        AuthKeySettings { secret: Some(Secret::new("the secret before the rotation")), ..AuthKeySettings::default() };
    let authenticator = authenticator(&keys(vec![old, verifying(Algorithm::HS256, None)])).await;
    assert_eq!(reason(&authenticator, &with(json!({}))), "ok");
}

#[tokio::test]
async fn key_that_cannot_be_used_is_refused_at_start() {
    for (algorithm, public, problem) in [
        (Algorithm::RS256, EC256_PUBLIC, "is not a public key for RS256"),
        (Algorithm::RS256, RSA_WEAK_PUBLIC, "shorter than 2048 bits"),
        (Algorithm::ES256, RSA_PUBLIC, "is not a public key for ES256"),
        (Algorithm::ES256, EC384_PUBLIC, "is not a public key for ES256"),
        (Algorithm::ES384, EC256_PUBLIC, "is not a public key for ES384"),
        (Algorithm::EdDSA, EC256_PUBLIC, "is not a public key for EdDSA"),
        (Algorithm::PS512, "no PEM", "is not a public key for PS512"),
    ] {
        let wrong = AuthKeySettings { algorithm, public_key: Some(public.into()), ..AuthKeySettings::default() };
        let config = keys(vec![verifying(Algorithm::HS256, None), wrong]);
        let error = Authenticator::new(&config, Arc::default()).await.unwrap_err().to_string();
        assert!(error.starts_with("auth.keys[1]: ") && error.contains(problem), "{error}");
    }
}
