//! The task of one client. It handles what the client sends, sends heartbeats, and ends the session. It lives as long
//! as the session, on any transport.
//!
//! The task is a hand-written future, so that an idle connection needs no memory beside this struct. Bytes are read
//! into a buffer that all connections of a thread share; only an incomplete frame is kept.

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

use self::polled::PostedBody;
use super::frame::{self, FrameProgress, FrameReader, Violation};
use super::inbox::{Inbox, InboxError};
use super::sender::{ConnectionSender, WriteOutcome};
use super::{EngineState, packet};
use crate::engine::closable_stream::SwitchState;
use crate::engine::edge::EngineSession;
use crate::engine::{CLOSED_BY_US, Gate};

/// The maximum number of bytes in one read. A read full of small events takes about 1 ms to handle.
const READ_BUFFER: usize = 16 * 1024;

/// A busy client's task yields after this many reads.
const MAX_READS: usize = 2;

/// How long the task waits for a client to close its WebSocket after the close frame is queued.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(5);

/// A timer that is this much late is normal. Only a longer delay gives the client more time.
const TIMER_SLACK: std::time::Duration = std::time::Duration::from_millis(20);

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Why a connection ends. [`EndReason::reason`] translates it to the names that Socket.IO's own server uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndReason {
    /// The client has closed the connection, perhaps with a code.
    Closed(Option<u16>),
    /// This node has closed the connection.
    ClosedByUs,
    /// The stream has ended, or could not be written.
    Lost,
    /// The client has not answered a ping within `server.ping_timeout`.
    PingTimeout,
    /// The client has not connected to a namespace within `server.connect_timeout`.
    Idle,
    /// The bytes are not valid WebSocket frames.
    Violation(Violation),
    /// The messages are not valid Engine.IO or Socket.IO packets.
    Malformed,
    /// The client polled twice at a time, or sent a request that no polling client sends.
    Misused,
}

impl From<InboxError> for EndReason {
    fn from(bad: InboxError) -> Self {
        match bad {
            InboxError::Closed => Self::Closed(None),
            InboxError::Malformed | InboxError::Overloaded => Self::Malformed,
        }
    }
}

impl EndReason {
    const fn reason(self) -> &'static str {
        match self {
            Self::Closed(_) | Self::Lost | Self::Idle => "transport close",
            Self::ClosedByUs => CLOSED_BY_US,
            Self::PingTimeout => "ping timeout",
            Self::Violation(_) | Self::Misused => "transport error",
            Self::Malformed => "parse error",
        }
    }

    /// The close frame for this reason. `None`: the client would not read one.
    fn farewell(self) -> Option<Bytes> {
        match self {
            Self::Lost | Self::PingTimeout | Self::Misused => None,
            Self::Closed(code) => Some(frame::close(code)),
            Self::ClosedByUs | Self::Idle | Self::Malformed => Some(frame::close(None)),
            Self::Violation(violation) => Some(frame::close(Some(violation.close_code()))),
        }
    }
}

/// The state of the heartbeat. As in Node.js, the first ping is sent after one interval.
#[derive(Debug, Clone, Copy)]
enum HeartbeatState {
    PingAt(Instant),
    PongBy(Instant),
}

/// The task of one client's connection.
pub(super) struct ConnectionTask<G: Gate> {
    shared: Arc<EngineState<G>>,
    transport: Transport,
    sender: Arc<ConnectionSender>,
    reader: FrameReader,
    /// The bytes of an incomplete frame, or bytes that were read before this task began.
    rest: Vec<u8>,
    inbox: Inbox<G>,
    heartbeat: HeartbeatState,
    connect_by: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
    /// Set when the session has ended: the time until which the task waits for the client to receive the last packet.
    ending: Option<Instant>,
}

/// The way in which a client's packets arrive.
enum Transport {
    WebSocket(OwnedReadHalf),
    /// The client posts its packets over HTTP. The connection stays counted until the client has been told of the end.
    Polling {
        connection: Arc<EngineSession>,
        posted: Option<Box<PostedBody>>,
    },
}

impl<G: Gate> ConnectionTask<G> {
    /// The session of a WebSocket whose handshake has been answered. `read` holds the bytes that came after the
    /// handshake.
    pub(super) fn new(
        shared: Arc<EngineState<G>>,
        stream: OwnedReadHalf,
        sender: Arc<ConnectionSender>,
        inbox: Inbox<G>,
        read: Vec<u8>,
    ) -> Self {
        Self::over(Transport::WebSocket(stream), shared, sender, inbox, read)
    }

    /// The session of a polling client.
    pub(super) fn polling(
        shared: Arc<EngineState<G>>,
        sender: Arc<ConnectionSender>,
        inbox: Inbox<G>,
        connection: Arc<EngineSession>,
    ) -> Self {
        Self::over(Transport::Polling { connection, posted: None }, shared, sender, inbox, Vec::new())
    }

