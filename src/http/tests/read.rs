//! Health, metrics, and introspection.

use serde_json::json;

use super::support::Fixture;
use crate::http::{ApiLimits, public_router};
use axum::body::Body;
use http::Request;
use tower::ServiceExt;

#[tokio::test]
async fn health_and_metrics_need_no_key() {
    let fixture = Fixture::new();
    let get = async |uri| fixture.send_with("GET", uri, &[], "").await;
    assert_eq!(get("/live").await.json(), json!({ "status": "live" }));
    assert_eq!(get("/ready").await.json()["websocket"]["status"], "ready");
    assert_eq!(get("/api/v1/openapi.json").await.json()["openapi"], "3.1.0");
    let metrics = get("/metrics").await;
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(metrics.text.contains("roomcast_connections{namespace=\"/jobs\"} 0\n"), "{}", metrics.text);
    assert!(metrics.text.contains("roomcast_api_requests_total{route=\"openapi\",status=\"200\"} 1\n"));
}

#[tokio::test]
async fn the_public_listener_has_no_api() {
    let router = public_router(Fixture::new().api.ready.clone());
    for (uri, status) in [("/live", 200), ("/ready", 200), ("/metrics", 404), ("/api/v1/events", 404), ("/", 404)] {
        let request = Request::get(uri).body(Body::empty()).unwrap();
        assert_eq!(router.clone().oneshot(request).await.unwrap().status(), status, "{uri}");
    }
}

#[tokio::test]
async fn lists_come_in_pages_and_say_what_is_missing() {
    let fixture = Fixture::new();
    for list in ["connections", "rooms", "rooms/r/members", "users"] {
        let uri = format!("/api/v1/{list}?limit=1");
        let first = fixture.send("GET", &uri, "").await.json();
        assert_eq!(
            (first["items"].as_array().unwrap().len(), &first["next"], &first["partial"]),
            (1, &json!("next"), &json!(false))
        );
        let last = fixture.send("GET", &format!("{uri}&cursor=next"), "").await.json();
        assert_eq!(last, json!({ "items": [], "next": null, "partial": true, "missingNodes": ["n2"] }));
        assert_eq!(fixture.send("GET", &format!("{uri}&cursor=bad"), "").await.status, 422);
        let away = fixture.send("GET", &format!("{uri}&cursor=away"), "").await;
        assert_eq!((away.status, away.code().as_str()), (503, "UNAVAILABLE"));
        assert_eq!(fixture.send("GET", &format!("{uri}&namespace=/none"), "").await.code(), "NOT_FOUND");
    }
}

#[tokio::test]
async fn single_things_are_found_or_not() {
    let fixture = Fixture::new();
    let get = async |uri: &str| fixture.send("GET", uri, "").await;
    assert_eq!(get("/api/v1/connections/s1").await.json()["connectedAt"], "1970-01-01T00:00:00.000Z");
    assert_eq!(get("/api/v1/rooms/r?namespace=/jobs").await.json()["namespace"], "/jobs");
    let user = get("/api/v1/users/ada").await.json();
    assert_eq!((&user["userId"], &user["page"]["items"][0]["socketId"]), (&json!("ada"), &json!("s1")));
    for uri in ["connections/no", "rooms/no", "users/no", "rooms/r/history", "rooms/a%2Fb", "connections/%E2%82%AC"] {
        assert_eq!(get(&format!("/api/v1/{uri}")).await.code(), "NOT_FOUND", "{uri}");
    }
    assert_eq!(get("/api/v1/rooms/$sid:s1").await.status, 422);
    assert_eq!(get("/api/v1/rooms/%ff").await.status, 400);
    assert_eq!(get("/api/v1/rooms/r/history?epoch=1").await.status, 404);
}

#[tokio::test]
async fn counts_are_of_one_thing() {
    let fixture = Fixture::new();
    let get = async |query: &str| fixture.send("GET", &format!("/api/v1/counts{query}"), "").await;
    assert_eq!(get("").await.json()["rooms"], 1);
    assert_eq!(get("?room=r").await.json()["rooms"], json!(null));
    assert_eq!(get("?user=ada").await.json()["connections"], 1);
    assert_eq!(get("?user=ada&room=r").await.status, 422);
}

#[tokio::test]
async fn keys_for_some_contracts_read_little() {
    let fixture = Fixture::new();
    for uri in [
        "connections",
        "connections/s1",
        "rooms",
        "rooms/r",
        "rooms/r/members",
        "rooms/r/history",
        "users",
        "users/ada",
        "counts",
        "counts?room=r",
    ] {
        let reply =
            fixture.send_with("GET", &format!("/api/v1/{uri}"), &[("authorization", "Bearer orders")], "").await;
        assert_eq!(reply.code(), "AUTHORIZATION_FAILED", "{uri}");
    }
}

#[tokio::test]
async fn the_document_tells_the_configured_bounds() {
    let fixture = Fixture::with_limits(ApiLimits { max_batch: 77, ..ApiLimits::default() });
    let reply = fixture.send_with("GET", "/api/v1/openapi.json", &[], "").await;
    assert!(reply.text.contains(r#""maxItems":77"#) && !reply.text.contains(r#""minItems":1,"maxItems":1000"#));
}
