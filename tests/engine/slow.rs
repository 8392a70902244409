//! Clients that stop reading: the node disconnects them after the write timeout, bounds their write queues, and delays
//! no other client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast::config::{self, EngineKind};
use roomcast::contract::load::{Source, load_sources};
use roomcast::contract::model::Contract;
use roomcast::event::Event;
use roomcast::publish::Outgoing;

use super::suite::{Node, outgoing};
use crate::support::client::{Client, http};
use crate::support::redis::eventually;

/// Number of clients that read. One more client, the thousandth, does not.
const OTHERS: usize = 999;
const EVENTS: usize = 100;
/// The time after which a client that accepts no bytes is disconnected.
const STALL: Duration = Duration::from_secs(3);
/// Additional time that a busy machine may need.
const SLACK: Duration = Duration::from_secs(4);
/// Number of large events: together they have more bytes than a write queue and the kernel's buffers can hold.
const LARGE: usize = 2 * EVENTS;

fn server() -> config::ServerSettings {
    config::ServerSettings {
        ping_interval: Duration::from_secs(60).into(),
        ping_timeout: Duration::from_secs(60).into(),
        write_timeout: Some(STALL.into()),
        queue: 128,
        ..config::ServerSettings::default()
    }
}

fn members(node: &Node, room: &str) -> usize {
    node.gate.rooms.count("/", &[room.into()], &[])
}

