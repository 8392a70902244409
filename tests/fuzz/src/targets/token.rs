//! Tokens: arbitrary text is refused; arbitrary claims with a valid signature give a user or are refused.
use std::sync::{Arc, LazyLock};

use super::texts;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use roomcast::auth::{Authenticator, Handshake};
use roomcast::config::Config;
use roomcast::contract::load::load;
use roomcast::contract::model::Namespace;
use roomcast::telemetry::metrics::Metrics;
use serde_json::{Value, json};

const SECRET: &str = "a secret of the fuzzer, which is long enough";

static AUTH: LazyLock<Arc<Authenticator>> = LazyLock::new(|| {
    let mut config = Config::default();
    config.auth.keys = serde_json::from_value(json!([{ "algorithm": "HS256", "secret": SECRET }])).expect("keys");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(Authenticator::new(&config.auth, Arc::new(Metrics::new()))).expect("an authenticator")
});

static NAMESPACES: LazyLock<Vec<Namespace>> =
    LazyLock::new(|| load(&["embedded:*".to_owned()]).expect("the shipped contracts"));

/// Runs the target.
pub fn run(input: &[u8]) {
    let Some([token, claims, header]) = texts(input) else { return };
    let claims: Value = serde_json::from_str(claims).unwrap_or(Value::Null);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signed = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap_or_default();
    // Each input is tested with only one policy, because signatures take most of the time.
    let Some(namespace) = NAMESPACES.get(input.len() % NAMESPACES.len()) else { return };
    let policy = namespace.auth();
    assert!(AUTH.user(token, policy).is_err(), "a token that nobody signed");
    let _ = AUTH.user(&signed, policy);
    let handshake = Handshake {
        auth: Some(json!({ "token": token })),
        authorization: Some(header.to_owned()),
        query: Some(token.to_owned()),
        cookies: Some(header.to_owned()),
        headers: Vec::new(),
        recoverable: true,
    };
    let _ = AUTH.authenticate(policy, &handshake);
}
