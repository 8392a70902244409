//! Tests a cluster whose connections to Redis fail. A proxy in front of a real redis-server causes each failure.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use roomcast::cluster::socketio::{self, Broadcast};
use roomcast::config;
use roomcast::event::Event;
use roomcast::history::{HistoryQuery, PageOrder, Retention, RoomKey};

use crate::support::node::{Node, Someone};
use crate::support::proxy::{Proxy, Way};
use crate::support::redis::{RedisServer, eventually};

/// Two nodes: `near` reaches Redis through a proxy, `far` directly.
struct Pair {
    server: RedisServer,
    proxy: Proxy,
    near: Node,
    far: Node,
}

impl Pair {
    async fn start() -> Self {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.port()).await;
        let near = Node::start(&proxy.url(), "near", |_| {}).await;
        let far = Node::start(&server.url(), "far", |_| {}).await;
        near.ready(2).await;
        far.ready(2).await;
        Self { server, proxy, near, far }
    }

    /// Publishes numbered events until a client of the node behind the proxy receives one. Returns the last number.
    async fn until_heard(&self, client: &Someone, log: &str, from: u64) -> u64 {
        let until = Instant::now() + LONG;
        for n in from.. {
            self.far.publish(log, n).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            if client.numbers().last().is_some_and(|last| *last >= from) {
                return n;
            }
            assert!(Instant::now() < until, "it never hears the other node");
        }
        unreachable!()
    }

    /// Resets the connections of the node behind the proxy as soon as Redis has an event with this offset.
    async fn reset_after(&self, room: &RoomKey, offset: u64) {
        let until = Instant::now() + LONG;
        while self.far.history.read(room, NEWEST).await.unwrap().last_offset < offset {
            assert!(Instant::now() < until, "Redis takes the event");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.proxy.set(Way::Reset);
    }

    async fn near_is_away(&self) {
        eventually("the node knows that Redis is away", LONG, || !self.near.redis.health().is_good()).await;
    }

    async fn near_is_back(&self) {
        eventually("the node hears again", LONG, || self.near.redis.health().is_good()).await;
    }
}

const LONG: Duration = Duration::from_secs(20);

const NEWEST: HistoryQuery = HistoryQuery { limit: 1000, since: None, order: PageOrder::Asc };