    fn over(
        transport: Transport,
        shared: Arc<EngineState<G>>,
        sender: Arc<ConnectionSender>,
        inbox: Inbox<G>,
        read: Vec<u8>,
    ) -> Self {
        let now = Instant::now();
        let first_ping = now + shared.ping_interval;
        let connect_by = now + shared.connect_timeout;
        Self {
            transport,
            reader: FrameReader::new(shared.max_payload).inflating(sender.deflate().is_some()),
            sender,
            rest: read,
            inbox,
            heartbeat: HeartbeatState::PingAt(first_ping),
            connect_by: Some(connect_by),
            sleep: Box::pin(tokio::time::sleep_until(first_ping.min(connect_by))),
            ending: None,
            shared,
        }
    }

    fn work(&mut self, cx: &mut Context<'_>) -> Result<(), EndReason> {
        self.sender.register(cx);
        match self.sender.kill_switch().poll_turned(cx) {
            SwitchState::Live => {}
            SwitchState::Closing => return Err(EndReason::ClosedByUs),
            SwitchState::Dead => return Err(EndReason::Lost),
        }
        self.inbox.settle_requests();
        if matches!(self.transport, Transport::Polling { .. }) {
            self.take_posted(cx)?;
            self.await_poll(cx)?;
            self.move_over();
        }
        if matches!(self.transport, Transport::WebSocket(_)) {
            self.write(cx)?;
            self.read(cx)?;
        }
        // Timers are checked only after reading, so that a pong that has already arrived counts, and the next ping is
        // scheduled.
        self.keep_time(cx)
    }

