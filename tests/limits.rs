//! Limits of a real node: connections that have ended do not count, and each limit is tested at its value and at one
//! more.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::client::{Client, Frame, http};
use crate::support::process::{Process, roomcast};

const CONTRACT: &str = r#"
name = "limits"
namespace = "/"
summary = "What limits are tried on"

[auth]
mode = "optional"

[rooms.any]
name = "r:{room}"

[client.join]
payload = { shorthand = "room" }
join = "any"

[client.leave]
payload = { shorthand = "room" }
leave = "any"

[client.say]
reply = "said"
ack = "*"

[client.seldom]
reply = "said"
limit = "2/1m"
"#;

const CONFIG: &str = r#"
[server]
trusted_proxies = ["127.0.0.1"]
cors_origins = ["https://app.example"]
ping_interval = "3s"
ping_timeout = "3s"
connect_timeout = "3s"
max_payload = "100kB"
[contracts]
files = ["test.contract.toml"]
[[api.keys]]
name = "tests"
secret = "an-api-key-of-the-tests-0123456789abcdef"
[[auth.keys]]
algorithm = "HS256"
secret = "a signing key of the tests that is long enough"
[log]
level = "error"
[limits]
strikes = 5
max_connections_per_ip = 20
max_sockets_per_user = 5
max_event_name = 20
max_depth = 6
max_attachments = 3
max_attachment = "1kB"
max_rooms_per_socket = 4
max_room_name = 12
"#;

fn start(engine: &str) -> Process {
    Process::start(CONFIG, CONTRACT, &[("ROOMCAST_SERVER__ENGINE", engine)])
}

