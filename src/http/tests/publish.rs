//! Publishing, actions on clients, and owners.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::support::ApiFixture;
use crate::http::state::MAX_REQUESTS;

const EVENTS: &str = "/api/v1/events";

#[tokio::test]
async fn an_event_is_published_with_its_bytes_as_they_came() {
    let fixture = ApiFixture::new();
    let body = r#"{"contract":"orders","event":"e","data":{"n": 1.50,"s":"\u00e9"},"params":{"p":1},"id":"i"}"#;
    let reply = fixture.send("POST", EVENTS, body).await;
    assert_eq!(reply.status, 202);
    assert_eq!(fixture.published(), [r#"orders/e {"n": 1.50,"s":"\u00e9"} {"p":1} Some("i")"#]);
    let expected = json!({ "accepted": true, "event": "e", "rooms": ["room"], "local": 2, "dropped": 1,
        "remote": "carried", "duplicate": false, "held": false });
    assert_eq!(reply.json(), expected);
}

#[tokio::test]
async fn what_was_not_carried_is_told_with_its_reason() {
    let fixture = ApiFixture::new();
    let reply = fixture.send("POST", EVENTS, r#"{"contract":"orders","event":"away"}"#).await;
    assert_eq!(
        (reply.status, &reply.json()["remote"], &reply.json()["reason"]),
        (202, &json!("not_carried"), &json!("away"))
    );
    assert_eq!(fixture.published(), ["orders/away - null None"]);
}

#[tokio::test]
async fn a_batch_says_for_each_event_what_happened() {
    let fixture = ApiFixture::new();
    for body in [
        r#"[{"contract":"orders","event":"a"},{"contract":"orders","event":"unknown"},{"contract":7,"extra":"x"}]"#,
        r#"{"events":[{"contract":"orders","event":"a"},{"contract":"orders","event":"unknown"},{"contract":7,"extra":"x"}]}"#,
    ] {
        let reply = fixture.send("POST", EVENTS, body).await;
        assert_eq!(reply.status, 202);
        let results = reply.json()["results"].as_array().unwrap().clone();
        assert_eq!(results[0]["accepted"], true);
        assert_eq!((&results[1]["accepted"], &results[1]["error"]["code"]), (&json!(false), &json!("UNKNOWN_EVENT")));
        let places: Vec<_> =
            results[2]["error"]["details"].as_array().unwrap().iter().map(|at| at["at"].clone()).collect();
        assert_eq!(places, ["events[2].contract", "events[2].event", "events[2].extra"]);
    }
}

#[tokio::test]
async fn a_batch_has_a_bound_and_is_never_empty() {
    let fixture = ApiFixture::new();
    let event = r#"{"contract":"orders","event":"a"}"#;
    let reply = fixture.send("POST", EVENTS, format!("[{event},{event},{event},{event}]")).await;
    assert_eq!((reply.status, reply.code().as_str()), (422, "TOO_LARGE"));
    for body in
        ["[]", r#"{"events":[]}"#, r#"{"events":{}}"#, r#"{"events":null}"#, r#"{"events":[{}],"contract":"x"}"#]
    {
        assert_eq!(fixture.send("POST", EVENTS, body).await.status, 422, "{body}");
    }
    assert!(fixture.published().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_publish_goes_on_when_its_sender_hangs_up() {
    let fixture = ApiFixture::new();
    let body = r#"{"contract":"orders","event":"slow"}"#;
    let sent = tokio::time::timeout(Duration::from_millis(1), fixture.send("POST", EVENTS, body)).await;
    assert!(sent.is_err());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fixture.published(), ["orders/slow - null None", "slow is done"]);
}

#[tokio::test]
async fn a_key_for_some_contracts_publishes_to_these_alone() {
    let fixture = ApiFixture::new();
    let headers = [("authorization", "Bearer orders")];
    let send = async |uri: &str, body: &'static str| fixture.send_with("POST", uri, &headers, body).await;
    assert_eq!(send(EVENTS, r#"{"contract":"orders","event":"a"}"#).await.status, 202);
    assert_eq!(send(EVENTS, r#"{"contract":"other","event":"a"}"#).await.code(), "AUTHORIZATION_FAILED");
    let reply = send(EVENTS, r#"[{"contract":"other","event":"a"},{"contract":"orders","event":"b"}]"#).await;
    assert_eq!(reply.json()["results"][0]["error"]["code"], "AUTHORIZATION_FAILED");
    assert_eq!(send("/api/v1/emit", r#"{"namespace":"/","event":"a"}"#).await.status, 403);
    assert_eq!(send("/api/v1/disconnect", r#"{"namespace":"/","users":["a"]}"#).await.status, 403);
    assert_eq!(send("/api/v1/ask", r#"{"namespace":"/","users":["a"],"event":"e"}"#).await.status, 403);
    assert_eq!(fixture.published().len(), 2);
}

#[tokio::test]
async fn nobody_publishes_without_a_key() {
    let fixture = ApiFixture::new();
    let body = r#"{"contract":"orders","event":"a"}"#;
    for headers in [
        &[][..],
        &[("authorization", "")],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "Bearer admin"), ("authorization", "Bearer wrong")],
    ] {
        let reply = fixture.send_with("POST", EVENTS, headers, body).await;
        assert_eq!((reply.status, reply.code().as_str()), (401, "AUTHENTICATION_FAILED"), "{headers:?}");
    }
    assert!(fixture.published().is_empty());
}

#[tokio::test]
async fn a_refusal_to_wait_says_how_long() {
    let fixture = ApiFixture::new();
    let reply = fixture.send("POST", EVENTS, r#"{"contract":"orders","event":"often"}"#).await;
    assert_eq!((reply.status, &reply.headers["retry-after"]), (429, &"7".parse().unwrap()));
}

#[tokio::test]
async fn an_emit_keeps_its_arguments() {
    let fixture = ApiFixture::new();
    let body = r#"{"namespace":"/jobs","rooms":["r"],"users":["u"],"sockets":["s"],"except":["x"],"event":"e","args":[1.50,{"a":[]}],"volatile":true}"#;
    let reply = fixture.send("POST", "/api/v1/emit", body).await;
    assert_eq!((reply.status, &reply.json()["remote"]), (202, &json!("alone")));
    assert!(fixture.published()[0].contains("RawValue(1.50), RawValue({\"a\":[]})"));
    let reply = fixture.send("POST", "/api/v1/emit", r#"{"namespace":"/none","event":"e"}"#).await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "NOT_FOUND"));
}

#[tokio::test]
async fn owners_are_recorded_and_forgotten() {
    let fixture = ApiFixture::new();
    let body = r#"{"namespace":"/","room":"r","owner":"ada","ttl":"1h"}"#;
    assert_eq!(fixture.send("PUT", "/api/v1/owners", body).await.status, 204);
    assert_eq!(fixture.api.owners.get("/", "r").await, Ok(Some("ada".into())));
    assert_eq!(fixture.send("DELETE", "/api/v1/owners", r#"{"namespace":"/","room":"r"}"#).await.status, 204);
    assert_eq!(fixture.api.owners.get("/", "r").await, Ok(None));
    for body in [
        r#"{"namespace":"/","room":"$sid:x","owner":"ada"}"#,
        r#"{"namespace":"/","room":"r","owner":"ada","ttl":"31d"}"#,
        r#"{"namespace":"/","room":"r","owner":""}"#,
        r#"{"namespace":"/","room":"r"}"#,
    ] {
        assert_eq!(fixture.send("PUT", "/api/v1/owners", body).await.status, 422, "{body}");
    }
}

#[tokio::test]
async fn actions_name_somebody() {
    let fixture = ApiFixture::new();
    let reply = fixture.send("POST", "/api/v1/join", r#"{"namespace":"/","users":["ada"],"room":"r"}"#).await;
    assert_eq!((reply.status, reply.json()), (202, json!({ "accepted": true, "local": 1, "remote": "carried" })));
    let reply =
        fixture.send("POST", "/api/v1/disconnect", r#"{"namespace":"/","sockets":["away"],"close":true}"#).await;
    assert_eq!((&reply.json()["remote"], &reply.json()["reason"]), (&json!("not_carried"), &json!("away")));
    for body in
        [r#"{"namespace":"/"}"#, r#"{"namespace":"/","users":[]}"#, r#"{"namespace":"/","users":null,"rooms":[]}"#]
    {
        assert_eq!(fixture.send("POST", "/api/v1/disconnect", body).await.status, 422, "{body}");
    }
}

#[tokio::test]
async fn clients_are_asked_and_what_they_say_is_answered() {
    let fixture = ApiFixture::new();
    let ask = |members: &str| format!(r#"{{"namespace":"/","event":"confirm",{members}}}"#);
    let reply = fixture.send("POST", "/api/v1/ask", ask(r#""users":["ada"],"args":[1,{"a":2}],"timeout":"1s""#)).await;
    let expected = json!({
        "asked": 3, "notAsked": 2, "unanswered": 1, "tooLarge": 1, "remote": "carried", "missingNodes": ["c"],
        "missingServers": 4,
        "answers": [{ "socketId": "s", "args": [["confirm", 1, { "a": 2 }]], "attachments": ["Yg=="] }],
    });
    assert_eq!((reply.status, reply.json()), (200, expected));
    let reply = fixture.send("POST", "/api/v1/ask", ask(r#""sockets":["away"]"#)).await;
    assert_eq!((&reply.json()["remote"], &reply.json()["reason"]), (&json!("not_carried"), &json!("away")));
    for members in
        [r#""args":[]"#, r#""users":["a"],"timeout":"31s""#, r#""users":["a"],"args":{}"#, r#""users":["a"],"x":1"#]
    {
        assert_eq!(fixture.send("POST", "/api/v1/ask", ask(members)).await.status, 422, "{members}");
    }
    // A reserved name is reported with the other mistakes; a list with a mistake does not count as empty.
    let reply = fixture.send("POST", "/api/v1/ask", r#"{"namespace":"/","event":"disconnect","users":[7]}"#).await;
    let details = reply.json()["error"]["details"].clone();
    let expected = [("users[0]", "must be a string"), ("event", "is reserved by Socket.IO; choose another")];
    let expected = expected.map(|(at, problem)| json!({ "at": at, "problem": problem }));
    assert_eq!((reply.status, details), (422, json!(expected)));
    let metrics = fixture.send("GET", "/metrics", "").await.text;
    for (result, clients) in [("answered", 2), ("unanswered", 2), ("too_large", 2), ("not_asked", 4)] {
        let line = format!(r#"roomcast_clients_asked_total{{nsp="/",result="{result}"}} {clients}"#);
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn a_fault_is_answered_in_the_envelope_and_the_node_goes_on() {
    let fixture = ApiFixture::new();
    let reply = fixture.send("POST", EVENTS, r#"{"contract":"orders","event":"panics"}"#).await;
    assert_eq!((reply.status, reply.code().as_str()), (500, "INTERNAL_ERROR"));
    assert_eq!(fixture.send("POST", EVENTS, r#"{"contract":"orders","event":"a"}"#).await.status, 202);
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_at_once_are_told_to_come_back() {
    let fixture = ApiFixture::new();
    let hang = || fixture.send("POST", EVENTS, r#"{"contract":"orders","event":"hangs"}"#);
    let crowd = join_all((0..MAX_REQUESTS).map(|_| hang()));
    let asked = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        (hang().await, fixture.send("GET", "/metrics", "").await.status)
    };
    let (crowd, (reply, metrics)) = tokio::join!(crowd, asked);
    assert!(
        crowd.iter().all(|reply| reply.status == 503 && reply.code() == "UNAVAILABLE"),
        "they are given up in the end"
    );
    assert_eq!((reply.status, reply.code().as_str(), metrics), (503, "OVERLOADED", 200));
    assert_eq!(fixture.send("POST", EVENTS, r#"{"contract":"orders","event":"a"}"#).await.status, 202);
}
