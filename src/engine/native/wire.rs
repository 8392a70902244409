//! The outgoing side of a connection: a queue of framed packets, and the code that writes them.
//!
//! A sender appends its packet. In the turn that follows (see [`super::turn`]), the connection is served once with
//! everything that has been appended: a WebSocket is written, or a waiting poll is answered. When the kernel does not
//! take all of it, the session's task continues, because it learns when the client reads again.

use std::hint::black_box;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::task::AtomicWaker;
use tokio::net::tcp::OwnedWriteHalf;

use super::deflate::Deflate;
use super::out::Out;
use super::turn::{Own, Turns};
use crate::engine::conn::KillSwitch;
use crate::engine::edge::{Connection, EngineSession};
use crate::engine::outstanding::Bounds;
use crate::session::{self, SendError};
use crate::time::unix_millis;

/// The maximum number of bytes that are written for one connection before other connections have their turn. That
/// takes about 0.1 ms.
const MAX_TURN_BYTES: usize = 256 << 10;

/// How long a client may take between two polls and still count as reading, although packets wait for it.
const BETWEEN_POLLS: Duration = Duration::from_secs(1);

/// The values of `Wire::transport`.
const POLLING: u8 = 0;
const PLAIN_WEBSOCKET: u8 = 1;
const DEFLATED_WEBSOCKET: u8 = 2;

/// The sending side of a connection. All senders share it.
pub(super) struct Wire {
    bounds: Bounds,
    transport: AtomicU8,
    /// The node's compression settings. `None`: this connection never compresses.
    deflate: Option<Deflate>,
    turns: Arc<Turns>,
    out: Mutex<Out>,
    kill: Arc<KillSwitch>,
    session: AtomicWaker,
}

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Everything has been written.
    All,
    /// Packets are left, because the connection has written enough for one turn.
    More,
    /// The client does not read or is gone. The session's task continues.
    Blocked,
}

impl Wire {
    /// A connection that begins with a WebSocket. `deflate` is set if compression was negotiated.
    pub(super) fn websocket(
        stream: OwnedWriteHalf,
        bounds: Bounds,
        deflate: Option<Deflate>,
        turns: Arc<Turns>,
        kill: Arc<KillSwitch>,
    ) -> Arc<Self> {
        let transport = if deflate.is_some() { DEFLATED_WEBSOCKET } else { PLAIN_WEBSOCKET };
        Self::new(Out::new(Some(stream)), transport, bounds, deflate, turns, kill)
    }

    /// A connection that begins with polling. `deflate` holds the settings to use if compression is negotiated in an
    /// upgrade.
    pub(super) fn polling(
        bounds: Bounds,
        deflate: Option<Deflate>,
        turns: Arc<Turns>,
        kill: Arc<KillSwitch>,
    ) -> Arc<Self> {
        Self::new(Out::polled(), POLLING, bounds, deflate, turns, kill)
    }

    fn new(
        out: Out,
        transport: u8,
        bounds: Bounds,
        deflate: Option<Deflate>,
        turns: Arc<Turns>,
        kill: Arc<KillSwitch>,
    ) -> Arc<Self> {
        let (transport, out) = (AtomicU8::new(transport), Mutex::new(out));
        Arc::new(Self { bounds, transport, deflate, turns, out, kill, session: AtomicWaker::new() })
    }

    /// The compression settings, if the client has negotiated compression.
    pub(super) fn deflate(&self) -> Option<&Deflate> {
        self.deflate.as_ref().filter(|_| self.transport.load(Ordering::Relaxed) == DEFLATED_WEBSOCKET)
    }

    /// Whether the client polls.
    pub(super) fn polls(&self) -> bool {
        self.transport.load(Ordering::Relaxed) == POLLING
    }

    /// Notes that the client now uses a WebSocket.
    pub(super) fn set_websocket(&self, deflates: bool) {
        let transport = if deflates { DEFLATED_WEBSOCKET } else { PLAIN_WEBSOCKET };
        self.transport.store(transport, Ordering::Relaxed);
    }

    /// Prefetches the cache lines that [`Wire::send`] and [`Wire::flush`] will touch. Takes no lock. See
    /// [`crate::session::Session::warm`].
    pub(super) fn warm(&self) {
        black_box((self.bounds.packets, self.out.is_poisoned()));
    }

    /// Queues a packet. Fails if the queue is full or the connection is over.
    pub(super) fn send(self: &Arc<Self>, packet: Bytes) -> Result<(), SendError> {
        let mut out = self.out();
        if out.is_over() {
            return Err(SendError::Closed);
        }
        let bytes = out.bytes + packet.len();
        if out.queue.len() >= self.bounds.packets || (bytes > self.bounds.bytes && !out.queue.is_empty()) {
            return Err(SendError::Full);
        }
        out.push(packet);
        self.ask_for_turn(out);
        Ok(())
    }

