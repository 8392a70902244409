//! The HTTP API of a node answers every request, and never with 500.
use std::sync::LazyLock;

use super::parts;
use axum::Router;
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use roomcast::config::Config;
use roomcast::node;
use serde_json::json;
use tokio::runtime::Runtime;
use tower::ServiceExt;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

static API: LazyLock<Router> = LazyLock::new(|| {
    let mut config = Config::default();
    config.contracts.files = vec!["embedded:*".to_owned()];
    config.auth.keys =
        serde_json::from_value(json!([{ "algorithm": "HS256", "secret": "of the fuzzer, which is long enough" }]))
            .expect("keys");
    config.hooks = serde_json::from_value(json!({ "songs": { "url": "http://127.0.0.1:9/" } })).expect("a hook");
    config.api.keys =
        serde_json::from_value(json!([{ "name": "fuzz", "secret": "fuzz-fuzz-fuzz-fuzz-fuzz-fuzz-fuzz" }]))
            .expect("a key");
    RUNTIME.block_on(node::api(&config)).expect("an API")
});

/// Runs the target.
pub fn run(input: &[u8]) {
    let [method, path, body] = parts(input);
    let (Ok(method), Ok(path)) = (Method::from_bytes(method), std::str::from_utf8(path)) else { return };
    let request = Request::builder()
        .method(method)
        .uri(format!("/api/v1/{path}"))
        .header("authorization", "Bearer fuzz-fuzz-fuzz-fuzz-fuzz-fuzz-fuzz")
        .header("content-type", "application/json")
        .body(Body::from(body.to_vec()));
    let Ok(request) = request else { return };
    let router = API.clone();
    RUNTIME.block_on(async move {
        let response = router.oneshot(request).await.expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert!(status != 500, "{status}: {body:?}");
    });
}