fn range(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

/// A client that joined while its node was cut off has missed events that others published. No later event shows which
/// events are missing.
#[tokio::test(flavor = "multi_thread")]
async fn client_that_joined_while_its_node_was_cut_off_is_not_recovered_with_a_gap() {
    for way in [Way::Reset, Way::NoCommands] {
        let pair = Pair::start().await;
        pair.proxy.set(way);
        if way == Way::Reset {
            pair.near_is_away().await;
        }
        let client = pair.near.connect("one").await;
        client.follow(&pair.near, "l").await;
        pair.near_is_away().await;
        for n in 1..=5 {
            pair.far.publish("l", n).await;
        }
        pair.proxy.set(Way::Open);
        pair.near_is_back().await;
        let sent = pair.until_heard(&client, "l", 6).await;
        client.cut(&pair.near);
        pair.far.publish("l", sent + 1).await;
        let back = pair.near.come_back(&client, "two").await;
        if back.recovered {
            eventually("it gets what it missed", LONG, || back.numbers().len() > sent as usize).await;
            let mut numbers = back.numbers();
            numbers.sort_unstable();
            assert_eq!(numbers, range(1, sent + 1), "{way:?}");
        }
    }
}

/// Histories contain the events that a node could not receive: a client whose rooms were known before gets these events
/// when it returns.
#[tokio::test(flavor = "multi_thread")]
async fn client_of_a_node_that_was_deaf_gets_what_it_missed_as_it_comes_back() {
    let pair = Pair::start().await;
    let client = pair.near.connect("one").await;
    client.follow(&pair.near, "l").await;
    pair.far.publish("l", 1).await;
    eventually("it hears", LONG, || client.numbers() == [1]).await;
    pair.proxy.set(Way::Reset);
    pair.near_is_away().await;
    for n in 2..=5 {
        pair.far.publish("l", n).await;
    }
    pair.proxy.set(Way::Open);
    pair.near_is_back().await;
    pair.far.publish("l", 6).await;
    eventually("it hears again", LONG, || client.numbers() == [1, 6]).await;
    client.cut(&pair.near);
    let back = pair.near.come_back(&client, "two").await;
    assert!(back.recovered);
    eventually("it gets what it missed", LONG, || back.numbers().len() == 6).await;
    assert_eq!(back.numbers(), [1, 6, 2, 3, 4, 5]);
}

/// A node that reaches Redis for commands, but receives no messages, must not recover a session, because events that
/// the node cannot receive may follow the replay.
#[tokio::test(flavor = "multi_thread")]
async fn node_that_does_not_hear_gives_nobody_back() {
    let pair = Pair::start().await;
    let client = pair.far.connect("one").await;
    client.follow(&pair.far, "l").await;
    pair.far.publish("l", 1).await;
    client.cut(&pair.far);
    pair.proxy.set(Way::Reset);
    pair.near_is_away().await;
    assert!(!pair.near.come_back(&client, "two").await.recovered);
    assert_eq!(pair.near.metrics.recoveries_total.with_label_values(&["/", "unavailable"]).get(), 1);
    let back = pair.far.come_back(&client, "three").await;
    assert!(back.recovered, "nothing was taken by the one that could not");
}

/// If a session changed its rooms while its node could not reach Redis, the session is not recovered with the old
/// rooms.
#[tokio::test(flavor = "multi_thread")]
async fn session_whose_last_joins_redis_does_not_know_is_not_given_back_without_them() {
    let pair = Pair::start().await;
    let client = pair.near.connect("one").await;
    client.follow(&pair.near, "before").await;
    pair.proxy.set(Way::Reset);
    pair.near_is_away().await;
    client.follow(&pair.near, "meanwhile").await;
    client.cut(&pair.near);
    pair.proxy.set(Way::Open);
    pair.near_is_back().await;
    let back = pair.near.come_back(&client, "two").await;
    assert!(!back.recovered);
}

/// A client loses its connection right after it was recovered, and returns before Redis has stored the session again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn session_that_is_still_being_stored_is_recovered() {
    let server = RedisServer::start();
    let node = Node::start(&server.url(), "one", |_| {}).await;
    node.ready(1).await;
    let mut client = node.connect("0").await;
    client.follow(&node, "l").await;
    for n in 1..=50 {
        client.cut(&node);
        client = node.come_back(&client, &n.to_string()).await;
        assert!(client.recovered, "return {n}");
    }
    node.publish("l", 1).await;
    eventually("it hears", LONG, || client.numbers() == [1]).await;
}

/// A node is killed after Redis took an event and before its answer arrived: the event reached the node's own clients
/// without an offset, and no other node learned of that. The client must get the event only once.
#[tokio::test(flavor = "multi_thread")]
async fn event_whose_append_was_not_answered_comes_once_after_its_node_was_killed() {
    let pair = Pair::start().await;
    let client = pair.near.connect("one").await;
    client.follow(&pair.near, "l").await;
    pair.far.publish("l", 1).await;
    eventually("it hears", LONG, || client.numbers() == [1]).await;
    pair.proxy.set(Way::NoAnswers);
    let log = RoomKey { namespace: "/".into(), room: "log:l".into() };
    // After the reset the node cannot reach Redis, so the other nodes treat it as dead.
    tokio::join!(pair.near.publish("l", 2), pair.reset_after(&log, 2));
    eventually("its own client gets it", LONG, || client.numbers() == [1, 2]).await;
    client.cut(&pair.near);
    let back = pair.far.come_back(&client, "two").await;
    assert!(back.recovered);
    pair.far.publish("l", 3).await;
    eventually("it hears again", LONG, || back.numbers().contains(&3)).await;
    assert_eq!(back.numbers(), [1, 2, 3]);
    // The client keeps the event's id as long as the history could replay the event.
    back.cut(&pair.far);
    let again = pair.far.come_back(&back, "three").await;
    assert!(again.recovered);
    pair.far.publish("l", 4).await;
    eventually("it hears again", LONG, || again.numbers().contains(&4)).await;
    assert_eq!(again.numbers(), [1, 2, 3, 4]);
}

