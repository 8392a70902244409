//! Tests what operators see of a node: its log, its reaction to signals, and its version.

use std::io::{BufRead, BufReader, Lines};
use std::process::ChildStderr;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, http};
use crate::support::process::Process;

/// Maximum time to wait for a result. It is long because tests run in parallel.
const PATIENCE: Duration = Duration::from_secs(60);

const CONTRACT: &str = r#"
name = "operations"
namespace = "/"
summary = "What operators try"

[auth]
mode = "none"

[client.say]
reply = "said"
ack = "*"
"#;

const CONFIG: &str = r#"
[contracts]
files = ["test.contract.toml"]
[[api.keys]]
name = "tests"
secret = "an-api-key-of-the-tests-0123456789abcdef"
[drain]
delay = "0s"
[log]
format = "json"
"#;

const KEY: &str = "Authorization: Bearer an-api-key-of-the-tests-0123456789abcdef\r\nContent-Type: application/json";

/// Starts a node whose log is not read yet.
fn start(level: &str, engine: &str) -> (Process, ChildStderr) {
    let variables = [("ROOMCAST_LOG__LEVEL", level), ("ROOMCAST_SERVER__ENGINE", engine)];
    Process::start_with_log(CONFIG, CONTRACT, &variables)
}

async fn lost(node: &Process) -> f64 {
    node.metric("roomcast_log_lost_total", "").await
}

/// Makes the node write this number of log records: one per request, at `debug`.
async fn chatter(node: &Process, requests: usize) {
    let mut stream = TcpStream::connect(&node.api).await.unwrap();
    let name = "n".repeat(120);
    let request = format!("GET /api/v1/rooms HTTP/1.1\r\nHost: x\r\nX-Request-Id: {name}\r\n\r\n");
    let last = "GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let (mut reading, mut writing) = stream.split();
    let all = request.repeat(requests) + last;
    let mut answers = Vec::new();
    let (sent, read) = tokio::join!(writing.write_all(all.as_bytes()), reading.read_to_end(&mut answers));
    sent.unwrap();
    read.unwrap();
}

