//! Health, metrics, and introspection.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::support::ApiFixture;
use crate::event::Event;
use crate::history::{Retention, RoomKey};
use crate::http::{ApiLimits, public_router};

#[tokio::test]
async fn health_and_metrics_need_no_key() {
    let fixture = ApiFixture::new();
    let get = async |uri| fixture.send_with("GET", uri, &[], "").await;
    assert_eq!(get("/live").await.json()["status"], "live");
    assert_eq!(get("/ready").await.json()["websocket"]["status"], "ready");
    assert_eq!(get("/api/v1/openapi.json").await.json()["openapi"], "3.1.0");
    let metrics = get("/metrics").await;
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(!metrics.headers.contains_key("content-encoding"));
    assert!(metrics.text.contains("roomcast_connections{nsp=\"/jobs\"} 0\n"), "{}", metrics.text);
    assert!(metrics.text.contains("roomcast_api_requests_total{route=\"openapi\",status=\"200\"} 1\n"));
}

#[tokio::test]
async fn the_public_listener_has_no_api() {
    let router = public_router(ApiFixture::new().api.ready.clone());
    for (uri, status) in [("/live", 200), ("/ready", 200), ("/metrics", 404), ("/api/v1/events", 404), ("/", 404)] {
        let request = Request::get(uri).body(Body::empty()).unwrap();
        assert_eq!(router.clone().oneshot(request).await.unwrap().status(), status, "{uri}");
    }
}

#[tokio::test]
async fn lists_come_in_pages_and_say_what_is_missing() {
    let fixture = ApiFixture::new();
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
    let fixture = ApiFixture::new();
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
    let fixture = ApiFixture::new();
    let get = async |query: &str| fixture.send("GET", &format!("/api/v1/counts{query}"), "").await;
    assert_eq!(get("").await.json()["rooms"], 1);
    assert_eq!(get("?room=r").await.json()["rooms"], json!(null));
    assert_eq!(get("?user=ada").await.json()["connections"], 1);
    assert_eq!(get("?user=ada&room=r").await.status, 422);
}

#[tokio::test]
async fn keys_for_some_contracts_read_little() {
    let fixture = ApiFixture::new();
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
async fn keys_for_a_contract_know_its_rooms() {
    let fixture = ApiFixture::new();
    let send = async |method: &str, uri: &str, body: &'static str| {
        fixture.send_with(method, &format!("/api/v1/{uri}"), &[("authorization", "Bearer orders")], body).await.status
    };
    assert_eq!(send("GET", "counts?room=lobby", "").await, 200);
    assert_eq!(send("GET", "rooms/lobby/members", "").await, 200);
    assert_eq!(send("GET", "rooms/order:1/history", "").await, 200);
    assert_eq!(send("GET", "rooms/lobby/history", "").await, 404, "no contract keeps one");
    assert_eq!(send("GET", "rooms/job:1?namespace=/jobs", "").await, 403);
    assert_eq!(send("PUT", "owners", r#"{"namespace":"/","room":"order:1","owner":"ada"}"#).await, 204);
    assert_eq!(send("DELETE", "owners", r#"{"namespace":"/","room":"order:1"}"#).await, 204);
    assert_eq!(send("PUT", "owners", r#"{"namespace":"/","room":"other:1","owner":"ada"}"#).await, 403);
    assert_eq!(send("PUT", "owners", r#"{"namespace":"/jobs","room":"order:1","owner":"ada"}"#).await, 403);
}

#[tokio::test]
async fn a_history_is_read_with_limit_since_and_order() {
    let fixture = ApiFixture::new();
    let room = RoomKey { namespace: "/".into(), room: "order:1".into() };
    let keep = Retention { events: 10, ttl: Duration::from_secs(60) };
    let mut epoch = 0;
    for number in 1..=12 {
        let event = Event::encode("status", [number]).unwrap();
        epoch = fixture.api.history.append(&room, keep, None, &event).await.unwrap().epoch;
    }
    let get = async |query: &str| fixture.send("GET", &format!("/api/v1/rooms/order:1/history?{query}"), "").await;
    let offsets = |history: &Value| -> Vec<u64> {
        history["items"].as_array().unwrap().iter().map(|item| item["offset"].as_u64().unwrap()).collect()
    };
    let newest = get("limit=2").await.json();
    assert_eq!(
        (offsets(&newest), &newest["items"][1]),
        (vec![11, 12], &json!({ "offset": 12, "event": "status", "args": [12] }))
    );
    assert_eq!(
        (&newest["firstOffset"], &newest["lastOffset"], &newest["epoch"]),
        (&json!(3), &json!(12), &json!(epoch))
    );
    assert_eq!(offsets(&get("limit=2&order=desc").await.json()), [12, 11]);
    let since = get(&format!("since=9&epoch={epoch}&limit=2")).await.json();
    assert_eq!((offsets(&since), &since["complete"]), (vec![10, 11], &json!(true)));
    let gone = get(&format!("since=1&epoch={epoch}")).await.json();
    assert_eq!((offsets(&gone).len(), &gone["complete"]), (10, &json!(false)));
    assert_eq!(get("epoch=1").await.status, 422);
}

#[tokio::test]
async fn the_document_tells_the_configured_bounds() {
    let fixture = ApiFixture::with_limits(ApiLimits { max_batch: 77, ..ApiLimits::default() });
    let reply = fixture.send_with("GET", "/api/v1/openapi.json", &[], "").await;
    assert!(reply.text.contains(r#""maxItems":77"#) && !reply.text.contains(r#""minItems":1,"maxItems":1000"#));
}