/// A token of this user.
fn token(node: &Process, user: &str) -> String {
    let output = roomcast(node.dir.path(), &["token", "--sub", user], &[]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn becomes(node: &Process, what: &str, name: &str, labels: &str, wanted: f64) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let now = node.metric(name, labels).await;
        if now == wanted {
            return;
        }
        assert!(Instant::now() < until, "{what}: {now} instead of {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The end of a request line and headers that name a client address as a proxy does.
fn from(ip: &str, more: &str) -> String {
    format!(" HTTP/1.1\r\nX-Forwarded-For: {ip}\r\n{more}X-Rest:")
}

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

struct Storm {
    server: String,
    api: String,
    token: String,
    refused: AtomicUsize,
    opened: AtomicUsize,
    waiting: tokio::sync::Mutex<JoinSet<()>>,
}

impl Storm {
    async fn websocket(&self, ip: &str) -> Client {
        let mut client = Client::upgrade(&self.server, &from(ip, "")).await;
        let Frame::Text(open) = client.frame().await else { panic!("no open packet") };
        assert!(open.starts_with('0'), "{open}");
        self.opened.fetch_add(1, Ordering::Relaxed);
        client
    }

    async fn polling(&self, ip: &str) -> String {
        let (status, open) = http(&self.server, &format!("GET {POLLING}{}", from(ip, "")), "").await;
        assert_eq!(status, 200, "{open}");
        self.opened.fetch_add(1, Ordering::Relaxed);
        let sid = open.split_once(r#""sid":""#).unwrap().1.split('"').next().unwrap();
        format!("{POLLING}&sid={sid}{}", from(ip, ""))
    }

    async fn refuse(&self, query: &str, ip: &str, more: &str, wanted: u16) {
        let head = format!("GET /socket.io/?{query}{}", from(ip, more));
        let (status, body) = http(&self.server, &head, "").await;
        assert_eq!(status, wanted, "{body}");
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Opens one connection and brings it to one of 13 different ends.
    async fn one(self: Arc<Self>, at: usize) {
        // At most a few connections of an address exist at a time.
        let ip = format!("10.{}.{}.{}", at % 13, at >> 8, at & 255);
        match at % 13 {
            0 => self.refuse("EIO=4&transport=polling", &ip, "Origin: https://evil.example\r\n", 403).await,
            // The address 192.0.2.1 already has its maximum number of connections.
            1 => self.refuse("EIO=4&transport=polling", "192.0.2.1", "", 429).await,
            2 => self.refuse("EIO=3&transport=polling", &ip, "", 400).await,
            3 => drop(self.websocket(&ip).await),
            4 => {
                let mut client = self.websocket(&ip).await;
                // The node refuses some of these clients because the user has the maximum number of sockets.
                let told = client.join("/", &format!(r#"{{"token":"{}"}}"#, self.token)).await;
                assert!(told.starts_with("40{") || told.contains("TOO_MANY_CONNECTIONS"), "{told}");
                client.send("1").await;
                client.until_closed().await;
            }
            5 => {
                let mut client = self.websocket(&ip).await;
                client.send("9 is no packet").await;
                client.until_closed().await;
            }
            // This client never connects to a namespace.
            6 => {
                let mut client = self.websocket(&ip).await;
                self.waiting.lock().await.spawn(async move {
                    client.until_closed().await;
                });
            }
            // This client never polls.
            7 => drop(self.polling(&ip).await),
            8 => {
                let own = self.polling(&ip).await;
                assert_eq!(http(&self.server, &format!("POST {own}"), "40").await.1, "ok");
                // This client's poll waits when the client drops its connection.
                let mut stream = TcpStream::connect(&self.server).await.unwrap();
                stream.write_all(format!("GET {own} 1\r\n\r\n").as_bytes()).await.unwrap();
            }
            9 => {
                let own = self.polling(&ip).await;
                assert_eq!(http(&self.server, &format!("POST {own}"), "40").await.1, "ok");
                assert_eq!(http(&self.server, &format!("POST {own}"), "1").await.1, "ok");
            }
            // This client upgrades, and then loses its connection.
            10 => {
                let own = self.polling(&ip).await;
                let query = own.split_once("polling").unwrap().1.to_owned();
                let mut client = Client::upgrade(&self.server, &query).await;
                client.send("2probe").await;
                assert_eq!(client.frame().await, Frame::Text("3probe".into()));
                client.send("5").await;
                assert!(client.join("/", "").await.starts_with("40{"));
            }
            // An operator disconnects this client.
            11 => {
                let mut client = self.websocket(&ip).await;
                let connected = client.join("/", "").await;
                let id = connected.split('"').nth(3).unwrap();
                let body = format!(r#"{{"namespace":"/","sockets":["{id}"],"close":true}}"#);
                let key = "Authorization: Bearer an-api-key-of-the-tests-0123456789abcdef\r\nContent-Type: application/json\r\n";
                let head = format!("POST /api/v1/disconnect HTTP/1.1\r\n{key}X-Rest:");
                let (status, body) = http(&self.api, &head, &body).await;
                assert_eq!(status, 202, "{body}");
                client.until_closed().await;
            }
            // This client sends nothing, or a part of a request.
            _ => {
                let mut stream = TcpStream::connect(&self.server).await.unwrap();
                stream
                    .write_all(&b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHo"[..at % 50])
                    .await
                    .unwrap();
            }
        }
    }
}

async fn storm(engine: &str) {
    const MANY: usize = 10_000;
    const AT_ONCE: usize = 32;
    let node = start(engine);
    let storm = Arc::new(Storm {
        server: node.server.clone(),
        api: node.api.clone(),
        token: token(&node, "ann"),
        refused: AtomicUsize::default(),
        opened: AtomicUsize::default(),
        waiting: tokio::sync::Mutex::default(),
    });
    // One address keeps its maximum number of connections during the whole storm. The clients of these connections
    // answer pings.
    let mut held = JoinSet::new();
    for _ in 0..20 {
        let mut client = storm.websocket("192.0.2.1").await;
        assert!(client.join("/", "").await.starts_with("40{"));
        held.spawn(async move {
            client.send(r#"421["say"]"#).await;
            loop {
                client.text().await;
            }
        });
    }
    let mut running = JoinSet::new();
    for at in 0..MANY {
        if running.len() >= AT_ONCE {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(storm.clone().one(at));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    let mut waiting = std::mem::take(&mut *storm.waiting.lock().await);
    while let Some(done) = waiting.join_next().await {
        done.unwrap();
    }
    becomes(&node, "those who are held are counted", "roomcast_connections{", "", 20.0).await;
    becomes(&node, "and only they", "roomcast_limits_present", "what=\"addresses\"", 1.0).await;
    held.shutdown().await;
    becomes(&node, "nobody is connected", "roomcast_connections{", "", 0.0).await;
    becomes(&node, "no address is counted", "roomcast_limits_present", "what=\"addresses\"", 0.0).await;
    becomes(&node, "no user is counted", "roomcast_limits_present", "what=\"users\"", 0.0).await;
    becomes(&node, "nothing is left without a session", "roomcast_limits_present", "what=\"pending\"", 0.0).await;
    let opened = node.metric("roomcast_connections_opened_total", "").await;
    let closed = node.metric("roomcast_connections_closed_total", "").await;
    assert_eq!(opened, closed);
    assert!(storm.refused.load(Ordering::Relaxed) >= 2_300 && storm.opened.load(Ordering::Relaxed) >= 6_900);
    // After all these connections have ended, the limits permit as many clients as at the start.
    let mut fresh = Vec::new();
    for _ in 0..20 {
        fresh.push(storm.websocket("192.0.2.1").await);
    }
    storm.refuse("EIO=4&transport=websocket", "192.0.2.1", "", 429).await;
    let auth = format!(r#"{{"token":"{}"}}"#, storm.token);
    for client in &mut fresh[..5] {
        assert!(client.join("/", &auth).await.starts_with("40{"));
    }
    let told = fresh[5].join("/", &auth).await;
    assert!(told.starts_with(r#"44{"message":"TOO_MANY_CONNECTIONS: this user has 5 connections"#), "{told}");
    println!(
        "{engine}: {} opened, {} refused",
        storm.opened.load(Ordering::Relaxed),
        storm.refused.load(Ordering::Relaxed)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_counted_after_ten_thousand_connections_of_every_fate() {
    let started = Instant::now();
    for engine in ["native", "socketioxide"] {
        storm(engine).await;
        let _ = writeln!(std::io::stderr(), "{engine}: {:.1} s", started.elapsed().as_secs_f64());
    }
}

/// Emits an event, and returns the acknowledgement.
async fn ask(client: &mut Client, id: u32, event: &str, attachments: &[usize]) -> String {
    let (kind, count) =
        if attachments.is_empty() { ('2', String::new()) } else { ('5', format!("{}-", attachments.len())) };
    client.send(&format!("4{kind}{count}{id}{event}")).await;
    for length in attachments {
        client.send_binary(&vec![7; *length]).await;
    }
    loop {
        match client.frame().await {
            Frame::Text(text) if text == "2" => client.send("3").await,
            Frame::Text(text) if text.starts_with("43") || text.starts_with("46") => return text,
            Frame::Closed => panic!("closed instead of ack {id} to {event:.80}"),
            _ => {}
        }
    }
}

fn refused(ack: &str) -> bool {
    ack.contains(r#""code":"TOO_LARGE""#)
}

async fn bounds(engine: &str) {
    let node = start(engine);
    let (mut client, _) = Client::connect(&node.server, "/", "").await;
    let client = &mut client;
    // An event name of 20 bytes (which no contract declares) is within the limit, and one of 21 bytes is not.
    let named = |length: usize| format!(r#"["{}"]"#, "n".repeat(length));
    assert!(ask(client, 1, &named(20), &[]).await.contains("UNKNOWN_EVENT"));
    assert!(refused(&ask(client, 2, &named(21), &[]).await));
    // JSON with 6 levels of nesting, the event's own array included, is within the limit; 7 levels are not.
    let deep = |levels: usize| format!(r#"["say",{}{}]"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert_eq!(ask(client, 3, &deep(6), &[]).await, "433[[[[[[]]]]]]");
    assert!(refused(&ask(client, 4, &deep(7), &[]).await));
    // The node also answers an event that is nested more deeply than any parser accepts.
    assert!(refused(&ask(client, 5, &deep(5000), &[]).await));
    let with = |count: usize| {
        let of = |num: usize| format!(r#",{{"_placeholder":true,"num":{num}}}"#);
        format!(r#"["say"{}]"#, (0..count).map(of).collect::<String>())
    };
    assert!(ask(client, 6, &with(3), &[1, 1, 1]).await.starts_with("463-6["));
    assert!(refused(&ask(client, 7, &with(4), &[1, 1, 1, 1]).await));
    assert!(ask(client, 8, &with(1), &[1000]).await.starts_with("461-8["));
    assert!(refused(&ask(client, 9, &with(1), &[1001]).await));
    // A room name of 12 bytes, `r:` included, is within the limit, and one of 13 bytes is not.
    let join = |room: &str| format!(r#"["join","{room}"]"#);
    assert!(ask(client, 10, &join(&"x".repeat(10)), &[]).await.contains("true"));
    assert!(ask(client, 11, &join(&"x".repeat(11)), &[]).await.contains("INVALID_ROOM"));
    assert!(ask(client, 12, &join("a b"), &[]).await.contains("INVALID_ROOM"), "no letter, digit or one of _-.@+=~");
    for (id, room) in (13..).zip(["b", "c", "d"]) {
        assert!(ask(client, id, &join(room), &[]).await.contains("true"));
    }
    assert!(refused(&ask(client, 16, &join("e"), &[]).await), "four rooms");
    assert!(ask(client, 17, &join("d"), &[]).await.contains("true"), "it is in it already");
    assert!(ask(client, 18, r#"["leave","d"]"#, &[]).await.contains("true"));
    assert!(ask(client, 19, &join("e"), &[]).await.contains("true"));
    // A client that exceeds the rate limit of an event learns how long to wait, before the node parses the arguments.
    // If the client goes on, it is disconnected.
    for id in [20, 21] {
        assert!(!ask(client, id, r#"["seldom"]"#, &[]).await.contains("error"));
    }
    for id in 22..26 {
        // socketioxide parses a packet before the node can count the event.
        let event = if engine == "native" { r#"["seldom",{this is no JSON]"# } else { r#"["seldom",{}]"# };
        let ack = ask(client, id, event, &[]).await;
        assert!(ack.contains(r#""code":"RATE_LIMIT_EXCEEDED""#) && ack.contains(r#""retryAfterMs":"#), "{ack}");
    }
    client.send(r#"42["seldom"]"#).await;
    client.until_closed().await;
    becomes(&node, "it is gone", "roomcast_connections{", "", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bound_is_told_at_one_above() {
    for engine in ["native", "socketioxide"] {
        println!("{engine}");
        bounds(engine).await;
    }
}
