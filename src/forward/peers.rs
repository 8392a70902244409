//! The addresses at which the other nodes accept forwarded requests, as these nodes announce in their heartbeats.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::liveness::Liveness;
use super::sid::NodeKey;

/// How long requests are still forwarded to a node after its last heartbeat. A node that has lost Redis may still have
/// its clients.
const KEEP: Duration = Duration::from_secs(60);

/// Maximum number of other nodes that are known.
const MAX_PEERS: usize = 1024;

/// Maximum length of an address, in bytes. A node with a longer address is ignored.
const MAX_ADDRESS: usize = 300;

/// The announcement of a node to the other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The key of the node, which its session ids contain.
    pub key: NodeKey,
    /// The address at which the node accepts forwarded requests, as `HOST:PORT`.
    pub address: String,
}

/// The nodes that accept forwarded requests: other nodes, and this node if it accepts them.
pub struct Peers {
    own: Option<Announced>,
    /// Maximum number of requests that are being forwarded to one node.
    most: usize,
    others: Mutex<HashMap<NodeKey, KnownPeer>>,
}

struct KnownPeer {
    /// The node's id.
    node: Arc<str>,
    heard: Instant,
    peer: Arc<Peer>,
}

/// Another node that accepts forwarded requests.
#[derive(Debug)]
pub struct Peer {
    /// The key of the node, which its session ids contain.
    pub key: NodeKey,
    /// The address at which the node accepts forwarded requests.
    pub address: String,
    /// One permit for each request that may be forwarded to the node at the same time.
    pub(super) permits: Arc<Semaphore>,
    pub(super) liveness: Liveness,
}

impl Peers {
    /// Creates a list that contains no other node. At most `most` requests may be forwarded to each node at the same
    /// time.
    pub fn new(own: Option<Announced>, most: usize) -> Self {
        Self { own, most, others: Mutex::default() }
    }

    /// Creates the list of a node that forwards nothing.
    pub fn none() -> Arc<Self> {
        Arc::new(Self::new(None, 0))
    }

    /// This node's announcement to the others. `None` if it accepts no forwarded requests.
    pub fn own(&self) -> Option<&Announced> {
        self.own.as_ref()
    }

    /// Records the announcement in another node's heartbeat.
    pub fn note(&self, node: &Arc<str>, announced: Option<Announced>, now: Instant) {
        let Some(announced) = announced.filter(|announced| is_plain(&announced.address)) else { return };
        let mut others = self.others.lock().expect("no thread panics while it holds this lock");
        if let Some(known) = others.get_mut(&announced.key)
            && known.peer.address == announced.address
        {
            known.heard = now;
            known.peer.liveness.note(now);
            return;
        }
        // A restarted node has a new key, and the sessions of its old key no longer exist.
        others.retain(|_, known| known.node != *node && now.saturating_duration_since(known.heard) < KEEP);
        if others.len() < MAX_PEERS {
            let Announced { key, address } = announced;
            let (permits, liveness) = (Arc::new(Semaphore::new(self.most)), Liveness::new(now));
            let peer = Arc::new(Peer { key, address, permits, liveness });
            others.insert(key, KnownPeer { node: node.clone(), heard: now, peer });
        }
    }

    /// Forgets a node that has announced that it leaves.
    pub fn forget(&self, node: &str) {
        self.others.lock().expect("no thread panics while it holds this lock").retain(|_, known| &*known.node != node);
    }

    /// Returns the node that a session id names. `None` if the node is unknown, or if its last heartbeat is older than
    /// `KEEP`.
    pub fn find(&self, key: NodeKey, now: Instant) -> Option<Arc<Peer>> {
        let others = self.others.lock().expect("no thread panics while it holds this lock");
        let known = others.get(&key).filter(|known| now.saturating_duration_since(known.heard) < KEEP)?;
        Some(known.peer.clone())
    }
}

/// Whether an address can be part of a URL as it is.
fn is_plain(address: &str) -> bool {
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    has_port && address.len() <= MAX_ADDRESS && address.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(address: &str) -> Announced {
        Announced { key: NodeKey::random(), address: address.to_owned() }
    }

    #[test]
    fn a_node_is_found_until_it_goes_restarts_or_is_silent_for_long() {
        let (peers, start) = (Peers::new(None, 1), Instant::now());
        let (node, first) = ("b".into(), announced("10.0.0.2:3002"));
        peers.note(&node, Some(first.clone()), start);
        let found = peers.find(first.key, start + KEEP / 2).unwrap();
        assert_eq!(found.address, "10.0.0.2:3002");
        peers.note(&node, Some(first.clone()), start + KEEP / 2);
        assert!(
            Arc::ptr_eq(&found, &peers.find(first.key, start + KEEP).unwrap()),
            "one bound, however often it is heard"
        );
        assert!(peers.find(first.key, start + KEEP * 2).is_none());
        let second = announced("10.0.0.2:3002");
        peers.note(&node, Some(second.clone()), start);
        assert!(peers.find(first.key, start).is_none() && peers.find(second.key, start).is_some());
        peers.forget("b");
        assert!(peers.find(second.key, start).is_none());
    }

    #[test]
    fn what_is_no_address_is_not_taken_and_there_are_not_too_many() {
        let (peers, now) = (Peers::new(None, 1), Instant::now());
        for address in ["", "a", "a:x", "a:1/path", "user@a:1", "a b:1", &format!("{}:1", "a".repeat(MAX_ADDRESS))] {
            let said = announced(address);
            peers.note(&"b".into(), Some(said.clone()), now);
            assert!(peers.find(said.key, now).is_none(), "{address}");
        }
        for number in 0..=MAX_PEERS {
            peers.note(&format!("{number}").into(), Some(announced("[fd00::1]:3002")), now);
        }
        assert_eq!(peers.others.lock().unwrap().len(), MAX_PEERS);
    }
}
