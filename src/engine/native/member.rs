//! A connection's namespaces: in each it is a session of its own.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use bytestring::ByteString;

use super::wire::Wire;
use super::{packet, payload};
use crate::engine::Gate;
use crate::engine::slot::Slot;
use crate::event::{Args, Event};
use crate::session::{AckId, Backlog, Close, Link, MAX_ASKED, Reply, RoomName, SendError};

/// An id of 20 characters that nobody can guess, as Socket.IO's own are.
pub(super) fn new_id() -> ByteString {
    let random = uuid::Uuid::new_v4().into_bytes();
    let mut bytes = [0; 15];
    bytes[..6].copy_from_slice(&random[..6]);
    // One byte says that the number is random; it is not.
    bytes[6..].copy_from_slice(&random[7..]);
    URL_SAFE_NO_PAD.encode(bytes).into()
}

/// One connection in one namespace, as its task and its link share it.
pub(super) struct Membership {
    pub(super) namespace: Arc<str>,
    gone: AtomicBool,
    // Most clients are never asked.
    asked: Mutex<Option<Box<Asked>>>,
}

/// What the client was asked and has not acknowledged.
#[derive(Default)]
struct Asked {
    last: AckId,
    waiting: HashMap<AckId, Reply>,
}

/// What others ask of the session's task.
pub(super) enum Request {
    /// The client was refused: it may try again.
    Forget(Arc<Membership>),
    /// We have sent it out of the namespace.
    SentOut(Arc<Membership>),
}

/// Requests to one session's task; each membership makes one at most.
#[derive(Default)]
pub(super) struct Requests {
    waiting: Mutex<Vec<Request>>,
}

impl Requests {
    pub(super) fn put(&self, request: Request) {
        self.waiting.lock().expect("no panic while held").push(request);
    }

    pub(super) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.waiting.lock().expect("no panic while held"))
    }
}

/// A namespace that the client is in, or that it was sent out of.
pub(super) struct Place<G: Gate> {
    pub(super) membership: Arc<Membership>,
    /// `None`: it was sent out, and does not know it yet.
    pub(super) slot: Option<Arc<Slot<G>>>,
}

impl Membership {
    pub(super) fn new(namespace: Arc<str>) -> Arc<Self> {
        Arc::new(Self { namespace, gone: AtomicBool::new(false), asked: Mutex::default() })
    }

    /// Ends it for everybody who sends, and for who waits for an acknowledgement. True the first time.
    pub(super) fn end(&self) -> bool {
        let first = !self.gone.swap(true, Ordering::AcqRel);
        if first {
            self.asked().take();
        }
        first
    }

    /// The client has acknowledged an event. What nobody awaits any more, or ever asked for, is for nobody.
    pub(super) fn acknowledge(&self, id: AckId, args: Args) {
        let reply = self.asked().as_mut().and_then(|asked| asked.waiting.remove(&id));
        if let Some(reply) = reply {
            // Who asked may have lost patience.
            let _ = reply.send(args);
        }
    }

    /// The number under which an acknowledgement is awaited; `None`: too many are.
    fn expect(&self, reply: Reply) -> Option<AckId> {
        let mut asked = self.asked();
        let asked = asked.get_or_insert_default();
        asked.waiting.retain(|_, reply| !reply.is_closed());
        if asked.waiting.len() >= MAX_ASKED {
            return None;
        }
        asked.last += 1;
        asked.waiting.insert(asked.last, reply);
        Some(asked.last)
    }

    fn asked(&self) -> MutexGuard<'_, Option<Box<Asked>>> {
        self.asked.lock().expect("no panic while held")
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

/// A session's way to its connection.
pub(super) struct NativeLink {
    pub(super) wire: Arc<Wire>,
    pub(super) requests: Arc<Requests>,
    pub(super) membership: Arc<Membership>,
}

impl NativeLink {
    /// An event in the form that the client's transport wants, which is made once for all who want the same.
    fn packet(&self, event: &Event) -> Bytes {
        let namespace = &self.membership.namespace;
        let plain = || event.framed(namespace, || packet::event(namespace, event, None));
        match self.wire.deflate() {
            Some(deflate) if event.size_bytes() >= deflate.threshold => {
                event.deflated(namespace, || packet::event(namespace, event, Some(deflate)))
            }
            None if self.wire.polls() && !event.attachments().is_empty() => {
                event.polled(namespace, || payload::polled(&plain()))
            }
            _ => plain(),
        }
    }

    /// The same for a packet that is for this client alone.
    fn own(&self, packet: Bytes, attachments: &[Bytes]) -> Bytes {
        if self.wire.polls() && !attachments.is_empty() { payload::polled(&packet) } else { packet }
    }
}

impl Link for NativeLink {
    fn send(&self, event: &Event) -> Result<(), SendError> {
        if self.membership.is_gone() {
            return Err(SendError::Closed);
        }
        self.wire.send(self.packet(event))
    }

    fn ask(&self, event: &Event, reply: Reply) -> Result<(), SendError> {
        if self.membership.is_gone() {
            return Err(SendError::Closed);
        }
        let id = self.membership.expect(reply).ok_or(SendError::Full)?;
        let packet =
            self.own(packet::question(&self.membership.namespace, id, event, self.wire.deflate()), event.attachments());
        self.wire.send(packet).inspect_err(|_| {
            if let Some(asked) = &mut *self.membership.asked() {
                asked.waiting.remove(&id);
            }
        })
    }

    fn backlog(&self) -> Backlog {
        self.wire.backlog()
    }

    fn is_writable(&self) -> bool {
        self.wire.is_writable()
    }

    fn warm(&self) {
        black_box(self.membership.is_gone());
        self.wire.warm();
    }

    fn ack(&self, id: AckId, args: &Args) -> Result<(), SendError> {
        if self.membership.is_gone() {
            return Err(SendError::Closed);
        }
        let packet = packet::acknowledgement(&self.membership.namespace, id, args, self.wire.deflate());
        self.wire.send(self.own(packet, args.attachments()))
    }

    // The rooms are those of the index.
    fn joined(&self, _: &RoomName) {}

    fn left(&self, _: &RoomName) {}

    fn close(&self, how: Close) {
        match how {
            Close::Namespace => {
                if self.membership.end() {
                    // Before the client can know it, so that its next CONNECT finds the place free.
                    self.requests.put(Request::SentOut(self.membership.clone()));
                    self.wire.control(packet::disconnected(&self.membership.namespace));
                    self.wire.wake_session();
                }
            }
            Close::Transport => {
                self.wire.kill_switch().close();
                self.wire.wake_session();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_long_and_differ() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| new_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(
            ids.iter().all(|id| id.len() == 20 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)))
        );
    }
}
