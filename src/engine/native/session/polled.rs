//! The session of a polling client. Its packets arrive in posted bodies, and it must poll to learn that its session
//! has ended.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{ConnectionTask, EndReason, MAX_READS, READ_BUFFER, Transport};
use crate::engine::Gate;
use crate::engine::closable_stream::SwitchState;
use crate::engine::native::frame::FrameReader;
use crate::engine::native::inbox::InboxError;
use crate::engine::native::packet;
use crate::engine::native::payload::Posted;
use crate::engine::native::polling::{PollingFault, UpgradedSocket};

/// How long the task waits for a polling client to fetch the queued packets and the close packet. Later polls are
/// answered by the edge.
const NEWS: Duration = Duration::from_secs(3);

/// A posted body whose messages are being handled.
pub(super) struct PostedBody {
    messages: Posted,
    taken: oneshot::Sender<bool>,
}

impl<G: Gate> ConnectionTask<G> {
    /// Ends the session of a client that has fetched nothing for the time `stall` although packets wait.
    pub(super) fn await_poll(&mut self, cx: &mut Context<'_>) -> Result<(), EndReason> {
        match self.sender.blocked_since() {
            Some(since) => {
                let late = Instant::from_std(since) + self.shared.stall;
                self.wait_until(late, Instant::now(), EndReason::Lost, cx)
            }
            None => Ok(()),
        }
    }

    /// Handles the messages that the client has posted.
    pub(super) fn take_posted(&mut self, cx: &mut Context<'_>) -> Result<(), EndReason> {
        match self.sender.fault() {
            Some(PollingFault::Lost) => return Err(EndReason::Lost),
            Some(PollingFault::Misused) => return Err(EndReason::Misused),
            None => {}
        }
        let Transport::Polling { posted, .. } = &mut self.transport else { return Ok(()) };
        let posting = posted.take().or_else(|| {
            let body = self.sender.take_body()?;
            Some(Box::new(PostedBody { messages: Posted::new(body.bytes), taken: body.taken }))
        });
        let Some(posting) = posting else { return Ok(()) };
        self.sender.hold();
        let scheduler = self.shared.scheduler.clone();
        let own = scheduler.own();
        let outcome = self.take_messages(posting, cx);
        self.sender.flush();
        own.write();
        outcome
    }

    fn take_messages(&mut self, mut posting: Box<PostedBody>, cx: &mut Context<'_>) -> Result<(), EndReason> {
        let mut bytes = 0;
        while let Some(message) = posting.messages.next() {
            bytes += message.len();
            let taken = match std::str::from_utf8(&message) {
                Ok(text) => self.inbox.text(text),
                Err(_) => Err(InboxError::Malformed),
            };
            if let Err(bad) = taken {
                let _ = posting.taken.send(bad == InboxError::Closed);
                return Err(bad.into());
            }
            self.hear_pong();
            if bytes >= READ_BUFFER * MAX_READS {
                // Other tasks run before the rest of the body is handled.
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
            && let Some(UpgradedSocket { reader, rest }) = self.sender.take_arrived()
        {
            self.reader = FrameReader::new(self.shared.max_payload).inflating(self.sender.deflate().is_some());
            self.rest = rest;
            self.transport = Transport::WebSocket(reader);
        }
    }

    /// Ends the session of a polling client. Returns true when the task is done.
    pub(super) fn end_polling(&mut self, end: EndReason) -> bool {
        match end {
            // The client must poll to learn that its session has ended.
            EndReason::ClosedByUs | EndReason::Idle => {
                self.sender.hold();
                self.sender.finish(packet::CLOSE);
                self.sender.flush();
                self.ending = Some(Instant::now() + NEWS);
                return false;
            }
            EndReason::Lost => {}
            // Like the Node.js server, the node answers the poll of a client that has closed its session with NOOP.
            EndReason::Closed(_) => self.sender.leave_polling(packet::NOOP),
            EndReason::PingTimeout | EndReason::Violation(_) | EndReason::Malformed | EndReason::Misused => {
                self.sender.leave_polling(packet::CLOSE);
            }
        }
        true
    }

    /// Waits until the client has fetched the queued packets and the close packet, or has moved to its WebSocket.
    pub(super) fn poll_news(&mut self, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.sender.register(cx);
        while let Some(body) = self.sender.take_body() {
            // The client has not yet been told that its session has ended, so the body is accepted and discarded.
            let _ = body.taken.send(true);
        }
        let is_over = self.sender.kill_switch().poll_turned(cx) == SwitchState::Dead || self.sender.is_fetched();
        if !is_over && self.wait_until(by, Instant::now(), EndReason::Lost, cx).is_ok() {
            return Poll::Pending;
        }
        // The edge answers a client that polls later or has lost the close packet.
        if let Transport::Polling { connection, .. } = &self.transport {
            connection.remember_closed(false);
        }
        Poll::Ready(())
    }
}
