//! Any node takes any request: a long-polling session lives on one node, and the others pass its requests on to it.
//!
//! A session's id names its node in a way that only nodes can read ([`sid`]). Nodes say in their heartbeats where they take
//! such requests ([`peers`]). [`Forwarder`] signs a request ([`stamp`]) and sends it over a kept connection; the other node's
//! listener checks it ([`Checkpoint`]) and gives it to the same edge that takes its own clients' requests. An upgrade becomes
//! a [`tunnel`]. `docs/sticky-sessions.md` describes both ways of running a cluster.

mod advertise;
mod bodies;
mod checkpoint;
mod connect;
mod counters;
mod forwarder;
mod keys;
pub mod peers;
mod replay;
pub mod sid;
pub mod stamp;
pub mod tls;
pub mod tunnel;

pub use advertise::advertised;
pub use checkpoint::{Checked, Checkpoint};
pub use forwarder::{Forwarder, NotForwarded};
pub use keys::ClusterKeys;
pub use peers::{Announced, Peers};
pub use sid::{NodeKey, SidMint};

use std::sync::Arc;

use crate::config::Config;
use crate::telemetry::metrics::Metrics;

/// The parts of a node that pass requests on, and take them.
pub struct Forwarding {
    /// The other nodes.
    pub peers: Arc<Peers>,
    /// Passes requests on.
    pub forwarder: Arc<Forwarder>,
    /// Checks those of others.
    pub checkpoint: Arc<Checkpoint>,
    /// Certificates, where they are configured.
    pub tls: Option<tls::NodeTls>,
}

impl Forwarding {
    /// The parts of a node that other nodes know by `address`; with none, nothing is passed on.
    ///
    /// # Errors
    /// Which file of `cluster.tls` cannot be used.
    pub fn new(config: &Config, address: Option<String>, metrics: &Arc<Metrics>) -> Result<Self, tls::TlsError> {
        let parts = (&config.cluster, &config.server);
        let (own, keys) = (NodeKey::random(), ClusterKeys::new(&config.cluster));
        let announced = address.map(|address| Announced { key: own, address });
        let peers = Arc::new(Peers::new(announced, config.cluster.max_forwarded_per_node));
        let tls = config.cluster.tls.as_ref().map(tls::NodeTls::new).transpose()?;
        let forwarder = Forwarder::new(parts, (own, keys.clone()), peers.clone(), tls.clone(), metrics.clone());
        let checkpoint = Arc::new(Checkpoint::new(parts, (own, keys), metrics.clone()));
        Ok(Self { peers, forwarder, checkpoint, tls })
    }
}
