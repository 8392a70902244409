//! Requests with mistakes that no correct client makes: each is answered in the envelope, and none with a fault of the
//! node.

use std::sync::LazyLock;

use axum::body::Body;
use http::Request;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::document::validator;
use super::support::{ApiFixture, TestResponse};
use crate::http::ApiLimits;
use crate::http::openapi::document;
use crate::http::route::{Route, table};

#[tokio::test]
async fn wrong_requests_are_answered_with_their_own_status() {
    let fixture = ApiFixture::new();
    let json = ("content-type", "application/json");
    let key = ("authorization", "Bearer admin");
    let send = async |method: &str, uri: &str, headers: &[(&str, &str)], body: Vec<u8>| {
        fixture.send_with(method, uri, headers, body).await
    };
    let deep = format!("{}{}", "[".repeat(200_000 / 4), "]".repeat(200_000 / 4)).into_bytes();
    let events = "/api/v1/events";
    for (status, code, method, uri, headers, body) in [
        (404, "NOT_FOUND", "GET", "/", &[key][..], vec![]),
        (404, "NOT_FOUND", "GET", "/api/v1", &[key], vec![]),
        (404, "NOT_FOUND", "POST", "/api/v2/events", &[key], vec![]),
        (404, "NOT_FOUND", "GET", "/api/v1/events/", &[key], vec![]),
        (405, "NOT_FOUND", "GET", events, &[key], vec![]),
        (405, "NOT_FOUND", "BREW", events, &[key], vec![]),
        (405, "NOT_FOUND", "POST", "/live", &[], vec![]),
        (401, "AUTHENTICATION_FAILED", "POST", events, &[json], b"{".to_vec()),
        (415, "INVALID_PAYLOAD", "POST", events, &[key, ("content-type", "text/plain")], b"{}".to_vec()),
        (400, "INVALID_PAYLOAD", "POST", events, &[key, json], b"".to_vec()),
        (400, "INVALID_PAYLOAD", "POST", events, &[key, json], b"{\"a\":}".to_vec()),
        (400, "INVALID_PAYLOAD", "POST", events, &[key, json], b"{\"a\":\"\xff\"}".to_vec()),
        (400, "INVALID_PAYLOAD", "POST", events, &[key, json], deep),
        (413, "TOO_LARGE", "POST", events, &[key, json], vec![b' '; 100_001]),
        (413, "TOO_LARGE", "POST", events, &[key, json, ("content-length", "99999999999999")], b"{}".to_vec()),
        (422, "INVALID_PAYLOAD", "POST", events, &[key, json], b"7".to_vec()),
        (422, "INVALID_PAYLOAD", "POST", events, &[key, json], b"{}".to_vec()),
        (422, "INVALID_PAYLOAD", "GET", "/api/v1/users?limit=0", &[key], vec![]),
        (422, "INVALID_PAYLOAD", "GET", "/api/v1/users?nonsense", &[key], vec![]),
        (400, "INVALID_PAYLOAD", "GET", "/api/v1/users?limit=%", &[key], vec![]),
    ] {
        let reply = send(method, uri, headers, body).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{method} {uri}");
        assert_eq!(reply.status == 405, reply.headers.contains_key("allow"), "{method} {uri}");
    }
    assert!(fixture.published().is_empty());
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() {
    let fixture = ApiFixture::new();
    let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1000]));
    let request = Request::post("/api/v1/events").header("authorization", "Bearer admin");
    let reply = fixture.send_request(request.body(Body::from_stream(chunks)).unwrap()).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "TOO_LARGE"));
}

#[tokio::test]
async fn a_client_that_still_sends_gets_its_answer() {
    let fixture = ApiFixture::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(axum::serve(listener, fixture.router.clone()).into_future());
    for (path, key, status) in
        [("/api/v1/events", "admin", "413"), ("/api/v1/events", "no", "401"), ("/nowhere", "admin", "404")]
    {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let length = 20_000_000;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; length]).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{path}");
    }
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up() {
    let fixture = ApiFixture::new();
    let body = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let request = Request::post("/api/v1/events").header("authorization", "Bearer admin");
    let reply = fixture.send_request(request.body(body).unwrap()).await;
    assert_eq!((reply.status, reply.code().as_str()), (408, "INVALID_PAYLOAD"));
}

const LIMITS: ApiLimits = ApiLimits { max_body: 100_000, max_batch: 3 };

/// One node that gets all requests.
static FIXTURE: LazyLock<ApiFixture> = LazyLock::new(|| ApiFixture::with_limits(LIMITS));
static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(table);
static VALIDATORS: LazyLock<Vec<Option<jsonschema::Validator>>> = LazyLock::new(|| {
    let doc = document(&ROUTES, LIMITS);
    let of = |route: &Route| {
        let operation = &doc["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
        let schema = operation.pointer("/requestBody/content/application~1json/schema")?;
        Some(validator(&doc, schema))
    };
    ROUTES.iter().map(of).collect()
});

/// Sends a request in a runtime of its own.
fn ask(request: Request<Body>) -> TestResponse {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let reply = runtime.block_on(FIXTURE.send_request(request));
    FIXTURE.published();
    reply
}

fn json_value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec!["", "/", "/none", "a", "$sid:x", "orders", "24h", "é\u{0}", "2592001s"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        (250_usize..260).prop_map(|length| Value::from("x".repeat(length))),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((member(), inner), 0..4).prop_map(|pairs| Value::Object(Map::from_iter(pairs))),
        ]
    })
}

