//! The listener for other nodes (`cluster.listen`). They forward requests of clients whose sessions are on this node.
//!
//! The checkpoint verifies each request. A verified request then goes to the same edge as the requests of this node's
//! own clients, together with the client's address.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use super::EngineContext;
use super::closable_stream::Traffic;
use super::edge::FromNode;
use super::listener::{self, ConnectionIntake, ConnectionOptions, HttpConnection, HttpOnly, RequestConnection, Serve};
use super::pending::{PendingConnection, PendingConnections};
use crate::config;
use crate::forward::Checkpoint;
use crate::forward::stamp::MAX_STAMP;
use crate::forward::tls::NodeTls;
use crate::telemetry::metrics::Metrics;

/// The listener that receives forwarded requests.
pub struct NodeListener {
    /// The socket of `cluster.listen`.
    pub listener: TcpListener,
    /// Verifies that a request comes from another node.
    pub checkpoint: Arc<Checkpoint>,
    /// The TLS certificates, if they are configured.
    pub tls: Option<NodeTls>,
    /// The maximum number of open connections that have not yet brought a valid request.
    pub most_pending: usize,
}

/// Serves the listener for other nodes, if there is one.
pub(super) async fn serve(
    nodes: Option<NodeListener>,
    edge: impl Serve,
    config: &config::ServerSettings,
    context: &EngineContext,
    stop: CancellationToken,
) {
    if let Some(nodes) = nodes {
        nodes.serve(edge, config, &context.metrics, stop).await;
    }
}

impl NodeListener {
    /// Passes forwarded requests to `edge`, until `stop` is cancelled and every connection is closed.
    async fn serve(
        self,
        edge: impl Serve,
        config: &config::ServerSettings,
        metrics: &Metrics,
        stop: CancellationToken,
    ) {
        let options = ConnectionOptions {
            pending_connections: PendingConnections::of_nodes(
                self.most_pending,
                config.handshake_timeout.get(),
                metrics,
            ),
            stall: config.stall(),
            read_ahead: config.read_ahead(),
            traffic: Traffic::with_nodes(metrics),
            balancers: None,
            max_head: listener::MAX_HEAD + MAX_STAMP,
        };
        let service = NodeService { checkpoint: self.checkpoint, edge };
        match self.tls {
            Some(tls) => listener::serve(self.listener, TlsIntake(tls), service, options, stop).await,
            None => listener::serve(self.listener, HttpOnly, service, options, stop).await,
        }
    }
}

/// Passes the requests that the checkpoint accepts to the edge.
#[derive(Clone)]
struct NodeService<S> {
    checkpoint: Arc<Checkpoint>,
    edge: S,
}

impl<S: Serve> Service<Request<Body>> for NodeService<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { checkpoint, edge } = self.clone();
        let arrival = request.extensions().get::<RequestConnection>().cloned();
        let from = arrival.as_ref().map_or(IpAddr::from([0, 0, 0, 0]), |arrival| arrival.address.ip());
        Box::pin(async move {
            let checked = match checkpoint.check(request, from).await {
                Ok(checked) => checked,
                Err(refused) => return Ok(refused),
            };
            // A valid request proves that the other end is a node, so the connection no longer counts as pending.
            if let Some(arrival) = arrival {
                arrival.pending.leave();
            }
            let from_node = FromNode { client: checked.client };
            let (mut request, signature, _place) = checked.into_parts();
            request.extensions_mut().insert(from_node);
            let answer = edge.oneshot(request).await?;
            Ok(checkpoint.sign(signature, answer))
        })
    }
}

/// Accepts TLS connections of nodes that present a certificate.
///
/// HTTP and the engines handle only one type of stream, [`TcpStream`]. So they get one end of a socket pair, and a task
/// copies between the other end and the TLS stream.
#[derive(Clone)]
struct TlsIntake(NodeTls);

impl ConnectionIntake for TlsIntake {
    fn take(
        self,
        stream: TcpStream,
        address: SocketAddr,
        pending: PendingConnection,
    ) -> impl Future<Output = Option<HttpConnection>> + Send + Unpin {
        Box::pin(async move {
            let accepted = pending.unless_closed(self.0.acceptor.accept(stream)).await?;
            let taken = accepted.and_then(|tls| Ok((tls, pair()?)));
            let (mut tls, (mut near, far)) = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!(%address, %error, "a connection to cluster.listen did not come from a node");
                    return None;
                }
            };
            tokio::spawn(async move { copy_bidirectional(&mut tls, &mut near).await });
            Some((far, Bytes::new(), pending))
        })
    }
}

/// Makes two streams that are connected to each other.
fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let stream = |end: UnixStream| {
        end.set_nonblocking(true)?;
        // A Unix socket works as a `TcpStream`, because the system calls are the same.
        TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(end)))
    };
    let (near, far) = UnixStream::pair()?;
    Ok((stream(near)?, stream(far)?))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_pair_is_connected_and_ends_each_way() {
        let (mut near, mut far) = pair().unwrap();
        near.write_all(b"ping").await.unwrap();
        near.shutdown().await.unwrap();
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        far.write_all(b"pong").await.unwrap();
        drop(far);
        near.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"pingpong");
    }
}
