//! Accepts connections and serves HTTP on them.

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
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
use super::lobby::{Guest, Lobby};
use super::proxy::Balancers;
use super::rewind::Rewind;
use crate::telemetry::log_gate::log_seldom;

/// The longest head of a request, in bytes; a longer one is answered with 431. Node.js has the same limit.
pub const MAX_HEAD: usize = 16 * 1024;

/// How long a connection may be idle between two requests, and take for the head of the second: longer than the 60 s for which
/// proxies keep theirs, or they would meet closed ones. The first request has [`Lobby`]'s time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// How long accepting pauses after it failed: without file handles, trying again at once only burns a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The answer to a connection for which too few file descriptors are left: another node may have some.
const NO_FILES: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// The connection that a request came on.
#[derive(Clone)]
pub struct Arrival {
    /// The other end of the TCP connection: the client, or a proxy.
    pub address: SocketAddr,
    /// Closes the connection.
    pub kill: Arc<KillSwitch>,
    /// Leaves the lobby when it has a session.
    pub guest: Arc<Guest>,
}

/// What the listener serves: an [`Arrival`] is among the request's extensions.
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

/// A connection that is for HTTP, and what was read of it.
pub type GivenBack = (TcpStream, Bytes, Guest);

/// Looks at a connection before HTTP does.
pub trait Intake: Clone + Send + 'static {
    /// Serves a connection to its end, or gives it back for HTTP, with what was read of it.
    fn take(
        self,
        stream: TcpStream,
        address: SocketAddr,
        guest: Guest,
    ) -> impl Future<Output = Option<GivenBack>> + Send + Unpin;
}

/// Leaves every connection to HTTP.
#[derive(Debug, Clone, Copy)]
pub struct HttpOnly;

impl Intake for HttpOnly {
    fn take(
        self,
        stream: TcpStream,
        _: SocketAddr,
        guest: Guest,
    ) -> impl Future<Output = Option<GivenBack>> + Send + Unpin {
        std::future::ready(Some((stream, Bytes::new(), guest)))
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
    /// Where connections wait for their sessions.
    pub lobby: Arc<Lobby>,
    /// The longest head of a request, in bytes.
    pub max_head: usize,
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
    let door = Arc::new(Door { service, connections: TaskTracker::new(), manners, stop: stop.clone() });
    let mut inherited = None;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                // Small packets must not wait for each other. The first connection tells whether it has that of the listener.
                if !*inherited.get_or_insert_with(|| stream.nodelay().unwrap_or(false)) {
                    let _ = stream.set_nodelay(true);
                }
                if !door.manners.lobby.has_files_left(&stream) {
                    refuse_for_files(stream);
                    log_seldom!(
                        warn,
                        "too few file descriptors are left: a new connection is refused; raise the limit of open files"
                    );
                    continue;
                }
                let guest = door.manners.lobby.enter();
                if door.manners.balancers.is_none() {
                    door.welcome(&intake, stream, address, guest);
                    continue;
                }
                let (intake, met) = (intake.clone(), door.clone());
                door.connections.spawn(async move {
                    let announced = announced(&met.manners, stream, address, &met.stop);
                    if let Some((stream, address)) = guest.hear(announced).await.flatten() {
                        met.welcome(&intake, stream, address, guest);
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
    door.connections.close();
    door.connections.wait().await;
}

/// Tells a client to come back, if that can be written at once.
fn refuse_for_files(stream: TcpStream) {
    // Whether the client reads it does not matter: the connection ends.
    let _ = stream.into_std().and_then(|mut stream| stream.write(NO_FILES));
}

/// What connections share.
struct Door<S> {
    service: S,
    connections: TaskTracker,
    manners: Manners,
    stop: CancellationToken,
}

impl<S: Serve> Door<S> {
    fn welcome(self: &Arc<Self>, intake: &impl Intake, stream: TcpStream, address: SocketAddr, guest: Guest) {
        let taken = intake.clone().take(stream, address, guest);
        self.connections.spawn(Visit { taken, address, door: self.clone() });
    }
}

/// A connection's task. Written by hand, because it lives as long as the connection: it holds what the intake keeps, and
/// nothing twice.
struct Visit<F, S> {
    taken: F,
    address: SocketAddr,
    door: Arc<Door<S>>,
}

impl<F, S> Future for Visit<F, S>
where
    F: Future<Output = Option<GivenBack>> + Unpin,
    S: Serve,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Poll::Ready(given_back) = Pin::new(&mut self.taken).poll(cx) else { return Poll::Pending };
        if let Some((stream, read, guest)) = given_back {
            let door = &*self.door;
            let stream = Conn::new(Rewind::new(read, stream), door.manners.stall, door.manners.traffic.clone());
            let arrival = Arrival { address: self.address, kill: stream.kill_switch(), guest: Arc::new(guest) };
            // HTTP has a task of its own: it is large.
            door.connections.spawn(connection(stream, arrival, self.door.clone()));
        }
        Poll::Ready(())
    }
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
            log_seldom!(warn, %address, %error, "a trusted proxy's connection had no PROXY header; it is closed");
            None
        }
    }
}

async fn connection<S: Serve>(conn: Conn<Rewind<TcpStream>>, arrival: Arrival, door: Arc<Door<S>>) {
    let (service, stop, max_head) = (door.service.clone(), door.stop.clone(), door.manners.max_head);
    drop(door);
    let guest = arrival.guest.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        arrival.guest.spoke();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(arrival.clone());
        service.clone().oneshot(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_header_size(max_head);
    let serving = http.serve_connection(TokioIo::new(conn), service).with_upgrades();
    let shown_out = guest.shown_out();
    tokio::pin!(serving, shown_out);
    let mut stopping = false;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = serving.as_mut() => break outcome,
            () = stop.cancelled(), if !stopping => {
                serving.as_mut().graceful_shutdown();
                stopping = true;
            }
            () = shown_out.as_mut() => return,
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended with an error");
    }
}