/// A client's join waits for Redis while an append is not answered. The live event, which has no offset, is held back
/// for the client, and the replay contains the event too. The client must get it only once, also without recovery.
#[tokio::test(flavor = "multi_thread")]
async fn event_whose_append_was_not_answered_comes_once_to_a_client_that_joins_meanwhile() {
    let pair = Pair::start().await;
    let tape = RoomKey { namespace: "/bare".into(), room: "tape:t".into() };
    let take = async |node: &Node, n: u64| {
        node.publish_event("bare", "take", &serde_json::json!({ "tape": "t", "n": n })).await;
    };
    // Redis knows the script of an append afterwards, so the next append needs only one request.
    take(&pair.far, 1).await;
    let client = pair.near.connect_bare("one").await;
    // The first steps of a join.
    let session = pair.near.rooms.session("/bare", "one").unwrap();
    session.begin_replay();
    pair.near.rooms.join(&session, &tape.room);
    pair.proxy.set(Way::NoAnswers);
    tokio::join!(take(&pair.near, 2), pair.reset_after(&tape, 2));
    pair.proxy.set(Way::Open);
    pair.near_is_back().await;
    // The last steps of the join.
    client.join(&pair.near, "wind", "t").await;
    assert_eq!(client.numbers(), [1, 2], "the replay contains the event");
    session.end_replay(&tape.room, None);
    take(&pair.near, 3).await;
    eventually("the next event arrives", LONG, || client.numbers().contains(&3)).await;
    assert_eq!(client.numbers(), [1, 2, 3]);
}

/// Connections to Redis transfer nothing and are not reset. The node must replace them before the operating system
/// gives them up.
#[tokio::test(flavor = "multi_thread")]
async fn stuck_connection_is_replaced_after_two_time_outs() {
    let pair = Pair::start().await;
    let client = pair.near.connect("one").await;
    client.follow(&pair.near, "l").await;
    let before = pair.proxy.accepted();
    pair.proxy.set(Way::OldStuck);
    pair.near_is_away().await;
    let stuck = Instant::now();
    pair.near_is_back().await;
    println!("back {:?} after the loss was known", stuck.elapsed());
    assert!(pair.proxy.accepted() >= before + 2, "both connections are new");
    let n = pair.until_heard(&client, "l", 1).await;
    pair.near.publish("l", n + 1).await;
    eventually("commands pass, too", LONG, || client.numbers().last() == Some(&(n + 1))).await;
}

// === emitters ===

/// An emitter in another process. It publishes numbers to a room, in order.
struct Emitter {
    port: u16,
    namespace: &'static str,
    room: &'static str,
    event: &'static str,
    sent: u64,
}

impl Emitter {
    /// Publishes to a room with a history.
    fn new(port: u16) -> Self {
        Self { port, namespace: "/", room: "kept:k", event: "line", sent: 0 }
    }

    /// Publishes events with a rule to a room without a history.
    fn bare(port: u16) -> Self {
        Self { port, namespace: "/bare", room: "board:b", event: "post", sent: 0 }
    }

    /// Publishes the next number, if Redis is reachable.
    fn emit(&mut self) {
        self.sent += 1;
        let broadcast = Broadcast {
            namespace: self.namespace.into(),
            event: Event::encode(self.event, &[serde_json::json!({ "n": self.sent })]).unwrap(),
            rooms: vec![self.room.into()],
            except: Vec::new(),
            volatile: false,
            ours: None,
        };
        let body = socketio::encode("emitter", &broadcast).unwrap();
        let channel = format!("socket.io#{}#{}#", self.namespace, self.room);
        let mut command =
            format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n", channel.len(), body.len()).into_bytes();
        command.extend_from_slice(&body);
        command.extend_from_slice(b"\r\n");
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return };
        if stream.write_all(&command).is_ok() {
            // After Redis's answer the event is certainly published.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.read(&mut [0; 64]);
        }
    }

    async fn emit_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.emit();
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}

fn kept() -> RoomKey {
    RoomKey { namespace: "/".into(), room: "kept:k".into() }
}

/// The numbers in the history of the emitter's room.
async fn recorded(node: &Node) -> Vec<u64> {
    let page = node.history.read(&kept(), NEWEST).await.unwrap();
    let number = |event: &Event| -> u64 {
        let args: Vec<serde_json::Value> = serde_json::from_str(event.text()).unwrap();
        args[1]["n"].as_u64().unwrap()
    };
    page.events.iter().map(|(_, event)| number(event)).collect()
}

fn assert_each_once_in_order(what: &str, numbers: &[u64]) {
    let wrong = numbers.windows(2).filter(|pair| pair[0] >= pair[1]).count();
    assert_eq!(wrong, 0, "{what}: {numbers:?}");
}

