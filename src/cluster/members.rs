//! Keeps the list of the other nodes, built from their heartbeats.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::drain::report::DrainReport;
use crate::forward::Announced;

/// How often a node sends its heartbeat.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// A node whose last heartbeat is older than this counts as gone.
const SILENCE: Duration = Duration::from_millis(3 * HEARTBEAT.as_millis() as u64 + 500);

/// Maximum number of other nodes that are known.
const MAX_MEMBERS: usize = 1024;

/// A node and its totals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeTotals {
    /// The node's id.
    pub node: String,
    /// Number of clients connected to the node, over all namespaces.
    pub connections: usize,
    /// Number of rooms with members on the node, without the rooms that contain only one client. A room with members on
    /// two nodes is counted by both nodes.
    pub rooms: usize,
}

/// The cluster as this node sees it. While Redis works, the totals are at most two heartbeats old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterView {
    /// This node first, followed by the other nodes in the order of their ids.
    pub nodes: Vec<NodeTotals>,
}

impl ClusterView {
    /// Number of clients connected to the cluster.
    pub fn connections(&self) -> usize {
        self.nodes.iter().map(|node| node.connections).sum()
    }
}

/// The content of a heartbeat.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Heartbeat {
    pub(super) connections: usize,
    pub(super) rooms: usize,
    /// Channels that the node listens to for as long as it runs.
    pub(super) listens: Vec<Arc<str>>,
    /// The newest message number of the node on each channel that every node listens to, and on each channel on which
    /// the node has published nothing for a second.
    pub(super) heads: HashMap<Arc<str>, u64>,
    /// A digest of the node's contracts. Nodes of earlier versions do not send this digest.
    #[serde(default)]
    pub(super) contracts: String,
    /// How many runs of message numbers the node has begun (see the module `numbers`). A run with a higher number
    /// begins later. Nodes of earlier versions do not send this count.
    #[serde(default)]
    pub(super) runs: u32,
    /// The address at which the node accepts forwarded requests for its sessions. Nodes of earlier versions do not send
    /// an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) forward: Option<Announced>,
    /// Whether the node is leaving, and how many connections the node can accept. Nodes of earlier versions do not send
    /// this.
    #[serde(default)]
    pub(super) standing: DrainReport,
}

#[derive(Default)]
pub(super) struct ClusterMembers {
    others: Mutex<HashMap<Arc<str>, OtherNode>>,
}

struct OtherNode {
    member: NodeTotals,
    listens: Vec<Arc<str>>,
    standing: DrainReport,
    heard: Instant,
}

impl ClusterMembers {
    /// Records a heartbeat. Returns true if the node was not known before.
    pub(super) fn note(&self, node: &Arc<str>, hello: Heartbeat, now: Instant) -> bool {
        let member = NodeTotals { node: node.to_string(), connections: hello.connections, rooms: hello.rooms };
        let other = OtherNode { member, listens: hello.listens, standing: hello.standing, heard: now };
        let mut others = self.others.lock().expect("no thread panics while it holds this lock");
        if others.len() >= MAX_MEMBERS && !others.contains_key(node) {
            return false;
        }
        others.insert(node.clone(), other).is_none()
    }

    pub(super) fn forget(&self, node: &str) -> bool {
        self.others.lock().expect("no thread panics while it holds this lock").remove(node).is_some()
    }

    /// Forgets nodes whose last heartbeat is older than [`SILENCE`], and returns the forgotten nodes. Forgets no node
    /// if this node itself has been able to receive messages for less than [`SILENCE`] (since `hearing_since`).
    pub(super) fn expire(&self, hearing_since: SystemTime, now: Instant) -> Vec<Arc<str>> {
        if hearing_since.elapsed().unwrap_or_default() < SILENCE {
            return Vec::new();
        }
        let mut others = self.others.lock().expect("no thread panics while it holds this lock");
        let silent = |other: &OtherNode| now.saturating_duration_since(other.heard) >= SILENCE;
        let gone: Vec<_> = others.iter().filter(|(_, other)| silent(other)).map(|(node, _)| node.clone()).collect();
        gone.iter().for_each(|node| drop(others.remove(node)));
        gone
    }

    /// How many other nodes listen to each channel.
    pub(super) fn listeners(&self) -> HashMap<Arc<str>, usize> {
        let mut listeners = HashMap::new();
        for other in self.others.lock().expect("no thread panics while it holds this lock").values() {
            for channel in &other.listens {
                *listeners.entry(channel.clone()).or_default() += 1;
            }
        }
        listeners
    }

    /// The standings in the last heartbeats of the other nodes.
    pub(super) fn drain_reports(&self) -> Vec<DrainReport> {
        self.others
            .lock()
            .expect("no thread panics while it holds this lock")
            .values()
            .map(|other| other.standing)
            .collect()
    }

    pub(super) fn view(&self, own: NodeTotals) -> ClusterView {
        let others = self.others.lock().expect("no thread panics while it holds this lock");
        let mut nodes: Vec<_> = others.values().map(|other| other.member.clone()).collect();
        drop(others);
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        nodes.insert(0, own);
        ClusterView { nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(connections: usize) -> Heartbeat {
        Heartbeat {
            connections,
            rooms: 1,
            listens: vec!["c".into()],
            heads: HashMap::new(),
            contracts: String::new(),
            runs: 0,
            forward: None,
            standing: DrainReport::default(),
        }
    }

    #[test]
    fn silent_node_is_forgotten_but_not_by_a_node_that_was_deaf() {
        let (members, start) = (ClusterMembers::default(), Instant::now());
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
        let members = ClusterMembers::default();
        members.note(&"z".into(), hello(3), Instant::now());
        members.note(&"b".into(), hello(4), Instant::now());
        let view = members.view(NodeTotals { node: "m".into(), connections: 5, rooms: 0 });
        assert_eq!(view.connections(), 12);
        assert_eq!(view.nodes.iter().map(|node| &*node.node).collect::<Vec<_>>(), ["m", "b", "z"]);
        assert_eq!(members.listeners()["c"], 2);
    }
}
