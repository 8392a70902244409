//! The outgoing side of a connection: one queue of packets that are framed already, and one place that hands them over.
//!
//! A sender appends its packet; the connection is then served once in the turn that follows (see [`super::turn`]), with
//! everything that was appended until then: a WebSocket is written, a poll that waits is answered. What the kernel does not
//! take waits for the session's task, which knows when the client reads again.

use std::hint::black_box;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::task::AtomicWaker;
use tokio::net::tcp::OwnedWriteHalf;

use super::deflate::Deflate;
use super::out::Out;
use super::turn::{Own, Turns};
use crate::engine::conn::KillSwitch;
use crate::engine::edge::{Connection, EngineSession};
use crate::engine::outstanding::{Bounds, unix_millis};
use crate::session::{self, SendError};

/// The most bytes that are written for one connection before the others have their turn: about 0.1 ms.
const MAX_TURN_BYTES: usize = 256 << 10;

/// How long a client may be between two polls, although something waits for it, and still be taken for one that reads.
const BETWEEN_POLLS: Duration = Duration::from_secs(1);

/// The transport of a connection, for those who need not know more.
const POLLING: u8 = 0;
const PLAIN_WEBSOCKET: u8 = 1;
const DEFLATED_WEBSOCKET: u8 = 2;

/// A connection, as those see it who send to it.
pub(super) struct Wire {
    bounds: Bounds,
    transport: AtomicU8,
    /// How this node compresses.
    deflate: Option<Deflate>,
    turns: Arc<Turns>,
    out: Mutex<Out>,
    kill: Arc<KillSwitch>,
    session: AtomicWaker,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing waits.
    All,
    /// The turn was long enough.
    More,
    /// The client does not read, or is gone: the session's task sees to it.
    Blocked,
}

impl Wire {
    /// A connection that begins with a WebSocket. `deflate`: compression was agreed on.
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

    /// A connection that begins by polling. `deflate`: what may be agreed on when it moves to a WebSocket.
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

    /// How messages are compressed, if the client wants them to be.
    pub(super) fn deflate(&self) -> Option<&Deflate> {
        self.deflate.as_ref().filter(|_| self.transport.load(Ordering::Relaxed) == DEFLATED_WEBSOCKET)
    }

    /// Whether the client polls.
    pub(super) fn polls(&self) -> bool {
        self.transport.load(Ordering::Relaxed) == POLLING
    }

    /// The client is on a WebSocket from now on.
    pub(super) fn set_websocket(&self, deflates: bool) {
        let transport = if deflates { DEFLATED_WEBSOCKET } else { PLAIN_WEBSOCKET };
        self.transport.store(transport, Ordering::Relaxed);
    }

    /// Looks at what [`Wire::send`] and [`Wire::flush`] will need; see [`crate::session::Session::warm`].
    pub(super) fn warm(&self) {
        black_box((self.bounds.packets, self.out.is_poisoned()));
    }

    /// Queues a packet, unless the queue is at its bound.
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

    /// See [`Turns::own`].
    pub(super) fn own(&self) -> Own<'_> {
        self.turns.own()
    }

    /// Queues what the protocol itself has to say. A client that lets even this pile up is gone.
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

    /// Sends our heartbeat before everything that waits.
    pub(super) fn ping(self: &Arc<Self>, ping: Bytes) {
        let mut out = self.out();
        if !out.is_over() {
            out.overtake(ping);
            self.ask_for_turn(out);
        }
    }

    /// Answers a WebSocket ping before everything that waits.
    pub(super) fn pong(self: &Arc<Self>, pong: Bytes) {
        let mut out = self.out();
        if !out.is_over() {
            out.answer(pong);
            self.ask_for_turn(out);
        }
    }

    /// Queues the last frame: whatever is sent after it is refused.
    pub(super) fn finish(self: &Arc<Self>, close: Bytes) {
        let mut out = self.out();
        if !out.is_over() {
            out.push(close);
            out.finished = true;
            self.ask_for_turn(out);
        }
    }

    /// Refuses and forgets everything: the client is gone.
    pub(super) fn give_up(&self) {
        let mut out = self.out();
        out.clear();
        out.broken = true;
    }

    /// The session's task begins to work on what the client sent, and will flush: until then nobody else has to.
    pub(super) fn hold(&self) {
        self.out().awaits_turn = true;
    }

    /// Hands over what waits.
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
                        out.written_at_ms = unix_millis();
                    }
                    total += written;
                    if total >= MAX_TURN_BYTES && !out.queue.is_empty() {
                        out.awaits_turn = true;
                        return Flushed::More;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Its task is told once; it would call itself for ever.
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

    /// What waits, and when something was written.
    pub(super) fn backlog(&self) -> session::Backlog {
        let out = self.out();
        session::Backlog { bytes: out.bytes, packets: Some(out.queue.len()), written_at_ms: out.written_at_ms }
    }

    /// Since when the client takes nothing of what waits.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.out().blocked
    }

    /// Whether the client takes what is sent: what waits for the turn that follows is no reason to doubt it, nor is the
    /// moment between two polls.
    pub(super) fn is_writable(&self) -> bool {
        let mut out = self.out();
        let polls = out.polled_by().is_some();
        out.blocked.is_none_or(|since| polls && since.elapsed() < BETWEEN_POLLS)
    }

    /// Shows the client the end, once everything is written. True when it was, or nothing can be written any more.
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

    /// Whether the kernel takes more.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.out().stream {
            Some(stream) => stream.as_ref().poll_write_ready(cx),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Wakes the session's task when something of this connection is for it.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.session.register(cx.waker());
    }

    /// Wakes the session's task.
    pub(super) fn wake_session(&self) {
        self.session.wake();
    }

    /// What ends the connection.
    pub(super) fn kill_switch(&self) -> &Arc<KillSwitch> {
        &self.kill
    }

    pub(super) fn ask_for_turn(self: &Arc<Self>, mut out: MutexGuard<'_, Out>) {
        // Those that are blocked are written when the client reads.
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
