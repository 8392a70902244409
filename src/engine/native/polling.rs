//! The state of a connection whose client polls. The node can send to the client only while a GET waits.
//!
//! An upgrade first tries a WebSocket as a *candidate*. The session moves to it only when the client sends the upgrade
//! packet on the candidate. A candidate that fails is dropped, and the session continues to poll.
//!
//! The end of a session does not close its candidate. The official client pauses its polling once the probe is
//! answered, and if the candidate closes before its last poll is answered, it never polls again. So an ended session
//! tells the client on the transport that the client uses: by the next poll, or by the candidate if the client moves.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

use super::frame;
use super::payload::{self, NOOP};
use super::sender::ConnectionSender;
use super::write_queue::WriteQueue;

/// The requests of a polling client, and the WebSocket that it is trying.
pub(super) struct Polling {
    get: PollState,
    /// Whether to answer the next poll at once, with a NOOP if nothing else is queued.
    release: bool,
    body: Option<WaitingBody>,
    /// The client is trying a candidate.
    tries: bool,
    arrived: Option<Box<UpgradedSocket>>,
    fault: Option<PollingFault>,
    /// The Socket.IO id of the client's first namespace, for the audit log.
    public_id: Option<ByteString>,
}

/// The state of the client's poll.
enum PollState {
    /// The client does not poll now.
    None,
    /// The poll waits for packets.
    Waiting(Waker),
    /// The poll's task is about to answer.
    Answering,
}

/// A body that the client has posted.
pub(super) struct WaitingBody {
    pub(super) bytes: Bytes,
    /// Reports to the request that the body has been handled, and whether the body was well formed.
    pub(super) taken: oneshot::Sender<bool>,
}

/// A WebSocket that the client has moved to.
pub(super) struct UpgradedSocket {
    pub(super) reader: OwnedReadHalf,
    /// The bytes that came after the upgrade packet.
    pub(super) rest: Vec<u8>,
}

/// Why the session of a polling client must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PollingFault {
    /// The client closed a request before it was answered.
    Lost,
    /// The client polled twice at a time, or posted something that no client posts.
    Misused,
}

impl Polling {
    pub(super) const fn new() -> Self {
        Self {
            get: PollState::None,
            release: false,
            body: None,
            tries: false,
            arrived: None,
            fault: None,
            public_id: None,
        }
    }

    /// Makes the waiting poll answer. The caller must wake the returned task.
    fn wake(&mut self) -> Option<Waker> {
        match std::mem::replace(&mut self.get, PollState::Answering) {
            PollState::Waiting(waker) => Some(waker),
            other => {
                self.get = other;
                None
            }
        }
    }
}

/// The answer to a poll.
pub(super) enum PollAnswer {
    /// A payload.
    Payload(Bytes),
    /// The session has ended, and no packet is left for its client.
    Gone,
}

/// A poll that waits for its answer. If this value is dropped before the poll is answered, the client is gone.
pub(super) struct WaitingPoll {
    sender: Arc<ConnectionSender>,
    most: usize,
    answered: bool,
}

impl Future for WaitingPoll {
    type Output = PollAnswer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<PollAnswer> {
        let fetched = self.sender.fetch(self.most, cx);
        self.answered = fetched.is_ready();
        fetched
    }
}

impl Drop for WaitingPoll {
    fn drop(&mut self) {
        if !self.answered {
            self.sender.fail(PollingFault::Lost);
        }
    }
}

/// The right to try a candidate. When this is dropped, another candidate may be tried.
pub(super) struct CandidateClaim(Arc<ConnectionSender>);

impl CandidateClaim {
    pub(super) fn sender(&self) -> &Arc<ConnectionSender> {
        &self.0
    }
}

impl Drop for CandidateClaim {
    fn drop(&mut self) {
        if let Some(polling) = self.0.out().polled_by() {
            polling.tries = false;
            polling.release = false;
        }
    }
}

impl ConnectionSender {
    /// Begins a poll, whose answer has at most `most` bytes unless a single packet is longer. Returns `None` if
    /// another poll waits, which ends the session as in Node.js, or if the client no longer polls.
    pub(super) fn begin_poll(self: &Arc<Self>, most: usize) -> Option<WaitingPoll> {
        let mut out = self.out();
        let polling = out.polled_by()?;
        if !matches!(polling.get, PollState::None) {
            drop(out);
            self.fail(PollingFault::Misused);
            return None;
        }
        polling.get = PollState::Answering;
        out.blocked = None;
        Some(WaitingPoll { sender: self.clone(), most, answered: false })
    }

