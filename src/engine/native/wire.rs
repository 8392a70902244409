//! The outgoing side of a connection: one queue of packets that are framed already, and one place that writes.
//!
//! Whoever has something to say appends it; the connection is then written once in the turn that follows (see
//! [`super::turn`]), with everything that was appended until then. What the kernel does not take waits for the session's
//! task, which knows when the client reads again.

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use tokio::net::tcp::OwnedWriteHalf;

use super::deflate::Deflate;
use super::frame;
use super::packets::Packets;
use super::turn::{Own, Turns};
use crate::engine::conn::KillSwitch;
use crate::engine::edge::Backlog;
use crate::engine::outstanding::{Bounds, unix_millis};
use crate::session::{self, SendError};

/// So many packets go into one write.
const MAX_SLICES: usize = 64;

/// At most so many bytes are written for one connection before the others have their turn: about 0.1 ms.
const MAX_TURN_BYTES: usize = 256 << 10;

/// At most so many answers to WebSocket pings wait: of more, the latest takes the place of the one before it, as the standard
/// permits (RFC 6455, 5.5.3).
const MAX_PONGS: usize = 16;

/// A connection, as those see it who send to it.
pub(super) struct Wire {
    bounds: Bounds,
    /// What was agreed on.
    deflate: Option<Deflate>,
    turns: Arc<Turns>,
    out: Mutex<Out>,
    kill: Arc<KillSwitch>,
    session: AtomicWaker,
}

struct Out {
    /// `None`: nothing more will be written, and the client sees the end.
    stream: Option<OwnedWriteHalf>,
    queue: Packets,
    bytes: usize,
    /// When the kernel last took something, as Unix time in ms; 0: never.
    written_at_ms: u64,
    /// Something of the first packet is written, which is none of those that passed the others.
    begun: bool,
    /// Heartbeats and pongs, in their order, which have passed the queue.
    urgent: usize,
    /// Somebody will write: a turn, or the session's task after what it does now.
    awaits_turn: bool,
    /// Since when the kernel has taken nothing.
    blocked: Option<Instant>,
    /// The last frame is queued.
    finished: bool,
    broken: bool,
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
    pub(super) fn new(
        stream: OwnedWriteHalf,
        bounds: Bounds,
        deflate: Option<Deflate>,
        turns: Arc<Turns>,
        kill: Arc<KillSwitch>,
    ) -> Arc<Self> {
        let out = Mutex::new(Out::new(Some(stream)));
        Arc::new(Self { bounds, deflate, turns, out, kill, session: AtomicWaker::new() })
    }

    /// How messages are compressed, if the client wants them to be.
    pub(super) fn deflate(&self) -> Option<&Deflate> {
        self.deflate.as_ref()
    }

    /// Looks at what [`Wire::send`] and [`Wire::flush`] will need; see [`crate::session::Session::warm`].
    pub(super) fn warm(&self) {
        black_box((self.bounds.packets, self.out.is_poisoned()));
    }

