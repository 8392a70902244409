//! A connection whose client polls: a GET that waits is its transport, and between two of them it has none.
//!
//! An upgrade tries a WebSocket as a *candidate*. The session changes over when the client says so on it, and not before; a
//! candidate that fails is dropped, and nothing else happens.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::out::Out;
use super::payload::{self, NOOP};
use super::wire::Wire;

/// The requests of a client that polls, and the WebSocket that it tries.
pub(super) struct Polling {
    get: Get,
    /// The next poll is answered at once, with a NOOP where nothing else is to be told.
    release: bool,
    body: Option<Body>,
    candidate: Candidate,
    arrived: Option<Box<Arrived>>,
    fault: Option<Fault>,
    /// The Socket.IO id of the first namespace that the client is in, for the audit log.
    public_id: Option<ByteString>,
}

/// A client's poll.
enum Get {
    /// There is none.
    None,
    /// It waits.
    Waiting(Waker),
    /// It is told to answer.
    Answering,
}

/// A WebSocket that is being tried.
enum Candidate {
    None,
    /// Its handshake is answered, or it is probed.
    Trying(Option<AbortHandle>),
}

/// A body that the client has posted.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// Told when it is taken, and whether it was well formed.
    pub(super) taken: oneshot::Sender<bool>,
}

/// A WebSocket that the client has moved to.
pub(super) struct Arrived {
    pub(super) reader: OwnedReadHalf,
    /// The bytes that came after the upgrade packet.
    pub(super) rest: Vec<u8>,
}

/// Why a client that polls is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It ended a request before it was answered.
    Lost,
    /// It polled twice at a time, or posted what no client posts.
    Misused,
}

impl Polling {
    pub(super) const fn new() -> Self {
        Self {
            get: Get::None,
            release: false,
            body: None,
            candidate: Candidate::None,
            arrived: None,
            fault: None,
            public_id: None,
        }
    }

    /// Ends what is being tried.
    fn abort_candidate(&mut self) {
        if let Candidate::Trying(Some(task)) = std::mem::replace(&mut self.candidate, Candidate::None) {
            task.abort();
        }
    }

    /// Has the poll that waits answer: its task is to be woken.
    fn wake(&mut self) -> Option<Waker> {
        match std::mem::replace(&mut self.get, Get::Answering) {
            Get::Waiting(waker) => Some(waker),
            other => {
                self.get = other;
                None
            }
        }
    }
}

/// The answer to a poll.
pub(super) enum Fetched {
    /// A payload.
    Payload(Bytes),
    /// The session is over, and its client was told.
    Gone,
}

/// A poll that waits for its answer. Dropped before, the client is gone.
pub(super) struct Fetch {
    wire: Arc<Wire>,
    most: usize,
    answered: bool,
}

impl Future for Fetch {
    type Output = Fetched;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Fetched> {
        let fetched = self.wire.fetch(self.most, cx);
        self.answered = fetched.is_ready();
        fetched
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if !self.answered {
            self.wire.fail(Fault::Lost);
        }
    }
}

/// A candidate's claim. Dropped, another may be tried.
pub(super) struct Claim(Arc<Wire>);

impl Claim {
    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(polling) = self.0.out().polled_by() {
            polling.candidate = Candidate::None;
            polling.release = false;
        }
    }
}

impl Wire {
    /// Begins a poll, to be answered with at most so many bytes. `None`: another one waits, which ends the session as it does in
    /// Node, or the client polls no longer.
    pub(super) fn begin_poll(self: &Arc<Self>, most: usize) -> Option<Fetch> {
        let mut out = self.out();
        let polling = out.polled_by()?;
        if !matches!(polling.get, Get::None) {
            drop(out);
            self.fail(Fault::Misused);
            return None;
        }
        polling.get = Get::Answering;
        out.blocked = None;
        Some(Fetch { wire: self.clone(), most, answered: false })
    }