    fn fetch(&self, most: usize, cx: &Context<'_>) -> Poll<PollAnswer> {
        let mut out = self.out();
        let over = out.is_over();
        // The client has moved to its WebSocket, so this poll has nothing to fetch.
        let Some(polling) = out.polled_by() else { return Poll::Ready(PollAnswer::Payload(NOOP)) };
        debug_assert!(!matches!(polling.get, PollState::None), "a poll that has ended fetches");
        polling.get = PollState::None;
        let release = std::mem::take(&mut polling.release);
        if !out.queue.is_empty() {
            let packets = out.fetch(most);
            let left = !out.queue.is_empty();
            if left {
                out.blocked = Some(Instant::now());
            }
            drop(out);
            if over || left {
                self.wake_session();
            }
            return Poll::Ready(PollAnswer::Payload(payload::payload(&packets)));
        }
        if over {
            return Poll::Ready(PollAnswer::Gone);
        }
        if release {
            return Poll::Ready(PollAnswer::Payload(NOOP));
        }
        if let Some(polling) = out.polled_by() {
            polling.get = PollState::Waiting(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Makes the waiting poll answer with the queued packets.
    pub(super) fn answer_poll(&self, mut out: MutexGuard<'_, WriteQueue>) {
        if out.queue.is_empty() {
            return;
        }
        let Some(polling) = out.polled_by() else { return };
        let waker = polling.wake();
        let is_new = matches!(polling.get, PollState::None) && out.blocked.is_none();
        if is_new {
            out.blocked = Some(Instant::now());
        }
        drop(out);
        if let Some(waker) = waker {
            waker.wake();
        } else if is_new {
            // The session's task enforces how long queued packets may wait for the client's next poll.
            self.wake_session();
        }
    }

    /// Makes the waiting poll, or otherwise the client's next poll, answer at once.
    pub(super) fn release_poll(&self) {
        let mut out = self.out();
        let Some(polling) = out.polled_by() else { return };
        polling.release = true;
        let waker = polling.wake();
        drop(out);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Passes a body to the session's task. Returns `None` if another body is still being handled, or the client no
    /// longer polls.
    pub(super) fn post(&self, bytes: Bytes) -> Option<oneshot::Receiver<bool>> {
        let (taken, told) = oneshot::channel();
        let mut out = self.out();
        let polling = out.polled_by().filter(|polling| polling.body.is_none())?;
        polling.body = Some(WaitingBody { bytes, taken });
        drop(out);
        self.wake_session();
        Some(told)
    }

    /// Ends the session because of a fault, if the client still polls.
    pub(super) fn fail(&self, fault: PollingFault) {
        let mut out = self.out();
        let Some(polling) = out.polled_by() else { return };
        if fault == PollingFault::Lost {
            polling.get = PollState::None;
        }
        polling.fault.get_or_insert(fault);
        drop(out);
        self.wake_session();
    }

    /// Records the Socket.IO id of a polling client.
    pub(super) fn note_public_id(&self, id: &ByteString) {
        if let Some(polling) = self.out().polled_by() {
            polling.public_id.get_or_insert_with(|| id.clone());
        }
    }

    /// The Socket.IO id of a polling client, for the audit log.
    pub(super) fn noted_public_id(&self) -> Option<ByteString> {
        self.out().polled_by()?.public_id.clone()
    }

    // === for the session's task ===

    /// The fault that must end the session, if there is one.
    pub(super) fn fault(&self) -> Option<PollingFault> {
        self.out().polled_by()?.fault
    }

    /// Takes the body that the client has posted.
    pub(super) fn take_body(&self) -> Option<WaitingBody> {
        self.out().polling.as_mut()?.body.take()
    }

    /// The WebSocket that the client has moved to.
    pub(super) fn take_arrived(&self) -> Option<UpgradedSocket> {
        let mut out = self.out();
        let arrived = out.polling.as_mut()?.arrived.take()?;
        out.polling = None;
        Some(*arrived)
    }

    /// Ends the session, and answers the waiting poll with the queued packets and the packet `words`. Without a waiting
    /// poll, all these packets are dropped.
    pub(super) fn leave_polling(&self, words: Bytes) {
        let mut out = self.out();
        // The session has already been ended, and its last packet waits to be fetched.
        if out.is_over() {
            return;
        }
        out.finished = true;
        let Some(polling) = out.polling.as_mut() else { return };
        let waker = polling.wake();
        if matches!(polling.get, PollState::None) {
            out.clear();
        } else {
            out.push(words);
        }
        drop(out);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the client has fetched everything, or cannot fetch any more.
    pub(super) fn is_fetched(&self) -> bool {
        let out = self.out();
        out.broken || out.queue.is_empty()
    }

    // === a candidate ===

    /// Claims the right to try a candidate; a session may have one. Returns `None` if there is one already, the
    /// session is over, or the client no longer polls.
    pub(super) fn claim(self: &Arc<Self>) -> Option<CandidateClaim> {
        let mut out = self.out();
        if out.is_over() {
            return None;
        }
        let polling = out.polled_by().filter(|polling| !polling.tries)?;
        polling.tries = true;
        Some(CandidateClaim(self.clone()))
    }

    /// Whether the session has ended.
    pub(super) fn is_over(&self) -> bool {
        self.out().is_over()
    }

    /// Moves the session to its candidate, on which all queued packets are then written. Returns false if the session
    /// has ended; a close frame then follows the queued packets. Also returns false if the client no longer polls.
    pub(super) fn change_over(
        self: &Arc<Self>,
        writer: OwnedWriteHalf,
        arrived: UpgradedSocket,
        deflates: bool,
    ) -> bool {
        let mut out = self.out();
        let over = out.is_over();
        let Some(polling) = out.polled_by() else { return false };
        polling.arrived = Some(Box::new(arrived));
        let waker = polling.wake();
        out.become_websocket(writer);
        self.set_websocket(deflates);
        if over {
            out.push(frame::close(None));
        }
        if out.queue.is_empty() {
            drop(out);
        } else {
            self.request_write(out);
        }
        self.wake_session();
        if let Some(waker) = waker {
            waker.wake();
        }
        !over
    }
}