    /// Queues a packet, unless the queue is at its bound.
    pub(super) fn send(self: &Arc<Self>, packet: Bytes) -> Result<(), SendError> {
        let mut out = self.out();
        if out.finished || out.broken {
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
        if out.finished || out.broken {
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
        if !out.finished && !out.broken {
            out.overtake(ping);
            self.ask_for_turn(out);
        }
    }

    /// Answers a WebSocket ping before everything that waits.
    pub(super) fn pong(self: &Arc<Self>, pong: Bytes) {
        let mut out = self.out();
        if !out.finished && !out.broken {
            out.answer(pong);
            self.ask_for_turn(out);
        }
    }

    /// Queues the last frame: whatever is sent after it is refused.
    pub(super) fn finish(self: &Arc<Self>, close: Bytes) {
        let mut out = self.out();
        if !out.finished && !out.broken {
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

    /// Writes what waits.
    pub(super) fn flush(&self) -> Flushed {
        let mut out = self.out();
        out.awaits_turn = false;
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

    /// Whether the kernel takes what is sent: what waits for the turn that follows is no reason to doubt it.
    pub(super) fn is_writable(&self) -> bool {
        self.out().blocked.is_none()
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

    fn ask_for_turn(self: &Arc<Self>, mut out: MutexGuard<'_, Out>) {
        // Those that are blocked are written when the client reads.
        if out.awaits_turn || out.blocked.is_some() {
            return;
        }
        out.awaits_turn = true;
        drop(out);
        self.turns.add(self.clone());
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().expect("no panic while held")
    }
}

impl Backlog for Wire {
    fn waiting(&self) -> (usize, usize) {
        let out = self.out();
        (out.queue.len(), out.bytes)
    }

    fn compresses(&self) -> bool {
        self.deflate.is_some()
    }
}

// === impl Out ===

impl Out {
    fn push(&mut self, packet: Bytes) {
        self.bytes += packet.len();
        self.queue.push(packet);
    }

    /// Before everything but a packet that is being written, and those that have done the same.
    fn overtake(&mut self, packet: Bytes) {
        self.bytes += packet.len();
        self.queue.insert(usize::from(self.begun) + self.urgent, packet);
        self.urgent += 1;
    }

    /// The same for a pong; too many of them become one.
    fn answer(&mut self, pong: Bytes) {
        if self.urgent >= MAX_PONGS {
            // The first may be written in part.
            if let Some(latest) = self.queue.get_mut(usize::from(self.begun) + self.urgent - 1)
                && frame::is_pong(latest)
            {
                self.bytes = self.bytes + pong.len() - latest.len();
                *latest = pong;
                return;
            }
        }
        self.overtake(pong);
    }

    fn new(stream: Option<OwnedWriteHalf>) -> Self {
        Self {
            stream,
            queue: Packets::default(),
            bytes: 0,
            written_at_ms: 0,
            begun: false,
            urgent: 0,
            awaits_turn: false,
            blocked: None,
            finished: false,
            broken: false,
        }
    }

    fn write(&self) -> io::Result<usize> {
        let Some(stream) = &self.stream else { return Err(io::ErrorKind::BrokenPipe.into()) };
        if let (Some(only), 1) = (self.queue.first(), self.queue.len()) {
            return stream.try_write(only);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = self.queue.len().min(MAX_SLICES);
        for (slice, packet) in slices.iter_mut().zip(self.queue.iter()) {
            *slice = IoSlice::new(packet);
        }
        stream.try_write_vectored(&slices[..count])
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(front) = self.queue.first_mut() {
            if written < front.len() {
                front.advance(written);
                self.begun |= written > 0 && self.urgent == 0;
                return;
            }
            written -= front.len();
            self.queue.pop();
            if !std::mem::take(&mut self.begun) {
                self.urgent = self.urgent.saturating_sub(1);
            }
        }
    }

    /// Nothing waits: an idle connection holds no memory for what has passed.
    fn rest(&mut self) {
        self.blocked = None;
        self.queue.clear();
    }

    fn clear(&mut self) {
        self.queue.clear();
        self.bytes = 0;
        (self.begun, self.urgent) = (false, 0);
        self.blocked = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn out(packets: &[&'static str]) -> Out {
        let mut out = Out::new(None);
        packets.iter().for_each(|packet| out.push(Bytes::from_static(packet.as_bytes())));
        out
    }

    #[test]
    fn heartbeats_and_pongs_pass_the_queue_at_a_packets_end_in_their_order() {
        let mut out = out(&["abc", "def"]);
        out.overtake(Bytes::from_static(b"!!"));
        out.overtake(Bytes::from_static(b"?"));
        assert_eq!(out.queue.iter().collect::<Vec<_>>(), ["!!", "?", "abc", "def"]);
        out.advance(1);
        out.overtake(Bytes::from_static(b"."));
        assert_eq!(out.queue.iter().collect::<Vec<_>>(), ["!", "?", ".", "abc", "def"]);
        out.advance(5);
        assert_eq!(out.queue.iter().collect::<Vec<_>>(), ["c", "def"]);
        out.overtake(Bytes::from_static(b"!"));
        out.overtake(Bytes::from_static(b"?"));
        assert_eq!(out.queue.iter().collect::<Vec<_>>(), ["c", "!", "?", "def"]);
        out.advance(2);
        out.overtake(Bytes::from_static(b"."));
        assert_eq!(out.queue.iter().collect::<Vec<_>>(), ["?", ".", "def"]);
        out.advance(3);
        assert_eq!((out.begun, out.urgent, out.bytes), (true, 0, 2));
    }

    #[test]
    fn of_too_many_pongs_the_latest_is_sent() {
        let mut out = out(&["abc"]);
        out.advance(1);
        for n in 0..100u8 {
            out.answer(frame::pong(&[n; 100][..usize::from(n)]));
        }
        assert_eq!(out.queue.len(), 1 + MAX_PONGS);
        assert_eq!(out.queue.get_mut(MAX_PONGS).unwrap(), &frame::pong(&[99; 99]));
        assert_eq!(out.queue.get_mut(MAX_PONGS - 1).unwrap(), &frame::pong(&[14; 14]));
        assert_eq!(out.bytes, out.queue.iter().map(Bytes::len).sum::<usize>());
        out.advance(2);
        out.answer(frame::pong(b"x"));
        assert_eq!((out.queue.len(), out.urgent), (MAX_PONGS, MAX_PONGS));
    }

    proptest! {
        #[test]
        fn writes_of_any_length_take_exactly_what_they_wrote(
            sizes in proptest::collection::vec(1usize..20, 1..20),
            writes in proptest::collection::vec(1usize..40, 1..20),
        ) {
            let mut out = Out::new(None);
            sizes.iter().for_each(|size| out.push(Bytes::from(vec![0; *size])));
            let mut left: usize = sizes.iter().sum();
            for written in writes {
                let written = written.min(left);
                out.advance(written);
                left -= written;
                prop_assert_eq!(out.bytes, left);
                prop_assert_eq!(out.queue.iter().map(Bytes::len).sum::<usize>(), left);
            }
        }
    }
}
