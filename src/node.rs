//! Config in, running node out; knows every part.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::contract::model::Namespace;

/// What a node that listens is known by.
pub struct Bound {
    /// Where clients connect.
    pub server: SocketAddr,
    /// Where backends and operators connect.
    pub api: SocketAddr,
    /// The node's name within the cluster.
    pub node: String,
    /// What it serves.
    pub namespaces: Vec<Arc<Namespace>>,
}

/// Runs a node until it is told to leave. `on_ready` is called once, when every listener is bound.
///
/// # Errors
/// A wrong contract or key, or what kept it from starting.
pub async fn serve(_config: Config, on_ready: impl FnOnce(&Bound) + Send + 'static) -> anyhow::Result<()> {
    _ = on_ready;
    anyhow::bail!("not built yet")
}
