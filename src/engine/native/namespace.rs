//! A connection's membership in namespaces. A connection has one session in each namespace that it has joined.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use bytestring::ByteString;

use super::packet::{self, Parser};
use super::payload;
use super::sender::ConnectionSender;
use crate::engine::Gate;
use crate::engine::slot::SessionSlot;
use crate::event::{Args, Event, PacketEncoding};
use crate::session::{AckId, AckSender, Backlog, Close, Link, MAX_ASKED, SendError};
use crate::telemetry::log_limit::log_seldom;

/// Makes a random id of 16 characters, like the ids of socketioxide, so that its servers can name every client. It
/// cannot be guessed.
pub(super) fn new_id() -> ByteString {
    let random = uuid::Uuid::new_v4().into_bytes();
    let mut bytes = [0; 12];
    bytes[..6].copy_from_slice(&random[..6]);
    // The bytes in between are skipped, because parts of them are the UUID's version and variant and are not random.
    bytes[6..].copy_from_slice(&random[10..]);
    URL_SAFE_NO_PAD.encode(bytes).into()
}

/// One connection in one namespace. The connection's task and the session's link share it.
pub(super) struct NamespaceConnection {
    pub(super) namespace: Arc<str>,
    pub(super) parser: Parser,
    gone: AtomicBool,
    // The questions to the client; allocated when the client is first asked to acknowledge an event. Most clients never
    // are.
    asked: Mutex<Option<Box<OpenAcks>>>,
}

/// The events that the client has been asked to acknowledge and has not acknowledged yet.
#[derive(Default)]
struct OpenAcks {
    last: AckId,
    waiting: HashMap<AckId, AckSender>,
}

/// A request of another task to the session's task.
pub(super) enum TaskRequest {
    /// The client was refused. Forget the namespace, so that the client may try again.
    Forget(Arc<NamespaceConnection>),
    /// This node has disconnected the client from the namespace.
    SentOut(Arc<NamespaceConnection>),
}

/// The requests to one session's task. Each membership makes at most one.
#[derive(Default)]
pub(super) struct TaskRequests {
    waiting: Mutex<Vec<TaskRequest>>,
}

impl TaskRequests {
    pub(super) fn put(&self, request: TaskRequest) {
        self.waiting.lock().expect("no thread panics while it holds this lock").push(request);
    }

    pub(super) fn take(&self) -> Vec<TaskRequest> {
        std::mem::take(&mut *self.waiting.lock().expect("no thread panics while it holds this lock"))
    }
}

/// A namespace that the client has joined, or from which this node has disconnected the client.
pub(super) struct NamespaceEntry<G: Gate> {
    pub(super) membership: Arc<NamespaceConnection>,
    /// The session; `None`: this node has disconnected the client from the namespace, and the client may not know that
    /// yet.
    pub(super) slot: Option<Arc<SessionSlot<G>>>,
}

impl NamespaceConnection {
    pub(super) fn new(namespace: Arc<str>, parser: Parser) -> Arc<Self> {
        Arc::new(Self { namespace, parser, gone: AtomicBool::new(false), asked: Mutex::default() })
    }

    /// Ends the membership: senders get an error, and awaited acknowledgements are given up. Returns true the first
    /// time.
    pub(super) fn end(&self) -> bool {
        let first = !self.gone.swap(true, Ordering::AcqRel);
        if first {
            self.asked().take();
        }
        first
    }

    /// Passes the client's acknowledgement to the caller that waits for it. Drops acknowledgements that no caller is
    /// waiting for.
    pub(super) fn acknowledge(&self, id: AckId, args: Args) {
        let reply = self.asked().as_mut().and_then(|asked| asked.waiting.remove(&id));
        if let Some(reply) = reply {
            // The caller that asked may have stopped waiting.
            let _ = reply.send(args);
        }
    }

