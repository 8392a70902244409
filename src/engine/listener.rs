//! Accepts connections and serves HTTP on them.

mod connection;

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use self::connection::WaitingAnswers;
use super::closable_stream::{ClosableStream, KillSwitch, Traffic};
use super::pending::{PendingConnection, PendingConnections};
use super::proxy::Balancers;
use super::rewind::ReplayStream;
use crate::telemetry::log_limit::log_seldom;

/// The maximum length of a request's head, in bytes. A longer one is answered with 431. Node.js has the same limit.
pub const MAX_HEAD: usize = 16 * 1024;

/// How long a connection may be idle between two requests, the head of the next request included. It is longer than
/// the 60 s for which proxies keep idle connections, so that a proxy does not reuse a connection that we have just
/// closed. The first request has the time that [`PendingConnections`] allows.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// How long the listener pauses after it failed to accept a connection. Without free file descriptors, trying again at
/// once would only use up a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The answer to a connection when too few file descriptors are left. The client may retry, perhaps on another node.
const NO_FILES: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// The connection that brought a request.
#[derive(Clone)]
pub struct RequestConnection {
    /// The other end of the TCP connection: the client or a proxy.
    pub address: SocketAddr,
    /// Closes the connection.
    pub kill: Arc<KillSwitch>,
    /// The connection's entry in the list of pending connections. Removed when the connection has a session.
    pub pending: Arc<PendingConnection>,
    waiting: Arc<WaitingAnswers>,
}

impl RequestConnection {
    /// Marks the current request as a poll if it is a GET and not a WebSocket handshake. The answer to a poll waits
    /// outside of hyper, which needs less memory.
    pub(super) fn note_poll(&self, request: &Request<Body>, websocket: bool) {
        if !websocket && request.method() == Method::GET {
            self.waiting.note_poll();
        }
    }
}

/// A client's stream as the HTTP server reads it.
pub(super) type ClientStream = ReplayStream<ClosableStream<TcpStream>>;

/// A service for the requests of a listener. Each request has a [`RequestConnection`] among its extensions.
pub trait Serve:
    Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Serve for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A connection that the HTTP server must serve, with the bytes that were already read from it.
pub type HttpConnection = (TcpStream, Bytes, PendingConnection);

/// Inspects a new connection before the HTTP server reads from it.
pub trait ConnectionIntake: Clone + Send + 'static {
    /// Serves a connection to its end and returns `None`, or returns the connection for the HTTP server with the bytes
    /// that were read.
    fn take(
        self,
        stream: TcpStream,
        address: SocketAddr,
        pending: PendingConnection,
    ) -> impl Future<Output = Option<HttpConnection>> + Send + Unpin;
}

/// An intake that leaves every connection to the HTTP server.
#[derive(Debug, Clone, Copy)]
pub struct HttpOnly;

impl ConnectionIntake for HttpOnly {
    fn take(
        self,
        stream: TcpStream,
        _: SocketAddr,
        pending: PendingConnection,
    ) -> impl Future<Output = Option<HttpConnection>> + Send + Unpin {
        std::future::ready(Some((stream, Bytes::new(), pending)))
    }
}

/// The settings of a listener for its connections.
#[derive(Clone)]
pub struct ConnectionOptions {
    /// How long a client may read nothing before it is disconnected.
    pub stall: Duration,
    /// How many bytes are read from a client while a write to it waits. It must be larger than a message, because a
    /// client may send a whole message before it reads.
    pub read_ahead: usize,
    /// Counts the bytes that are read and written.
    pub traffic: Traffic,
    /// The load balancers whose connections begin with a PROXY header.
    pub balancers: Option<Balancers>,
    /// The connections that have no session yet.
    pub pending_connections: Arc<PendingConnections>,
    /// The maximum length of a request's head, in bytes.
    pub max_head: usize,
}