/// Reads every event that is sent to the room, and checks the order.
async fn reads_all(mut client: Client) {
    for n in 0..EVENTS {
        let text = client.text().await;
        assert!(text.starts_with(&format!(r#"42["n",{n},"#)), "{n}: {}", &text[..text.len().min(40)]);
    }
    // Stays connected as long as the others.
    std::mem::forget(client);
}

async fn one_stalled_client_of_a_thousand_is_gone_in_time_and_nobody_waits_for_it(engine: EngineKind) {
    let node = Node::start(engine, server(), None).await;
    let mut stalled = node.member("r").await;
    stalled.send(r#"422["join","stalled"]"#).await;
    assert_eq!(stalled.text().await, r#"432["stalled"]"#);
    let mut clients = Vec::with_capacity(OTHERS);
    while clients.len() < OTHERS {
        let more = (clients.len()..OTHERS).take(64).map(|_| node.member("r"));
        clients.extend(futures_util::future::join_all(more).await);
    }
    // socketioxide's heartbeat begins at once. Clients that read answer it, so the clients begin to read now.
    let before = members(&node, "r");
    assert!(before >= OTHERS, "{before}");
    let began = Instant::now();
    let reading: Vec<_> = clients.into_iter().map(|client| tokio::spawn(reads_all(client))).collect();
    let (large, small) = ("x".repeat(128 * 1024), "y".repeat(256));
    let mut dropped = 0;
    for n in 0..LARGE {
        dropped += node.publish(&format!(r#"["large","{large}"]"#), &["stalled"]).dropped;
        if n % 2 == 0 {
            node.publish(&format!(r#"["n",{},"{small}"]"#, n / 2), &["r"]);
            tokio::task::yield_now().await;
        }
    }
    assert!(dropped > 0, "what waits for a client that does not read is bounded");
    for reader in reading {
        reader.await.unwrap();
    }
    let gone = || members(&node, "stalled") == 0 && members(&node, "r") <= OTHERS;
    eventually("the stalled client is in no room", STALL + SLACK, gone).await;
    assert!(began.elapsed() < STALL + SLACK + SLACK);
    assert_eq!(node.publish(r#"["after"]"#, &["stalled"]).local, 0);
    drop(stalled);
}

/// A client in the room `r` that has fetched everything, and the URL for its polls.
async fn poller(node: &Node) -> String {
    let open = "/socket.io/?EIO=4&transport=polling";
    let (_, body) = http(&node.address, &format!("GET {open}"), "").await;
    let sid = body.split_once(r#""sid":""#).unwrap().1.split('"').next().unwrap().to_owned();
    let path = format!("{open}&sid={sid}");
    assert_eq!(http(&node.address, &format!("POST {path}"), "40").await.0, 200);
    fetch(node, &path, r#"42["hello""#).await;
    assert_eq!(http(&node.address, &format!("POST {path}"), r#"421["join","r"]"#).await.0, 200);
    fetch(node, &path, r#"431["r"]"#).await;
    eventually("it is in the room", SLACK, || members(node, "r") == 1).await;
    path
}

/// Polls until this text arrives.
async fn fetch(node: &Node, path: &str, wanted: &str) {
    loop {
        let (status, body) = http(&node.address, &format!("GET {path}"), "").await;
        assert_eq!(status, 200);
        // Other packets may arrive first, because socketioxide's heartbeat begins at once.
        if body.contains(wanted) {
            return;
        }
    }
}

/// The metrics of waiting bytes: for all clients together, and the maximum for one client.
fn waiting(node: &Node) -> (i64, i64) {
    node.metrics.encode().unwrap();
    let gauge = |gauge: &prometheus::IntGaugeVec| gauge.with_label_values::<&str>(&[]).get();
    (gauge(&node.metrics.queue_bytes), gauge(&node.metrics.queue_longest_bytes))
}

/// A configuration for few, large packets: a write queue is limited to 1 MiB.
fn few_bytes() -> config::ServerSettings {
    config::ServerSettings { queue: 1024, queue_bytes: Some(config::Size::from_bytes(1 << 20)), ..server() }
}

async fn bytes_that_wait_for_a_client_that_does_not_read_are_bounded_and_others_get_everything(engine: EngineKind) {
    const SIZE: usize = 256 * 1024;
    const SENT: usize = 120;
    // Bytes that the kernel may buffer for a connection, at both ends.
    const KERNEL: usize = 12 << 20;
    let node = Node::start(engine, few_bytes(), None).await;
    let stalled = node.member("r").await;
    let mut others = [node.member("r").await, node.member("r").await];
    let (mut queued, mut dropped) = (0, 0);
    let text = "x".repeat(SIZE);
    for n in 0..SENT {
        let delivery_result = node.publish(&format!(r#"["n",{n},"{text}"]"#), &["r"]);
        (queued, dropped) = (queued + delivery_result.local, dropped + delivery_result.dropped);
        for other in &mut others {
            let got = other.text().await;
            assert!(got.starts_with(&format!(r#"42["n",{n},"#)), "{n}: {}", &got[..got.len().min(40)]);
        }
    }
    assert_eq!(queued + dropped, 3 * SENT, "the stalled one stays");
    let taken = (SENT - dropped) * SIZE;
    assert!(taken <= (1 << 20) + KERNEL, "{taken} bytes for a client that does not read");
    assert!(taken >= 1 << 20, "{taken} bytes only");
    let counter = node.metrics.deliveries_dropped_total.with_label_values(&["/", "queue_full"]);
    assert_eq!(counter.get(), dropped as u64);
    eventually("those who read have everything", SLACK, || waiting(&node).0 == waiting(&node).1).await;
    let longest = waiting(&node).1;
    // The write queue is full: the next event would exceed 1 MiB.
    assert!(
        (1 << 20) - 2 * SIZE as i64 <= longest && longest <= 1 << 20,
        "{longest} bytes wait for the one that does not"
    );
    drop(stalled);
}

async fn bytes_that_wait_for_a_client_that_does_not_poll_are_bounded_until_it_polls(engine: EngineKind) {
    let node = Node::start(engine, few_bytes(), None).await;
    let path = poller(&node).await;
    let publish = |n: usize| node.publish(&format!(r#"["n",{n},"{}"]"#, "x".repeat(128 * 1024)), &["r"]);
    // Seven events have a little less than 1 MiB, and eight events have more.
    let fits = (0..20).map(|n| publish(n).local).sum::<usize>();
    assert_eq!(fits, 7);
    let counter = node.metrics.deliveries_dropped_total.with_label_values(&["/", "queue_full"]);
    assert_eq!(counter.get(), 13);
    let (all, longest) = waiting(&node);
    assert!(all == longest && (7 * (128 << 10)..=1 << 20).contains(&all), "{all} bytes wait for the only one");
    fetch(&node, &path, r#"42["n",6,"#).await;
    assert_eq!(waiting(&node), (0, 0));
    assert_eq!((20..40).map(|n| publish(n).local).sum::<usize>(), 7);
}

async fn a_client_that_no_longer_polls_is_gone_in_time(engine: EngineKind) {
    let node = Node::start(engine, config::ServerSettings { ping_timeout: STALL.into(), ..server() }, None).await;
    poller(&node).await;
    // The client does not poll, so the limit on the number of packets fills the write queue.
    let results = (0..200).map(|n| node.publish(&format!(r#"["n",{n}]"#), &["r"]).dropped);
    assert!(results.sum::<usize>() > 0);
    eventually("it is in no room", STALL + SLACK, || members(&node, "r") == 0).await;
}

/// The contract of these tests, with every policy for slow clients.
pub(super) fn contracts() -> Vec<Arc<Contract>> {
    let text = "name = 'slow'\n[auth]\nmode = 'none'\n[server.latest]\nrooms = '*'\nslow = 'keep_latest'\n\
                [server.oldest]\nrooms = '*'\nslow = 'drop_oldest'\n[server.fatal]\nrooms = '*'\nslow = 'disconnect'\n";
    let namespaces = load_sources(vec![Source { name: "slow.toml".into(), text: text.into() }]).unwrap();
    namespaces.into_iter().flat_map(|namespace| namespace.contracts).collect()
}

async fn what_is_volatile_is_for_clients_that_take_it_and_each_that_is_passed_over_is_counted(engine: EngineKind) {
    let node = Node::start(engine, server(), None).await;
    let (mut paused, mut reading) = (node.member("v").await, node.member("v").await);
    let large = "x".repeat(64 * 1024);
    let publish = |name: &str, n: usize| {
        let event = Event::from_wire(format!(r#"["{name}",{n},"{large}"]"#).into(), Vec::new()).unwrap();
        node.delivery.broadcast(&Outgoing { volatile: true, ..outgoing(&"/".into(), event, &["v"]) })
    };
    let mut dropped = 0;
    for n in 0..LARGE {
        dropped += publish("v", n).dropped;
        assert!(reading.text().await.starts_with(&format!(r#"42["v",{n},"#)), "who reads gets all");
    }
    assert!(dropped > 0 && dropped < LARGE, "{dropped}");
    let count = |reason| node.metrics.deliveries_dropped_total.with_label_values(&["/", reason]).get() as usize;
    assert_eq!((count("volatile"), count("queue_full")), (dropped, 0), "passed over before the queue is full");
    // The write queue keeps events for which the contract names a policy, and events that are not volatile.
    assert_eq!(publish("latest", 1).local, 2);
    assert_eq!(node.publish(r#"["firm",0]"#, &["v"]).local, 2);
    let (mut numbers, mut latest) = (Vec::new(), 0);
    loop {
        let text = paused.text().await;
        match text.strip_prefix(r#"42["v","#).and_then(|rest| rest.split(',').next()) {
            Some(number) => numbers.push(number.parse::<usize>().unwrap()),
            None if text.starts_with(r#"42["latest",1,"#) => latest += 1,
            None => break assert_eq!(text, r#"42["firm",0]"#),
        }
    }
    assert!(numbers.is_sorted() && numbers.len() == LARGE - dropped && latest == 1, "{numbers:?}, {latest}");
    // The client has read everything and accepts bytes again, so a volatile event reaches it.
    let again = || publish("again", 0).dropped == 0;
    eventually("it is no longer passed over", SLACK, again).await;
}

/// Publishes until the write queue of the room's only member, which does not read, is full.
async fn fill(node: &Node, room: &str) {
    // Large events fill the kernel's buffers and most of the write queue; small events fill the rest of the queue.
    for text in [format!(r#"["large","{}"]"#, "x".repeat(128 * 1024)), r#"["small"]"#.to_owned()] {
        let mut sent = 0;
        while node.publish(&text, &[room]).dropped == 0 {
            sent += 1;
            assert!(sent < 2 * LARGE, "the queue has no bound");
            tokio::task::yield_now().await;
        }
    }
}

async fn what_a_slow_client_gets_is_the_contracts_to_say(engine: EngineKind) {
    let node = Node::start(engine, server(), None).await;
    let mut client = node.member("s").await;
    fill(&node, "s").await;
    for n in 0..100 {
        for name in ["latest", "oldest"] {
            let delivery_result = node.publish(&format!(r#"["{name}",{n}]"#), &["s"]);
            assert_eq!((delivery_result.local, delivery_result.dropped), (1, 0), "{name} {n}");
        }
    }
    node.publish(r#"["usual"]"#, &["s"]);
    // From here on the client reads.
    let (mut latest, mut oldest) = (Vec::new(), Vec::new());
    while oldest.last() != Some(&99) || latest.last() != Some(&99) {
        let text = client.text().await;
        let number = |name| text.strip_prefix(name)?.strip_suffix(']')?.parse::<usize>().ok();
        latest.extend(number(r#"42["latest","#));
        oldest.extend(number(r#"42["oldest","#));
    }
    // Some events still fitted into the write queue before it was completely full.
    assert!(latest.len() < 20 && latest.is_sorted(), "{latest:?}");
    assert!(oldest.len() < 100 && oldest.len() >= 60 && oldest.is_sorted(), "{oldest:?}");
    let dropped = node.metrics.deliveries_dropped_total.with_label_values(&["/", "slow_replaced"]).get();
    assert_eq!(dropped as usize, 200 - latest.len() - oldest.len(), "each is counted");
}

async fn a_slow_client_is_disconnected_where_the_contract_says_so(engine: EngineKind) {
    // The write time-out is far away, so only the contract can end the connection.
    let patient = config::ServerSettings { write_timeout: Some(Duration::from_secs(60).into()), ..server() };
    let node = Node::start(engine, patient, None).await;
    let client = node.member("s").await;
    fill(&node, "s").await;
    // The kernel may still take bytes from the full queue, so the first of these events may fit.
    let fatal = format!(r#"["fatal","{}"]"#, "x".repeat(128 * 1024));
    assert!((0..LARGE).any(|_| node.publish(&fatal, &["s"]).dropped == 1), "the queue has no bound");
    eventually("it is in no room", STALL, || members(&node, "s") == 0).await;
    drop(client);
}

on_both_engines! {
    one_stalled_client_of_a_thousand_is_gone_in_time_and_nobody_waits_for_it
    bytes_that_wait_for_a_client_that_does_not_read_are_bounded_and_others_get_everything
    bytes_that_wait_for_a_client_that_does_not_poll_are_bounded_until_it_polls
    a_client_that_no_longer_polls_is_gone_in_time
    what_is_volatile_is_for_clients_that_take_it_and_each_that_is_passed_over_is_counted
    what_a_slow_client_gets_is_the_contracts_to_say
    a_slow_client_is_disconnected_where_the_contract_says_so
}