    /// Makes the calling task itself write the connections that it adds from now on: see [`Turns::own`].
    pub(super) fn own(&self) -> Own<'_> {
        self.turns.own()
    }

    /// Queues a packet of the protocol itself. Closes the connection if twice the maximum number of packets already
    /// wait.
    pub(super) fn control(self: &Arc<Self>, packet: Bytes) {
        let mut out = self.out();
        if out.is_over() {
            return;
        }
        if out.queue.len() >= self.bounds.packets.saturating_mul(2) {
            drop(out);
            self.kill.kill();
            return;
        }
        out.push(packet);
        self.ask_for_turn(out);
    }

    /// Sends a heartbeat ahead of everything that waits.
    pub(super) fn ping(self: &Arc<Self>, ping: Bytes) {
        let mut out = self.out();
        if !out.is_over() {
            out.overtake(ping);
            self.ask_for_turn(out);
        }
    }

    /// Answers a WebSocket ping ahead of everything that waits.
    pub(super) fn pong(self: &Arc<Self>, pong: Bytes) {
        let mut out = self.out();
        if !out.is_over() {
            out.answer(pong);
            self.ask_for_turn(out);
        }
    }

    /// Queues the last frame. Everything that is sent after it is refused.
    pub(super) fn finish(self: &Arc<Self>, close: Bytes) {
        let mut out = self.out();
        if !out.is_over() {
            out.push(close);
            out.finished = true;
            self.ask_for_turn(out);
        }
    }

    /// Drops the queue and refuses all further packets, because the client is gone.
    pub(super) fn give_up(&self) {
        let mut out = self.out();
        out.clear();
        out.broken = true;
    }

    /// Announces that the session's task will call [`Wire::flush`] when it has handled the client's packets. No writer
    /// has to write the connection before this call.
    pub(super) fn hold(&self) {
        self.out().awaits_turn = true;
    }

    /// Writes the queue to the WebSocket, or answers the waiting poll.
    pub(super) fn flush(&self) -> Flushed {
        let mut out = self.out();
        out.awaits_turn = false;
        if out.polled_by().is_some() {
            self.answer_poll(out);
            return Flushed::All;
        }
        let mut total = 0;
        while !out.queue.is_empty() {
            match out.write() {
                Ok(written) => {
                    self.turns.count(written);
                    out.advance(written);
                    out.blocked = None;
                    if total == 0 {
                        out.written_at_ms = unix_millis(SystemTime::now());
                    }
                    total += written;
                    if total >= MAX_TURN_BYTES && !out.queue.is_empty() {
                        out.awaits_turn = true;
                        return Flushed::More;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Wake the session's task only the first time. The task calls this function itself, and would
                    // wake itself for ever.
                    if out.blocked.is_none() {
                        out.blocked = Some(Instant::now());
                        drop(out);
                        self.session.wake();
                    }
                    return Flushed::Blocked;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    out.clear();
                    out.broken = true;
                    drop(out);
                    self.session.wake();
                    return Flushed::Blocked;
                }
            }
        }
        out.rest();
        Flushed::All
    }

    /// The size of the queue, and when packets were last written.
    pub(super) fn backlog(&self) -> session::Backlog {
        let out = self.out();
        session::Backlog { bytes: out.bytes, packets: Some(out.queue.len()), written_at_ms: out.written_at_ms }
    }

    /// The time since which the client has taken none of the waiting packets. `None`: the client is not blocked.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.out().blocked
    }

    /// Whether the client reads the packets that are sent to it. A client also counts as reading while its packets wait
    /// for the next turn, and for at most 1 s between two polls.
    pub(super) fn is_writable(&self) -> bool {
        let mut out = self.out();
        let polls = out.polled_by().is_some();
        out.blocked.is_none_or(|since| polls && since.elapsed() < BETWEEN_POLLS)
    }

    /// Closes the sending side once everything has been written. Returns true if everything has been written, or if
    /// writing has failed.
    pub(super) fn end_when_drained(&self) -> bool {
        let mut out = self.out();
        let drained = out.broken || out.queue.is_empty();
        if drained {
            out.stream = None;
        }
        drained
    }

    /// Whether writing has failed.
    pub(super) fn is_broken(&self) -> bool {
        self.out().broken
    }

    /// Whether the kernel takes more bytes.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.out().stream {
            Some(stream) => stream.as_ref().poll_write_ready(cx),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Registers the session's task, so that this connection can wake the task.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.session.register(cx.waker());
    }

    /// Wakes the session's task.
    pub(super) fn wake_session(&self) {
        self.session.wake();
    }

    /// The switch that closes the connection.
    pub(super) fn kill_switch(&self) -> &Arc<KillSwitch> {
        &self.kill
    }

    pub(super) fn ask_for_turn(self: &Arc<Self>, mut out: MutexGuard<'_, Out>) {
        // A blocked connection is written when its client reads again.
        if out.awaits_turn || out.blocked.is_some() {
            return;
        }
        out.awaits_turn = true;
        drop(out);
        self.turns.add(self.clone());
    }

    pub(super) fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().expect("no panic while held")
    }
}

impl Connection for Wire {
    fn waiting(&self) -> (usize, usize) {
        let out = self.out();
        (out.queue.len(), out.bytes)
    }

    fn compresses(&self) -> bool {
        self.deflate().is_some()
    }

    fn is_websocket(&self) -> bool {
        !self.polls()
    }

    fn close(self: Arc<Self>, _: &Arc<EngineSession>) {
        self.kill.close();
    }

    fn public_id(&self) -> Option<ByteString> {
        self.noted_public_id()
    }
}
