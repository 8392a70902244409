//! The outgoing side of a connection: a queue of framed packets, and the code that writes them.
//!
//! A sender appends its packet. In the turn that follows (see [`super::write_scheduler`]), the connection is served
//! once with everything that has been appended: a WebSocket is written, or a waiting poll is answered. When the kernel
//! does not take all of it, the session's task continues, because it learns when the client reads again.

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
use super::write_queue::WriteQueue;
use super::write_scheduler::{OwnWrites, WriteScheduler};
use crate::engine::closable_stream::KillSwitch;
use crate::engine::edge::{Connection, EngineSession};
use crate::engine::queue_estimate::WriteQueueLimits;
use crate::session::{self, SendError};
use crate::time::unix_millis;

/// The maximum number of bytes that are written for one connection before other connections have their turn. That
/// takes about 0.1 ms.
const MAX_TURN_BYTES: usize = 256 << 10;

/// How long a client may take between two polls and still count as reading, although packets wait for it.
const BETWEEN_POLLS: Duration = Duration::from_secs(1);

/// The values of `ConnectionSender::transport`.
const POLLING: u8 = 0;
const PLAIN_WEBSOCKET: u8 = 1;
const DEFLATED_WEBSOCKET: u8 = 2;

/// The sending side of a connection. Everything that sends packets to the client holds a reference to it.
pub(super) struct ConnectionSender {
    bounds: WriteQueueLimits,
    transport: AtomicU8,
    /// The node's compression settings. `None`: this connection never compresses.
    deflate: Option<Deflate>,
    scheduler: Arc<WriteScheduler>,
    out: Mutex<WriteQueue>,
    kill: Arc<KillSwitch>,
    session: AtomicWaker,
}

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    /// All packets have been written.
    All,
    /// Packets are left, because the connection has written enough for one turn.
    More,
    /// The client does not read or is gone. The session's task continues.
    Blocked,
}

impl ConnectionSender {
    /// Creates the sending side of a connection that begins with a WebSocket. `deflate` is set if compression was
    /// negotiated.
    pub(super) fn websocket(
        stream: OwnedWriteHalf,
        bounds: WriteQueueLimits,
        deflate: Option<Deflate>,
        scheduler: Arc<WriteScheduler>,
        kill: Arc<KillSwitch>,
    ) -> Arc<Self> {
        let transport = if deflate.is_some() { DEFLATED_WEBSOCKET } else { PLAIN_WEBSOCKET };
        Self::new(WriteQueue::new(Some(stream)), transport, bounds, deflate, scheduler, kill)
    }

    /// Creates the sending side of a connection that begins with polling. `deflate` holds the settings to use if
    /// compression is negotiated in an upgrade.
    pub(super) fn polling(
        bounds: WriteQueueLimits,
        deflate: Option<Deflate>,
        scheduler: Arc<WriteScheduler>,
        kill: Arc<KillSwitch>,
    ) -> Arc<Self> {
        Self::new(WriteQueue::polled(), POLLING, bounds, deflate, scheduler, kill)
    }

    fn new(
        out: WriteQueue,
        transport: u8,
        bounds: WriteQueueLimits,
        deflate: Option<Deflate>,
        scheduler: Arc<WriteScheduler>,
        kill: Arc<KillSwitch>,
    ) -> Arc<Self> {
        let (transport, out) = (AtomicU8::new(transport), Mutex::new(out));
        Arc::new(Self { bounds, transport, deflate, scheduler, out, kill, session: AtomicWaker::new() })
    }

    /// The compression settings, if the client has negotiated compression.
    pub(super) fn deflate(&self) -> Option<&Deflate> {
        self.deflate.as_ref().filter(|_| self.transport.load(Ordering::Relaxed) == DEFLATED_WEBSOCKET)
    }

    /// Whether the client polls.
    pub(super) fn polls(&self) -> bool {
        self.transport.load(Ordering::Relaxed) == POLLING
    }

