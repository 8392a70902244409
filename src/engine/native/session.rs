//! One task for each client: takes what the client sends, keeps time, and ends it. It lives as long as the session, whatever
//! the transport is.
//!
//! Written as a future by hand, so that an idle connection is this struct and nothing else: bytes are read into a buffer
//! that all connections of a thread share, and only what is incomplete is kept.

mod polled;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, Sleep};

use self::polled::Posting;
use super::frame::{self, Reader, Step, Violation};
use super::inbox::{Bad, Inbox};
use super::wire::{Flushed, Wire};
use super::{Shared, packet};
use crate::engine::conn::Turned;
use crate::engine::edge::EngineSession;
use crate::engine::{CLOSED_BY_US, Gate};

/// What is read at once: small events of this size together are handled within about a millisecond.
const READ_BUFFER: usize = 16 * 1024;

/// A busy client lets the others run after so many reads.
const MAX_READS: usize = 2;

/// A client that is told that the connection ends has so long to read it.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(5);

/// How late a timer may be without a reason to give the client more time.
const TIMER_SLACK: std::time::Duration = std::time::Duration::from_millis(20);

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Why a connection ends, as Socket.IO's own server names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client has closed it.
    Closed(Option<u16>),
    /// We have.
    ClosedByUs,
    /// The bytes ended, or could not be written.
    Lost,
    /// No answer to a ping.
    PingTimeout,
    /// Connected to no namespace in time.
    Idle,
    /// Not WebSocket.
    Violation(Violation),
    /// Not Socket.IO.
    Malformed,
    /// Two polls at a time, or what no client that polls does.
    Misused,
}

impl From<Bad> for End {
    fn from(bad: Bad) -> Self {
        match bad {
            Bad::Closed => Self::Closed(None),
            Bad::Malformed | Bad::Overloaded => Self::Malformed,
        }
    }
}

impl End {
    const fn reason(self) -> &'static str {
        match self {
            Self::Closed(_) | Self::Lost | Self::Idle => "transport close",
            Self::ClosedByUs => CLOSED_BY_US,
            Self::PingTimeout => "ping timeout",
            Self::Violation(_) | Self::Misused => "transport error",
            Self::Malformed => "parse error",
        }
    }

    /// The close frame that says so; `None`: nobody listens.
    fn farewell(self) -> Option<Bytes> {
        match self {
            Self::Lost | Self::PingTimeout | Self::Misused => None,
            Self::Closed(code) => Some(frame::close(code)),
            Self::ClosedByUs | Self::Idle | Self::Malformed => Some(frame::close(None)),
            Self::Violation(violation) => Some(frame::close(Some(violation.close_code()))),
        }
    }
}

/// The heartbeat: as Node's, the first ping goes after one interval.
#[derive(Debug, Clone, Copy)]
enum Heart {
    PingAt(Instant),
    PongBy(Instant),
}

/// A connection.
pub(super) struct Session<G: Gate> {
    shared: Arc<Shared<G>>,
    transport: Transport,
    wire: Arc<Wire>,
    reader: Reader,
    /// A frame that is not complete.
    rest: Vec<u8>,
    inbox: Inbox<G>,
    heart: Heart,
    connect_by: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
    /// The farewell is queued; until then we wait for the client to read it.
    ending: Option<Instant>,
}

/// How a client's packets come.
enum Transport {
    WebSocket(OwnedReadHalf),
    /// They are posted. The connection stays counted until the client was told of the end.
    Polling {
        connection: Arc<EngineSession>,
        posted: Option<Box<Posting>>,
    },
}

impl<G: Gate> Session<G> {
    /// A WebSocket whose handshake is answered. `read` came with it.
    pub(super) fn new(
        shared: Arc<Shared<G>>,
        stream: OwnedReadHalf,
        wire: Arc<Wire>,
        inbox: Inbox<G>,
        read: Vec<u8>,
    ) -> Self {
        Self::over(Transport::WebSocket(stream), shared, wire, inbox, read)
    }

    /// A client that polls.
    pub(super) fn polling(
        shared: Arc<Shared<G>>,
        wire: Arc<Wire>,
        inbox: Inbox<G>,
        connection: Arc<EngineSession>,
    ) -> Self {
        Self::over(Transport::Polling { connection, posted: None }, shared, wire, inbox, Vec::new())
    }

