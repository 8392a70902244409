//! The session of a polling client. Its packets arrive in posted bodies, and it must poll to learn that its session
//! has ended.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{End, MAX_READS, READ_BUFFER, Session, Transport};
use crate::engine::Gate;
use crate::engine::conn::Turned;
use crate::engine::native::frame::Reader;
use crate::engine::native::inbox::Bad;
use crate::engine::native::packet;
use crate::engine::native::payload::Posted;
use crate::engine::native::polling::{Arrived, Fault};

/// How long the task waits for a polling client to fetch the queued packets and the close packet. Later polls are
/// answered by the edge.
const NEWS: Duration = Duration::from_secs(3);

/// A posted body whose messages are being handled.
pub(super) struct Posting {
    messages: Posted,
    taken: oneshot::Sender<bool>,
}

impl<G: Gate> Session<G> {
    /// Ends the session of a client that has fetched nothing for `stall` although packets wait.
    pub(super) fn await_poll(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        match self.wire.blocked_since() {
            Some(since) => {
                let late = Instant::from_std(since) + self.shared.stall;
                self.wait_until(late, Instant::now(), End::Lost, cx)
            }
            None => Ok(()),
        }
    }

    /// Handles the messages that the client has posted.
    pub(super) fn take_posted(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        match self.wire.fault() {
            Some(Fault::Lost) => return Err(End::Lost),
            Some(Fault::Misused) => return Err(End::Misused),
            None => {}
        }
        let Transport::Polling { posted, .. } = &mut self.transport else { return Ok(()) };
        let posting = posted.take().or_else(|| {
            let body = self.wire.take_body()?;
            Some(Box::new(Posting { messages: Posted::new(body.bytes), taken: body.taken }))
        });
        let Some(posting) = posting else { return Ok(()) };
        self.wire.hold();
        let turns = self.shared.turns.clone();
        let own = turns.own();
        let outcome = self.take_messages(posting, cx);
        self.wire.flush();
        own.write();
        outcome
    }

    fn take_messages(&mut self, mut posting: Box<Posting>, cx: &mut Context<'_>) -> Result<(), End> {
        let mut bytes = 0;
        while let Some(message) = posting.messages.next() {
            bytes += message.len();
            let taken = match std::str::from_utf8(&message) {
                Ok(text) => self.inbox.text(text),
                Err(_) => Err(Bad::Malformed),
            };
            if let Err(bad) = taken {
                let _ = posting.taken.send(bad == Bad::Closed);
                return Err(bad.into());
            }
            self.hear_pong();
            if bytes >= READ_BUFFER * MAX_READS {
                // Let other tasks run before the rest of the body is handled.
                if let Transport::Polling { posted, .. } = &mut self.transport {
                    *posted = Some(posting);
                }
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
        let _ = posting.taken.send(true);
        Ok(())
    }

    /// Continues on the WebSocket that the client has moved to, once everything that it posted is handled.
    pub(super) fn move_over(&mut self) {
        if matches!(self.transport, Transport::Polling { posted: None, .. })
            && let Some(Arrived { reader, rest }) = self.wire.take_arrived()
        {
            self.reader = Reader::new(self.shared.max_payload).inflating(self.wire.deflate().is_some());
            self.rest = rest;
            self.transport = Transport::WebSocket(reader);
        }
    }

    /// Ends the session of a polling client. Returns true when the task is done.
    pub(super) fn end_polling(&mut self, end: End) -> bool {
        match end {
            // The client must poll to learn of the end.
            End::ClosedByUs | End::Idle => {
                self.wire.hold();
                self.wire.finish(packet::CLOSE);
                self.wire.flush();
                self.ending = Some(Instant::now() + NEWS);
                return false;
            }
            End::Lost => {}
            // Like the Node.js server, answer the poll of a client that has closed its session with NOOP.
            End::Closed(_) => self.wire.leave_polling(packet::NOOP),
            End::PingTimeout | End::Violation(_) | End::Malformed | End::Misused => {
                self.wire.leave_polling(packet::CLOSE);
            }
        }
        true
    }

    /// Waits until the client has fetched the queued packets and the close packet, or has moved to its WebSocket.
    pub(super) fn poll_news(&mut self, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.register(cx);
        while let Some(body) = self.wire.take_body() {
            // The client has not yet been told that its session has ended, so accept the body and discard it.
            let _ = body.taken.send(true);
        }
        let is_over = self.wire.kill_switch().poll_turned(cx) == Turned::Dead || self.wire.is_fetched();
        if !is_over && self.wait_until(by, Instant::now(), End::Lost, cx).is_ok() {
            return Poll::Pending;
        }
        // The edge answers a client that polls later or has lost this answer.
        if let Transport::Polling { connection, .. } = &self.transport {
            connection.remember_closed(false);
        }
        Poll::Ready(())
    }
}
