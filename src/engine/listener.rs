//! Accepts connections and serves HTTP on them.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

use super::conn::{Conn, KillSwitch, Traffic};
use super::proxy::Balancers;
use super::rewind::Rewind;

/// A client must have sent the head of its request by then. It also bounds how long a connection may be idle between two
/// requests, and so is longer than the 60 s for which proxies keep theirs: else they would meet closed ones.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// How long accepting pauses after it failed: without file handles, trying again at once only burns a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The connection that a request came on.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The other end of the TCP connection: the client, or a proxy.
    pub address: SocketAddr,
    /// Closes the connection.
    pub kill: Arc<KillSwitch>,
}

/// What the listener serves: an [`Arrival`] is among the request's extensions.
pub trait Serve:
    Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Serve for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Looks at a connection before HTTP does.
pub trait Intake: Clone + Send + 'static {
    /// Serves a connection to its end, or gives it back for HTTP, with what was read of it.
    fn take(self, stream: TcpStream, address: SocketAddr) -> impl Future<Output = Option<(TcpStream, Bytes)>> + Send;
}

/// Leaves every connection to HTTP.
#[derive(Debug, Clone, Copy)]
pub struct HttpOnly;

impl Intake for HttpOnly {
    async fn take(self, stream: TcpStream, _: SocketAddr) -> Option<(TcpStream, Bytes)> {
        Some((stream, Bytes::new()))
    }
}

/// How a listener treats connections.
#[derive(Clone)]
pub struct Manners {
    /// A client that reads nothing for so long is disconnected.
    pub stall: Duration,
    /// Counts what is read and written.
    pub traffic: Traffic,
    /// Whose connections begin with a header of the PROXY protocol.
    pub balancers: Option<Balancers>,
}

/// Serves until `stop` is cancelled; then no more connections are accepted, and those that are idle close.
/// Returns when the last connection is closed.
pub async fn serve(
    listener: TcpListener,
    intake: impl Intake,
    service: impl Serve,
    manners: Manners,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                // Small packets must not wait for each other.
                let _ = stream.set_nodelay(true);
                let (intake, service) = (intake.clone(), service.clone());
                let (http, stop) = (connections.clone(), stop.clone());
                // HTTP has a task of its own: it is large, and what the intake keeps is to be small.
                let manners = manners.clone();
                connections.spawn(async move {
                    let Some((stream, address)) = announced(&manners, stream, address, &stop).await else { return };
                    if let Some((stream, read)) = intake.take(stream, address).await {
                        let stream = Conn::new(Rewind::new(read, stream), manners.stall, manners.traffic);
                        http.spawn(connection(stream, address, service, stop));
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The connection without its PROXY header, and whose it is. `None`: it was not what was agreed on.
async fn announced(
    manners: &Manners,
    mut stream: TcpStream,
    address: SocketAddr,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr)> {
    let Some(balancers) = &manners.balancers else { return Some((stream, address)) };
    match stop.run_until_cancelled(balancers.receive(&mut stream, address)).await? {
        Ok(client) => Some((stream, client)),
        Err(error) => {
            tracing::warn!(%address, %error, "a trusted proxy's connection had no PROXY header; it is closed");
            None
        }
    }
}

async fn connection(conn: Conn<Rewind<TcpStream>>, address: SocketAddr, service: impl Serve, stop: CancellationToken) {
    let arrival = Arrival { address, kill: conn.kill_switch() };
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(arrival.clone());
        service.clone().oneshot(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let serving = http.serve_connection(TokioIo::new(conn), service).with_upgrades();
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended with an error");
    }
}