/// Serves connections until `stop` is cancelled. After that, the listener accepts no more connections and closes idle
/// ones.
///
/// Returns when the last connection is closed.
pub async fn serve(
    listener: TcpListener,
    intake: impl ConnectionIntake,
    service: impl Serve,
    options: ConnectionOptions,
    stop: CancellationToken,
) {
    let state = Arc::new(ListenerState { service, connections: TaskTracker::new(), options, stop: stop.clone() });
    let mut inherited = None;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                // Disables Nagle's algorithm, so that small packets are sent at once. The first connection shows
                // whether sockets inherit the option from the listener.
                if !*inherited.get_or_insert_with(|| stream.nodelay().unwrap_or(false)) {
                    let _ = stream.set_nodelay(true);
                }
                if !state.options.pending_connections.has_files_left(&stream) {
                    refuse_for_files(stream);
                    log_seldom!(
                        warn,
                        "too few file descriptors are left: a new connection is refused; raise the limit of open files"
                    );
                    continue;
                }
                let pending = state.options.pending_connections.enter();
                if state.options.balancers.is_none() {
                    state.serve_connection(&intake, stream, address, pending);
                    continue;
                }
                let (intake, met) = (intake.clone(), state.clone());
                state.connections.spawn(async move {
                    let announced = announced(&met.options, stream, address, &met.stop);
                    if let Some((stream, address)) = pending.unless_closed(announced).await.flatten() {
                        met.serve_connection(&intake, stream, address, pending);
                    }
                });
            }
            Err(error) => {
                log_seldom!(warn, %error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    state.connections.close();
    state.connections.wait().await;
}

/// Answers a client with 503 if the kernel takes the answer at once, and closes the connection.
fn refuse_for_files(stream: TcpStream) {
    // An error does not matter here: the connection ends in any case.
    let _ = stream.into_std().and_then(|mut stream| stream.write(NO_FILES));
}

/// The state that all connections of a listener share.
struct ListenerState<S> {
    service: S,
    connections: TaskTracker,
    options: ConnectionOptions,
    stop: CancellationToken,
}

impl<S: Serve> ListenerState<S> {
    fn serve_connection(
        self: &Arc<Self>,
        intake: &impl ConnectionIntake,
        stream: TcpStream,
        address: SocketAddr,
        pending: PendingConnection,
    ) {
        let taken = intake.clone().take(stream, address, pending);
        self.connections.spawn(ServedConnection { taken, address, state: self.clone() });
    }
}

/// The task of one connection. It is a hand-written future because it lives as long as the connection: it holds only
/// the intake's future, and no second copy of its data.
struct ServedConnection<F, S> {
    taken: F,
    address: SocketAddr,
    state: Arc<ListenerState<S>>,
}

impl<F, S> Future for ServedConnection<F, S>
where
    F: Future<Output = Option<HttpConnection>> + Unpin,
    S: Serve,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Poll::Ready(given_back) = Pin::new(&mut self.taken).poll(cx) else { return Poll::Pending };
        if let Some((stream, read, pending)) = given_back {
            let state = &*self.state;
            let ConnectionOptions { stall, read_ahead, traffic, .. } = &state.options;
            traffic.received.inc_by(read.len() as u64);
            let conn = ClosableStream::new(stream, *stall, *read_ahead, traffic.clone());
            let (kill, pending) = (conn.kill_switch(), Arc::new(pending));
            let arrival = RequestConnection { address: self.address, kill, pending, waiting: Arc::default() };
            // HTTP runs in a task of its own, because its future is larger than a session's.
            state.connections.spawn(connection::serve(ReplayStream::new(read, conn), arrival, self.state.clone()));
        }
        Poll::Ready(())
    }
}

/// Reads the PROXY header and returns the connection with the client's address. Returns `None` if the header is
/// missing or wrong, or the listener stops.
async fn announced(
    options: &ConnectionOptions,
    mut stream: TcpStream,
    address: SocketAddr,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr)> {
    let Some(balancers) = &options.balancers else { return Some((stream, address)) };
    match stop.run_until_cancelled(balancers.receive(&mut stream, address)).await? {
        Ok(client) => Some((stream, client)),
        Err(error) => {
            log_seldom!(warn, %address, %error, "a trusted proxy's connection had no PROXY header; it is closed");
            None
        }
    }
}
