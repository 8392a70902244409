//! Interprets a client's messages: Engine.IO and Socket.IO packets, for each namespace.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use bytestring::ByteString;

use super::EngineState;
use super::msgpack_packet::{self, MsgpackPacket};
use super::namespace::{NamespaceConnection, NamespaceEntry, NativeLink, TaskRequest, TaskRequests, new_id};
use super::packet::{self, Assembly, EngineMessage, MalformedPacket, Packet, PacketKind, Parser};
use super::sender::ConnectionSender;
use crate::engine::edge::EngineSession;
use crate::engine::incompatible::{self, Incompatible};
use crate::engine::slot::{InvalidEvent, SessionSlot};
use crate::engine::validate::validate;
use crate::engine::{Gate, MessageContent};
use crate::error::{Code, Refusal};
use crate::event::{Args, Event};
use crate::recovery::Pid;
use crate::session::AckId;

/// Why no more of the client's messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InboxError {
    /// The client has closed the connection.
    Closed,
    /// The client has broken the protocol.
    Malformed,
    /// The client has sent more events than may wait before its session is open.
    Overloaded,
}

impl From<MalformedPacket> for InboxError {
    fn from(_: MalformedPacket) -> Self {
        Self::Malformed
    }
}

impl From<InvalidEvent> for InboxError {
    fn from(unfit: InvalidEvent) -> Self {
        match unfit {
            InvalidEvent::TooEarly => Self::Overloaded,
            InvalidEvent::Malformed => Self::Malformed,
        }
    }
}

/// The namespaces of a client, and the packet that waits for its attachments.
pub(super) struct Inbox<G: Gate> {
    shared: Arc<EngineState<G>>,
    sender: Arc<ConnectionSender>,
    /// The client's connection. Dropped when the connection ends, so that it no longer counts among the node's
    /// connections.
    client: Option<Arc<EngineSession>>,
    requests: Arc<TaskRequests>,
    entries: Vec<NamespaceEntry<G>>,
    /// The client's parser; `None` until the first packet.
    parser: Option<Parser>,
    assembly: Option<Box<Assembly>>,
    pong: bool,
}

impl<G: Gate> Inbox<G> {
    pub(super) fn new(shared: Arc<EngineState<G>>, sender: Arc<ConnectionSender>, client: Arc<EngineSession>) -> Self {
        let requests = Arc::default();
        Self {
            shared,
            sender,
            client: Some(client),
            requests,
            entries: Vec::new(),
            parser: None,
            assembly: None,
            pong: false,
        }
    }

    /// Whether the client has answered a ping since the last call.
    pub(super) fn take_pong(&mut self) -> bool {
        std::mem::take(&mut self.pong)
    }

    /// Whether the client is in no namespace and is not joining one.
    pub(super) fn is_nowhere(&self) -> bool {
        self.entries.iter().all(|entry| entry.slot.is_none())
    }

    /// Handles a text message.
    pub(super) fn text(&mut self, text: &str) -> Result<(), InboxError> {
        self.message(text).inspect_err(|bad| self.count(*bad))
    }

    fn message(&mut self, text: &str) -> Result<(), InboxError> {
        match EngineMessage::read(text)? {
            EngineMessage::Packet(text) => self.packet(text),
            EngineMessage::Pong => {
                self.pong = true;
                Ok(())
            }
            EngineMessage::Close => Err(InboxError::Closed),
            EngineMessage::Noop => Ok(()),
            EngineMessage::Binary(bytes) => self.binary_message(&bytes),
        }
    }

    /// Handles a binary message: an attachment, or a packet in MessagePack.
    pub(super) fn binary(&mut self, bytes: &[u8]) -> Result<(), InboxError> {
        self.binary_message(bytes).inspect_err(|bad| self.count(*bad))
    }

    fn binary_message(&mut self, bytes: &[u8]) -> Result<(), InboxError> {
        if self.is_foreign(MessageContent::Binary(bytes)) {
            return Ok(());
        }
        match self.parser {
            Some(Parser::Json) => self.attachment(bytes),
            Some(Parser::MessagePack) => self.packed(&MsgpackPacket::read(Bytes::copy_from_slice(bytes))?),
            None => match MsgpackPacket::read(Bytes::copy_from_slice(bytes)) {
                Ok(packet) if packet.kind == PacketKind::Connect => {
                    self.parser = Some(Parser::MessagePack);
                    self.packed(&packet)
                }
                _ => {
                    self.note_foreign_parser();
                    Err(MalformedPacket::OutOfPlace.into())
                }
            },
        }
    }

    fn note_foreign_parser(&self) {
        if let Some(client) = &self.client {
            incompatible::note(Incompatible::Parser, client.peer(), &self.shared.metrics);
        }
    }

