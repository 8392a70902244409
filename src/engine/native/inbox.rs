//! Interprets a client's messages: Engine.IO and Socket.IO packets, for each namespace.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use bytestring::ByteString;

use super::Shared;
use super::member::{Membership, NativeLink, Place, Request, Requests, new_id};
use super::packed::{self, Packed};
use super::packet::{self, Assembly, Kind, Malformed, Message, Packet, Parser};
use super::wire::Wire;
use crate::engine::edge::EngineSession;
use crate::engine::incompatible::{self, Incompatible};
use crate::engine::slot::{Slot, Unfit};
use crate::engine::validate::validate;
use crate::engine::{Content, Gate};
use crate::error::{Code, Refusal};
use crate::event::{Args, Event};
use crate::recovery::Pid;
use crate::session::AckId;

/// Why no more of the client's messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// The client has closed the connection.
    Closed,
    /// The client has broken the protocol.
    Malformed,
    /// The client has sent more events than may wait before its session is open.
    Overloaded,
}

impl From<Malformed> for Bad {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Unfit> for Bad {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::TooEarly => Self::Overloaded,
            Unfit::Malformed => Self::Malformed,
        }
    }
}

/// The namespaces of a client, and the packet that waits for its attachments.
pub(super) struct Inbox<G: Gate> {
    shared: Arc<Shared<G>>,
    wire: Arc<Wire>,
    /// The client's connection. Dropped when the connection ends, so that it no longer counts among the node's
    /// connections.
    client: Option<Arc<EngineSession>>,
    requests: Arc<Requests>,
    places: Vec<Place<G>>,
    /// `None` until the first packet.
    parser: Option<Parser>,
    assembly: Option<Box<Assembly>>,
    pong: bool,
}

impl<G: Gate> Inbox<G> {
    pub(super) fn new(shared: Arc<Shared<G>>, wire: Arc<Wire>, client: Arc<EngineSession>) -> Self {
        let requests = Arc::default();
        Self {
            shared,
            wire,
            client: Some(client),
            requests,
            places: Vec::new(),
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
        self.places.iter().all(|place| place.slot.is_none())
    }

    /// Handles a text message.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Bad> {
        self.message(text).inspect_err(|bad| self.count(*bad))
    }

    fn message(&mut self, text: &str) -> Result<(), Bad> {
        match Message::read(text)? {
            Message::Packet(text) => self.packet(text),
            Message::Pong => {
                self.pong = true;
                Ok(())
            }
            Message::Close => Err(Bad::Closed),
            Message::Noop => Ok(()),
            Message::Binary(bytes) => self.binary_message(&bytes),
        }
    }

    /// Handles a binary message: an attachment, or a packet in MessagePack.
    pub(super) fn binary(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        self.binary_message(bytes).inspect_err(|bad| self.count(*bad))
    }

