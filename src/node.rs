//! Composition root: builds a node from its configuration and runs it. This is the only module that knows every part.

mod build;
mod ground;
mod leaving;
mod measure;
mod pulse;
mod ready;
mod requirements;
mod shutdown;
mod signals;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::Request;
use anyhow::Context as _;
use axum::body::Body;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{ServiceExt as _, service_fn};

use crate::config::Config;
use crate::contract::model::Namespace;
use crate::engine::closable_stream::Traffic;
use crate::engine::listener::{self, ConnectionOptions, HttpOnly, RequestConnection};
use crate::engine::nodes::NodeListener;
use crate::engine::pending::PendingConnections;
use crate::forward;
use crate::http;
use crate::telemetry::logging::Logging;
use build::NodeParts;
pub use requirements::check_requirements;
use signals::EndSignals;

/// Maximum number of connections that wait in the kernel to be accepted, if `net.core.somaxconn` permits it. When a
/// node is lost, all its clients connect to the others at once, and a client for which this queue is full tries again a
/// second later.
const WAITING: u32 = 4096;

/// How long a new connection to the API may take to send the head of its first request.
const API_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of connections to the API that have not sent a request yet. When there are more, the node closes the
/// connection that has waited longest.
const API_PENDING: usize = 1024;

/// A client of the API that reads nothing of its answer for this long is disconnected.
const API_STALL: Duration = Duration::from_secs(30);

/// The addresses and the name of a node that listens.
pub struct BoundAddresses {
    /// The address at which clients connect.
    pub server: SocketAddr,
    /// The address at which backends and operators connect.
    pub api: SocketAddr,
    /// The address at which other nodes connect. `None`: the node does not listen for them.
    pub cluster: Option<SocketAddr>,
    /// The node's name within the cluster.
    pub node: String,
    /// The namespaces that the node serves.
    pub namespaces: Vec<Arc<Namespace>>,
}

/// Runs a node until the process receives SIGTERM or SIGINT. `on_ready` is called once, when every listener is bound.
///
/// # Errors
/// Returns an error in a contract or key, or another reason why the node could not start.
pub async fn serve(
    config: Config,
    logging: Arc<Logging>,
    on_ready: impl FnOnce(&BoundAddresses) + Send + 'static,
) -> anyhow::Result<()> {
    let mut signals = EndSignals::listen();
    signals::handle_log_signals(logging.clone());
    let server = bind(config.server.listen, "server.listen")?;
    let api = bind(config.api.listen, "api.listen")?;
    let nodes = config.cluster.listen.map(|address| bind(address, "cluster.listen")).transpose()?;
    let cluster = nodes.as_ref().map(TcpListener::local_addr).transpose().context("cluster.listen has no address")?;
    let address = match cluster {
        Some(bound) => Some(forward::advertised(&config.cluster, bound).await?),
        None => None,
    };
    let parts = tokio::select! {
        parts = build::build(&config, address) => parts?,
        _ = signals.next() => return Ok(()),
    };
    measure::log(&parts.metrics, logging.clone());
    let bound = BoundAddresses {
        server: server.local_addr().context("server.listen has no address")?,
        api: api.local_addr().context("api.listen has no address")?,
        cluster,
        node: parts.id.clone(),
        namespaces: parts.namespaces.clone(),
    };
    tracing::info!(node = %bound.node, server = %bound.server, api = %bound.api, "the node listens");
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let nodes = nodes.map(|listener| NodeListener {
        listener,
        checkpoint: parts.forwarding.checkpoint.clone(),
        tls: parts.forwarding.tls.clone(),
        most_pending: config.cluster.max_forwarded,
    });
    tasks.spawn(serve_clients(parts.clone(), server, nodes, stop.clone()));
    tasks.spawn(serve_api(parts.clone(), api, stop.clone()));
    on_ready(&bound);
    tasks.close();
    signals.next().await;
    tokio::spawn(signals.end_at_next(logging));
    shutdown::leave(&parts, &stop, &tasks).await;
    Ok(())
}

/// Builds the router of the API, for a node that does not listen and has no clients. The fuzzers call it.
///
/// # Errors
/// Returns the same errors as [`serve`].
pub async fn api(config: &Config) -> anyhow::Result<axum::Router> {
    Ok(http::api_router(build::build(config, None).await?.api.clone()))
}

fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    listen(address).with_context(|| format!("{key} = {address} cannot be bound"))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a node that has just stopped may still be in the kernel's table, so the address is reused. They
    // must not block the address.
    socket.set_reuseaddr(true)?;
    // Where accepted connections inherit `TCP_NODELAY` from the listener, the node need not set it for each connection.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

async fn serve_clients(
    parts: Arc<NodeParts>,
    listener: TcpListener,
    nodes: Option<NodeListener>,
    stop: CancellationToken,
) {
    let routes = http::public_router(parts.ready.clone());
    parts.engine.serve(listener, nodes, routes, stop).await;
}

async fn serve_api(parts: Arc<NodeParts>, listener: TcpListener, stop: CancellationToken) {
    let router = http::api_router(parts.api.clone());
    let service = service_fn(move |mut request: Request<Body>| {
        // The request's head has arrived, so its connection no longer counts as pending.
        if let Some(arrival) = request.extensions_mut().remove::<RequestConnection>() {
            arrival.pending.leave();
        }
        router.clone().oneshot(request)
    });
    let options = ConnectionOptions {
        stall: API_STALL,
        // HTTP reads one request after the other, so answers cannot pile up.
        read_ahead: usize::MAX,
        traffic: Traffic::unmeasured(),
        balancers: None,
        max_head: listener::MAX_HEAD,
        pending_connections: PendingConnections::of_api(API_PENDING, API_HEAD_TIMEOUT, &parts.api.metrics),
    };
    listener::serve(listener, HttpOnly, service, options, stop).await;
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn connections_inherit_that_small_packets_do_not_wait() {
        let listener = super::bind("127.0.0.1:0".parse().unwrap(), "server.listen").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(listener.accept().await.unwrap().0.nodelay().unwrap());
    }

    #[tokio::test]
    async fn hundreds_that_come_at_once_wait_to_be_taken() {
        let listener = super::bind("127.0.0.1:0".parse().unwrap(), "server.listen").unwrap();
        let address = listener.local_addr().unwrap();
        let permitted = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
        // No task of this node accepts the connections of this listener. The usual backlog of 128 would be too short.
        let waiting: Vec<_> = (0..500.min(permitted))
            .map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(500)).unwrap())
            .collect();
        drop(waiting);
        let error = super::bind(address, "server.listen").unwrap_err();
        assert_eq!(error.to_string(), format!("server.listen = {address} cannot be bound"));
    }
}
