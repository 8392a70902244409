//! Nodes that die without announcing it disappear from every answer within two heartbeats. This suite runs alone, so
//! that no other test takes its processor time.

#[expect(dead_code, reason = "the program `it` uses the rest")]
mod support {
    pub mod presence;
    #[path = "../../src/session/recorder.rs"]
    pub mod recorder;
    pub mod redis;
}

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use roomcast::directory::CountOf;
use roomcast::presence::MemberChange;
use support::presence::{Node, all_pages, eventually_async};
use support::redis::{RedisServer, eventually};

const NS: &str = "/";
const KILLS: usize = 100;
const AT_ONCE: usize = 10;
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A node that runs in its own process.
struct Child {
    id: String,
    killed_at: Option<Instant>,
    process: std::process::Child,
}

impl Child {
    fn start(server: &RedisServer, id: &str) -> Self {
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "node_in_a_process_of_its_own"])
            .env("PRESENCE_TEST_REDIS", server.url())
            .env("PRESENCE_TEST_NODE", id)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { id: id.to_owned(), killed_at: None, process }
    }

    /// Sends SIGKILL.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.killed_at = Some(Instant::now());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process that `no_ghost_is_seen_after_two_heartbeats` kills. Without the variables that this test sets, the
/// function does nothing.
#[tokio::test]
async fn node_in_a_process_of_its_own() {
    let Ok(url) = std::env::var("PRESENCE_TEST_REDIS") else { return };
    let id = std::env::var("PRESENCE_TEST_NODE").unwrap();
    let node = Node::redis(&url, &id, |config| config.heartbeat = HEARTBEAT.into());
    for n in 0..20 {
        let session = node.connect(&format!("{id}-{n}"), &format!("user-{id}-{}", n % 5));
        session.join("told:all");
        session.join(&format!("own:{id}"));
    }
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_ghost_is_seen_after_two_heartbeats() {
    let server = RedisServer::start();
    let observer = Node::redis(&server.url(), "observer", |config| config.heartbeat = HEARTBEAT.into());
    assert!(observer.settled_within(Duration::from_secs(10)).await);
    for round in 0..KILLS / AT_ONCE {
        let mut children: Vec<_> = (0..AT_ONCE).map(|n| Child::start(&server, &format!("c{round}-{n}"))).collect();
        for child in &children {
            let room = format!("own:{}", child.id);
            eventually_async("the child is seen", Duration::from_secs(30), || async {
                observer.presence.count(NS, CountOf::Room(&room)).await.is_ok_and(|count| count.connections == 20)
            })
            .await;
        }
        for (n, child) in children.iter_mut().enumerate() {
            // The kills are spread over the interval of heartbeats, and all before the first lease ends: only the
            // observer notices them.
            tokio::time::sleep(HEARTBEAT * u32::try_from(n).unwrap() / 100).await;
            child.kill();
        }
        for child in &children {
            no_ghost_of(&observer, &child.id, child.killed_at.unwrap()).await;
        }
        // Totals and leaves follow when the dead node's data is removed, which takes a moment longer on a slow machine.
        eventually_async("nothing is left", Duration::from_secs(10), || async {
            let all = observer.presence.count(NS, CountOf::Namespace).await.unwrap();
            (all.connections, all.rooms, all.users, all.partial) == (0, Some(0), Some(0), false)
        })
        .await;
    }
    let left =
        || observer.told.lock().unwrap().iter().filter(|told| matches!(told.what, MemberChange::Left(_))).count();
    eventually("all leaves are told", Duration::from_secs(10), || left() >= KILLS * 5).await;
    assert_eq!(left(), KILLS * 5, "five users each, told once");
    observer.presence.stop().await;
    let keys: Vec<_> = support::presence::keys(&server).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["test:presence:v1:{/}:epoch"]);
}

async fn no_ghost_of(observer: &Node, id: &str, killed_at: Instant) {
    tokio::time::sleep_until((killed_at + HEARTBEAT * 2).into()).await;
    let (presence, room) = (&observer.presence, format!("own:{id}"));
    assert_eq!(presence.count(NS, CountOf::Room(&room)).await.unwrap().connections, 0, "{id}");
    assert!(!matches!(presence.connection(NS, &format!("{id}-0")).await, Ok(Some(_))), "{id}");
    assert!(!matches!(presence.user(NS, &format!("user-{id}-0")).await, Ok(Some(_))), "{id}");
    let members = all_pages(100, |page| presence.members(NS, "told:all", page)).await;
    assert!(members.iter().all(|member| member.node != id), "{id}");
    let rooms = all_pages(100, |page| presence.rooms(NS, page)).await;
    assert!(rooms.iter().all(|of| of.name != room), "{id}");
    let connections = all_pages(100, |page| presence.connections(NS, page)).await;
    assert!(connections.iter().all(|connection| connection.node != id), "{id}");
}
