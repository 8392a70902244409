//! A cluster whose way to Redis breaks: every situation is made by hand, with a real redis-server and a proxy before it.

mod support {
    pub mod node;
    pub mod proxy;
    pub mod redis;
}

use std::time::{Duration, Instant};

use support::node::{Node, Someone};
use support::proxy::{Proxy, Way};
use support::redis::{RedisServer, eventually};

/// Two nodes: `near` reaches Redis through a proxy, `far` directly.
struct Pair {
    _server: RedisServer,
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
        Self { _server: server, proxy, near, far }
    }

    /// Publishes until a client of the node behind the proxy hears it. Returns the last number.
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

    async fn near_is_away(&self) {
        eventually("the node knows that Redis is away", LONG, || !self.near.redis.health().is_good()).await;
    }

    async fn near_is_back(&self) {
        eventually("the node hears again", LONG, || self.near.redis.health().is_good()).await;
    }
}

const LONG: Duration = Duration::from_secs(20);

fn range(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

/// A client that joined while its node was cut off has missed what others published since, and nothing that is read later can
/// say what that was.
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

/// What a node could not hear, the histories have: a client whose rooms were known before gets it as it comes back.
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

/// A node that reaches Redis for commands and hears nothing must not show what was missed as if nothing followed.
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

/// A session that changed its rooms while Redis could not be told is not given back without the change.
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

/// Nothing passes and nothing is reset: the node must not wait until the operating system gives the connections up.
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