/// A Redis that restarts without its keys has lost the lease for publishing emitters' events. Two nodes must not
/// publish for emitters at once.
#[tokio::test(flavor = "multi_thread")]
async fn emitters_events_come_once_and_in_order_around_restarts_and_stalls_of_redis() {
    let mut server = RedisServer::start();
    let nodes = [Node::start(&server.url(), "a", |_| {}).await, Node::start(&server.url(), "b", |_| {}).await];
    let mut clients = Vec::new();
    for node in &nodes {
        node.ready(2).await;
        let client = node.connect("one").await;
        client.join(node, "keep", "k").await;
        clients.push(client);
    }
    let mut emitter = Emitter::new(server.port());
    let until = Instant::now() + LONG;
    while clients.iter().any(|client| client.numbers().is_empty()) {
        assert!(Instant::now() < until, "somebody publishes");
        emitter.emit_for(Duration::from_millis(50)).await;
    }
    for round in 0..3 {
        if round == 2 {
            server.pause();
            tokio::time::sleep(Duration::from_secs(4)).await;
            server.resume();
        } else {
            server.kill();
            tokio::time::sleep(Duration::from_millis(150)).await;
            server.restart();
        }
        let before = emitter.sent;
        // Waits as long as a former holder of the lease may believe that it still has the lease, and then until events
        // are published again.
        emitter.emit_for(Duration::from_millis(3500)).await;
        let until = Instant::now() + LONG;
        while clients.iter().any(|client| client.numbers().last().is_none_or(|last| *last <= before)) {
            assert!(Instant::now() < until, "somebody publishes again");
            emitter.emit_for(Duration::from_millis(50)).await;
        }
    }
    for (node, client) in nodes.iter().zip(&clients) {
        assert_each_once_in_order("live", &client.numbers());
        assert_each_once_in_order("history", &recorded(node).await);
    }
}

/// Redis refuses appends of a former holder of the lease, also if it runs them after the holder has stopped waiting.
#[tokio::test(flavor = "multi_thread")]
async fn appends_of_a_former_holder_and_late_ones_are_refused() {
    let pair = Pair::start().await;
    let keep = Retention { events: 100, ttl: Duration::from_secs(60) };
    let line = |n: u64, fence| Event::encode("line", &[serde_json::json!({ "n": n })]).unwrap().with_fence(fence);
    let history = &pair.near.history;
    for (n, fence, taken) in [(1, Some(5), true), (2, None, true), (3, Some(4), false), (4, Some(5), true)] {
        assert_eq!(history.append(&kept(), keep, None, &line(n, fence)).await.is_ok(), taken, "{n}");
    }
    pair.proxy.set(Way::NoCommands);
    assert!(history.append(&kept(), keep, None, &line(5, None)).await.is_err(), "Redis did not answer");
    pair.far.history.append(&kept(), keep, None, &line(6, None)).await.unwrap();
    pair.proxy.set(Way::Open);
    pair.near_is_back().await;
    // This append is sent after the appends that the proxy had held back.
    history.append(&kept(), keep, None, &line(7, None)).await.unwrap();
    assert_eq!(recorded(&pair.far).await, [1, 2, 4, 6, 7]);
}

/// Events that a former holder of the lease sent late must not arrive after events of the next holder.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_former_holder_that_were_stuck_on_their_way_are_refused() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let near = Node::start(&proxy.url(), "near", |_| {}).await;
    near.ready(1).await;
    let mut emitter = Emitter::bare(server.port());
    let first = near.connect_bare("one").await;
    first.join(&near, "watch", "b").await;
    let until = Instant::now() + LONG;
    while first.numbers().is_empty() {
        assert!(Instant::now() < until, "the node takes the lease");
        emitter.emit_for(Duration::from_millis(50)).await;
    }
    let far = Node::start(&server.url(), "far", |_| {}).await;
    far.ready(2).await;
    let second = far.connect_bare("one").await;
    second.join(&far, "watch", "b").await;
    while second.numbers().is_empty() {
        assert!(Instant::now() < until, "the other node hears it");
        emitter.emit_for(Duration::from_millis(50)).await;
    }
    proxy.set(Way::NoCommands);
    emitter.emit_for(Duration::from_millis(300)).await;
    let stuck = emitter.sent;
    eventually("the holder publishes", LONG, || first.numbers().last().is_some_and(|last| *last >= stuck - 10)).await;
    let until = Instant::now() + LONG;
    while second.numbers().last().is_none_or(|last| *last <= stuck) {
        assert!(Instant::now() < until, "the other node takes the lease");
        emitter.emit_for(Duration::from_millis(50)).await;
    }
    proxy.set(Way::Open);
    let fenced = || far.metrics.socketio_dropped_total.with_label_values(&["fenced"]).get();
    let until = Instant::now() + LONG;
    while fenced() == 0 && second.numbers().is_sorted() {
        assert!(Instant::now() < until, "what was stuck arrives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_each_once_in_order("live", &second.numbers());
    assert_each_once_in_order("live, at the former holder", &first.numbers());
}

// === both wires ===

/// The nodes' own events arrive once and in order, in both wire formats, whatever happens to the connections to Redis.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_nodes_come_once_and_in_order_on_both_wires_whatever_the_network_does() {
    tokio::join!(own_events(config::WireFormat::Compact), own_events(config::WireFormat::Socketio));
}