    /// Handles a packet in MessagePack. From here on, its payload is JSON like that of other clients.
    fn packed(&mut self, packet: &MsgpackPacket) -> Result<(), InboxError> {
        let MsgpackPacket { kind, namespace, ack, .. } = packet;
        let max_payload = self.shared.max_payload;
        let json = packet.json(max_payload).map_err(|unreadable| msgpack_packet::refusal(unreadable, max_payload));
        match (kind, json) {
            (PacketKind::Connect, Ok((data, attachments))) if attachments.is_empty() => self.connect(namespace, &data),
            (PacketKind::Connect, json) => {
                let text = "the payload of CONNECT has binary values";
                let refusal = json.err().unwrap_or_else(|| Refusal::new(Code::InvalidPayload, text));
                self.sender.control(packet::refused(Parser::MessagePack, namespace, &refusal));
                Ok(())
            }
            (PacketKind::Disconnect, _) => {
                self.leave(namespace);
                Ok(())
            }
            (kind, Ok((data, attachments))) => self.deliver(*kind, namespace, *ack, data, attachments),
            (PacketKind::Event, Err(refusal)) => self.refuse(packet, refusal),
            // The node cannot answer an acknowledgement with an error. The caller that waits for the acknowledgement
            // gets nothing.
            (PacketKind::Ack, Err(_)) => {
                self.count(InboxError::Malformed);
                Ok(())
            }
        }
    }

    /// Refuses an event whose payload cannot be converted to JSON.
    fn refuse(&self, packet: &MsgpackPacket, refusal: Refusal) -> Result<(), InboxError> {
        let entry = self.entry(&packet.namespace).ok_or(InboxError::Malformed)?;
        let Some(slot) = &entry.slot else { return Ok(()) };
        Ok(slot.refuse(packet.bare_event()?, packet.ack, refusal)?)
    }

    /// Offers a message that is not of Socket.IO to the gate. Returns true if the gate has handled it, because its
    /// protocol is not Socket.IO.
    fn is_foreign(&self, content: MessageContent<'_>) -> bool {
        self.shared.gate.message(content, &mut |answer| self.sender.control(packet::message(answer)))
    }

    fn attachment(&mut self, bytes: &[u8]) -> Result<(), InboxError> {
        let assembly = self.assembly.as_mut().ok_or(MalformedPacket::OutOfPlace)?;
        if !assembly.take(bytes, self.shared.max_payload)? {
            return Ok(());
        }
        let Some(whole) = self.assembly.take() else { return Ok(()) };
        let Assembly { namespace, kind, ack, data, attachments, .. } = *whole;
        self.deliver(kind, &namespace, ack, data, attachments)
    }

    fn packet(&mut self, text: &str) -> Result<(), InboxError> {
        if self.is_foreign(MessageContent::Text(text)) {
            return Ok(());
        }
        if self.assembly.is_some() || self.parser == Some(Parser::MessagePack) {
            return Err(MalformedPacket::OutOfPlace.into());
        }
        let packet = Packet::read(text).inspect_err(|_| {
            // `socket.io-json-parser` and similar parsers write a packet as an object.
            if self.parser.is_none() && text.starts_with('{') {
                self.note_foreign_parser();
            }
        })?;
        self.parser = Some(Parser::Json);
        match packet.kind {
            PacketKind::Connect => self.connect(packet.namespace, packet.data),
            PacketKind::Disconnect => {
                self.leave(packet.namespace);
                Ok(())
            }
            PacketKind::Event | PacketKind::Ack if packet.attachments > 0 => {
                self.assembly = Some(Box::new(Assembly::of(&packet)));
                Ok(())
            }
            kind => self.deliver(kind, packet.namespace, packet.ack, packet.data.into(), Vec::new()),
        }
    }

    fn deliver(
        &mut self,
        kind: PacketKind,
        namespace: &str,
        ack: Option<AckId>,
        data: ByteString,
        attachments: Vec<Bytes>,
    ) -> Result<(), InboxError> {
        // Like the Node.js server, the node rejects packets for a namespace that the client has not joined.
        let entry = self.entry(namespace).ok_or(InboxError::Malformed)?;
        // A client that this node has disconnected from the namespace may not know that yet, so its packets are
        // ignored.
        let Some(slot) = &entry.slot else { return Ok(()) };
        if kind == PacketKind::Ack {
            if let Some(id) = ack {
                validate(&data, attachments.len()).map_err(|_| InboxError::Malformed)?;
                entry.membership.acknowledge(id, Args::from_wire(data, attachments));
            }
            return Ok(());
        }
        let event = Event::from_wire(data, attachments).map_err(|_| InboxError::Malformed)?;
        Ok(slot.event(event, ack)?)
    }

    fn entry(&self, namespace: &str) -> Option<&NamespaceEntry<G>> {
        self.entries.iter().find(|entry| *entry.membership.namespace == *namespace)
    }

    // === coming and going ===