    /// Records that the client now uses a WebSocket.
    pub(super) fn set_websocket(&self, deflates: bool) {
        let transport = if deflates { DEFLATED_WEBSOCKET } else { PLAIN_WEBSOCKET };
        self.transport.store(transport, Ordering::Relaxed);
    }

    /// Prefetches the cache lines that [`ConnectionSender::send`] and [`ConnectionSender::flush`] will touch. Takes no
    /// lock. See [`crate::session::Session::warm`].
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
        self.request_write(out);
        Ok(())
    }

    /// Makes the calling task itself write the connections that it adds from now on: see [`WriteScheduler::own`].
    pub(super) fn own(&self) -> OwnWrites<'_> {
        self.scheduler.own()
    }

    /// Queues a packet of the protocol, which is not an event. Closes the connection if twice the maximum number of
    /// packets already wait.
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
        self.request_write(out);
    }

    /// Sends a heartbeat ahead of everything that waits.
    pub(super) fn ping(self: &Arc<Self>, ping: Bytes) {
        let mut out = self.out();
        if !out.is_over() {
            out.overtake(ping);
            self.request_write(out);
        }
    }

    /// Answers a WebSocket ping ahead of everything that waits.
    pub(super) fn pong(self: &Arc<Self>, pong: Bytes) {
        let mut out = self.out();
        if !out.is_over() {
            out.answer(pong);
            self.request_write(out);
        }
    }

    /// Queues the last frame of a connection. Everything that is sent after it is refused.
    pub(super) fn finish(self: &Arc<Self>, close: Bytes) {
        let mut out = self.out();
        if !out.is_over() {
            out.push(close);
            out.finished = true;
            self.request_write(out);
        }
    }

    /// Drops the queue and refuses all further packets, because the client is gone.
    pub(super) fn give_up(&self) {
        let mut out = self.out();
        out.clear();
        out.broken = true;
    }

    /// Announces that the session's task will call [`ConnectionSender::flush`] when it has handled the client's
    /// packets. No writer has to write the connection before this call.
    pub(super) fn hold(&self) {
        self.out().write_requested = true;
    }

    /// Writes the queue to the WebSocket, or answers the waiting poll.
    pub(super) fn flush(&self) -> WriteOutcome {
        let mut out = self.out();
        out.write_requested = false;
        if out.polled_by().is_some() {
            self.answer_poll(out);
            return WriteOutcome::All;
        }
        let mut total = 0;
        while !out.queue.is_empty() {
            match out.write() {
                Ok(written) => {
                    self.scheduler.count(written);
                    out.advance(written);
                    out.blocked = None;
                    if total == 0 {
                        out.written_at_ms = unix_millis(SystemTime::now());
                    }
                    total += written;
                    if total >= MAX_TURN_BYTES && !out.queue.is_empty() {
                        out.write_requested = true;
                        return WriteOutcome::More;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The session's task is woken only the first time. The task calls this function itself, and would
                    // wake itself for ever.
                    if out.blocked.is_none() {
                        out.blocked = Some(Instant::now());
                        drop(out);
                        self.session.wake();
                    }
                    return WriteOutcome::Blocked;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    out.clear();
                    out.broken = true;
                    drop(out);
                    self.session.wake();
                    return WriteOutcome::Blocked;
                }
            }
        }
        out.rest();
        WriteOutcome::All
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

    /// Whether writing to the client has failed.
    pub(super) fn is_broken(&self) -> bool {
        self.out().broken
    }

    /// Whether the kernel accepts more bytes for the client.
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

    pub(super) fn request_write(self: &Arc<Self>, mut out: MutexGuard<'_, WriteQueue>) {
        // A blocked connection is written when its client reads again.
        if out.write_requested || out.blocked.is_some() {
            return;
        }
        out.write_requested = true;
        drop(out);
        self.scheduler.add(self.clone());
    }

    pub(super) fn out(&self) -> MutexGuard<'_, WriteQueue> {
        self.out.lock().expect("no thread panics while it holds this lock")
    }
}

impl Connection for ConnectionSender {
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
