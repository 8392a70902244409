//! Draining through the API.

use serde_json::json;

use super::support::ApiFixture;

const DRAIN: &str = "/api/v1/drain";

#[tokio::test]
async fn a_node_is_told_to_drain_tells_how_far_it_is_and_is_told_to_serve_again() {
    let fixture = ApiFixture::new();
    assert_eq!(fixture.send("GET", DRAIN, "").await.json()["state"], "serving");
    for _ in 0..2 {
        let reply = fixture.send("POST", DRAIN, "").await;
        assert_eq!((reply.status, &reply.json()["state"]), (202, &json!("leaving")));
    }
    let metrics = fixture.send("GET", "/metrics", "").await;
    assert!(metrics.text.contains("roomcast_drain_state{state=\"leaving\"} 1"));
    let reply = fixture.send("DELETE", DRAIN, "").await;
    assert_eq!((reply.status, &reply.json()["state"]), (200, &json!("serving")));
}

#[tokio::test]
async fn a_process_that_ends_does_not_serve_again() {
    let fixture = ApiFixture::new();
    fixture.api.drain.begin(true);
    let reply = fixture.send("DELETE", DRAIN, "").await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!("UNAVAILABLE")));
    assert_eq!(fixture.send("GET", DRAIN, "").await.json()["ends"], true);
}

#[tokio::test]
async fn a_key_for_some_contracts_drains_nothing() {
    let fixture = ApiFixture::new();
    for method in ["POST", "GET", "DELETE"] {
        let reply = fixture.send_with(method, DRAIN, &[("authorization", "Bearer orders")], "").await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "AUTHORIZATION_FAILED"), "{method}");
    }
    assert_eq!(fixture.send("GET", DRAIN, "").await.json()["state"], "serving");
}
