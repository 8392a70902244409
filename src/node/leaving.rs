//! Connects the drain to the node: closes this node's connections, and gives the drain the state of the other nodes.

use std::sync::{Arc, Mutex, Weak};

use crate::cluster::Cluster;
use crate::drain::report::DrainReport;
use crate::drain::schedule::RemainingClients;
use crate::drain::{Drain, LocalClients, OtherNodes};
use crate::engine::edge::{EngineSession, Hub};
use crate::forward::tunnel::Tunnels;

/// Starts the drain's task for this node. Needs a Tokio runtime.
pub(super) fn start(drain: &Arc<Drain>, hub: &Arc<Hub>, tunnels: &Tunnels, cluster: &Arc<Cluster>, most: u64) {
    let connections = Arc::new(Connections { hub: hub.clone(), tunnels: tunnels.clone(), order: Mutex::default() });
    drain.start(connections, Arc::new(ClusterNodes(cluster.clone())), most);
}

/// The connections of this node.
struct Connections {
    hub: Arc<Hub>,
    /// The connections of clients whose sessions are on other nodes.
    tunnels: Tunnels,
    /// Returns the sessions to close, in the arbitrary order of a hash map. The drain needs no particular order.
    order: Mutex<Vec<Weak<EngineSession>>>,
}

impl LocalClients for Connections {
    fn accept(&self, yes: bool) {
        self.hub.accept(yes);
    }

    fn left(&self) -> RemainingClients {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        RemainingClients {
            unasked: count(self.hub.unasked()).saturating_add(self.tunnels.unasked()),
            open: count(self.hub.open()).saturating_add(self.hub.untold()).saturating_add(self.tunnels.open()),
        }
    }

    fn close(&self, count: usize) -> usize {
        let mut order = self.order.lock().expect("no thread panics while it holds this lock");
        if order.len() < count {
            // The new list includes the sessions that were opened since the last list was made.
            let unasked = self.hub.sessions().into_iter().filter(|session| !session.is_closing());
            *order = unasked.map(|session| Arc::downgrade(&session)).collect();
        }
        let mut closed = 0;
        while closed < count
            && let Some(next) = order.pop()
        {
            if let Some(session) = next.upgrade().filter(|session| !session.is_closing()) {
                session.close();
                closed += 1;
            }
        }
        closed + self.tunnels.close(count - closed)
    }
}

/// Returns the state of the other nodes of the cluster.
struct ClusterNodes(Arc<Cluster>);

impl OtherNodes for ClusterNodes {
    fn drain_reports(&self) -> Vec<DrainReport> {
        self.0.drain_reports()
    }

    fn tell(&self) {
        let cluster = self.0.clone();
        tokio::spawn(async move { cluster.tell_now().await });
    }
}