/// Checks that the node answers requests.
async fn works(node: &Process) {
    assert_eq!(http(&node.server, "GET /live", "").await.0, 200);
    assert_eq!(http(&node.api, "GET /metrics", "").await.0, 200);
    let (mut client, answer) = Client::connect(&node.server, "/", "").await;
    assert!(answer.starts_with("40"), "{answer}");
    client.send(r#"427["say",1]"#).await;
    let (one, other) = (client.text().await, client.text().await);
    assert!([&one, &other].iter().any(|packet| packet.starts_with("437")), "{one} {other}");
}

/// Reads records until one matches, and returns it with the reader.
async fn find(
    lines: Lines<BufReader<ChildStderr>>,
    found: impl Fn(&Value) -> bool + Send + 'static,
) -> (Value, Lines<BufReader<ChildStderr>>) {
    let reading = tokio::task::spawn_blocking(move || {
        let mut lines = lines;
        loop {
            let line = lines.next().expect("the log goes on").unwrap();
            let record: Value = serde_json::from_str(&line).unwrap();
            if found(&record) {
                return (record, lines);
            }
        }
    });
    tokio::time::timeout(PATIENCE, reading).await.expect("the record in time").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_reader_of_the_log_holds_nothing_up() {
    let (mut node, stderr) = start("info,roomcast=debug", "native");
    let until = Instant::now() + PATIENCE;
    while lost(&node).await == 0.0 {
        assert!(Instant::now() < until, "no record was lost: is the buffer unbounded?");
        chatter(&node, 1000).await;
    }
    works(&node).await;
    let lost = lost(&node).await;
    // The reader of the log continues, and a record reports how many records were lost.
    let says_lost = |record: &Value| record["lost"].as_u64().is_some();
    let (record, lines) = find(BufReader::new(stderr).lines(), says_lost).await;
    assert_eq!(record["level"], "WARN");
    assert!(record["lost"].as_f64().unwrap() >= lost, "{record} {lost}");
    // The reader stalls again, so the pipe is full, and the node still ends on SIGTERM.
    chatter(&node, 1000).await;
    works(&node).await;
    node.signal("-TERM");
    node.ends().await;
    drop(lines);
}

/// The records of a node whose log is read.
struct Records {
    records: Receiver<Value>,
}

impl Records {
    fn read(stderr: ChildStderr) -> Self {
        let (sender, records) = sync_channel(10_000);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        Self { records }
    }

    /// The next record with this message. Records before it are passed to `others`.
    fn next(&self, message: &str, mut others: impl FnMut(&Value)) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let record = self.records.recv_timeout(left).unwrap_or_else(|_| panic!("no record says {message:?}"));
            if record["message"].as_str().is_some_and(|text| text.contains(message)) {
                return record;
            }
            others(&record);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_record_introduces_the_node_and_signals_are_obeyed() {
    let (mut node, stderr) = start("info", "native");
    let records = Records::read(stderr);
    let first = records.next("the node starts", |other| panic!("{other} comes before"));
    for (field, value) in [
        ("version", env!("CARGO_PKG_VERSION")),
        ("node", &node.name),
        ("engine", "native"),
        ("redis", "memory"),
        ("contracts", "operations"),
    ] {
        assert_eq!(first[field], value, "{first}");
    }
    assert!(first["commit"].as_str().is_some_and(|commit| !commit.is_empty()), "{first}");

    node.signal("-HUP");
    records.next("SIGHUP is ignored", |_| {});
    works(&node).await;

    // A publish writes an audit record at level `debug`; an action on clients writes one at level `info`.
    let publish = || async {
        let body = r#"{"namespace":"/","event":"x","args":[1]}"#;
        let status = http(&node.api, &format!("POST /api/v1/emit HTTP/1.1\r\n{KEY}\r\nX-Rest:"), body).await.0;
        assert_eq!(status, 202);
    };
    let act = || async {
        let body = r#"{"namespace":"/","users":["ada"]}"#;
        let status = http(&node.api, &format!("POST /api/v1/disconnect HTTP/1.1\r\n{KEY}\r\nX-Rest:"), body).await.0;
        assert_eq!(status, 202);
    };
    let is_publish = |record: &Value| record["audit.event"] == "api_publish";
    for _ in 0..250 {
        publish().await;
    }
    act().await;
    records.next("done", |other| panic!("{other} is not for `info`"));
    let (_, metrics) = http(&node.api, "GET /metrics", "").await;
    let suppressed = metrics.lines().find(|line| line.contains(r#"audit_suppressed_total{event="api_publish"}"#));
    assert!(suppressed.unwrap().ends_with(" 0"), "what is not shown is not suppressed: {suppressed:?}");

    node.signal("-USR1");
    let raised = records.next("the log level was raised", |_| {});
    assert_eq!(raised["level"], "WARN");
    publish().await;
    let record = records.next("done", |_| {});
    assert!(is_publish(&record), "{record}");
    node.signal("-USR2");
    records.next("the log level is lowered", |_| {});
    node.signal("-USR2");
    records.next("the log level is lowered", |_| {});
    act().await;
    node.signal("-USR1");
    records.next("the log level was raised", |other| {
        assert_ne!(other["audit.event"], "api_call", "at `warn` it is not shown");
    });
    works(&node).await;
    node.signal("-TERM");
    records.next("the node has left", |_| {});
    node.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_client_is_found_by_what_waits_for_it() {
    for engine in ["native", "socketioxide"] {
        let (node, _stderr) = start("error", engine);
        let (slow, answer) = Client::connect(&node.server, "/", "").await;
        let id = answer.split_once(r#""sid":""#).unwrap().1.split('"').next().unwrap().to_owned();
        let (_swift, _) = Client::connect(&node.server, "/", "").await;
        let ask = async |path: &str| {
            let head = format!("GET /api/v1/connections{path} HTTP/1.1\r\n{KEY}\r\nX-Rest:");
            let (status, body) = http(&node.api, &head, "").await;
            let page: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
            (status, page)
        };
        let number = |item: &Value, field: &str| item[field].as_u64().unwrap_or_else(|| panic!("{field}: {item}"));
        let idle = ask(&format!("/{id}")).await.1;
        assert_eq!(number(&idle, "dropped"), 0);
        assert!(idle["lastWriteAt"].is_string(), "{idle}");

        // The client does not read: its write queue fills up, and then events are dropped.
        let text = "x".repeat(500_000);
        let body = serde_json::json!({ "namespace": "/", "sockets": [id], "event": "e", "args": [text] }).to_string();
        let until = Instant::now() + PATIENCE;
        loop {
            let head = format!("POST /api/v1/emit HTTP/1.1\r\n{KEY}\r\nX-Rest:");
            assert_eq!(http(&node.api, &head, &body).await.0, 202);
            if number(&ask(&format!("/{id}")).await.1, "dropped") > 0 {
                break;
            }
            assert!(Instant::now() < until, "nothing is dropped");
        }
        for sort in ["queuedBytes", "queuedPackets", "dropped", "lastWriteAt"] {
            let (status, page) = ask(&format!("?sort={sort}&limit=1")).await;
            assert_eq!(
                (status, page["items"].as_array().unwrap().len(), &page["next"]),
                (200, 1, &Value::Null),
                "{page}"
            );
            let first = &page["items"][0];
            if sort == "queuedPackets" && engine == "socketioxide" {
                // socketioxide does not report the number of queued packets.
                assert_eq!(first.get("queuedPackets"), None);
                continue;
            }
            assert_eq!(first["socketId"], *id, "{engine} {sort}: {page}");
            assert!(number(first, "queuedBytes") > 1_000_000, "{first}");
            assert!(number(first, "dropped") > 0, "{first}");
        }
        let (status, _) = ask("?sort=dropped&cursor=x").await;
        assert_eq!(status, 422);
        let (status, _) = ask("?sort=size").await;
        assert_eq!(status, 422);
        drop(slow);
    }
}
