//! All ways to reach Redis: passwords and users, TLS, Sentinel, Cluster. Each way is tested with commands and events.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fred::interfaces::KeysInterface;
use roomcast::cluster::PubSub;
use roomcast::config::{self, Secret, Url};
use roomcast::redis::{CauseKind, Redis, RedisError, SubscriptionKind};
use roomcast::telemetry::metrics::Metrics;

use crate::support::backend::key_file;
use crate::support::redis::{RedisServer, free_port};

/// Sends a command that may contain any bytes. Returns the bytes of the first read.
fn send(server: &RedisServer, words: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend([word, &b"\r\n"[..]].concat());
    }
    stream.write_all(&bytes).unwrap();
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

fn config(url: impl Into<String>) -> config::RedisSettings {
    config::RedisSettings { url: Some(Url::new(url)), ..config::RedisSettings::default() }
}

fn connect(config: &config::RedisSettings, node: &str) -> Redis {
    Redis::connect(config, node, Arc::new(Metrics::new())).unwrap()
}

async fn is_good(redis: &Redis, within: Duration) {
    let until = Instant::now() + within;
    while !redis.health().is_good() {
        assert!(Instant::now() < until, "{:?}", redis.health());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Checks that two nodes receive each other's messages and see the same keys.
async fn works(config: &config::RedisSettings) {
    let (a, b) = (connect(config, "a"), connect(config, "b"));
    is_good(&a, Duration::from_secs(10)).await;
    is_good(&b, Duration::from_secs(10)).await;
    for key in ["k", "l", "m"] {
        let _: () = a.client().set(key, "v", None, None, false).await.unwrap();
        assert_eq!(b.client().get::<String, _>(key).await.unwrap(), "v");
    }
    let start = |redis: &Redis, node| PubSub::start(redis.clone(), node, Arc::new(Metrics::new()), 1024);
    let (from, to) = (start(&a, "a"), start(&b, "b"));
    // These channels belong to different hash slots.
    for channel in ["roomcast:events:/", "roomcast:events:/a", "roomcast:events:/b"].map(Arc::from) {
        let mut incoming = to.subscribe(&channel, 16);
        let arrived = async {
            loop {
                from.publish(&channel, || b"x").unwrap().await.unwrap();
                if let Ok(message) = tokio::time::timeout(Duration::from_millis(50), incoming.recv()).await {
                    return message.unwrap();
                }
            }
        };
        let message = tokio::time::timeout(Duration::from_secs(10), arrived).await.expect("the event arrives");
        assert_eq!(&message.frame.body[..], b"x");
    }
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn by_password_user_and_database() {
    let acl = ["--user", "node", "on", ">secret", "~*", "&*", "+@all", "--requirepass", "other"];
    let server = RedisServer::with(&acl);
    server.says("AUTH node secret", "+OK").await;
    works(&config(format!("redis://node:secret@127.0.0.1:{}/3", server.port()))).await;
    // The settings for user, password and database override the URL.
    works(&config::RedisSettings {
        username: Some("node".into()),
        password: Some(Secret::new("secret")),
        database: Some(4),
        ..config(format!("redis://127.0.0.1:{}/3", server.port()))
    })
    .await;
    let keys = server.command("AUTH other\r\nINFO keyspace");
    assert!(keys.contains("db3:keys=") && keys.contains("db4:keys=") && !keys.contains("db0:"), "{keys}");
}

#[tokio::test]
async fn wrong_password_is_told_without_it_and_mended_by_the_server() {
    let server = RedisServer::with(&["--requirepass", "right"]);
    server.says("AUTH right", "+OK").await;
    let redis = connect(&config(format!("redis://:wrong-one@127.0.0.1:{}", server.port())), "a");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let health = redis.health();
    assert!(!redis.is_up() && !health.is_good());
    assert_eq!(health.cause.as_ref().map(|cause| cause.kind), Some(CauseKind::WrongPassword));
    assert!(!format!("{redis:?} {health:?}").contains("wrong-one"));
    server.command("AUTH right\r\nCONFIG SET requirepass wrong-one");
    is_good(&redis, Duration::from_secs(5)).await;
}

/// Characters of a password, and how a URL must contain them.
const PASSWORDS: [(&[u8], &str); 8] = [
    (b"with space", "with space"),
    (b"100%", "100%25"),
    (b"p@w#d", "p%40w%23d"),
    ("caf\u{e9} \u{1f511}".as_bytes(), "caf\u{e9}%20\u{1f511}"),
    (b"\"quoted\" 'twice' \\", "%22quoted%22 'twice' \\"),
    (b"a/b?c=d&e", "a%2Fb%3Fc=d&e"),
    (b"line\nend\ttab", "line%0Aend%09tab"),
    (b"\xff\x00\x80", "%ff%00%80"),
];

#[tokio::test]
async fn by_every_password_there_is() {
    let server = RedisServer::start();
    for (at, (password, in_url)) in PASSWORDS.into_iter().enumerate() {
        let (name, user) = (format!("us\u{e9}r@{at}"), format!("us%C3%A9r%40{at}"));
        let secret = [b">", password].concat();
        let words: [&[u8]; 8] = [b"ACL", b"SETUSER", name.as_bytes(), b"on", &secret, b"~*", b"&*", b"+@all"];
        assert_eq!(send(&server, &words), "+OK\r\n", "{in_url}");
        let mut ways = vec![config(format!("redis://{user}:{in_url}@127.0.0.1:{}", server.port()))];
        if let Ok(password) = std::str::from_utf8(password) {
            let (username, password) = (Some(name), Some(Secret::new(password)));
            ways.push(config::RedisSettings {
                username,
                password,
                ..config(format!("redis://127.0.0.1:{}", server.port()))
            });
        }
        for way in ways {
            let redis = connect(&way, "a");
            is_good(&redis, Duration::from_secs(10)).await;
            redis.close().await;
        }
    }
}

#[tokio::test]
async fn the_cause_of_a_failure_is_told() {
    let server = RedisServer::with(&["--requirepass", "hunter2"]);
    server.says("AUTH hunter2", "+OK").await;
    let sentinel = RedisServer::sentinel(server.port());
    // A host name with a label that is too long cannot be resolved, and no DNS server is asked about it.
    let nowhere = "x".repeat(70);
    let (port, free, sentinels) = (server.port(), free_port(), sentinel.port());
    let named = |service: &str| config::RedisSettings {
        sentinel: config::SentinelSettings { service: Some(service.into()), ..config::SentinelSettings::default() },
        ..config(format!("redis-sentinel://127.0.0.1:{sentinels}"))
    };
    for (config, kind) in [
        (config(format!("redis://:hunter3@127.0.0.1:{port}")), CauseKind::WrongPassword),
        (config(format!("redis://127.0.0.1:{port}")), CauseKind::WrongPassword),
        (config(format!("redis://:hunter2@{nowhere}:1")), CauseKind::UnknownHost),
        (config(format!("redis://127.0.0.1:{free}")), CauseKind::Refused),
        (config(format!("redis-cluster://:hunter2@127.0.0.1:{port}")), CauseKind::WrongServer),
        (config(format!("redis://127.0.0.1:{sentinels}")), CauseKind::WrongServer),
        (named("nobody"), CauseKind::Sentinel),
    ] {
        let metrics = Arc::new(Metrics::new());
        let redis = Redis::connect(&config, "a", metrics.clone()).unwrap();
        let told = || redis.health().cause.map(|cause| cause.kind);
        let shown = || metrics.redis_failure.with_label_values(&[kind.as_str()]).get() == 1;
        let until = Instant::now() + Duration::from_secs(10);
        while told() != Some(kind) || !shown() {
            assert!(Instant::now() < until, "{kind:?}: {:?} {config:?}", redis.health());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!format!("{:?} {}", redis.health(), metrics.encode().unwrap()).contains("hunter"));
        redis.close().await;
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_and_what_is_allowed_goes_on() {
    let server = RedisServer::start();
    let allow = |rights: &str| server.command(&format!("ACL SETUSER node reset on >pw {rights}"));
    assert!(allow("~roomcast:* &roomcast:* +@all").contains("+OK"));
    let redis = connect(&config(format!("redis://node:pw@127.0.0.1:{}", server.port())), "a");
    is_good(&redis, Duration::from_secs(10)).await;
    let cause = async |redis: &Redis, words: &[&str]| {
        let until = Instant::now() + Duration::from_secs(15);
        loop {
            let told = redis.health().cause.map(|cause| cause.to_string()).unwrap_or_default();
            if words.iter().all(|word| told.contains(word)) {
                return;
            }
            assert!(Instant::now() < until, "{words:?}: {told}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // If Redis refuses one of many channels, messages on the other channels arrive, and the node keeps its connection.
    let heard = Arc::new(AtomicU64::new(0));
    for n in 0..40 {
        let name = if n == 17 { "other:channel".to_owned() } else { format!("roomcast:channel:{n}") };
        let counter = heard.clone();
        let sink = move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        };
        redis.subscriber().follow(SubscriptionKind::Plain, name.into(), Arc::new(sink));
    }
    cause(&redis, &["SUBSCRIBE other:channel", "NOPERM"]).await;
    let until = Instant::now() + Duration::from_secs(10);
    while heard.swap(0, Ordering::SeqCst) < 39 {
        assert!(Instant::now() < until, "the others are heard");
        for n in 0..40 {
            server.command(&format!("PUBLISH roomcast:channel:{n} x"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(redis.health().hears() && !redis.health().is_good());
    // The node subscribes to the refused channel as soon as the Redis user has the right.
    assert!(allow("~roomcast:* &roomcast:* &other:* +@all").contains("+OK"));
    is_good(&redis, Duration::from_secs(20)).await;
    // The health names the cause if Redis refuses a command or a key.
    assert!(allow("~roomcast:* &roomcast:* &other:* +@all -set").contains("+OK"));
    cause(&redis, &["SET roomcast:probe:a", "NOPERM"]).await;
    assert!(redis.health().hears());
    assert!(allow("~else:* &roomcast:* &other:* +@all").contains("+OK"));
    cause(&redis, &["roomcast:probe:a", "key"]).await;
    assert!(allow("~roomcast:* &roomcast:* &other:* +@all").contains("+OK"));
    is_good(&redis, Duration::from_secs(30)).await;
}

#[tokio::test]
async fn by_tls_with_a_certificate_of_our_own() {
    let port = free_port().to_string();
    let file = |name| key_file(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (file("server.pem"), file("server-key.pem"), file("ca.pem"));
    let args = ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let _server = RedisServer::with(&args);
    let tls = |cert: Option<&str>, key: Option<&str>| config::RedisTlsSettings {
        ca_file: Some(key_file("ca.pem")),
        cert_file: cert.map(key_file),
        key_file: key.map(key_file),
    };
    let url = format!("rediss://127.0.0.1:{port}");
    works(&config::RedisSettings { tls: tls(Some("client.pem"), Some("client-key.pem")), ..config(&url) }).await;
    // The server requires a certificate, so a node without one cannot connect.
    let stranger = connect(&config::RedisSettings { tls: tls(None, None), ..config(&url) }, "stranger");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!stranger.is_up());
    // The node does not connect to a server whose authority it does not trust.
    let untrusted = connect(&config(&url), "untrusted");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!untrusted.is_up());
    let until = Instant::now() + Duration::from_secs(10);
    while untrusted.health().cause.map(|cause| cause.kind) != Some(CauseKind::Tls) {
        assert!(Instant::now() < until, "{:?}", untrusted.health());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn by_sentinel_and_after_its_failover() {
    let primary = RedisServer::start();
    let replica = RedisServer::with(&["--replicaof", &format!("127.0.0.1 {}", primary.port())]);
    replica.says("INFO replication", "master_link_status:up").await;
    let sentinel = RedisServer::sentinel(primary.port());
    sentinel.says("SENTINEL replicas main", &replica.port().to_string()).await;
    let url = format!("redis-sentinel://127.0.0.1:{}", sentinel.port());
    let config = config::RedisSettings {
        sentinel: config::SentinelSettings { service: Some("main".into()), ..config::SentinelSettings::default() },
        ..config(url)
    };
    works(&config).await;
    let redis = connect(&config, "a");
    is_good(&redis, Duration::from_secs(5)).await;
    drop(primary);
    replica.says("INFO replication", "role:master").await;
    let until = Instant::now() + Duration::from_secs(10);
    while !redis.health().is_good() || redis.client().set::<(), _, _>("n", "v", None, None, false).await.is_err() {
        assert!(Instant::now() < until, "{:?}", redis.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    works(&config).await;
}

#[tokio::test]
async fn by_cluster_and_after_every_connection_was_broken() {
    let mut nodes: Vec<_> = (0..3).map(|_| RedisServer::cluster_node()).collect();
    for (at, node) in nodes.iter().enumerate() {
        let slots = ["0 5460", "5461 10922", "10923 16383"][at];
        node.says(&format!("CLUSTER ADDSLOTSRANGE {slots}"), "+OK").await;
    }
    for node in &nodes[1..] {
        let (port, bus) = (nodes[0].port(), nodes[0].bus());
        node.says(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"), "+OK").await;
    }
    for node in &nodes {
        node.says("CLUSTER INFO", "cluster_state:ok").await;
        node.says("CLUSTER INFO", "cluster_known_nodes:3").await;
    }
    let config = config(format!("redis-cluster://127.0.0.1:{}", nodes[0].port()));
    works(&config).await;
    // Every connection is broken once, and each subscription must be restored.
    let metrics = Arc::new(Metrics::new());
    let redis = Redis::connect(&config, "a", metrics).unwrap();
    let other = connect(&config, "b");
    is_good(&redis, Duration::from_secs(5)).await;
    is_good(&other, Duration::from_secs(5)).await;
    let start = |redis: &Redis, node| PubSub::start(redis.clone(), node, Arc::new(Metrics::new()), 1024);
    let (from, to) = (start(&other, "b"), start(&redis, "a"));
    let channels: Vec<Arc<str>> = (0..6).map(|n| format!("roomcast:events:/{n}").into()).collect();
    let counts: Vec<_> = channels.iter().map(|channel| count(&to, channel)).collect();
    all_arrive(&from, &channels, &counts).await;
    for node in &nodes {
        node.command("CLIENT KILL TYPE pubsub");
        node.command("CLIENT KILL TYPE normal");
    }
    all_arrive(&from, &channels, &counts).await;
    nodes.clear();
}

fn count(pubsub: &PubSub, channel: &Arc<str>) -> Arc<AtomicU64> {
    let mut incoming = pubsub.subscribe(channel, 4096);
    let counted = Arc::new(AtomicU64::new(0));
    let counter = counted.clone();
    tokio::spawn(async move {
        while incoming.recv().await.is_some() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    counted
}

/// Publishes on every channel until something has arrived on each.
async fn all_arrive(from: &PubSub, channels: &[Arc<str>], counts: &[Arc<AtomicU64>]) {
    let before: Vec<_> = counts.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    let until = Instant::now() + Duration::from_secs(5);
    while counts.iter().zip(&before).any(|(count, before)| count.load(Ordering::SeqCst) == *before) {
        assert!(Instant::now() < until, "some channels stay silent");
        for channel in channels {
            let _ = from.publish(channel, || b"x");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn configuration_that_cannot_work_is_an_error_at_once() {
    let refuse = |config: &config::RedisSettings| {
        Redis::connect(config, "a", Arc::default()).err().map(|error| error.to_string())
    };
    assert_eq!(refuse(&config::RedisSettings::default()), Some(RedisError::NoUrl.to_string()));
    assert!(refuse(&config("nonsense")).is_some());
    let half =
        config::RedisTlsSettings { cert_file: Some(key_file("client.pem")), ..config::RedisTlsSettings::default() };
    let missing =
        config::RedisTlsSettings { ca_file: Some("/nowhere.pem".into()), ..config::RedisTlsSettings::default() };
    for tls in [half, missing] {
        assert!(refuse(&config::RedisSettings { tls, ..config("rediss://127.0.0.1:1") }).is_some());
    }
}
