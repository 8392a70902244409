//! Tests attacks on the choice of key and algorithm. Each was a vulnerability of some JWT library.

use super::*;

fn claims() -> Value {
    json!({ "sub": "mallory", "roles": ["admin"], "exp": soon(60) })
}

fn hmac(key: &[u8], header: &Value) -> String {
    let unsigned = forged(header, &claims(), b"");
    let message = unsigned.trim_end_matches('.');
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(key), jsonwebtoken::Algorithm::HS256);
    format!("{message}.{}", signature.unwrap())
}

#[tokio::test]
async fn public_key_is_no_shared_secret() {
    let config = keys(vec![verifying(Algorithm::RS256, Some("a")), verifying(Algorithm::ES256, Some("b"))]);
    let authenticator = authenticator(&config).await;
    for public in [RSA_PUBLIC, RSA_PUBLIC.trim(), EC256_PUBLIC] {
        for kid in ["a", "b"] {
            let token = hmac(public.as_bytes(), &json!({ "alg": "HS256", "kid": kid }));
            assert_eq!(reason(&authenticator, &token), "algorithm");
        }
        assert_eq!(reason(&authenticator, &hmac(public.as_bytes(), &json!({ "alg": "HS256" }))), "algorithm");
    }
}

#[tokio::test]
async fn public_key_is_no_shared_secret_beside_one_either() {
    let config = keys(vec![verifying(Algorithm::RS256, Some("a")), verifying(Algorithm::HS256, None)]);
    let authenticator = authenticator(&config).await;
    let token = |header: Value| hmac(RSA_PUBLIC.as_bytes(), &header);
    assert_eq!(reason(&authenticator, &token(json!({ "alg": "HS256", "kid": "a" }))), "algorithm");
    assert_eq!(reason(&authenticator, &token(json!({ "alg": "HS256" }))), "signature_invalid");
}

#[tokio::test]
async fn none_is_no_algorithm() {
    for config in [shared(), keys(Vec::new()), keys(vec![verifying(Algorithm::RS256, None)])] {
        let authenticator = authenticator(&config).await;
        for alg in ["none", "None", "NONE", "nOnE", "", "HS257", "hs256", "RSA1_5", "dir"] {
            for signature in [b"".as_slice(), b"x"] {
                let token = forged(&json!({ "alg": alg }), &claims(), signature);
                assert_eq!(reason(&authenticator, &token), "algorithm", "{alg}");
            }
        }
    }
}

#[tokio::test]
async fn kid_of_another_key_does_not_lend_its_right() {
    let other = AuthKeySettings {
        kid: Some("b".into()),
        secret: Some(Secret::new("the secret of somebody else")),
        ..AuthKeySettings::default()
    };
    let config = keys(vec![verifying(Algorithm::HS256, Some("a")), other]);
    let authenticator = authenticator(&config).await;
    let signed_by_a = |kid: &str| token(Algorithm::HS256, Some(kid), &claims());
    assert_eq!(reason(&authenticator, &signed_by_a("a")), "ok");
    assert_eq!(reason(&authenticator, &signed_by_a("b")), "signature_invalid");
    assert_eq!(reason(&authenticator, &signed_by_a("c")), "key_unknown");
    assert_eq!(reason(&authenticator, &signed_by_a("")), "key_unknown");
}

#[tokio::test]
async fn keys_inside_a_token_are_not_looked_at() {
    let authenticator = authenticator(&shared()).await;
    let own = EncodingKey::from_rsa_pem(RSA_OTHER.as_bytes()).unwrap();
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
    header.jwk = Some(jsonwebtoken::jwk::Jwk::from_encoding_key(&own, jsonwebtoken::Algorithm::RS256).unwrap());
    header.jku = Some("https://mallory.example/keys".into());
    let token = jsonwebtoken::encode(&header, &claims(), &own).unwrap();
    assert_eq!(reason(&authenticator, &token), "algorithm");
}

#[tokio::test]
async fn extensions_that_must_be_understood_are_not() {
    let authenticator = authenticator(&shared()).await;
    let token = hmac(SECRET.as_bytes(), &json!({ "alg": "HS256", "crit": ["exp"], "exp": 1 }));
    assert_eq!(reason(&authenticator, &token), "token_malformed");
    let token = hmac(SECRET.as_bytes(), &json!({ "alg": "HS256" }));
    assert_eq!(reason(&authenticator, &token), "ok");
}

#[tokio::test]
async fn changed_parts_break_the_signature() {
    let authenticator = authenticator(&shared()).await;
    let good = with(json!({}));
    let parts: Vec<&str> = good.split('.').collect();
    let admin = forged(&json!({}), &json!({ "sub": "alice", "roles": ["admin"], "exp": soon(60) }), b"");
    let stolen = format!("{}.{}.{}", parts[0], admin.split('.').nth(1).unwrap(), parts[2]);
    assert_eq!(reason(&authenticator, &stolen), "signature_invalid");
    assert_eq!(reason(&authenticator, &format!("{}.{}.", parts[0], parts[1])), "signature_invalid");
}
