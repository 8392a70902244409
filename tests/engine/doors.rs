//! Which requests the engine refuses before a session exists, and who may use a session.

use std::net::IpAddr;
use std::time::Duration;

use roomcast::config::{self, EngineKind, ForwardedHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::suite::Node;
use crate::support::client::{Client, http};
use crate::support::redis::eventually;

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

/// A request line with these headers, to which the helper `http` adds its own headers.
fn with(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{headers}X-Rest: 1\r\nX-Last:")
}

fn upgrade(path: &str, headers: &str) -> String {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    with(path, &format!("{upgrade}{headers}"))
}

/// Returns the bytes that arrive until the connection ends or nothing more arrives.
async fn answer(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read)) = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut buffer)).await {
        got.extend_from_slice(&buffer[..read]);
        if read == 0 || got.starts_with(b"HTTP/1.1 101") {
            break;
        }
    }
    String::from_utf8_lossy(&got).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn sid_of(open: &str) -> &str {
    open.split_once(r#""sid":""#).unwrap().1.split('"').next().unwrap()
}

/// Polls until a packet with this prefix arrives.
async fn poll_for(node: &Node, path: &str, wanted: &str) -> String {
    loop {
        let (status, body) = http(&node.address, &format!("GET {path}"), "").await;
        assert_eq!(status, 200, "{body}");
        let found = body.split('\x1e').map(|packet| packet.split_once("\r\n").map_or(packet, |(_, rest)| rest));
        if let Some(packet) = found.into_iter().find(|packet| packet.starts_with(wanted)) {
            return packet.to_owned();
        }
    }
}

fn behind_proxy(limits: config::LimitsSettings) -> (config::ServerSettings, config::LimitsSettings) {
    let trusted = vec!["127.0.0.1".parse().unwrap()];
    (config::ServerSettings { trusted_proxies: trusted, ..config::ServerSettings::default() }, limits)
}

fn one_each() -> config::LimitsSettings {
    config::LimitsSettings { max_connections_per_ip: 1, ..config::LimitsSettings::default() }
}

async fn address_has_as_many_connections_as_it_may_and_not_one_more(engine: EngineKind) {
    let limits = config::LimitsSettings { max_connections_per_ip: 2, ..config::LimitsSettings::default() };
    let node = Node::limited(engine, config::ServerSettings::default(), limits, None).await;
    let first = node.client().await;
    assert_eq!(http(&node.address, &format!("GET {POLLING}"), "").await.0, 200);
    for request in [with(POLLING, ""), upgrade(WEBSOCKET, "")] {
        let (status, body) = http(&node.address, &request, "").await;
        assert_eq!(status, 429, "{body}");
        assert!(body.contains(r#"{"error":{"code":"TOO_MANY_CONNECTIONS","message":"this address has 2"#), "{body}");
        assert!(body.contains(r#""retryAfterMs":5000"#), "{body}");
    }
    assert_eq!(node.metrics.handshakes_refused_total.with_label_values(&["ip_connections"]).get(), 2);
    drop(first);
    eventually("a place is free", Duration::from_secs(2), || node.engine.hub().open() == 1).await;
    drop(node.client().await);
    eventually("it is given back", Duration::from_secs(2), || node.engine.hub().open() == 1).await;
    assert_eq!(node.limits.present(), (1, 0));
}

async fn address_that_comes_too_often_is_told_how_long_to_wait(engine: EngineKind) {
    let rate = Some("2/1m".parse().unwrap());
    let limits = config::LimitsSettings { connections_per_ip: rate, ..config::LimitsSettings::default() };
    let node = Node::limited(engine, config::ServerSettings::default(), limits, None).await;
    drop((node.client().await, node.client().await));
    let request = format!("GET {WEBSOCKET} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let text = answer(&node.address, request.as_bytes()).await;
    assert_eq!(status(&text), 429, "{text}");
    assert!(text.contains("\r\nretry-after: 30\r\n") && text.contains(r#""code":"RATE_LIMIT_EXCEEDED""#), "{text}");
    assert_eq!(http(&node.address, &upgrade(WEBSOCKET, ""), "").await.0, 429);
    assert_eq!(node.metrics.rate_limited_total.with_label_values(&["ip"]).get(), 2);
    // A request for an unknown path does not count as a client's connection attempt.
    assert_eq!(http(&node.address, "GET /nowhere", "").await.0, 404);
}

async fn id_of_another_client_is_useless(engine: EngineKind) {
    let (server, limits) = behind_proxy(config::LimitsSettings::default());
    let node = Node::limited(engine, server, limits, None).await;
    let (_, open) = http(&node.address, &format!("GET {POLLING}"), "").await;
    let secret = sid_of(&open).to_owned();
    let own = format!("{POLLING}&sid={secret}");
    assert_eq!(http(&node.address, &format!("POST {own}"), "40").await.1, "ok");
    let connected = poll_for(&node, &own, "40").await;
    let public = sid_of(&connected).to_owned();
    assert_ne!(public, secret, "what others may see is not the secret");

    let other = node.client().await;
    for id in [&public, &other.sid] {
        let (polling, websocket) = (format!("{POLLING}&sid={id}"), format!("{WEBSOCKET}&sid={id}"));
        assert_eq!(http(&node.address, &format!("POST {polling}"), r#"42["stolen"]"#).await.0, 400);
        assert_eq!(http(&node.address, &format!("GET {polling}"), "").await.0, 400);
        assert_eq!(http(&node.address, &upgrade(&websocket, ""), "").await.0, 400);
    }
    // An attacker who knows the session id, for example from a log, has another address and is refused.
    let strange = "X-Forwarded-For: 192.0.2.66\r\n";
    assert_eq!(http(&node.address, &with(&own, strange), "").await.0, 400);
    let websocket = format!("{WEBSOCKET}&sid={secret}");
    assert_eq!(http(&node.address, &upgrade(&websocket, strange), "").await.0, 400);
    // A web page of another origin that knows the session id is refused, too.
    assert_eq!(http(&node.address, &upgrade(&websocket, "Origin: https://evil.example\r\n"), "").await.0, 400);
    // A request with two session ids is refused, so that the order of the two cannot decide which session is used.
    assert_eq!(http(&node.address, &format!("GET {own}&sid={public}"), "").await.0, 400);

    // Both sessions are still usable, and none of the refused events was handled.
    assert_eq!(http(&node.address, &format!("POST {own}"), r#"421["mine"]"#).await.1, "ok");
    poll_for(&node, &own, "431[").await;
    assert_eq!(*node.gate.seen.lock().unwrap(), [r#"["mine"]"#]);
    drop(other);
    assert!(node.metrics.handshakes_refused_total.with_label_values(&["unknown_session"]).get() >= 9);
}

async fn session_that_may_move_with_its_client_does(engine: EngineKind) {
    let (mut server, limits) = behind_proxy(config::LimitsSettings::default());
    server.bind_sessions_to_ip = false;
    let node = Node::limited(engine, server, limits, None).await;
    let (_, open) = http(&node.address, &with(POLLING, "X-Forwarded-For: 192.0.2.1\r\n"), "").await;
    let own = format!("{POLLING}&sid={}", sid_of(&open));
    assert_eq!(http(&node.address, &format!("POST {own}"), "40").await.1, "ok");
}

async fn pages_of_other_origins_open_no_websocket(engine: EngineKind) {
    let server = config::ServerSettings {
        cors_origins: vec!["https://app.example".into()],
        ..config::ServerSettings::default()
    };
    let node = Node::start(engine, server, None).await;
    let ask = |origin: &str| {
        let request = format!(
            "GET {WEBSOCKET} HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: {origin}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let address = node.address.clone();
        async move { status(&answer(&address, request.as_bytes()).await) }
    };
    assert_eq!(ask("https://evil.example").await, 403);
    assert_eq!(ask("null").await, 403);
    assert_eq!(ask("https://app.example").await, 101);
    assert_eq!(ask("http://here").await, 101);
    assert_eq!(node.metrics.handshakes_refused_total.with_label_values(&["origin"]).get(), 2);
}

async fn what_is_no_handshake_of_ours_is_counted(engine: EngineKind) {
    let node = Node::start(engine, config::ServerSettings::default(), None).await;
    for query in
        ["EIO=3&transport=polling", "EIO=4&transport=pigeon", "EIO=4&EIO=4&transport=polling", "transport=polling"]
    {
        assert_eq!(http(&node.address, &format!("GET /socket.io/?{query}"), "").await.0, 400, "{query}");
    }
    assert_eq!(http(&node.address, &format!("GET {POLLING}"), "").await.0, 200);
    assert_eq!(node.metrics.handshakes_refused_total.with_label_values(&["malformed"]).get(), 4);
}

async fn proxies_are_believed_in_the_header_that_they_set_and_in_no_other(engine: EngineKind) {
    for (header, name, other) in [
        (ForwardedHeader::XForwardedFor, "X-Forwarded-For: ", "Forwarded: for="),
        (ForwardedHeader::Forwarded, "Forwarded: for=", "X-Forwarded-For: "),
    ] {
        let (mut server, limits) = behind_proxy(one_each());
        server.forwarded_header = header;
        let node = Node::limited(engine, server, limits, None).await;
        // Each address may have one connection, so a client whose address is taken for another client's is refused.
        for (ip, wanted) in [("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.1", 429)] {
            let spoof = format!("{other}198.51.100.{}\r\n", ip.len());
            assert_eq!(http(&node.address, &with(POLLING, &format!("{name}{ip}\r\n{spoof}")), "").await.0, wanted);
            let spoofed = format!("{name}203.0.113.9, {}{ip}\r\n", name.split_once(": ").unwrap().1);
            assert_eq!(http(&node.address, &upgrade(WEBSOCKET, &spoofed), "").await.0, 429, "{header:?} {ip}");
        }
    }
    // In this part the node trusts no proxy.
    let node = Node::limited(engine, config::ServerSettings::default(), one_each(), None).await;
    let claim = |ip: &str| with(POLLING, &format!("X-Forwarded-For: {ip}\r\nForwarded: for={ip}\r\n"));
    assert_eq!(http(&node.address, &claim("192.0.2.1"), "").await.0, 200);
    assert_eq!(http(&node.address, &claim("192.0.2.2"), "").await.0, 429);
}

async fn balancers_announce_their_clients(engine: EngineKind) {
    let (mut server, limits) = behind_proxy(one_each());
    server.proxy_protocol = true;
    // socketioxide forgets a client that was lost before the open packet only after this time.
    server.connect_timeout = config::Period::from_secs(1);
    let node = Node::limited(engine, server, limits, None).await;
    let handshake = upgrade(WEBSOCKET, "X-Forwarded-For: 203.0.113.1\r\nHost: x\r\n") + "1\r\n\r\n";
    let v1 = |ip: &str| format!("PROXY TCP4 {ip} 127.0.0.1 1000 3000\r\n{handshake}").into_bytes();
    let v2 = |ip: &str| {
        let IpAddr::V4(ip) = ip.parse().unwrap() else { panic!() };
        let head =
            [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &ip.octets(), &[127, 0, 0, 1, 3, 232, 11, 184]].concat();
        [&head[..], handshake.as_bytes()].concat()
    };
    let mut open = Vec::new();
    for (bytes, wanted) in [
        (v1("192.0.2.1"), 101),
        (v2("192.0.2.2"), 101),
        (v2("192.0.2.1"), 429),
        (v1("192.0.2.2"), 429),
        // Without a header, or with a wrong one, the connection is not served.
        (handshake.clone().into_bytes(), 0),
        (b"PROXY TCP4 192.0.2.3\r\n".to_vec(), 0),
    ] {
        let mut stream = TcpStream::connect(&node.address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut got = [0; 12];
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut got)).await.unwrap();
        let got = if read.is_ok() { String::from_utf8_lossy(&got).into_owned() } else { String::new() };
        assert_eq!(status(&format!("{got} ")), wanted, "{got}");
        open.push(stream);
    }
    drop(open);
    eventually("everybody is gone", Duration::from_secs(5), || node.engine.hub().open() == 0).await;
    assert_eq!(node.limits.present(), (0, 0));
}

async fn proxy_header_of_a_stranger_is_no_request(engine: EngineKind) {
    let trusted = vec!["192.0.2.9".parse().unwrap()];
    let server =
        config::ServerSettings { trusted_proxies: trusted, proxy_protocol: true, ..config::ServerSettings::default() };
    let node = Node::start(engine, server, None).await;
    let text =
        answer(&node.address, b"PROXY TCP4 192.0.2.1 127.0.0.1 1000 3000\r\nGET /socket.io/ HTTP/1.1\r\n\r\n").await;
    assert!(text.is_empty() || status(&text) == 400, "{text}");
    let client = node.client().await;
    drop(client);
}

async fn payload_is_taken_up_to_its_bound_and_not_one_byte_more(engine: EngineKind) {
    const MOST: usize = 2_000;
    let server = config::ServerSettings {
        max_payload: config::Size::from_bytes(MOST as u64),
        ..config::ServerSettings::default()
    };
    let node = Node::start(engine, server, None).await;
    let event = |bytes: usize| format!(r#"42["big","{}"]"#, "x".repeat(bytes - 12));
    assert_eq!(event(MOST).len(), MOST);
    let seen = |wanted: usize| {
        let seen = &node.gate.seen;
        move || seen.lock().unwrap().len() == wanted
    };
    // A WebSocket message of one frame, and of two.
    let mut client = node.client().await;
    client.send(&event(MOST)).await;
    let (first, second) = (event(MOST)[..1000].to_owned(), event(MOST)[1000..].to_owned());
    client.write(0x01, first.as_bytes()).await;
    client.write(0x80, second.as_bytes()).await;
    eventually("both are taken", Duration::from_secs(2), seen(2)).await;
    client.send(&event(MOST + 1)).await;
    client.until_closed().await;
    let mut client = node.client().await;
    client.write(0x01, first.as_bytes()).await;
    client.write(0x80, format!("{second}x").as_bytes()).await;
    client.until_closed().await;
    assert!(seen(2)());
    // The body of a POST with an event of the maximum size, and of one byte more.
    let (_, open) = http(&node.address, &format!("GET {POLLING}"), "").await;
    let own = format!("{POLLING}&sid={}", sid_of(&open));
    assert_eq!(http(&node.address, &format!("POST {own}"), "40").await.1, "ok");
    poll_for(&node, &own, "40").await;
    assert_eq!(http(&node.address, &format!("POST {own}"), &event(MOST)).await.1, "ok");
    eventually("it is taken", Duration::from_secs(2), seen(3)).await;
    assert_eq!(http(&node.address, &format!("POST {own}"), &event(MOST + 1)).await.0, 413);
    // The limit applies to all attachments of a packet together.
    let mut client = node.client().await;
    client.send(r#"451-["bin",{"_placeholder":true,"num":0}]"#).await;
    client.send_binary(&[7; MOST - 60]).await;
    eventually("it is taken", Duration::from_secs(2), seen(4)).await;
    client.send(r#"452-["bin",{"_placeholder":true,"num":0}]"#).await;
    client.send_binary(&[7; MOST / 2]).await;
    client.send_binary(&[7; MOST / 2 + 1]).await;
    client.until_closed().await;
    assert!(seen(4)());
    let _ = Client::open(&node.address).await;
}

/// The gate of these tests permits everything, so only the engine's own limits refuse these events.
async fn namespace_and_ack_numbers_are_bounded(engine: EngineKind) {
    let node = Node::alone(engine).await;
    for packet in [format!("40/{},", "x".repeat(1000)), format!("42{}[\"e\"]", "9".repeat(30))] {
        let mut client = node.client().await;
        client.send(&packet).await;
        let mut still = node.client().await;
        still.send(r#"421["e"]"#).await;
        assert_eq!(still.text().await, "431[]");
    }
}

/// Whether each connection is still open: `true` if it is.
async fn still_open(streams: &mut [TcpStream]) -> Vec<bool> {
    let mut open = Vec::new();
    for stream in streams {
        let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 64])).await;
        open.push(read.is_err());
    }
    open
}

async fn head_that_comes_byte_by_byte_is_cut_off_in_time(engine: EngineKind) {
    let server = config::ServerSettings {
        handshake_timeout: config::Period::from_millis(700),
        ..config::ServerSettings::default()
    };
    let node = Node::start(engine, server, None).await;
    let heads = [
        "".to_owned(),
        upgrade(WEBSOCKET, &format!("X-Long: {}\r\n", "x".repeat(500))),
        with(POLLING, &format!("X-Long: {}\r\n", "x".repeat(500))),
        format!("POST {POLLING}&sid=x HTTP/1.1\r\nX-Long: {}", "x".repeat(500)),
        "no http at all, and no end of line ".repeat(20),
    ];
    let began = std::time::Instant::now();
    let mut dripping = tokio::task::JoinSet::new();
    for head in heads.clone() {
        let mut stream = TcpStream::connect(&node.address).await.unwrap();
        dripping.spawn(async move {
            for byte in head.bytes() {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 512])).await;
                if matches!(read, Ok(Ok(0) | Err(_))) {
                    return;
                }
            }
            // The server has closed the connection or will close it.
            let _ = stream.read(&mut [0; 512]).await;
        });
    }
    // Meanwhile the server accepts new connections, and a client that has sent its request is not cut off.
    let mut client = node.client().await;
    while let Some(done) = dripping.join_next().await {
        done.unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "cut off in time");
    }
    assert!(began.elapsed() >= Duration::from_millis(700));
    let silent = node.metrics.handshakes_refused_total.with_label_values(&["silent"]).get();
    // Bytes that cannot be HTTP are answered at once.
    assert!(silent >= heads.len() as u64 - 1, "{silent}");
    client.send(r#"421["still"]"#).await;
    assert_eq!(client.text().await, "431[]");
}

async fn connections_without_a_session_are_bounded_and_the_oldest_makes_room(engine: EngineKind) {
    let limits = config::LimitsSettings { max_pending_connections: 3, ..config::LimitsSettings::default() };
    let node = Node::limited(engine, config::ServerSettings::default(), limits, None).await;
    let pending = || node.metrics.handshakes_refused_total.with_label_values(&["pending"]).get();
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(TcpStream::connect(&node.address).await.unwrap());
    }
    eventually("those beyond the bound are closed", Duration::from_secs(5), || pending() == 7).await;
    assert_eq!(still_open(&mut idle).await, [vec![false; 7], vec![true; 3]].concat());
    // A connection with a session does not count as pending: it stays open.
    let mut client = node.client().await;
    let (_, open) = http(&node.address, &format!("GET {POLLING}"), "").await;
    assert!(open.contains("sid"), "{open}");
    eventually("one made room for it", Duration::from_secs(5), || pending() == 8).await;
    for _ in 0..3 {
        idle.push(TcpStream::connect(&node.address).await.unwrap());
    }
    eventually("the oldest are closed", Duration::from_secs(5), || pending() == 10).await;
    client.send(r#"421["still"]"#).await;
    assert_eq!(client.text().await, "431[]");
    // After a request for another path a connection still counts as pending, so newer connections push it out.
    let mut asked = TcpStream::connect(&node.address).await.unwrap();
    asked.write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    asked.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
    eventually("it took a place", Duration::from_secs(5), || pending() == 11).await;
    for _ in 0..3 {
        idle.push(TcpStream::connect(&node.address).await.unwrap());
    }
    eventually("it is closed, too", Duration::from_secs(5), || pending() == 14).await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(2), asked.read_to_end(&mut rest)).await;
    assert!(ended.is_ok());
    drop(idle);
    client.send(r#"422["still"]"#).await;
    assert_eq!(client.text().await, "432[]");
}

async fn frame_is_taken_up_to_the_bound_of_a_message_and_a_longer_one_is_refused_by_its_head(engine: EngineKind) {
    const MOST: usize = 2_000;
    let server = config::ServerSettings {
        max_payload: config::Size::from_bytes(MOST as u64),
        ..config::ServerSettings::default()
    };
    let node = Node::start(engine, server, None).await;
    // A message of the maximum size is accepted, also if an empty last fragment follows.
    let event = format!(r#"421["big","{}"]"#, "x".repeat(MOST - 13));
    let mut client = node.client().await;
    client.write(0x01, event.as_bytes()).await;
    client.write(0x80, b"").await;
    assert!(client.text().await.starts_with("431["));
    // A frame that is one byte too long is refused before any byte of its payload arrives.
    for first in [0x81, 0x01, 0x82] {
        let mut client = node.client().await;
        let length = u16::try_from(MOST + 1).unwrap().to_be_bytes();
        client.stream.write_all(&[first, 0x80 | 126, length[0], length[1], 0, 0, 0, 0]).await.unwrap();
        client.until_closed().await;
    }
    // Any number of empty fragments is permitted, because their total size is zero.
    let mut client = node.client().await;
    client.write(0x01, b"").await;
    for _ in 0..5_000 {
        client.write(0x00, b"").await;
    }
    client.write(0x80, br#"421["small"]"#).await;
    assert_eq!(client.text().await, "431[]");
}

async fn client_has_one_body_on_its_way_and_it_comes_in_time(engine: EngineKind) {
    let (ping_interval, ping_timeout) = (config::Period::from_millis(600), config::Period::from_millis(900));
    let connect_timeout = config::Period::from_secs(3);
    let server =
        config::ServerSettings { ping_interval, ping_timeout, connect_timeout, ..config::ServerSettings::default() };
    let node = Node::start(engine, server, None).await;
    let refused = |reason: &str| node.metrics.handshakes_refused_total.with_label_values(&[reason]).get();
    let (_, open) = http(&node.address, &format!("GET {POLLING}"), "").await;
    let own = format!("{POLLING}&sid={}", sid_of(&open));
    let began = std::time::Instant::now();
    let mut slow = TcpStream::connect(&node.address).await.unwrap();
    let head = format!("POST {own} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n40");
    slow.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (status, body) = http(&node.address, &format!("POST {own}"), "40").await;
    assert_eq!((status, body.as_str(), refused("overlap")), (400, r#"{"code":3,"message":"Bad request"}"#, 1));
    // The body arrives byte by byte; the server does not wait for it.
    let mut answer = Vec::new();
    while began.elapsed() < Duration::from_secs(5) {
        let _ = slow.write_all(b"x").await;
        let read = tokio::time::timeout(Duration::from_millis(50), slow.read_buf(&mut answer)).await;
        if matches!(read, Ok(Ok(0) | Err(_))) {
            break;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(4) && began.elapsed() > Duration::from_millis(1400));
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(refused("slow_body"), 1);
    eventually("nobody is left", Duration::from_secs(5), || node.engine.hub().open() == 0).await;
}

on_both_engines! {
    address_has_as_many_connections_as_it_may_and_not_one_more
    address_that_comes_too_often_is_told_how_long_to_wait
    id_of_another_client_is_useless
    session_that_may_move_with_its_client_does
    pages_of_other_origins_open_no_websocket
    what_is_no_handshake_of_ours_is_counted
    proxies_are_believed_in_the_header_that_they_set_and_in_no_other
    balancers_announce_their_clients
    proxy_header_of_a_stranger_is_no_request
    payload_is_taken_up_to_its_bound_and_not_one_byte_more
    namespace_and_ack_numbers_are_bounded
    head_that_comes_byte_by_byte_is_cut_off_in_time
    connections_without_a_session_are_bounded_and_the_oldest_makes_room
    frame_is_taken_up_to_the_bound_of_a_message_and_a_longer_one_is_refused_by_its_head
    client_has_one_body_on_its_way_and_it_comes_in_time
}