    fn over(transport: Transport, shared: Arc<Shared<G>>, wire: Arc<Wire>, inbox: Inbox<G>, read: Vec<u8>) -> Self {
        let now = Instant::now();
        let first_ping = now + shared.ping_interval;
        let connect_by = now + shared.connect_timeout;
        Self {
            transport,
            reader: Reader::new(shared.max_payload).inflating(wire.deflate().is_some()),
            wire,
            rest: read,
            inbox,
            heart: Heart::PingAt(first_ping),
            connect_by: Some(connect_by),
            sleep: Box::pin(tokio::time::sleep_until(first_ping.min(connect_by))),
            ending: None,
            shared,
        }
    }

    fn work(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.wire.register(cx);
        match self.wire.kill_switch().poll_turned(cx) {
            Turned::Live => {}
            Turned::Closing => return Err(End::ClosedByUs),
            Turned::Dead => return Err(End::Lost),
        }
        self.inbox.settle_requests();
        self.keep_time(cx)?;
        if matches!(self.transport, Transport::Polling { .. }) {
            self.take_posted(cx)?;
            self.await_poll(cx)?;
            self.move_over();
        }
        if matches!(self.transport, Transport::WebSocket(_)) {
            self.write(cx)?;
            self.read(cx)?;
        }
        Ok(())
    }

