//! Tests what operators see of a node: its log, its reaction to signals, and its version.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use crate::support::client::{Client, http};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
files = ["operations.contract.toml"]
[[api.keys]]
name = "tests"
secret = "an-api-key-of-the-tests-0123456789abcdef"
[drain]
delay = "0s"
[log]
format = "json"
"#;

const KEY: &str = "Authorization: Bearer an-api-key-of-the-tests-0123456789abcdef\r\nContent-Type: application/json";

struct Node {
    child: Child,
    server: String,
    api: String,
    name: String,
    _dir: tempfile::TempDir,
}

impl Node {
    /// Starts a node whose standard error is not read yet.
    fn start(level: &str, engine: &str) -> (Self, ChildStderr) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("operations.contract.toml"), CONTRACT).unwrap();
        std::fs::write(dir.path().join("roomcast.toml"), CONFIG).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_roomcast"))
            .current_dir(dir.path())
            .arg("serve")
            .env_clear()
            .envs([
                ("ROOMCAST_SERVER__LISTEN", "127.0.0.1:0"),
                ("ROOMCAST_API__LISTEN", "127.0.0.1:0"),
                ("ROOMCAST_LOG__LEVEL", level),
                ("ROOMCAST_SERVER__ENGINE", engine),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let of = |key: &str| said[key].as_str().unwrap().to_owned();
        let stderr = child.stderr.take().unwrap();
        (Self { server: of("server"), api: of("api"), name: of("node"), child, _dir: dir }, stderr)
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    async fn lost(&self) -> f64 {
        let (status, body) = http(&self.api, "GET /metrics", "").await;
        assert_eq!(status, 200);
        let line = body.lines().find(|line| line.starts_with("roomcast_log_lost_total")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Makes the node write this number of log records: one per request, at `debug`.
    async fn chatter(&self, requests: usize) {
        let mut stream = TcpStream::connect(&self.api).await.unwrap();
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
    async fn works(&self) {
        assert_eq!(http(&self.server, "GET /live", "").await.0, 200);
        assert_eq!(http(&self.api, "GET /metrics", "").await.0, 200);
        let (mut client, answer) = Client::connect(&self.server, "/", "").await;
        assert!(answer.starts_with("40"), "{answer}");
        client.send(r#"427["say",1]"#).await;
        let (one, other) = (client.text().await, client.text().await);
        assert!([&one, &other].iter().any(|packet| packet.starts_with("437")), "{one} {other}");
    }

    async fn ends(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the node has not ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    let (mut node, stderr) = Node::start("info,roomcast=debug", "native");
    let until = Instant::now() + PATIENCE;
    while node.lost().await == 0.0 {
        assert!(Instant::now() < until, "no record was lost: is the buffer unbounded?");
        node.chatter(1000).await;
    }
    node.works().await;
    let lost = node.lost().await;
    // The reader of the log continues, and a record reports how many records were lost.
    let says_lost = |record: &Value| record["lost"].as_u64().is_some();
    let (record, lines) = find(BufReader::new(stderr).lines(), says_lost).await;
    assert_eq!(record["level"], "WARN");
    assert!(record["lost"].as_f64().unwrap() >= lost, "{record} {lost}");
    // The reader stalls again, so the pipe is full, and the node still ends on SIGTERM.
    node.chatter(1000).await;
    node.works().await;
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
    let (mut node, stderr) = Node::start("info", "native");
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
    node.works().await;

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
    node.works().await;
    node.signal("-TERM");
    records.next("the node has left", |_| {});
    node.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_client_is_found_by_what_waits_for_it() {
    for engine in ["native", "socketioxide"] {
        let (node, _stderr) = Node::start("error", engine);
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
