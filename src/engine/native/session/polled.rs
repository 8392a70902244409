//! The session of a client that polls: bodies are its packets, and it has to come for what it is told.

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

/// How long a client that polls may take to come for what is queued, and for the news that its session is closed. Later it is
/// told that by the edge.
const NEWS: Duration = Duration::from_secs(3);

/// A body that is being taken.
pub(super) struct Posting {
    messages: Posted,
    taken: oneshot::Sender<bool>,
}

impl<G: Gate> Session<G> {
    /// A client that fetches nothing of what waits, for as long as one may take nothing, is gone.
    pub(super) fn await_poll(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        match self.wire.blocked_since() {
            Some(since) => {
                let late = Instant::from_std(since) + self.shared.stall;
                self.wait_until(late, Instant::now(), End::Lost, cx)
            }
            None => Ok(()),
        }
    }

    /// Takes what the client has posted.
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
                // The others have their turn, and then the rest of the body is taken.
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

    /// Goes on with the WebSocket that the client has moved to, once everything that it posted is taken.
    pub(super) fn move_over(&mut self) {
        if matches!(self.transport, Transport::Polling { posted: None, .. })
            && let Some(Arrived { reader, rest }) = self.wire.take_arrived()
        {
            self.reader = Reader::new(self.shared.max_payload).inflating(self.wire.deflate().is_some());
            self.rest = rest;
            self.transport = Transport::WebSocket(reader);
        }
    }

    /// Ends the session of a client that polls. True when nothing is left to do.
    pub(super) fn end_polling(&mut self, end: End) -> bool {
        match end {
            // The client has to come for the news.
            End::ClosedByUs | End::Idle => {
                self.wire.drop_candidate();
                self.wire.hold();
                self.wire.finish(packet::CLOSE);
                self.wire.flush();
                self.ending = Some(Instant::now() + NEWS);
                return false;
            }
            End::Lost => self.wire.drop_candidate(),
            // As Node answers the poll of a client that has closed its session.
            End::Closed(_) => self.wire.leave_polling(packet::NOOP),
            End::PingTimeout | End::Violation(_) | End::Malformed | End::Misused => {
                self.wire.leave_polling(packet::CLOSE);
            }
        }
        true
    }

    /// Waits until the client has fetched everything, and with it the end.
    pub(super) fn poll_news(&mut self, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.register(cx);
        while let Some(body) = self.wire.take_body() {
            // The client does not know yet.
            let _ = body.taken.send(true);
        }
        let is_over = self.wire.kill_switch().poll_turned(cx) == Turned::Dead || self.wire.is_fetched();
        if !is_over && self.wait_until(by, Instant::now(), End::Lost, cx).is_ok() {
            return Poll::Pending;
        }
        // A client that comes later, or has lost the answer, is told by the edge.
        if let Transport::Polling { connection, .. } = &self.transport {
            connection.remember_closed(false);
        }
        Poll::Ready(())
    }
}