    // === reading ===

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let mut buffer = BUFFER.take();
        buffer.resize(READ_BUFFER, 0);
        self.wire.hold();
        let turns = self.shared.turns.clone();
        let own = turns.own();
        let outcome = self.read_into(&mut buffer, cx);
        BUFFER.set(buffer);
        // What was answered while reading goes at once, together.
        if self.wire.flush() == Flushed::More {
            cx.waker().wake_by_ref();
        }
        own.write();
        outcome
    }

    fn read_into(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> Result<(), End> {
        if !self.rest.is_empty() {
            // What came with the handshake, perhaps.
            self.take_rest()?;
        }
        for _ in 0..MAX_READS {
            let mut unread = ReadBuf::new(buffer);
            let Transport::WebSocket(stream) = &mut self.transport else { return Ok(()) };
            match Pin::new(stream).poll_read(cx, &mut unread) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => return Err(End::Lost),
                Poll::Ready(Ok(())) if unread.filled().is_empty() => return Err(End::Lost),
                Poll::Ready(Ok(())) => {}
            }
            let read = unread.filled().len();
            self.shared.traffic.received.inc_by(read as u64);
            if self.rest.is_empty() {
                let used = self.take(&mut buffer[..read])?;
                self.rest.extend_from_slice(&buffer[used..read]);
            } else {
                self.rest.extend_from_slice(&buffer[..read]);
                self.take_rest()?;
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn take_rest(&mut self) -> Result<(), End> {
        let mut rest = std::mem::take(&mut self.rest);
        let used = self.take(&mut rest)?;
        if used < rest.len() {
            // Of a large message nothing stays.
            self.rest = if used == 0 { rest } else { rest[used..].to_vec() };
        }
        Ok(())
    }

    /// Takes every complete frame. Returns how many bytes they had.
    fn take(&mut self, bytes: &mut [u8]) -> Result<usize, End> {
        let mut used = 0;
        loop {
            let (length, step) = self.reader.step(&mut bytes[used..]).map_err(End::Violation)?;
            used += length;
            let taken = match step {
                Step::More(_) => return Ok(used),
                Step::Fragment | Step::Pong => Ok(()),
                Step::Ping(payload) => {
                    self.wire.pong(frame::pong(payload));
                    Ok(())
                }
                Step::Close(code) => return Err(End::Closed(code)),
                Step::Text(text) => self.inbox.text(&text),
                Step::Binary(bytes) => self.inbox.binary(&bytes),
            };
            taken?;
            self.hear_pong();
        }
    }

    fn hear_pong(&mut self) {
        if self.inbox.take_pong() {
            self.heart = Heart::PingAt(Instant::now() + self.shared.ping_interval);
        }
    }

    // === writing ===

    /// Goes on with what the kernel did not take, once it takes more.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while let Some(since) = self.wire.blocked_since() {
            match self.wire.poll_writable(cx) {
                Poll::Ready(Ok(())) => match self.wire.flush() {
                    Flushed::All => {}
                    Flushed::More => {
                        cx.waker().wake_by_ref();
                        return Ok(());
                    }
                    Flushed::Blocked => {}
                },
                Poll::Ready(Err(_)) => return Err(End::Lost),
                Poll::Pending => {
                    let late = Instant::from_std(since) + self.shared.stall;
                    return self.wait_until(late, Instant::now(), End::Lost, cx);
                }
            }
        }
        if self.wire.is_broken() { Err(End::Lost) } else { Ok(()) }
    }

    // === time ===

    fn keep_time(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let now = Instant::now();
        if self.connect_by.is_some_and(|by| by <= now) {
            if self.inbox.is_nowhere() {
                return Err(End::Idle);
            }
            self.connect_by = None;
        }
        match self.heart {
            Heart::PingAt(at) if at <= now => {
                self.wire.ping(packet::PING);
                // Timers are late by a moment; a node that was held up longer gives the client its whole time.
                let sent = if now - at < TIMER_SLACK { at } else { now };
                self.heart = Heart::PongBy(sent + self.shared.ping_timeout);
            }
            Heart::PongBy(by) if by <= now => return Err(End::PingTimeout),
            _ => {}
        }
        let (Heart::PingAt(next) | Heart::PongBy(next)) = self.heart;
        let next = self.connect_by.map_or(next, |by| by.min(next));
        self.wait_until(next, now, End::PingTimeout, cx)
    }

    /// Has the task woken at that time, or earlier. What should have happened by then is looked at by the next call.
    fn wait_until(&mut self, at: Instant, now: Instant, late: End, cx: &mut Context<'_>) -> Result<(), End> {
        if at <= now {
            return Err(late);
        }
        if at < self.sleep.deadline() || self.sleep.is_elapsed() {
            self.sleep.as_mut().reset(at);
        }
        if self.sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    // === the end ===

    /// Ends the sessions, and says farewell where somebody listens. True when nothing is left to do.
    fn end(&mut self, end: End) -> bool {
        self.inbox.end(end.reason());
        if let Transport::Polling { posted, .. } = &mut self.transport {
            *posted = None;
            // It may have moved to its WebSocket just now.
            self.move_over();
        }
        if let Transport::Polling { .. } = &self.transport {
            return self.end_polling(end);
        }
        match end.farewell() {
            Some(frame) => {
                self.wire.hold();
                self.wire.finish(frame);
                self.wire.flush();
                self.ending = Some(Instant::now() + FAREWELL);
                self.rest = Vec::new();
                false
            }
            None => {
                self.wire.give_up();
                true
            }
        }
    }

    /// Waits until the farewell is written and the client has closed; what it still sends is thrown away.
    fn poll_farewell(&mut self, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.register(cx);
        let now = Instant::now();
        if self.wire.kill_switch().poll_turned(cx) == Turned::Dead || by <= now {
            return Poll::Ready(());
        }
        if self.write(cx).is_err() || self.wait_until(by, now, End::Lost, cx).is_err() {
            return Poll::Ready(());
        }
        if self.wire.flush() == Flushed::More {
            cx.waker().wake_by_ref();
        }
        let drained = self.wire.end_when_drained();
        let mut buffer = BUFFER.take();
        buffer.resize(READ_BUFFER, 0);
        let over = loop {
            let mut unread = ReadBuf::new(&mut buffer);
            let Transport::WebSocket(stream) = &mut self.transport else { break true };
            match Pin::new(stream).poll_read(cx, &mut unread) {
                Poll::Pending => break false,
                Poll::Ready(Ok(())) if !unread.filled().is_empty() => {}
                // Half closed, it may still read.
                Poll::Ready(result) => break drained || result.is_err(),
            }
        };
        BUFFER.set(buffer);
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<G: Gate> Future for Session<G> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let session = self.get_mut();
        if session.ending.is_none() {
            match session.work(cx) {
                Ok(()) => return Poll::Pending,
                Err(end) if session.end(end) => return Poll::Ready(()),
                Err(_) => {}
            }
        }
        match session.ending {
            Some(by) if matches!(session.transport, Transport::Polling { .. }) => session.poll_news(by, cx),
            Some(by) => session.poll_farewell(by, cx),
            None => Poll::Pending,
        }
    }
}

impl<G: Gate> Drop for Session<G> {
    fn drop(&mut self) {
        // Whatever ends the task, the sessions end with it.
        self.inbox.end("transport close");
        match self.transport {
            Transport::WebSocket(_) => self.wire.give_up(),
            Transport::Polling { .. } => self.wire.leave_polling(packet::CLOSE),
        }
    }
}
