//! Presence: its promises need a node with rooms, and run on one node and on several.

use std::time::Duration;

use roomcast::directory::{CountOf, DirectoryError, PageRequest};
use roomcast::presence::{MemberChange, Roster};
use serde_json::json;

use crate::support::presence::{Told, World, all_pages, eventually_async, keys};

const NS: &str = "/";

/// Runs a test on a node without Redis, on one node with Redis, on two nodes with a Redis Cluster, and on three nodes.
macro_rules! everywhere {
    ($($name:ident),* $(,)?) => {
        mod memory { $( #[tokio::test] async fn $name() { super::$name(super::World::memory()).await } )* }
        mod one_node { $( #[tokio::test] async fn $name() { super::$name(super::World::redis(1).await).await } )* }
        mod redis_cluster { $( #[tokio::test] async fn $name() { super::$name(super::World::redis_cluster(2).await).await } )* }
        mod three_nodes { $( #[tokio::test] async fn $name() { super::$name(super::World::redis(3).await).await } )* }
    };
}

everywhere!(
    counts_follow_joins_and_leaves,
    members_come_in_pages_once_each,
    rooms_users_and_connections_come_in_pages,
    connection_is_shown_whole,
    user_with_several_sockets_is_told_of_once,
    anonymous_users_are_members_but_not_users,
    roster_has_users_in_the_order_of_their_joins,
    roster_of_sockets_shows_their_metadata_within_its_bounds,
    pages_of_connections_are_bounded_in_bytes,
    status_is_the_newest_and_outlives_the_last_socket,
    shared_rooms_are_those_of_all_sockets,
    unknown_things_are_not_found,
    cursors_of_other_lists_are_refused,
);

async fn counts_follow_joins_and_leaves(world: World) {
    let sessions: Vec<_> = (0..9).map(|n| world.connect(n, &format!("u{}", n % 4))).collect();
    for (n, session) in sessions.iter().enumerate() {
        session.join("r");
        session.join(&format!("own:{n}"));
    }
    world.settle().await;
    for node in &world.nodes {
        let all = node.presence.count(NS, CountOf::Namespace).await.unwrap();
        assert_eq!((all.connections, all.rooms, all.users, all.partial), (9, Some(10), Some(4), false));
        assert_eq!(node.presence.count(NS, CountOf::Room("r")).await.unwrap().connections, 9);
        assert_eq!(node.presence.count(NS, CountOf::User("u0")).await.unwrap().connections, 3);
    }
    for (n, session) in sessions.iter().enumerate() {
        match n % 3 {
            0 => session.leave("r"),
            1 => session.close(),
            _ => {}
        }
    }
    world.settle().await;
    for node in &world.nodes {
        let all = node.presence.count(NS, CountOf::Namespace).await.unwrap();
        assert_eq!((all.connections, all.rooms), (6, Some(7)), "r, and the own rooms of six");
        assert_eq!(node.presence.count(NS, CountOf::Room("r")).await.unwrap().connections, 3);
    }
    sessions.iter().for_each(|session| session.close());
    world.settle().await;
    let all = world.nodes[0].presence.count(NS, CountOf::Namespace).await.unwrap();
    assert_eq!((all.connections, all.rooms, all.users), (0, Some(0), Some(0)));
    world.end().await;
}

async fn members_come_in_pages_once_each(world: World) {
    for n in 0..50 {
        world.connect(n, "u").join("r");
    }
    world.settle().await;
    let presence = &world.nodes[0].presence;
    let mut members = all_pages(7, |page| presence.members(NS, "r", page)).await;
    assert_eq!(members.len(), 50);
    members.sort_by(|one, other| one.socket_id.cmp(&other.socket_id));
    members.dedup_by(|one, other| one.socket_id == other.socket_id);
    assert_eq!(members.len(), 50);
    assert!(members.iter().all(|member| member.user_id.as_deref() == Some("u")));
    for node in &world.nodes {
        assert!(members.iter().any(|member| member.node == node.id));
    }
    // A member that leaves between two requests for pages does not shift the members of the next page.
    let first = presence.members(NS, "r", PageRequest { limit: 10, cursor: None }).await.unwrap();
    world.session(&first.items.last().unwrap().socket_id).leave("r");
    world.settle().await;
    let mut rest = 0;
    let mut page = PageRequest { limit: 10, cursor: first.next };
    while page.cursor.is_some() {
        let next = presence.members(NS, "r", page).await.unwrap();
        rest += next.items.len();
        page = PageRequest { limit: 10, cursor: next.next };
    }
    assert_eq!(rest, 40);
    let room = presence.room(NS, "r").await.unwrap().unwrap();
    assert_eq!((room.member_count, room.members.len()), (49, 49));
    assert!(room.created_at.unwrap().elapsed().unwrap() < Duration::from_secs(60));
    world.end().await;
}

async fn rooms_users_and_connections_come_in_pages(world: World) {
    for n in 0..25 {
        let session = world.connect(n, &format!("u{n:02}"));
        session.join(&format!("r{:02}", n % 12));
    }
    world.settle().await;
    for node in &world.nodes {
        let rooms = all_pages(5, |page| node.presence.rooms(NS, page)).await;
        let names: Vec<_> = rooms.iter().map(|room| room.name.clone()).collect();
        assert_eq!(names, (0..12).map(|n| format!("r{n:02}")).collect::<Vec<_>>());
        assert_eq!(rooms.iter().map(|room| room.member_count).sum::<u64>(), 25);
        assert!(rooms.iter().all(|room| room.members.is_empty() && room.created_at.is_some()));
        let users = all_pages(4, |page| node.presence.users(NS, page)).await;
        let ids: Vec<_> = users.iter().map(|user| user.user_id.clone()).collect();
        assert_eq!(ids, (0..25).map(|n| format!("u{n:02}")).collect::<Vec<_>>());
        let connections = all_pages(6, |page| node.presence.connections(NS, page)).await;
        let mut ids: Vec<_> = connections.iter().map(|connection| connection.socket_id.clone()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 25);
    }
    world.end().await;
}

async fn connection_is_shown_whole(world: World) {
    let session = world.connect(0, "ann");
    session.join("b");
    session.join("a");
    session.set_metadata(&json!({ "device": "phone" }));
    world.settle().await;
    for node in &world.nodes {
        let info = node.presence.connection(NS, &session.id()).await.unwrap().unwrap();
        assert_eq!((info.user_id.as_deref(), info.transport.as_str()), (Some("ann"), "websocket"));
        assert_eq!(info.rooms, ["a", "b"]);
        assert_eq!(json!(info.metadata), json!({ "device": "phone" }));
        assert_eq!(info.node, world.nodes[0].id);
        assert!(info.connected_at.elapsed().unwrap() < Duration::from_secs(60));
        let mine = all_pages(9, |page| node.presence.user_connections(NS, "ann", page)).await;
        assert_eq!(mine.len(), 1);
        assert_eq!((mine[0].socket_id.as_str(), &mine[0].rooms), (session.id().as_str(), &info.rooms));
    }
    world.end().await;
}

async fn user_with_several_sockets_is_told_of_once(world: World) {
    let sockets: Vec<_> = (0..6).map(|n| world.connect(n, "ann")).collect();
    for socket in &sockets {
        socket.join("told:1");
        socket.join("quiet");
    }
    world.connect(7, "bob").join("told:1");
    world.settle().await;
    world.eventually_told(&[("told:1", "ann", Told::Joined), ("told:1", "bob", Told::Joined)]).await;
    sockets[0].leave("told:1");
    sockets[1..5].iter().for_each(|socket| socket.close());
    world.settle().await;
    assert_eq!(world.told().len(), 2, "one socket is left");
    sockets[5].close();
    world.settle().await;
    world
        .eventually_told(&[
            ("told:1", "ann", Told::Joined),
            ("told:1", "bob", Told::Joined),
            ("told:1", "ann", Told::Left),
        ])
        .await;
    world.end().await;
}

async fn anonymous_users_are_members_but_not_users(world: World) {
    let (one, two) = (world.connect(0, ""), world.connect(1, ""));
    one.join("told:1");
    world.settle().await;
    let presence = &world.nodes[0].presence;
    let all = presence.count(NS, CountOf::Namespace).await.unwrap();
    assert_eq!((all.connections, all.rooms, all.users), (2, Some(1), Some(0)));
    let room = presence.room(NS, "told:1").await.unwrap().unwrap();
    assert_eq!(room.members[0].user_id, None);
    // Each socket of an anonymous user counts separately.
    let mut keys = [format!("socket:{}", one.id()), format!("socket:{}", two.id())];
    two.join("told:1");
    world.settle().await;
    two.leave("told:1");
    one.close();
    world.settle().await;
    keys.sort();
    let [first, second] = &keys;
    let each = |what| [("told:1", first.as_str(), what), ("told:1", second.as_str(), what)];
    world.eventually_told(&[each(Told::Joined), each(Told::Left)].concat()).await;
    world.end().await;
}

async fn roster_has_users_in_the_order_of_their_joins(world: World) {
    let sockets: Vec<_> =
        ["ann", "bob", "ann", "cid"].iter().enumerate().map(|(n, user)| world.connect(n, user)).collect();
    for socket in &sockets {
        socket.join("told:1");
        socket.join("quiet");
        // Joins in the same millisecond have no order.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.settle().await;
    let listed = |most| {
        let world = &world;
        async move {
            let rosters =
                futures_util::future::join_all(world.nodes.iter().map(|node| node.presence.roster(NS, "told:1", most)));
            let rosters = rosters.await;
            assert!(rosters.windows(2).all(|pair| pair[0] == pair[1]), "{rosters:?}");
            let Roster { count, members, partial } = rosters[0].clone();
            assert!(!partial);
            (count, members.iter().map(|member| member.key.id().to_string()).collect::<Vec<_>>().join(" "))
        }
    };
    assert_eq!(listed(10).await, (3, "ann bob cid".to_owned()));
    assert_eq!(listed(2).await, (3, "ann bob".to_owned()));
    assert_eq!(listed(0).await, (3, String::new()));
    sockets[0].close();
    sockets[1].leave("told:1");
    world.settle().await;
    assert_eq!(listed(10).await, (2, "ann cid".to_owned()), "ann has another socket");
    sockets[2].leave("told:1");
    sockets[1].join("told:1");
    world.settle().await;
    assert_eq!(listed(10).await, (2, "cid bob".to_owned()));
    assert_eq!(world.nodes[0].presence.roster(NS, "quiet", 10).await, Roster::default(), "the room lists no members");
    world.end().await;
}

async fn roster_of_sockets_shows_their_metadata_within_its_bounds(world: World) {
    let note = "x".repeat(15_000);
    let sockets: Vec<_> = (0..80).map(|n| world.connect(n, "ann")).collect();
    for (n, socket) in sockets.iter().enumerate() {
        socket.join("seen:1");
        socket.set_metadata(&json!({ "n": n, "note": if n == 0 { "" } else { &note } }));
    }
    world.settle().await;
    for node in &world.nodes {
        let roster = node.presence.roster(NS, "seen:1", 1000).await;
        assert_eq!((roster.count, roster.partial), (80, false));
        assert!((60..80).contains(&roster.members.len()), "{}", roster.members.len());
        for member in &roster.members {
            assert_eq!((member.user_id.as_deref(), member.key.id()), (Some("ann"), &member.socket_id));
            assert_eq!(format!("s{:04}", member.metadata["n"].as_u64().unwrap()), *member.socket_id);
        }
    }
    let changes = world.all_told();
    let metadata = changes.iter().filter(|change| change.what == MemberChange::Metadata).count();
    assert_eq!((metadata, changes.len()), (80, 160));
    world.end().await;
}

async fn pages_of_connections_are_bounded_in_bytes(world: World) {
    let large = json!({ "note": "x".repeat(15_000) });
    for n in 0..400 {
        let session = world.connect(n, "ann");
        session.set_metadata(&large);
    }
    world.settle().await;
    let presence = &world.nodes[0].presence;
    let most = PageRequest { limit: 1000, cursor: None };
    // Writing so much can hold up the heartbeats of the nodes on a busy machine, and a node without one counts as dead.
    let is_there = || async { !presence.connections(NS, most.clone()).await.unwrap().items.is_empty() };
    eventually_async("the nodes count as alive", Duration::from_secs(10), is_there).await;
    for page in [presence.connections(NS, most.clone()), presence.user_connections(NS, "ann", most)] {
        let page = page.await.unwrap();
        assert!(page.next.is_some() && (250..400).contains(&page.items.len()), "{}", page.items.len());
    }
    let mut ids: Vec<_> = all_pages(1000, |page| presence.connections(NS, page)).await;
    ids.extend(all_pages(1000, |page| presence.user_connections(NS, "ann", page)).await);
    assert_eq!(ids.len(), 800);
    assert!(ids.iter().all(|connection| json!(connection.metadata) == large));
    let mut ids: Vec<_> = ids.into_iter().map(|connection| connection.socket_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 400);
    world.end().await;
}

async fn status_is_the_newest_and_outlives_the_last_socket(world: World) {
    let (one, two) = (world.connect(0, "ann"), world.connect(1, "ann"));
    let last = world.nodes.last().unwrap();
    assert_eq!(last.presence.status(NS, "ann").await.unwrap().status, None);
    assert!(one.set_status(&json!("away")));
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(two.set_status(&json!("busy")));
    assert!(!two.set_status(&json!("x".repeat(2000))), "too large");
    world.settle().await;
    for node in &world.nodes {
        let status = node.presence.status(NS, "ann").await.unwrap();
        assert_eq!((status.status, status.sockets), (Some(json!("busy")), 2));
        let user = node.presence.user(NS, "ann").await.unwrap().unwrap();
        assert_eq!((user.status.as_deref(), user.connections), (Some("busy"), 2));
    }
    one.close();
    two.close();
    world.settle().await;
    for node in &world.nodes {
        let status = node.presence.status(NS, "ann").await.unwrap();
        assert_eq!((status.status, status.sockets), (Some(json!("busy")), 0));
    }
    world.end().await;
}

async fn shared_rooms_are_those_of_all_sockets(world: World) {
    for n in 0..4 {
        let socket = world.connect(n, "ann");
        socket.join("all");
        socket.join(&format!("r{n}"));
    }
    world.connect(5, "bob").join("other");
    world.settle().await;
    for node in &world.nodes {
        let shared = node.presence.shared_rooms(NS, "ann").await;
        assert_eq!(shared.rooms.iter().map(|room| &**room).collect::<Vec<_>>(), ["all", "r0", "r1", "r2", "r3"]);
        assert!(!shared.partial);
        assert!(node.presence.shared_rooms(NS, "nobody").await.rooms.is_empty());
    }
    world.end().await;
}

async fn unknown_things_are_not_found(world: World) {
    world.settle().await;
    for node in &world.nodes {
        let presence = &node.presence;
        assert_eq!(presence.connection(NS, "nobody").await, Ok(None));
        assert_eq!(presence.room(NS, "nowhere").await, Ok(None));
        assert_eq!(presence.user(NS, "nobody").await, Ok(None));
        assert_eq!(presence.count(NS, CountOf::Room("nowhere")).await.unwrap().connections, 0);
        assert!(presence.members(NS, "nowhere", PageRequest::default()).await.unwrap().items.is_empty());
    }
    world.end().await;
}

async fn cursors_of_other_lists_are_refused(world: World) {
    world.settle().await;
    for cursor in ["", "nonsense", "eyJsIjoxfQ"] {
        let page = || PageRequest { limit: 5, cursor: Some(cursor.to_owned()) };
        let presence = &world.nodes[0].presence;
        assert_eq!(presence.rooms(NS, page()).await.unwrap_err(), DirectoryError::Cursor, "{cursor}");
        assert_eq!(presence.connections(NS, page()).await.unwrap_err(), DirectoryError::Cursor);
        assert_eq!(presence.members(NS, "r", page()).await.unwrap_err(), DirectoryError::Cursor);
    }
    world.end().await;
}

// --- only in Redis ---

#[tokio::test]
async fn everything_that_remains_has_an_end() {
    let world = World::redis(2).await;
    for n in 0..10 {
        let session = world.connect(n, "ann");
        session.join("told:1");
        session.set_status(&json!("away"));
    }
    world.settle().await;
    let without_ttl = world.keys().into_iter().filter(|(_, ttl_ms)| *ttl_ms < 0).collect::<Vec<_>>();
    assert_eq!(without_ttl, Vec::new());
    let server = world.end().await.unwrap();
    let left: Vec<_> = keys(&server).into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, ["test:presence:v1:{/}:epoch", "test:presence:v1:{/}:status:ann"]);
}

#[tokio::test]
async fn emptied_redis_is_filled_again_and_nobody_is_told_twice() {
    let world = World::redis(2).await;
    for n in 0..10 {
        world.connect(n, &format!("u{n}")).join("told:1");
    }
    world.settle().await;
    let before = world.told().len();
    world.server().command("FLUSHALL");
    let presence = &world.nodes[0].presence;
    eventually_async("everybody is back", Duration::from_secs(10), || async {
        presence.count(NS, CountOf::Room("told:1")).await.is_ok_and(|count| count.connections == 10 && !count.partial)
    })
    .await;
    assert_eq!(world.told().len(), before);
    world.end().await;
}

#[tokio::test]
async fn redis_that_was_away_learns_what_happened_meanwhile() {
    let mut world = World::redis(2).await;
    let sessions: Vec<_> = (0..10).map(|n| world.connect(n, &format!("u{n}"))).collect();
    sessions.iter().for_each(|session| session.join("told:1"));
    world.settle().await;
    assert_eq!(world.nodes[0].presence.count(NS, CountOf::Room("told:1")).await.unwrap().connections, 10);
    world.server_mut().kill();
    sessions[0].leave("told:1");
    sessions[1].close();
    world.connect(10, "new").join("told:1");
    let presence = world.nodes[0].presence.clone();
    eventually_async("the node answers alone", Duration::from_secs(10), || async {
        let count = presence.count(NS, CountOf::Room("told:1")).await.unwrap();
        count.partial && count.missing_nodes == ["n1"] && count.connections == 5
    })
    .await;
    assert_eq!(presence.connection(NS, "nobody").await, Err(DirectoryError::Unavailable));
    assert!(presence.connection(NS, &sessions[2].id()).await.unwrap().is_some(), "it is here");
    assert!(presence.shared_rooms(NS, "u2").await.partial);
    let here = presence.roster(NS, "told:1", 100).await;
    assert_eq!((here.count, here.members.len(), here.partial), (5, 5, true));
    world.server_mut().restart();
    for node in &world.nodes {
        eventually_async("everybody is counted", Duration::from_secs(10), || async {
            let count = node.presence.count(NS, CountOf::Room("told:1")).await;
            let roster = node.presence.roster(NS, "told:1", 100).await;
            count.is_ok_and(|count| count.connections == 9 && !count.partial)
                && (roster.count, roster.members.len(), roster.partial) == (9, 9, false)
        })
        .await;
    }
    world.end().await;
}

#[tokio::test]
async fn outage_tells_nobody_left_and_joined() {
    let mut world = World::redis(2).await;
    for n in 0..10 {
        world.connect(n, &format!("u{n}")).join("told:1");
    }
    world.settle().await;
    let before = world.told().len();
    // Redis keeps its data, but is unreachable for longer than a lease.
    world.server_mut().pause();
    tokio::time::sleep(world.heartbeat * 3).await;
    world.server_mut().resume();
    let presence = world.nodes[1].presence.clone();
    eventually_async("everybody is back", Duration::from_secs(20), || async {
        presence.count(NS, CountOf::Room("told:1")).await.is_ok_and(|count| count.connections == 10 && !count.partial)
    })
    .await;
    tokio::time::sleep(world.heartbeat * 3).await;
    assert_eq!(world.told().len(), before, "{:?}", &world.told()[before..]);
    let roster = presence.roster(NS, "told:1", 100).await;
    assert_eq!((roster.count, roster.members.len(), roster.partial), (10, 10, false));
    world.end().await;
}

#[tokio::test]
async fn queue_at_its_bound_leads_to_a_rewrite() {
    let world = World::redis_with(1, |config| config.queue = 10).await;
    for n in 0..500 {
        world.connect(n, "ann").join("r");
    }
    let presence = world.nodes[0].presence.clone();
    eventually_async("everything is written", Duration::from_secs(10), || async {
        presence.count(NS, CountOf::Room("r")).await.is_ok_and(|count| count.connections == 500 && !count.partial)
    })
    .await;
    let resyncs = world.nodes[0].metrics.presence_resyncs_total.with_label_values(&["full"]).get();
    assert!(resyncs >= 1, "{resyncs}");
    world.end().await;
}

#[tokio::test]
async fn change_during_a_rewrite_is_not_lost() {
    let world = World::redis(2).await;
    let sessions: Vec<_> = (0..200).map(|n| world.connect(n, &format!("u{}", n % 20))).collect();
    world.settle().await;
    let mut expected = [false; 200];
    for round in 0..20 {
        world.server().command("FLUSHALL");
        for step in 0..300_usize {
            let n = (step * 31 + round * 17) % 200;
            if expected[n] {
                sessions[n].leave("r")
            } else {
                sessions[n].join("r")
            }
            expected[n] = !expected[n];
            if step % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let want = expected.iter().filter(|is_in| **is_in).count() as u64;
        for node in &world.nodes {
            eventually_async("the count is right", Duration::from_secs(10), || async {
                let count = node.presence.count(NS, CountOf::Room("r")).await;
                count.is_ok_and(|count| count.connections == want && !count.partial)
            })
            .await;
        }
    }
    world.end().await;
}
