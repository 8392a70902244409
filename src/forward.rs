//! Lets any node accept any request of a session. A long-polling session exists on one node only; the other nodes
//! forward its requests to that node.
//!
//! A session's id contains the encrypted name of its node, which only nodes can decrypt ([`sid`]). Each node announces
//! in its heartbeats the address at which the node accepts forwarded requests ([`peers`]). [`Forwarder`] signs a
//! request ([`stamp`]) and sends it over a pooled connection. The listener of the other node checks the request
//! ([`Checkpoint`]) and handles it like a request of its own clients. An upgrade becomes a [`tunnel`].
//! `docs/sticky-sessions.md` describes both ways of running a cluster.

mod advertise;
mod bodies;
mod checkpoint;
mod connect;
mod counters;
mod forwarder;
mod keys;
mod liveness;
pub mod peers;
mod replay;
pub mod sid;
pub mod stamp;
pub mod tls;
pub mod tunnel;

pub use advertise::advertised;
pub use checkpoint::{Checked, Checkpoint};
pub use forwarder::Forwarder;
pub use keys::ClusterKeys;
pub use peers::{Announced, Peers};
pub use sid::{NodeKey, SidMint};

use std::sync::Arc;

use crate::config::Config;
use crate::telemetry::metrics::Metrics;

/// The parts of a node that forward requests and accept forwarded ones.
pub struct Forwarding {
    /// The other nodes.
    pub peers: Arc<Peers>,
    /// Forwards requests to other nodes.
    pub forwarder: Arc<Forwarder>,
    /// Checks the requests that other nodes forward.
    pub checkpoint: Arc<Checkpoint>,
    /// The certificates, if they are configured.
    pub tls: Option<tls::NodeTls>,
}

impl Forwarding {
    /// Creates the parts of a node that other nodes reach at `address`. Without an address, other nodes forward nothing
    /// to this one.
    ///
    /// # Errors
    /// Returns an error that names the file of `cluster.tls` that cannot be used.
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

/// Why the node that has the session did not answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotForwarded {
    /// The node is unknown, or has sent no heartbeat for 60 s.
    Gone,
    /// The node accepts no connection.
    Unreachable,
    /// The connection broke before the answer arrived.
    Cut,
    /// The head of the answer did not arrive within the time `patience`.
    Timeout,
    /// The node has sent no heartbeat and has not answered a probe.
    Silent,
    /// The answer is not signed: the node refused the request, or another process now uses the node's address.
    Refused,
    /// Too many requests are being forwarded.
    Busy,
    /// The body is larger than `server.max_payload`.
    TooLarge,
    /// The body did not arrive within the time limit for bodies.
    SlowBody,
    /// The session's previous body is still being read.
    Overlap,
}

impl NotForwarded {
    /// The label of the failure in `roomcast_forwarded_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Unreachable => "unreachable",
            Self::Cut => "cut",
            Self::Timeout => "timeout",
            Self::Silent => "silent",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::TooLarge => "too_large",
            Self::SlowBody => "slow_body",
            Self::Overlap => "overlap",
        }
    }
}