    /// Begins to wait for an acknowledgement, and returns its number. Returns `None` if too many are awaited.
    fn expect(&self, reply: AckSender) -> Option<AckId> {
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

    fn asked(&self) -> MutexGuard<'_, Option<Box<OpenAcks>>> {
        self.asked.lock().expect("no thread panics while it holds this lock")
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

/// The link from a session to its connection.
pub(super) struct NativeLink {
    pub(super) sender: Arc<ConnectionSender>,
    pub(super) requests: Arc<TaskRequests>,
    pub(super) membership: Arc<NamespaceConnection>,
}

impl NativeLink {
    /// Encodes an event for the client's parser and transport. Each encoding is made once and shared by all clients
    /// that need it.
    fn packet(&self, event: &Event) -> Bytes {
        let NamespaceConnection { namespace, parser, .. } = &*self.membership;
        let frame = |deflate| packet::event(*parser, namespace, event, deflate);
        let (plain, deflated, polled) = match parser {
            Parser::Json => (PacketEncoding::Json, PacketEncoding::JsonDeflated, PacketEncoding::JsonPolled),
            Parser::MessagePack => {
                (PacketEncoding::Packed, PacketEncoding::PackedDeflated, PacketEncoding::PackedPolled)
            }
        };
        let plain = || event.framed(plain, namespace, || frame(None));
        match self.sender.deflate() {
            Some(deflate) if event.size_bytes() >= deflate.threshold => {
                event.framed(deflated, namespace, || frame(Some(deflate)))
            }
            None if self.is_polled_as_base64(event.attachments()) => {
                event.framed(polled, namespace, || payload::to_polling(&plain()))
            }
            _ => plain(),
        }
    }

    /// Whether a packet with these attachments is binary, and the client polls.
    fn is_polled_as_base64(&self, attachments: &[Bytes]) -> bool {
        self.sender.polls() && (self.membership.parser == Parser::MessagePack || !attachments.is_empty())
    }

    /// Encodes a packet for the client's transport. No other client gets this packet.
    fn own(&self, packet: Bytes, attachments: &[Bytes]) -> Bytes {
        if self.is_polled_as_base64(attachments) { payload::to_polling(&packet) } else { packet }
    }

    /// Queues a packet. An empty packet could not be encoded, because its payload is not JSON. A client that gets JSON
    /// would end the connection if it got such a payload, so this node closes the connection, too.
    fn queue(&self, packet: Bytes) -> Result<(), SendError> {
        if packet.is_empty() {
            log_seldom!(warn, namespace = %self.membership.namespace, "an event is not JSON; its client is disconnected");
            self.close(Close::Transport);
            return Err(SendError::Closed);
        }
        self.sender.send(packet)
    }
}

impl Link for NativeLink {
    fn send(&self, event: &Event) -> Result<(), SendError> {
        if self.membership.is_gone() {
            return Err(SendError::Closed);
        }
        self.queue(self.packet(event))
    }

    fn ask(&self, event: &Event, reply: AckSender) -> Result<(), SendError> {
        if self.membership.is_gone() {
            return Err(SendError::Closed);
        }
        let id = self.membership.expect(reply).ok_or(SendError::Full)?;
        let NamespaceConnection { namespace, parser, .. } = &*self.membership;
        let packet = packet::question(*parser, namespace, id, event, self.sender.deflate());
        self.queue(self.own(packet, event.attachments())).inspect_err(|_| {
            if let Some(asked) = &mut *self.membership.asked() {
                asked.waiting.remove(&id);
            }
        })
    }

    fn backlog(&self) -> Backlog {
        self.sender.backlog()
    }

    fn is_writable(&self) -> bool {
        self.sender.is_writable()
    }

    fn warm(&self) {
        black_box(self.membership.is_gone());
        self.sender.warm();
    }

    fn ack(&self, id: AckId, args: &Args) -> Result<(), SendError> {
        if self.membership.is_gone() {
            return Err(SendError::Closed);
        }
        let NamespaceConnection { namespace, parser, .. } = &*self.membership;
        let packet = packet::acknowledgement(*parser, namespace, id, args, self.sender.deflate());
        self.queue(self.own(packet, args.attachments()))
    }

    fn close(&self, how: Close) {
        match how {
            Close::Namespace => {
                if self.membership.end() {
                    // This request is made before the client can learn that it has left the namespace, so that its next
                    // CONNECT can join the namespace again.
                    self.requests.put(TaskRequest::SentOut(self.membership.clone()));
                    let NamespaceConnection { namespace, parser, .. } = &*self.membership;
                    self.sender.control(packet::disconnected(*parser, namespace));
                    self.sender.wake_session();
                }
            }
            Close::Transport => {
                self.sender.kill_switch().close();
                self.sender.wake_session();
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
            ids.iter().all(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)))
        );
    }
}