    fn fetch(&self, most: usize, cx: &Context<'_>) -> Poll<Fetched> {
        let mut out = self.out();
        let over = out.is_over();
        // A client that has moved to its WebSocket wants nothing of this poll.
        let Some(polling) = out.polled_by() else { return Poll::Ready(Fetched::Payload(NOOP)) };
        polling.get = Get::None;
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
            return Poll::Ready(Fetched::Payload(payload::payload(&packets)));
        }
        if over {
            return Poll::Ready(Fetched::Gone);
        }
        if release {
            return Poll::Ready(Fetched::Payload(NOOP));
        }
        if let Some(polling) = out.polled_by() {
            polling.get = Get::Waiting(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Has the poll that waits answered with what is queued.
    pub(super) fn answer_poll(&self, mut out: MutexGuard<'_, Out>) {
        if out.queue.is_empty() {
            return;
        }
        let Some(polling) = out.polled_by() else { return };
        let waker = polling.wake();
        let is_new = matches!(polling.get, Get::None) && out.blocked.is_none();
        if is_new {
            out.blocked = Some(Instant::now());
        }
        drop(out);
        if let Some(waker) = waker {
            waker.wake();
        } else if is_new {
            // It knows how long the client may take nothing.
            self.wake_session();
        }
    }

    /// Has the poll that waits, or the next one, answered at once.
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

    /// Gives the session's task a body. `None`: there is one already, or the client polls no longer.
    pub(super) fn post(&self, bytes: Bytes) -> Option<oneshot::Receiver<bool>> {
        let (taken, told) = oneshot::channel();
        let mut out = self.out();
        let polling = out.polled_by().filter(|polling| polling.body.is_none())?;
        polling.body = Some(Body { bytes, taken });
        drop(out);
        self.wake_session();
        Some(told)
    }

    /// The client has done what ends its session, if it still polls.
    pub(super) fn fail(&self, fault: Fault) {
        let mut out = self.out();
        let Some(polling) = out.polled_by() else { return };
        if fault == Fault::Lost {
            polling.get = Get::None;
        }
        polling.fault.get_or_insert(fault);
        drop(out);
        self.wake_session();
    }

    /// Notes the Socket.IO id of a client that polls.
    pub(super) fn note_public_id(&self, id: &ByteString) {
        if let Some(polling) = self.out().polled_by() {
            polling.public_id.get_or_insert_with(|| id.clone());
        }
    }

    /// The Socket.IO id by which others may know a client that polls.
    pub(super) fn noted_public_id(&self) -> Option<ByteString> {
        self.out().polled_by()?.public_id.clone()
    }

    // === for the session's task ===

    /// The fault that ends the session, if there is one.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.out().polled_by()?.fault
    }

    /// Takes the body that the client has posted.
    pub(super) fn take_body(&self) -> Option<Body> {
        self.out().polling.as_mut()?.body.take()
    }

    /// The WebSocket that the client has moved to.
    pub(super) fn take_arrived(&self) -> Option<Arrived> {
        let mut out = self.out();
        let arrived = out.polling.as_mut()?.arrived.take()?;
        out.polling = None;
        Some(*arrived)
    }

    /// Ends the session with these last words for the poll that waits. Without one nobody hears them.
    pub(super) fn leave_polling(&self, words: Bytes) {
        let mut out = self.out();
        // Its end was told already, and waits to be fetched.
        if out.is_over() {
            return;
        }
        out.finished = true;
        let Some(polling) = out.polling.as_mut() else { return };
        polling.abort_candidate();
        let waker = polling.wake();
        if matches!(polling.get, Get::None) {
            out.clear();
        } else {
            out.push(words);
        }
        drop(out);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the client has fetched everything, or will not.
    pub(super) fn is_fetched(&self) -> bool {
        let out = self.out();
        out.broken || out.queue.is_empty()
    }

    /// Ends what is being tried: the session closes.
    pub(super) fn drop_candidate(&self) {
        if let Some(polling) = self.out().polling.as_mut() {
            polling.abort_candidate();
        }
    }

    // === a candidate ===

    /// Claims the place of the one candidate that a session may have. `None`: there is one, or the client polls no longer.
    pub(super) fn claim(self: &Arc<Self>) -> Option<Claim> {
        let mut out = self.out();
        if out.is_over() {
            return None;
        }
        let polling = out.polled_by().filter(|polling| matches!(polling.candidate, Candidate::None))?;
        polling.candidate = Candidate::Trying(None);
        Some(Claim(self.clone()))
    }

    /// Notes the candidate's task, which ends with the session.
    pub(super) fn try_by(&self, task: AbortHandle) {
        let mut out = self.out();
        let over = out.is_over();
        match out.polled_by().map(|polling| &mut polling.candidate) {
            Some(Candidate::Trying(tried)) if !over => *tried = Some(task),
            Some(Candidate::None) | None if !over => {}
            _ => task.abort(),
        }
    }

    /// The client moves to its candidate: what is queued follows there. False: the session is over.
    pub(super) fn change_over(self: &Arc<Self>, writer: OwnedWriteHalf, arrived: Arrived, deflates: bool) -> bool {
        let mut out = self.out();
        if out.is_over() {
            return false;
        }
        let Some(polling) = out.polled_by() else { return false };
        polling.arrived = Some(Box::new(arrived));
        // The session's task is not ended with the candidate's.
        polling.candidate = Candidate::None;
        let waker = polling.wake();
        out.become_websocket(writer);
        self.set_websocket(deflates);
        if out.queue.is_empty() {
            drop(out);
        } else {
            self.ask_for_turn(out);
        }
        self.wake_session();
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}
