//! Reads the first request of new connections. Handshakes of WebSocket sessions are answered here, and all other
//! connections are returned to the HTTP server.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::EngineState;
use super::head::{FirstRequest, MAX_HEAD, WebSocketHandshake};
use super::inbox::Inbox;
use super::namespace::new_id;
use super::sender::ConnectionSender;
use super::session::ConnectionTask;
use crate::contract::handshake::HandshakePart;
use crate::engine::Gate;
use crate::engine::closable_stream::KillSwitch;
use crate::engine::edge::{EngineSession, HandshakeChecks};
use crate::engine::listener::{ConnectionIntake, HttpConnection};
use crate::engine::pending::PendingConnection;

/// The size of one read in bytes. The head of a handshake usually fits; if it does not, more is read.
const FIRST_READ: usize = 2048;

/// Serves the connections that open WebSocket sessions. Every connection has a clone, which only increments a reference
/// count.
pub(super) struct NativeIntake<G>(Arc<IntakeState<G>>);

struct IntakeState<G> {
    shared: Arc<EngineState<G>>,
    checks: HandshakeChecks,
    stop: CancellationToken,
}

impl<G> NativeIntake<G> {
    /// Builds an intake. After `stop` is cancelled, connections that have not sent a request are closed.
    pub(super) fn new(shared: Arc<EngineState<G>>, checks: HandshakeChecks, stop: CancellationToken) -> Self {
        Self(Arc::new(IntakeState { shared, checks, stop }))
    }
}

impl<G> Clone for NativeIntake<G> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<G: Gate> ConnectionIntake for NativeIntake<G> {
    fn take(
        self,
        stream: TcpStream,
        address: SocketAddr,
        pending: PendingConnection,
    ) -> impl Future<Output = Option<HttpConnection>> + Send + Unpin {
        IntakeTask::Arriving(Box::pin(self.arrive(stream, address, pending)))
    }
}

/// The task of one connection. The handshake's data is dropped when the session begins, so that only the session is
/// kept.
enum IntakeTask<G: Gate> {
    Arriving(BoxFuture<'static, Option<IntakeResult<G>>>),
    Session(ConnectionTask<G>),
}

enum IntakeResult<G: Gate> {
    Session(ConnectionTask<G>),
    Http(HttpConnection),
}

impl<G: Gate> Future for IntakeTask<G> {
    type Output = Option<HttpConnection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let intake_task = self.get_mut();
        if let Self::Arriving(arriving) = intake_task {
            let Poll::Ready(arrived) = arriving.as_mut().poll(cx) else { return Poll::Pending };
            match arrived {
                None => return Poll::Ready(None),
                Some(IntakeResult::Http(given_back)) => return Poll::Ready(Some(given_back)),
                Some(IntakeResult::Session(session)) => *intake_task = Self::Session(session),
            }
        }
        match intake_task {
            Self::Session(session) => Pin::new(session).poll(cx).map(|()| None),
            Self::Arriving(_) => Poll::Pending,
        }
    }
}

impl<G: Gate> NativeIntake<G> {
    /// Reads the first request, and opens a session or returns the connection to HTTP. Returns `None` if the
    /// connection has ended or must be closed.
    async fn arrive(
        self,
        mut stream: TcpStream,
        address: SocketAddr,
        pending: PendingConnection,
    ) -> Option<IntakeResult<G>> {
        let IntakeState { shared, checks, stop } = &*self.0;
        let first = pending.unless_closed(first_request(&mut stream, &shared.path, checks.named()));
        let (opening, read) = match stop.run_until_cancelled(first).await??? {
            (Some(opening), read) => (opening, read),
            (None, read) => return Some(IntakeResult::Http((stream, read.freeze(), pending))),
        };
        let Some(connection) = checks.admit(address.ip(), &opening.headers, &opening.query) else {
            // The edge has refused the handshake of this connection. The HTTP server answers the client with the
            // reason.
            return Some(IntakeResult::Http((stream, read.freeze(), pending)));
        };
        drop(pending);
        begin(shared, stream, connection, opening, &read).await.map(IntakeResult::Session)
    }
}

/// Reads until the first request's head is complete, or cannot be a handshake. Returns `None` if the connection has
/// ended.
async fn first_request(
    stream: &mut TcpStream,
    path: &str,
    named: &[HandshakePart],
) -> Option<(Option<Box<WebSocketHandshake>>, BytesMut)> {
    let mut read = BytesMut::new();
    loop {
        // A connection that sends nothing allocates no buffer.
        if poll_fn(|cx| poll_read(stream, &mut read, cx)).await.ok()? == 0 {
            // HTTP answers a request that is not complete.
            return (!read.is_empty()).then_some((None, read));
        }
        match FirstRequest::read(&read, path, named) {
            FirstRequest::Open(opening) => return Some((Some(opening), read)),
            FirstRequest::Partial if read.len() < MAX_HEAD => {}
            FirstRequest::Partial | FirstRequest::Other => return Some((None, read)),
        }
    }
}

/// Reads into a buffer on the stack, so that the kept buffer is only as long as what arrived.
fn poll_read(stream: &mut TcpStream, read: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut buffer = [MaybeUninit::uninit(); FIRST_READ];
    let mut unread = ReadBuf::uninit(&mut buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut unread))?;
    read.extend_from_slice(unread.filled());
    Poll::Ready(Ok(unread.filled().len()))
}

/// Answers the handshake and creates the session.
async fn begin<G: Gate>(
    shared: &Arc<EngineState<G>>,
    mut stream: TcpStream,
    connection: Arc<EngineSession>,
    opening: Box<WebSocketHandshake>,
    read: &BytesMut,
) -> Option<ConnectionTask<G>> {
    let extensions = shared.deflate.and_then(|_| opening.deflate());
    let deflate = shared.deflate.filter(|_| extensions.is_some());
    let mut answer = opening.answer(extensions.as_deref());
    shared.greeting.put(&mut answer, &new_id());
    // The empty send buffer of a new connection normally takes the whole answer at once, so no timer is needed.
    let written = stream.try_write(&answer).unwrap_or(0);
    if written < answer.len() {
        tokio::time::timeout(shared.stall, stream.write_all(&answer[written..])).await.ok()?.ok()?;
    }
    let (reader, writer) = stream.into_split();
    let kill = Arc::new(KillSwitch::default());
    let sender = ConnectionSender::websocket(writer, shared.bounds, deflate, shared.scheduler.clone(), kill);
    connection.serve_by(sender.clone());
    let inbox = Inbox::new(shared.clone(), sender.clone(), connection);
    Some(ConnectionTask::new(shared.clone(), reader, sender, inbox, read[opening.length..].to_vec()))
}
