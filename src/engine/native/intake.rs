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

use super::Shared;
use super::head::{Head, MAX_HEAD, Opening};
use super::inbox::Inbox;
use super::member::new_id;
use super::session::Session;
use super::wire::Wire;
use crate::engine::Gate;
use crate::engine::conn::KillSwitch;
use crate::engine::edge::{EngineSession, Entrance};
use crate::engine::listener::{GivenBack, Intake};
use crate::engine::lobby::Guest;

/// The size of one read in bytes. The head of a handshake usually fits; if it does not, more is read.
const FIRST_READ: usize = 2048;

/// Serves the connections that open WebSocket sessions. Every connection has a clone, which only increments a reference
/// count.
pub(super) struct NativeIntake<G>(Arc<House<G>>);

struct House<G> {
    shared: Arc<Shared<G>>,
    entrance: Entrance,
    stop: CancellationToken,
}

impl<G> NativeIntake<G> {
    /// Builds an intake. After `stop` is cancelled, connections that have not sent a request are closed.
    pub(super) fn new(shared: Arc<Shared<G>>, entrance: Entrance, stop: CancellationToken) -> Self {
        Self(Arc::new(House { shared, entrance, stop }))
    }
}

impl<G> Clone for NativeIntake<G> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<G: Gate> Intake for NativeIntake<G> {
    fn take(
        self,
        stream: TcpStream,
        address: SocketAddr,
        guest: Guest,
    ) -> impl Future<Output = Option<GivenBack>> + Send + Unpin {
        Visitor::Arriving(Box::pin(self.arrive(stream, address, guest)))
    }
}

/// The task of one connection. The handshake's data is dropped when the session begins, so that only the session is
/// kept.
enum Visitor<G: Gate> {
    Arriving(BoxFuture<'static, Option<Arrived<G>>>),
    Session(Session<G>),
}

enum Arrived<G: Gate> {
    Session(Session<G>),
    Http(GivenBack),
}

impl<G: Gate> Future for Visitor<G> {
    type Output = Option<GivenBack>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let visitor = self.get_mut();
        if let Self::Arriving(arriving) = visitor {
            let Poll::Ready(arrived) = arriving.as_mut().poll(cx) else { return Poll::Pending };
            match arrived {
                None => return Poll::Ready(None),
                Some(Arrived::Http(given_back)) => return Poll::Ready(Some(given_back)),
                Some(Arrived::Session(session)) => *visitor = Self::Session(session),
            }
        }
        match visitor {
            Self::Session(session) => Pin::new(session).poll(cx).map(|()| None),
            Self::Arriving(_) => Poll::Pending,
        }
    }
}

impl<G: Gate> NativeIntake<G> {
    /// Reads the first request, and opens a session or returns the connection to HTTP. Returns `None` if the
    /// connection has ended or must be closed.
    async fn arrive(self, mut stream: TcpStream, address: SocketAddr, guest: Guest) -> Option<Arrived<G>> {
        let House { shared, entrance, stop } = &*self.0;
        let first = guest.hear(first_request(&mut stream, &shared.path));
        let (opening, read) = match stop.run_until_cancelled(first).await??? {
            (Some(opening), read) => (opening, read),
            (None, read) => return Some(Arrived::Http((stream, read.freeze(), guest))),
        };
        let Some(connection) = entrance.admit(address.ip(), &opening.headers, &opening.query) else {
            // The edge has refused the handshake. The HTTP server answers the client with the reason.
            return Some(Arrived::Http((stream, read.freeze(), guest)));
        };
        drop(guest);
        begin(shared, stream, connection, opening, &read).await.map(Arrived::Session)
    }
}

/// Reads until the first request's head is complete, or cannot be a handshake. Returns `None` if the connection has
/// ended.
async fn first_request(stream: &mut TcpStream, path: &str) -> Option<(Option<Box<Opening>>, BytesMut)> {
    let mut read = BytesMut::new();
    loop {
        // A connection that sends nothing allocates no buffer.
        if poll_fn(|cx| poll_read(stream, &mut read, cx)).await.ok()? == 0 {
            // Let HTTP answer an incomplete request.
            return (!read.is_empty()).then_some((None, read));
        }
        match Head::read(&read, path) {
            Head::Open(opening) => return Some((Some(opening), read)),
            Head::Partial if read.len() < MAX_HEAD => {}
            Head::Partial | Head::Other => return Some((None, read)),
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
    shared: &Arc<Shared<G>>,
    mut stream: TcpStream,
    connection: Arc<EngineSession>,
    opening: Box<Opening>,
    read: &BytesMut,
) -> Option<Session<G>> {
    let extensions = shared.deflate.and_then(|_| opening.deflate());
    let deflate = shared.deflate.filter(|_| extensions.is_some());
    let mut answer = opening.answer(extensions.as_deref());
    shared.greeting.put(&mut answer, &new_id());
    // A new connection's empty send buffer normally takes the whole answer at once, so no timer is needed.
    let written = stream.try_write(&answer).unwrap_or(0);
    if written < answer.len() {
        tokio::time::timeout(shared.stall, stream.write_all(&answer[written..])).await.ok()?.ok()?;
    }
    let (reader, writer) = stream.into_split();
    let kill = Arc::new(KillSwitch::default());
    let wire = Wire::websocket(writer, shared.bounds, deflate, shared.turns.clone(), kill);
    connection.serve_by(wire.clone());
    let inbox = Inbox::new(shared.clone(), wire.clone(), connection);
    Some(Session::new(shared.clone(), reader, wire, inbox, read[opening.length..].to_vec()))
}