    // === reading ===

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), EndReason> {
        let mut buffer = BUFFER.take();
        buffer.resize(READ_BUFFER, 0);
        self.sender.hold();
        let scheduler = self.shared.scheduler.clone();
        let own = scheduler.own();
        let outcome = self.read_into(&mut buffer, cx);
        BUFFER.set(buffer);
        // The answers to all messages of this read are written together.
        if self.sender.flush() == WriteOutcome::More {
            cx.waker().wake_by_ref();
        }
        own.write();
        outcome
    }

    fn read_into(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> Result<(), EndReason> {
        if !self.rest.is_empty() {
            // In the first read, `rest` has the bytes that came after the handshake.
            self.take_rest()?;
        }
        for _ in 0..MAX_READS {
            let mut unread = ReadBuf::new(buffer);
            let Transport::WebSocket(stream) = &mut self.transport else { return Ok(()) };
            match Pin::new(stream).poll_read(cx, &mut unread) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => return Err(EndReason::Lost),
                Poll::Ready(Ok(())) if unread.filled().is_empty() => return Err(EndReason::Lost),
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

    fn take_rest(&mut self) -> Result<(), EndReason> {
        let mut rest = std::mem::take(&mut self.rest);
        let used = self.take(&mut rest)?;
        if used < rest.len() {
            // Only the unread bytes are kept, so that the buffer of a large message is freed.
            self.rest = if used == 0 { rest } else { rest[used..].to_vec() };
        }
        Ok(())
    }

    /// Handles every complete frame that was read. Returns their length in bytes.
    fn take(&mut self, bytes: &mut [u8]) -> Result<usize, EndReason> {
        let mut used = 0;
        loop {
            let (length, step) = self.reader.step(&mut bytes[used..]).map_err(EndReason::Violation)?;
            used += length;
            let taken = match step {
                FrameProgress::More(_) => return Ok(used),
                FrameProgress::Fragment | FrameProgress::Pong => Ok(()),
                FrameProgress::Ping(payload) => {
                    self.sender.pong(frame::pong(payload));
                    Ok(())
                }
                FrameProgress::Close(code) => return Err(EndReason::Closed(code)),
                FrameProgress::Text(text) => self.inbox.text(&text),
                FrameProgress::Binary(bytes) => self.inbox.binary(&bytes),
            };
            taken?;
            self.hear_pong();
        }
    }

    fn hear_pong(&mut self) {
        if self.inbox.take_pong() {
            self.heartbeat = HeartbeatState::PingAt(Instant::now() + self.shared.ping_interval);
        }
    }

    // === writing ===

    /// Continues to write when the kernel takes more bytes.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), EndReason> {
        while let Some(since) = self.sender.blocked_since() {
            match self.sender.poll_writable(cx) {
                Poll::Ready(Ok(())) => match self.sender.flush() {
                    WriteOutcome::All => {}
                    WriteOutcome::More => {
                        cx.waker().wake_by_ref();
                        return Ok(());
                    }
                    WriteOutcome::Blocked => {}
                },
                Poll::Ready(Err(_)) => return Err(EndReason::Lost),
                Poll::Pending => {
                    let late = Instant::from_std(since) + self.shared.stall;
                    return self.wait_until(late, Instant::now(), EndReason::Lost, cx);
                }
            }
        }
        if self.sender.is_broken() { Err(EndReason::Lost) } else { Ok(()) }
    }

    // === time ===

    fn keep_time(&mut self, cx: &mut Context<'_>) -> Result<(), EndReason> {
        let now = Instant::now();
        if self.connect_by.is_some_and(|by| by <= now) {
            if self.inbox.is_nowhere() {
                return Err(EndReason::Idle);
            }
            self.connect_by = None;
        }
        match self.heartbeat {
            HeartbeatState::PingAt(at) if at <= now => {
                self.sender.ping(packet::PING);
                // Timers of the runtime are always slightly late. If the node was held up for longer, the client gets
                // its full time.
                let sent = if now - at < TIMER_SLACK { at } else { now };
                self.heartbeat = HeartbeatState::PongBy(sent + self.shared.ping_timeout);
            }
            HeartbeatState::PongBy(by) if by <= now => return Err(EndReason::PingTimeout),
            _ => {}
        }
        let (HeartbeatState::PingAt(next) | HeartbeatState::PongBy(next)) = self.heartbeat;
        let next = self.connect_by.map_or(next, |by| by.min(next));
        self.wait_until(next, now, EndReason::PingTimeout, cx)
    }

    /// Makes the runtime wake the task at `at` or earlier. Returns the error `late` if `at` has passed. The caller must
    /// check again when the task runs.
    fn wait_until(
        &mut self,
        at: Instant,
        now: Instant,
        late: EndReason,
        cx: &mut Context<'_>,
    ) -> Result<(), EndReason> {
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

    /// Ends the client's sessions, and sends a close frame or a close packet if the client can still receive it.
    /// Returns true when the task is done.
    fn end(&mut self, end: EndReason) -> bool {
        self.inbox.end(end.reason());
        if let Transport::Polling { posted, .. } = &mut self.transport {
            *posted = None;
            // The client may have moved to its WebSocket just now.
            self.move_over();
        }
        if let Transport::Polling { .. } = &self.transport {
            return self.end_polling(end);
        }
        match end.farewell() {
            Some(frame) => {
                self.sender.hold();
                self.sender.finish(frame);
                self.sender.flush();
                self.ending = Some(Instant::now() + FAREWELL);
                self.rest = Vec::new();
                false
            }
            None => {
                self.sender.give_up();
                true
            }
        }
    }

    /// Waits until the close frame is written and the client has closed its side. Everything that the client still
    /// sends is discarded.
    fn poll_farewell(&mut self, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.sender.register(cx);
        let now = Instant::now();
        if self.sender.kill_switch().poll_turned(cx) == SwitchState::Dead || by <= now {
            return Poll::Ready(());
        }
        if self.write(cx).is_err() || self.wait_until(by, now, EndReason::Lost, cx).is_err() {
            return Poll::Ready(());
        }
        if self.sender.flush() == WriteOutcome::More {
            cx.waker().wake_by_ref();
        }
        let drained = self.sender.end_when_drained();
        let mut buffer = BUFFER.take();
        buffer.resize(READ_BUFFER, 0);
        let over = loop {
            let mut unread = ReadBuf::new(&mut buffer);
            let Transport::WebSocket(stream) = &mut self.transport else { break true };
            match Pin::new(stream).poll_read(cx, &mut unread) {
                Poll::Pending => break false,
                Poll::Ready(Ok(())) if !unread.filled().is_empty() => {}
                // The client has closed its sending side. It may still read, so finish only when everything is written.
                Poll::Ready(result) => break drained || result.is_err(),
            }
        };
        BUFFER.set(buffer);
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<G: Gate> Future for ConnectionTask<G> {
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
        let Some(by) = session.ending else { return Poll::Pending };
        if matches!(session.transport, Transport::WebSocket(_)) {
            return session.poll_farewell(by, cx);
        }
        session.move_over();
        if matches!(session.transport, Transport::Polling { .. }) {
            return session.poll_news(by, cx);
        }
        // The client has moved to a WebSocket although its session has ended. The WebSocket gets the packets that the
        // client has not fetched.
        let by = Instant::now() + FAREWELL;
        session.ending = Some(by);
        session.poll_farewell(by, cx)
    }
}

impl<G: Gate> Drop for ConnectionTask<G> {
    fn drop(&mut self) {
        // Ends the sessions even if the task is aborted.
        self.inbox.end("transport close");
        match self.transport {
            Transport::WebSocket(_) => self.sender.give_up(),
            Transport::Polling { .. } => self.sender.leave_polling(packet::CLOSE),
        }
    }
}