/// Causes one of six faults between the nodes and Redis, and ends it again.
async fn disturb(fault: usize, proxy: &Proxy, server: &mut RedisServer) {
    match fault {
        4 => {
            server.kill();
            tokio::time::sleep(Duration::from_millis(150)).await;
            server.restart();
        }
        5 => {
            server.pause();
            tokio::time::sleep(Duration::from_millis(2500)).await;
            server.resume();
        }
        _ => {
            proxy.set([Way::NoCommands, Way::NoAnswers, Way::OldStuck, Way::Reset][fault]);
            tokio::time::sleep(Duration::from_millis(2500)).await;
            proxy.set(Way::Open);
        }
    }
}

async fn own_events(wire: config::WireFormat) {
    let mut server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let near = Node::start(&proxy.url(), "near", |config| config.wire = wire).await;
    let far = Node::start(&server.url(), "far", |config| config.wire = wire).await;
    let nodes = [&near, &far];
    let (mut staying, mut returning) = (Vec::new(), Vec::new());
    for node in nodes {
        node.ready(2).await;
        for clients in [&mut staying, &mut returning] {
            let client = node.connect(&format!("{}{}", node.cluster.node(), clients.len())).await;
            client.follow(node, "l").await;
            clients.push(client);
        }
    }
    let stop = AtomicBool::new(false);
    // One node publishes odd numbers, and the other node publishes even numbers.
    let publisher = async |node: &Node, first: u64| {
        for n in (first..).step_by(2) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            node.publish("l", n).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let faults = async {
        for fault in 0..6 {
            disturb(fault, &proxy, &mut server).await;
            for node in nodes {
                eventually("the node hears again", LONG, || node.redis.health().is_good()).await;
            }
            // Each client of `returning` loses its connection and reconnects to the other node.
            for (at, client) in returning.iter_mut().enumerate() {
                client.cut(nodes[(at + fault) % 2]);
                let node = nodes[(at + fault + 1) % 2];
                *client = node.come_back(client, &format!("{at}-{fault}")).await;
                if !client.recovered {
                    client.follow(node, "l").await;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(publisher(&near, 2), publisher(&far, 1), faults);
    for (node, client) in nodes.iter().zip(&staying) {
        for parity in [0, 1] {
            let of: Vec<u64> = client.numbers().into_iter().filter(|n| n % 2 == parity).collect();
            assert_each_once_in_order(&format!("{wire:?} {} {parity}", node.cluster.node()), &of);
        }
    }
    for client in &returning {
        let numbers = client.numbers();
        let different: HashSet<u64> = numbers.iter().copied().collect();
        assert_eq!(different.len(), numbers.len(), "{wire:?}, a client that returned: {numbers:?}");
    }
}

/// A node counts the missed events of another node from the first one, even if that node started while this node could
/// not receive messages.
#[tokio::test(flavor = "multi_thread")]
async fn first_events_of_a_new_node_that_another_could_not_hear_are_counted() {
    let pair = Pair::start().await;
    let client = pair.near.connect("one").await;
    client.follow(&pair.near, "l").await;
    let missed = || pair.near.metrics.cluster_missed_total.with_label_values::<&str>(&[]).get();
    pair.proxy.set(Way::Reset);
    pair.near_is_away().await;
    let newcomer = Node::start(&pair.server.url(), "new", |_| {}).await;
    newcomer.ready(2).await;
    for n in 1..=22 {
        newcomer.publish("l", n).await;
    }
    pair.proxy.set(Way::Open);
    pair.near_is_back().await;
    assert_eq!(missed(), 0);
    let until = Instant::now() + LONG;
    let mut n = 22;
    while client.numbers().is_empty() {
        assert!(Instant::now() < until, "it never hears the new node");
        n += 1;
        newcomer.publish("l", n).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually("what it missed is counted", LONG, || missed() >= 22).await;
    assert_eq!(missed() + client.numbers().len() as u64, n);
}