fn member() -> impl Strategy<Value = String> {
    let names =
        ["contract", "event", "events", "data", "params", "id", "namespace", "rooms", "users", "sockets", "except"];
    let more = ["args", "volatile", "room", "owner", "ttl", "close", "", "x"];
    prop::sample::select([&names[..], &more[..]].concat()).prop_map(str::to_owned)
}

/// A route with a body, and a body made from its example by a few changes.
fn nearly_right() -> impl Strategy<Value = (usize, Value)> {
    let with_body: Vec<usize> =
        ROUTES.iter().enumerate().filter(|(_, route)| route.request.is_some()).map(|(at, _)| at).collect();
    let changes = prop::collection::vec((member(), prop::option::weighted(0.8, json_value())), 0..3);
    (prop::sample::select(with_body), changes, 0..4_usize).prop_map(|(at, changes, wrap)| {
        let mut body = ROUTES[at].example().unwrap();
        for (name, value) in changes {
            match value {
                Some(value) => body[name] = value,
                None => drop(body.as_object_mut().unwrap().shift_remove(&name)),
            }
        }
        match wrap {
            0 => (at, json!([body])),
            1 => (at, json!({ "events": [body] })),
            _ => (at, body),
        }
    })
}

/// The method, target, headers and body of a request.
type Raw = (String, String, Vec<(String, Vec<u8>)>, Vec<u8>);

fn anything() -> impl Strategy<Value = Raw> {
    let paths: Vec<String> = ROUTES.iter().map(|route| route.path.to_owned()).collect();
    let segment =
        prop_oneof!["[a-z0-9%$.~-]{0,12}", Just("%ff".to_owned()), Just("%00".to_owned()), Just("..".to_owned())];
    let path = prop_oneof![
        8 => (prop::sample::select(paths), segment).prop_map(|(path, value)| {
            ["{socketId}", "{room}", "{userId}"].iter().fold(path, |path, name| path.replace(name, &value))
        }),
        1 => "/[a-z0-9%/]{0,20}",
    ];
    let query = prop_oneof![
        Just(String::new()),
        "\\?(namespace|limit|cursor|since|epoch|order|room|user|x)=[a-z0-9%/+$-]{0,6}(&[a-z]{0,6}=[0-9]{0,3})?",
    ];
    let method = prop_oneof![4 => Just("POST"), 4 => Just("GET"), 1 => Just("PUT"), 1 => Just("DELETE"), 1 => Just("PATCH"), 1 => Just("X")];
    let authorization = prop_oneof![
        6 => Just(b"Bearer admin".to_vec()),
        1 => Just(b"Bearer orders".to_vec()),
        1 => prop::collection::vec(0x20_u8..0xff, 0..20),
    ];
    let content =
        prop_oneof![4 => Just(b"application/json".to_vec()), 1 => prop::collection::vec(0x20_u8..0x7f, 0..20)];
    let body = prop_oneof![
        3 => nearly_right().prop_map(|(_, body)| body.to_string().into_bytes()),
        1 => (nearly_right(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|((_, body), at, byte)| {
            let mut text = body.to_string().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            text
        }),
        1 => (nearly_right(), any::<prop::sample::Index>()).prop_map(|((_, body), at)| {
            let mut text = body.to_string().into_bytes();
            text.truncate(at.index(text.len()));
            text
        }),
        1 => prop::collection::vec(any::<u8>(), 0..64),
    ];
    let headers = (authorization, content).prop_map(|(authorization, content)| {
        vec![("authorization".to_owned(), authorization), ("content-type".to_owned(), content)]
    });
    (method.prop_map(str::to_owned), (path, query).prop_map(|(path, query)| path + &query), headers, body)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_request_makes_the_node_fail((method, uri, headers, body) in anything()) {
        let mut request = Request::builder().method(method.as_str()).uri(&uri);
        for (name, value) in &headers {
            request = request.header(name, value.as_slice());
        }
        // A request that hyper rejects does not count.
        let Ok(request) = request.body(Body::from(body)) else { return Ok(()) };
        let reply = ask(request);
        prop_assert!(reply.status < 500 || reply.status == 503, "{reply:?}");
        if reply.status >= 400 {
            reply.assert_envelope();
        }
    }

    /// Checks that the parser accepts exactly the bodies that the document describes.
    #[test]
    fn a_body_is_taken_exactly_when_its_schema_says_so((at, body) in nearly_right()) {
        let route = &ROUTES[at];
        let request = Request::builder().method(route.method.clone()).uri(route.path);
        let request = request.header("authorization", "Bearer admin").body(Body::from(body.to_string())).unwrap();
        let reply = ask(request);
        let mut taken = reply.status != 422;
        if let Some(results) = (reply.status == 202).then(|| reply.json()["results"].as_array().cloned()).flatten() {
            taken = results.iter().all(|result| result["error"]["code"] != "INVALID_PAYLOAD");
        }
        let valid = VALIDATORS[at].as_ref().unwrap().is_valid(&body);
        prop_assert_eq!(taken, valid, "{} {}: {:?}", route.name, body, reply);
    }
}