    /// Joins a namespace. `data` is the JSON of the credentials, and may be empty.
    fn connect(&mut self, namespace: &str, data: &str) -> Result<(), InboxError> {
        let parser = self.parser.unwrap_or_default();
        let Some(namespace) = self.shared.namespaces.get(namespace).cloned() else {
            self.sender.control(packet::invalid_namespace(parser, namespace));
            return Ok(());
        };
        match self.entry(&namespace) {
            Some(NamespaceEntry { slot: Some(_), .. }) => return Err(InboxError::Malformed),
            Some(_) => self.entries.retain(|entry| entry.membership.namespace != namespace),
            None => {}
        }
        let auth = match data {
            "" => None,
            text => match crate::json::read(text) {
                Ok(auth) => Some(serde_json::Value::Object(auth)),
                Err(_) => {
                    let refusal = Refusal::new(Code::InvalidPayload, "the payload of CONNECT is not a JSON object");
                    self.sender.control(packet::refused(parser, &namespace, &refusal));
                    return Ok(());
                }
            },
        };
        let Some(client) = self.client.clone() else { return Ok(()) };
        let (membership, slot) =
            (NamespaceConnection::new(namespace, parser), SessionSlot::new(self.shared.gate.clone()));
        // Most clients are in one namespace only, so space for only one more namespace is reserved.
        self.entries.reserve_exact(1);
        self.entries.push(NamespaceEntry { membership: membership.clone(), slot: Some(slot.clone()) });
        let joining = JoiningClient { sender: self.sender.clone(), requests: self.requests.clone(), membership, slot };
        let mut entry = Box::pin(joining.admit_client(self.shared.gate.clone(), client, auth));
        // The future is polled once here: if no backend must be asked, it completes at once and needs no task.
        if entry.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(entry);
        }
        Ok(())
    }

    fn leave(&mut self, namespace: &str) {
        if let Some(at) = self.entries.iter().position(|entry| *entry.membership.namespace == *namespace) {
            self.entries.swap_remove(at).end("client namespace disconnect");
        }
    }

    /// Handles the requests that other tasks have made.
    pub(super) fn settle_requests(&mut self) {
        for request in self.requests.take() {
            let (TaskRequest::Forget(of) | TaskRequest::SentOut(of)) = &request;
            let Some(at) = self.entries.iter().position(|entry| Arc::ptr_eq(&entry.membership, of)) else { continue };
            match request {
                TaskRequest::Forget(_) => {
                    self.entries.swap_remove(at);
                }
                TaskRequest::SentOut(_) => {
                    if let Some(slot) = self.entries[at].slot.take() {
                        slot.end("server namespace disconnect");
                    }
                }
            }
        }
    }

    /// Ends the client's sessions in all namespaces.
    pub(super) fn end(&mut self, reason: &'static str) {
        self.settle_requests();
        for entry in self.entries.drain(..) {
            entry.end(reason);
        }
        self.client = None;
    }

    fn count(&self, bad: InboxError) {
        let code = match bad {
            InboxError::Closed => return,
            InboxError::Malformed => Code::InvalidPayload,
            InboxError::Overloaded => Code::Overloaded,
        };
        self.shared.metrics.events_received_total.with_label_values(&["unknown", "unknown", code.as_str()]).inc();
    }
}

impl<G: Gate> NamespaceEntry<G> {
    fn end(self, reason: &'static str) {
        self.membership.end();
        if let Some(slot) = self.slot {
            slot.end(reason);
        }
    }
}

/// A client that is being admitted to a namespace.
struct JoiningClient<G: Gate> {
    sender: Arc<ConnectionSender>,
    requests: Arc<TaskRequests>,
    membership: Arc<NamespaceConnection>,
    slot: Arc<SessionSlot<G>>,
}

impl<G: Gate> JoiningClient<G> {
    async fn admit_client(self, gate: Arc<G>, client: Arc<EngineSession>, auth: Option<serde_json::Value>) {
        let (namespace, parser) = (self.membership.namespace.clone(), self.membership.parser);
        let handshake = client.handshake(auth, true);
        let peer = client.peer();
        let id = new_id();
        let admission = match gate.admit(&namespace, &id, handshake, peer).await {
            Ok(admission) => admission,
            Err(refusal) => {
                self.requests.put(TaskRequest::Forget(self.membership));
                self.sender.control(packet::refused(parser, &namespace, &refusal));
                self.sender.wake_session();
                return;
            }
        };
        let peer = peer.clone();
        let pass = gate.pass(&admission);
        let id = pass.id.map_or(id, ByteString::from);
        let Self { sender, requests, membership, slot } = self;
        sender.note_public_id(&id);
        let connection = sender.clone();
        // CONNECT is written only when the session is open, so that the client's next packets find the session.
        let own = connection.own();
        slot.open(|| {
            sender.control(packet::connected(parser, &namespace, &id, pass.pid.as_ref().map(Pid::expose)));
            let link = Box::new(NativeLink { sender, requests, membership });
            gate.open(admission, &id, peer, link)
        });
        own.write();
    }
}