    fn binary_message(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        if self.is_foreign(Content::Binary(bytes)) {
            return Ok(());
        }
        match self.parser {
            Some(Parser::Json) => self.attachment(bytes),
            Some(Parser::MessagePack) => self.packed(&Packed::read(Bytes::copy_from_slice(bytes))?),
            None => match Packed::read(Bytes::copy_from_slice(bytes)) {
                Ok(packet) if packet.kind == Kind::Connect => {
                    self.parser = Some(Parser::MessagePack);
                    self.packed(&packet)
                }
                _ => {
                    self.note_foreign_parser();
                    Err(Malformed::OutOfPlace.into())
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
    fn packed(&mut self, packet: &Packed) -> Result<(), Bad> {
        let Packed { kind, namespace, ack, .. } = packet;
        let max_payload = self.shared.max_payload;
        let json = packet.json(max_payload).map_err(|unreadable| packed::refusal(unreadable, max_payload));
        match (kind, json) {
            (Kind::Connect, Ok((data, attachments))) if attachments.is_empty() => self.connect(namespace, &data),
            (Kind::Connect, json) => {
                let text = "the payload of CONNECT has binary values";
                let refusal = json.err().unwrap_or_else(|| Refusal::new(Code::InvalidPayload, text));
                self.wire.control(packet::refused(Parser::MessagePack, namespace, &refusal));
                Ok(())
            }
            (Kind::Disconnect, _) => {
                self.leave(namespace);
                Ok(())
            }
            (kind, Ok((data, attachments))) => self.deliver(*kind, namespace, *ack, data, attachments),
            (Kind::Event, Err(refusal)) => self.refuse(packet, refusal),
            // The node cannot answer an acknowledgement with an error. The caller that waits for the acknowledgement
            // gets nothing.
            (Kind::Ack, Err(_)) => {
                self.count(Bad::Malformed);
                Ok(())
            }
        }
    }

    /// Refuses an event whose payload cannot be converted to JSON.
    fn refuse(&self, packet: &Packed, refusal: Refusal) -> Result<(), Bad> {
        let place = self.place(&packet.namespace).ok_or(Bad::Malformed)?;
        let Some(slot) = &place.slot else { return Ok(()) };
        Ok(slot.refuse(packet.bare_event()?, packet.ack, refusal)?)
    }

    /// Offers a message to the gate. Returns true if the gate has handled it, because its protocol is not Socket.IO.
    fn is_foreign(&self, content: Content<'_>) -> bool {
        self.shared.gate.message(content, &mut |answer| self.wire.control(packet::message(answer)))
    }

    fn attachment(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        let assembly = self.assembly.as_mut().ok_or(Malformed::OutOfPlace)?;
        if !assembly.take(bytes, self.shared.max_payload)? {
            return Ok(());
        }
        let Some(whole) = self.assembly.take() else { return Ok(()) };
        let Assembly { namespace, kind, ack, data, attachments, .. } = *whole;
        self.deliver(kind, &namespace, ack, data, attachments)
    }

    fn packet(&mut self, text: &str) -> Result<(), Bad> {
        if self.is_foreign(Content::Text(text)) {
            return Ok(());
        }
        if self.assembly.is_some() || self.parser == Some(Parser::MessagePack) {
            return Err(Malformed::OutOfPlace.into());
        }
        let packet = Packet::read(text).inspect_err(|_| {
            // `socket.io-json-parser` and similar parsers write a packet as an object.
            if self.parser.is_none() && text.starts_with('{') {
                self.note_foreign_parser();
            }
        })?;
        self.parser = Some(Parser::Json);
        match packet.kind {
            Kind::Connect => self.connect(packet.namespace, packet.data),
            Kind::Disconnect => {
                self.leave(packet.namespace);
                Ok(())
            }
            Kind::Event | Kind::Ack if packet.attachments > 0 => {
                self.assembly = Some(Box::new(Assembly::of(&packet)));
                Ok(())
            }
            kind => self.deliver(kind, packet.namespace, packet.ack, packet.data.into(), Vec::new()),
        }
    }

    fn deliver(
        &mut self,
        kind: Kind,
        namespace: &str,
        ack: Option<AckId>,
        data: ByteString,
        attachments: Vec<Bytes>,
    ) -> Result<(), Bad> {
        // Like the Node.js server, reject packets for a namespace the client has not joined.
        let place = self.place(namespace).ok_or(Bad::Malformed)?;
        // A client that this node has disconnected from the namespace may not know that yet, so ignore its packets.
        let Some(slot) = &place.slot else { return Ok(()) };
        if kind == Kind::Ack {
            if let Some(id) = ack {
                validate(&data, attachments.len()).map_err(|_| Bad::Malformed)?;
                place.membership.acknowledge(id, Args::from_wire(data, attachments));
            }
            return Ok(());
        }
        let event = Event::from_wire(data, attachments).map_err(|_| Bad::Malformed)?;
        Ok(slot.event(event, ack)?)
    }

    fn place(&self, namespace: &str) -> Option<&Place<G>> {
        self.places.iter().find(|place| *place.membership.namespace == *namespace)
    }

    // === coming and going ===

    /// Joins a namespace. `data` is the JSON of the credentials, and may be empty.
    fn connect(&mut self, namespace: &str, data: &str) -> Result<(), Bad> {
        let parser = self.parser.unwrap_or_default();
        let Some(namespace) = self.shared.namespaces.get(namespace).cloned() else {
            self.wire.control(packet::invalid_namespace(parser, namespace));
            return Ok(());
        };
        match self.place(&namespace) {
            Some(Place { slot: Some(_), .. }) => return Err(Bad::Malformed),
            Some(_) => self.places.retain(|place| place.membership.namespace != namespace),
            None => {}
        }
        let auth = match data {
            "" => None,
            text => match crate::json::read(text) {
                Ok(auth) => Some(serde_json::Value::Object(auth)),
                Err(_) => {
                    let refusal = Refusal::new(Code::InvalidPayload, "the payload of CONNECT is not a JSON object");
                    self.wire.control(packet::refused(parser, &namespace, &refusal));
                    return Ok(());
                }
            },
        };
        let Some(client) = self.client.clone() else { return Ok(()) };
        let (membership, slot) = (Membership::new(namespace, parser), Slot::new(self.shared.gate.clone()));
        // Most clients are in one namespace only, so reserve space for only one more.
        self.places.reserve_exact(1);
        self.places.push(Place { membership: membership.clone(), slot: Some(slot.clone()) });
        let guest = Guest { wire: self.wire.clone(), requests: self.requests.clone(), membership, slot };
        let mut entry = Box::pin(guest.let_in(self.shared.gate.clone(), client, auth));
        // Poll once here: if no backend must be asked, the future completes at once and needs no task.
        if entry.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(entry);
        }
        Ok(())
    }

    fn leave(&mut self, namespace: &str) {
        if let Some(at) = self.places.iter().position(|place| *place.membership.namespace == *namespace) {
            self.places.swap_remove(at).end("client namespace disconnect");
        }
    }

    /// Handles the requests that other tasks have made.
    pub(super) fn settle_requests(&mut self) {
        for request in self.requests.take() {
            let (Request::Forget(of) | Request::SentOut(of)) = &request;
            let Some(at) = self.places.iter().position(|place| Arc::ptr_eq(&place.membership, of)) else { continue };
            match request {
                Request::Forget(_) => {
                    self.places.swap_remove(at);
                }
                Request::SentOut(_) => {
                    if let Some(slot) = self.places[at].slot.take() {
                        slot.end("server namespace disconnect");
                    }
                }
            }
        }
    }

    /// Ends the client's sessions in all namespaces.
    pub(super) fn end(&mut self, reason: &'static str) {
        self.settle_requests();
        for place in self.places.drain(..) {
            place.end(reason);
        }
        self.client = None;
    }

    fn count(&self, bad: Bad) {
        let code = match bad {
            Bad::Closed => return,
            Bad::Malformed => Code::InvalidPayload,
            Bad::Overloaded => Code::Overloaded,
        };
        self.shared.metrics.events_received_total.with_label_values(&["unknown", "unknown", code.as_str()]).inc();
    }
}

impl<G: Gate> Place<G> {
    fn end(self, reason: &'static str) {
        self.membership.end();
        if let Some(slot) = self.slot {
            slot.end(reason);
        }
    }
}

/// A client that is being admitted to a namespace.
struct Guest<G: Gate> {
    wire: Arc<Wire>,
    requests: Arc<Requests>,
    membership: Arc<Membership>,
    slot: Arc<Slot<G>>,
}

impl<G: Gate> Guest<G> {
    async fn let_in(self, gate: Arc<G>, client: Arc<EngineSession>, auth: Option<serde_json::Value>) {
        let (namespace, parser) = (self.membership.namespace.clone(), self.membership.parser);
        let handshake = client.handshake(auth, true);
        let peer = client.peer();
        let id = new_id();
        let admission = match gate.admit(&namespace, &id, handshake, peer).await {
            Ok(admission) => admission,
            Err(refusal) => {
                self.requests.put(Request::Forget(self.membership));
                self.wire.control(packet::refused(parser, &namespace, &refusal));
                self.wire.wake_session();
                return;
            }
        };
        let peer = peer.clone();
        let pass = gate.pass(&admission);
        let id = pass.id.map_or(id, ByteString::from);
        let Self { wire, requests, membership, slot } = self;
        wire.note_public_id(&id);
        let connection = wire.clone();
        // CONNECT is written only when the session is open, so that the client's next packets find the session.
        let own = connection.own();
        slot.open(|| {
            wire.control(packet::connected(parser, &namespace, &id, pass.pid.as_ref().map(Pid::expose)));
            let link = Box::new(NativeLink { wire, requests, membership });
            gate.open(admission, &id, peer, link)
        });
        own.write();
    }
}
