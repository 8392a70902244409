//! The other nodes, as known from their heartbeats.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::HEARTBEAT;
use crate::drain::standing::Standing;
use crate::forward::Announced;

/// A node whose last heartbeat is older than this counts as gone.
const SILENCE: Duration = Duration::from_millis(3 * HEARTBEAT.as_millis() as u64 + 500);

/// Maximum number of other nodes that are known.
const MAX_MEMBERS: usize = 1024;

/// A node and its totals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The node's id.
    pub node: String,
    /// Clients connected to it, over all namespaces.
    pub connections: usize,
    /// Rooms with members on it, without the clients' own. A room with members on two nodes is a room of both.
    pub rooms: usize,
}

/// The cluster as this node sees it. While Redis works, the totals are at most two heartbeats old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct View {
    /// This node first, then the others by id.
    pub nodes: Vec<Member>,
}

impl View {
    /// Clients connected to the cluster.
    pub fn connections(&self) -> usize {
        self.nodes.iter().map(|node| node.connections).sum()
    }
}

/// The content of a heartbeat.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) connections: usize,
    pub(super) rooms: usize,
    /// Channels that the node listens to for as long as it runs.
    pub(super) listens: Vec<Arc<str>>,
    /// The newest number that it gave on each channel that every node listens to, and on channels that have fallen
    /// quiet.
    pub(super) heads: HashMap<Arc<str>, u64>,
    /// A digest of its contracts. Nodes of earlier versions do not send it.
    #[serde(default)]
    pub(super) contracts: String,
    /// How many runs of numbers it has begun. A run with a higher number begins later. Nodes of earlier versions do not
    /// send it.
    #[serde(default)]
    pub(super) runs: u32,
    /// Where it accepts requests for its sessions. Nodes of earlier versions do not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) forward: Option<Announced>,
    /// Whether it leaves, and how many connections it can take. Nodes of earlier versions do not send it.
    #[serde(default)]
    pub(super) standing: Standing,
}

#[derive(Default)]
pub(super) struct Members {
    others: Mutex<HashMap<Arc<str>, Other>>,
}

struct Other {
    member: Member,
    listens: Vec<Arc<str>>,
    standing: Standing,
    heard: Instant,
}

impl Members {
    /// Notes a heartbeat. Returns true if the node was not known before.
    pub(super) fn note(&self, node: &Arc<str>, hello: Hello, now: Instant) -> bool {
        let member = Member { node: node.to_string(), connections: hello.connections, rooms: hello.rooms };
        let other = Other { member, listens: hello.listens, standing: hello.standing, heard: now };
        let mut others = self.others.lock().expect("no panic while held");
        if others.len() >= MAX_MEMBERS && !others.contains_key(node) {
            return false;
        }
        others.insert(node.clone(), other).is_none()
    }

    pub(super) fn forget(&self, node: &str) -> bool {
        self.others.lock().expect("no panic while held").remove(node).is_some()
    }

    /// Forgets nodes whose heartbeats have stopped, and returns them. Forgets none if this node itself has been able to
    /// receive only since recently (`hearing_since`).
    pub(super) fn expire(&self, hearing_since: SystemTime, now: Instant) -> Vec<Arc<str>> {
        if hearing_since.elapsed().unwrap_or_default() < SILENCE {
            return Vec::new();
        }
        let mut others = self.others.lock().expect("no panic while held");
        let silent = |other: &Other| now.saturating_duration_since(other.heard) >= SILENCE;
        let gone: Vec<_> = others.iter().filter(|(_, other)| silent(other)).map(|(node, _)| node.clone()).collect();
        gone.iter().for_each(|node| drop(others.remove(node)));
        gone
    }

    /// How many other nodes listen to each channel.
    pub(super) fn listeners(&self) -> HashMap<Arc<str>, usize> {
        let mut listeners = HashMap::new();
        for other in self.others.lock().expect("no panic while held").values() {
            for channel in &other.listens {
                *listeners.entry(channel.clone()).or_default() += 1;
            }
        }
        listeners
    }

    /// The standings in the last heartbeats of the other nodes.
    pub(super) fn standings(&self) -> Vec<Standing> {
        self.others.lock().expect("no panic while held").values().map(|other| other.standing).collect()
    }

    pub(super) fn view(&self, own: Member) -> View {
        let others = self.others.lock().expect("no panic while held");
        let mut nodes: Vec<_> = others.values().map(|other| other.member.clone()).collect();
        drop(others);
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        nodes.insert(0, own);
        View { nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(connections: usize) -> Hello {
        Hello {
            connections,
            rooms: 1,
            listens: vec!["c".into()],
            heads: HashMap::new(),
            contracts: String::new(),
            runs: 0,
            forward: None,
            standing: Standing::default(),
        }
    }

    #[test]
    fn silent_node_is_forgotten_but_not_by_a_node_that_was_deaf() {
        let (members, start) = (Members::default(), Instant::now());
        let long_ago = SystemTime::UNIX_EPOCH;
        assert!(members.note(&"b".into(), hello(1), start));
        assert!(!members.note(&"b".into(), hello(2), start));
        assert!(members.expire(long_ago, start + Duration::from_secs(1)).is_empty());
        assert!(members.expire(SystemTime::now(), start + Duration::from_secs(60)).is_empty());
        assert_eq!(members.expire(long_ago, start + Duration::from_secs(60)), ["b".into()]);
        assert!(members.listeners().is_empty());
    }

    #[test]
    fn view_adds_up_this_node_and_the_others() {
        let members = Members::default();
        members.note(&"z".into(), hello(3), Instant::now());
        members.note(&"b".into(), hello(4), Instant::now());
        let view = members.view(Member { node: "m".into(), connections: 5, rooms: 0 });
        assert_eq!(view.connections(), 12);
        assert_eq!(view.nodes.iter().map(|node| &*node.node).collect::<Vec<_>>(), ["m", "b", "z"]);
        assert_eq!(members.listeners()["c"], 2);
    }
}
