//! Packets of `socket.io-msgpack-parser`: each packet is one binary message, a map in MessagePack. It has the members
//! `type`, `nsp`, `data` and `id`, in any order. Binary values are in the data, so there are no attachments.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::deflate::Deflate;
use super::frame;
use super::packet::{MAX_NAMESPACE, MalformedPacket, PacketKind, path};
use crate::error::{Code, Refusal};
use crate::event::Event;
use crate::msgpack::{self, Json, MAX_DEPTH, MsgpackReader, Token, Unreadable};
use crate::protocol::MAX_ATTACHMENTS;
use crate::session::AckId;

impl From<Unreadable> for MalformedPacket {
    fn from(_: Unreadable) -> Self {
        Self::MessagePack
    }
}

/// A client's packet. Its data is checked to be MessagePack, but not converted yet.
#[derive(Debug, PartialEq, Eq)]
pub struct MsgpackPacket {
    /// The kind of the packet.
    pub kind: PacketKind,
    /// The namespace's path.
    pub namespace: ByteString,
    /// The number of the acknowledgement that the client asks for or gives.
    pub ack: Option<AckId>,
    /// The packet's data; `None` if the packet has no data, or nil or `undefined`.
    data: Option<Bytes>,
}

impl MsgpackPacket {
    /// Reads a message.
    ///
    /// # Errors
    /// Returns a [`MalformedPacket`] that says what is wrong.
    pub fn read(message: Bytes) -> Result<Self, MalformedPacket> {
        let mut reader = MsgpackReader::new(message);
        let Token::Map(members) = reader.token()? else { return Err(MalformedPacket::MessagePack) };
        let (mut kind, mut namespace, mut ack, mut data) = (None, None, None, None);
        for _ in 0..members {
            match reader.key()?.as_str() {
                "type" => kind = Some(read_kind(&reader.token()?)?),
                "nsp" => namespace = Some(read_namespace(&reader.text()?)?),
                "id" => ack = read_ack(&reader.token()?)?,
                "data" => data = Some(reader.value()?).filter(|data| !ABSENT.contains(&&**data)),
                _ => reader.skip()?,
            }
        }
        if !reader.is_at_end() {
            return Err(MalformedPacket::MessagePack);
        }
        let kind = kind.ok_or(MalformedPacket::Type)?;
        let namespace = namespace.ok_or(MalformedPacket::Namespace)?;
        match kind {
            PacketKind::Disconnect if data.is_some() => Err(MalformedPacket::Payload),
            PacketKind::Ack if ack.is_none() => Err(MalformedPacket::Ack),
            _ => Ok(Self { kind, namespace, ack, data }),
        }
    }

    /// Returns the data as JSON of at most `max_bytes` bytes, and the binary values in it. The JSON is empty if there
    /// is no data.
    ///
    /// # Errors
    /// Returns an [`Unreadable`] that says what JSON cannot express.
    pub fn json(&self, max_bytes: usize) -> Result<(ByteString, Vec<Bytes>), Unreadable> {
        let mut out = Json::exact(max_bytes);
        if let Some(data) = &self.data {
            MsgpackReader::new(data.clone()).json(&mut out, 0)?;
            out.check()?;
        }
        Ok(out.finish())
    }

    /// Returns the event without its arguments, for a refusal.
    ///
    /// # Errors
    /// Returns [`MalformedPacket::MessagePack`] if the data is not an array that begins with a name.
    pub fn bare_event(&self) -> Result<Event, MalformedPacket> {
        let mut reader = MsgpackReader::new(self.data.clone().unwrap_or_default());
        if reader.array_head()? == 0 {
            return Err(MalformedPacket::MessagePack);
        }
        let name = reader.key()?;
        Event::encode(&name, [(); 0]).map_err(|_| MalformedPacket::MessagePack)
    }
}

/// Nil and `undefined`, as the MessagePack parser writes them.
const ABSENT: [&[u8]; 2] = [b"\xc0", b"\xd4\0\0"];

fn read_kind(token: &Token) -> Result<PacketKind, MalformedPacket> {
    match token {
        Token::Uint(0) => Ok(PacketKind::Connect),
        Token::Uint(1) => Ok(PacketKind::Disconnect),
        Token::Uint(2) => Ok(PacketKind::Event),
        Token::Uint(3) => Ok(PacketKind::Ack),
        _ => Err(MalformedPacket::Type),
    }
}

fn read_namespace(name: &str) -> Result<ByteString, MalformedPacket> {
    if name.len() > MAX_NAMESPACE {
        return Err(MalformedPacket::Namespace);
    }
    Ok(path(name).into())
}

fn read_ack(token: &Token) -> Result<Option<AckId>, MalformedPacket> {
    match token {
        Token::Nil | Token::Undefined => Ok(None),
        Token::Uint(id) => AckId::try_from(*id).map(Some).map_err(|_| MalformedPacket::Ack),
        _ => Err(MalformedPacket::Ack),
    }
}

/// Returns the refusal for data that cannot be converted to JSON.
pub fn refusal(unreadable: Unreadable, max_bytes: usize) -> Refusal {
    let (code, message) = match unreadable {
        Unreadable::Malformed => (Code::InvalidPayload, "the payload is not MessagePack".to_owned()),
        Unreadable::Extension => (
            Code::InvalidPayload,
            "the payload has a MessagePack extension type other than a time, which JSON does not have".to_owned(),
        ),
        Unreadable::NotANumber => (
            Code::InvalidPayload,
            "the payload has NaN or infinity, which JSON does not have; send null or a string".to_owned(),
        ),
        Unreadable::TooLarge => (
            Code::TooLarge,
            format!(
                "the payload's JSON is longer than {max_bytes} bytes or deeper than {MAX_DEPTH} levels, or it has more \
                 than {MAX_ATTACHMENTS} binary values"
            ),
        ),
    };
    Refusal::new(code, message)
}

/// Writes the frame of a packet. Empty if `data` is not JSON, which no client could read.
pub(super) fn frame(
    kind: u8,
    namespace: &str,
    id: Option<AckId>,
    data: &str,
    attachments: &[Bytes],
    deflate: Option<&Deflate>,
) -> Bytes {
    let binary: usize = attachments.iter().map(Bytes::len).sum();
    let mut out = BytesMut::with_capacity(48 + namespace.len() + data.len() + binary);
    msgpack::put_map(&mut out, 2 + u32::from(!data.is_empty()) + u32::from(id.is_some()));
    msgpack::put_text(&mut out, "type");
    msgpack::put_count(&mut out, u64::from(kind));
    msgpack::put_text(&mut out, "nsp");
    msgpack::put_text(&mut out, namespace);
    if let Some(id) = id {
        msgpack::put_text(&mut out, "id");
        msgpack::put_count(&mut out, id.unsigned_abs());
    }
    if !data.is_empty() {
        msgpack::put_text(&mut out, "data");
        if msgpack::put_json(&mut out, data, attachments).is_err() {
            return Bytes::new();
        }
    }
    let mut framed = BytesMut::with_capacity(frame::framed_length(out.len()));
    frame::put_message(&mut framed, false, &[&out], deflate);
    framed.freeze()
}

#[cfg(test)]
mod tests;
