//! The format of an event in messages between nodes. The format contains the event's text unchanged, as clients receive
//! the text.
//!
//! ```text
//! flags:1 (1 = volatile, 2 = ordered, 4 = closes, 16 = fenced) | rooms | except | stamps | order, if ordered
//!     | text | attachments | fence:8, if fenced
//! list: count:4 items       string, bytes: length:4 bytes       stamp: room epoch:8 offset:8       order: scope number:8
//! ```
//!
//! Nodes ignore unknown flags, and bytes after the last field that they know, so a later version of the format may
//! append fields.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::event::{Event, Stamp};
use crate::order::ConflationOrder;
use crate::publish::Outgoing;
use crate::session::RoomName;

const VOLATILE: u8 = 1;
const ORDERED: u8 = 2;
const CLOSES: u8 = 4;
const KINDS: u8 = 8;
const FENCED: u8 = 16;

/// The bytes are not an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event of another node is malformed")]
pub struct MalformedEvent;

/// Writes an event for the other nodes.
pub fn encode(outgoing: &Outgoing) -> BytesMut {
    let event = &outgoing.event;
    let mut out = BytesMut::with_capacity(64 + event.size_bytes());
    let order = outgoing.order.as_ref();
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let closes = order.is_some_and(|order| order.closes);
    let fenced = flag(event.fence().is_some(), FENCED);
    out.put_u8(flag(outgoing.volatile, VOLATILE) | flag(order.is_some(), ORDERED) | flag(closes, CLOSES) | fenced);
    for rooms in [&outgoing.rooms, &outgoing.except] {
        put_count(&mut out, rooms.len());
        rooms.iter().for_each(|room| put_bytes(&mut out, room.as_bytes()));
    }
    put_marks(&mut out, outgoing);
    put_bytes(&mut out, event.text().as_bytes());
    put_count(&mut out, event.attachments().len());
    event.attachments().iter().for_each(|bytes| put_bytes(&mut out, bytes));
    event.fence().into_iter().for_each(|fence| out.put_u64(fence));
    out
}

/// Reads an event that another node sent. The text and the attachments share the memory of `bytes`.
///
/// # Errors
/// [`MalformedEvent`] if [`encode`] did not write the bytes.
pub fn decode(namespace: &Arc<str>, mut bytes: Bytes) -> Result<Outgoing, MalformedEvent> {
    let flags = bytes.try_get_u8().map_err(|_| MalformedEvent)?;
    let rooms = list(&mut bytes, 4, room)?;
    let except = list(&mut bytes, 4, room)?;
    let (stamps, order) = take_marks(&mut bytes, flags)?;
    let text = ByteString::try_from(take(&mut bytes)?).map_err(|_| MalformedEvent)?;
    let attachments = list(&mut bytes, 4, take)?;
    let fence = (flags & FENCED != 0).then(|| bytes.try_get_u64()).transpose().map_err(|_| MalformedEvent)?;
    let event = Event::from_wire(text, attachments).map_err(|_| MalformedEvent)?.with_fence(fence);
    let volatile = flags & VOLATILE != 0;
    let outgoing = Outgoing::new(namespace.clone(), event, rooms).except(except).volatile(volatile);
    Ok(Outgoing { stamps, order, ..outgoing })
}

/// Whether `is_wanted` returns true for one of the rooms of an event. Does not read the rest of the event. Always true
/// for an event for a whole namespace.
///
/// # Errors
/// Returns the same errors as [`decode`].
pub fn concerns(bytes: &Bytes, is_wanted: impl Fn(&str) -> bool) -> Result<bool, MalformedEvent> {
    let mut bytes = &bytes[..];
    let _flags = bytes.try_get_u8().map_err(|_| MalformedEvent)?;
    let count = bytes.try_get_u32().map_err(|_| MalformedEvent)?;
    for _ in 0..count {
        let length = bytes.try_get_u32().map_err(|_| MalformedEvent)? as usize;
        let (room, rest) = bytes.split_at_checked(length).ok_or(MalformedEvent)?;
        if std::str::from_utf8(room).is_ok_and(&is_wanted) {
            return Ok(true);
        }
        bytes = rest;
    }
    Ok(count == 0)
}

/// The additional data of an event in Socket.IO's format, which only roomcast nodes read.
#[derive(Debug, PartialEq, Eq)]
pub struct EventExtras {
    /// The event's offsets in histories.
    pub stamps: Vec<Stamp>,
    /// The event's number among conflated events.
    pub order: Option<ConflationOrder>,
    /// For each name among the event's rooms, and among its excluded rooms, whether the name means a room, a client, or
    /// both. Nodes of earlier versions do not send this.
    pub kinds: Option<[Bytes; 2]>,
}

/// Writes the additional data that only roomcast nodes read; see [`EventExtras`]. `kinds` has one byte for each name
/// among the event's rooms and excluded rooms; see [`EventExtras::kinds`].
pub fn encode_marks(outgoing: &Outgoing, kinds: [&[u8]; 2]) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    let order = outgoing.order.as_ref();
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    out.put_u8(KINDS | flag(order.is_some(), ORDERED) | flag(order.is_some_and(|order| order.closes), CLOSES));
    put_marks(&mut out, outgoing);
    kinds.iter().for_each(|kinds| put_bytes(&mut out, kinds));
    out
}

/// Reads the additional data that [`encode_marks`] writes.
///
/// # Errors
/// [`MalformedEvent`] if [`encode_marks`] did not write the bytes.
pub fn decode_marks(mut bytes: Bytes) -> Result<EventExtras, MalformedEvent> {
    let flags = bytes.try_get_u8().map_err(|_| MalformedEvent)?;
    let (stamps, order) = take_marks(&mut bytes, flags)?;
    let kinds = if flags & KINDS == 0 { None } else { Some([take(&mut bytes)?, take(&mut bytes)?]) };
    Ok(EventExtras { stamps, order, kinds })
}

fn put_marks(out: &mut BytesMut, outgoing: &Outgoing) {
    put_count(out, outgoing.stamps.len());
    for stamp in &outgoing.stamps {
        put_bytes(out, stamp.room.as_bytes());
        out.put_u64(stamp.epoch);
        out.put_u64(stamp.offset);
    }
    if let Some(order) = &outgoing.order {
        put_bytes(out, order.scope.as_bytes());
        out.put_u64(order.number);
    }
}

fn take_marks(bytes: &mut Bytes, flags: u8) -> Result<(Vec<Stamp>, Option<ConflationOrder>), MalformedEvent> {
    let stamps = list(bytes, 20, |bytes| {
        let room = room(bytes)?;
        let mut number = || bytes.try_get_u64().map_err(|_| MalformedEvent);
        Ok(Stamp { room, epoch: number()?, offset: number()? })
    })?;
    let order = match flags & ORDERED {
        0 => None,
        _ => Some(ConflationOrder {
            scope: room(bytes)?,
            number: bytes.try_get_u64().map_err(|_| MalformedEvent)?,
            closes: flags & CLOSES != 0,
        }),
    };
    Ok((stamps, order))
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).expect("shorter than 4 GiB: configuration and contracts bound it"));
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.put_slice(bytes);
}

fn take(bytes: &mut Bytes) -> Result<Bytes, MalformedEvent> {
    let length = bytes.try_get_u32().map_err(|_| MalformedEvent)? as usize;
    if bytes.len() < length {
        return Err(MalformedEvent);
    }
    Ok(bytes.split_to(length))
}

fn room(bytes: &mut Bytes) -> Result<RoomName, MalformedEvent> {
    let name = take(bytes)?;
    Ok(std::str::from_utf8(&name).map_err(|_| MalformedEvent)?.into())
}

/// Reads a list whose items take at least `least` bytes each. A count that cannot fit into the remaining bytes is
/// refused before memory is allocated for the items.
fn list<T>(
    bytes: &mut Bytes,
    least: usize,
    item: impl Fn(&mut Bytes) -> Result<T, MalformedEvent>,
) -> Result<Vec<T>, MalformedEvent> {
    let count = bytes.try_get_u32().map_err(|_| MalformedEvent)? as usize;
    if count > bytes.len() / least {
        return Err(MalformedEvent);
    }
    (0..count).map(|_| item(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::{FRAME, frozen};

    fn outgoing() -> Outgoing {
        let event =
            Event::from_wire(r#"["e",{"_placeholder":true,"num":0},1.50]"#.into(), vec![Bytes::from_static(b"\0\x01")]);
        let rooms = vec!["a".into(), "b:é".into()];
        let outgoing = Outgoing::new("/n".into(), event.unwrap().with_fence(Some(u64::MAX)), rooms);
        Outgoing {
            stamps: vec![Stamp { room: "a".into(), epoch: 3, offset: u64::MAX }],
            order: Some(ConflationOrder { scope: "/n|a".into(), number: 7, closes: true }),
            ..outgoing.except(vec!["$sid:x".into()]).volatile(true)
        }
    }

    #[test]
    fn event_survives_the_wire_to_the_byte() {
        let sent = outgoing();
        let got = decode(&sent.namespace, encode(&sent).freeze()).unwrap();
        assert_eq!(got.event, sent.event);
        assert_eq!((got.rooms, got.except, got.stamps), (sent.rooms, sent.except, sent.stamps));
        assert_eq!(got.order, sent.order);
        assert!(got.volatile);
    }

    #[test]
    fn event_and_extras_are_the_frozen_ones() {
        let sent = outgoing();
        let got = decode(&sent.namespace, frozen::check(&FRAME, "event", &encode(&sent)).into()).unwrap();
        assert_eq!(
            (got.event, got.rooms, got.stamps, got.order),
            (sent.event.clone(), sent.rooms.clone(), sent.stamps.clone(), sent.order.clone())
        );
        let extras =
            decode_marks(frozen::check(&FRAME, "extras", &encode_marks(&sent, [&[1, 3], &[2]])).into()).unwrap();
        assert_eq!((extras.stamps, extras.order), (sent.stamps, sent.order));
    }

    #[test]
    fn what_concerns_nobody_here_is_told_by_its_head() {
        let bytes = encode(&outgoing()).freeze();
        assert_eq!(concerns(&bytes, |room| room == "b:é"), Ok(true));
        assert_eq!(concerns(&bytes, |room| room == "c"), Ok(false));
        let everybody = encode(&Outgoing { rooms: Vec::new(), ..outgoing() }).freeze();
        assert_eq!(concerns(&everybody, |_| false), Ok(true));
        assert_eq!(concerns(&bytes.slice(..12), |_| false), Err(MalformedEvent));
    }

    #[test]
    fn marks_survive_and_those_of_earlier_versions_are_read() {
        let marks = encode_marks(&outgoing(), [&[1, 3], &[2]]).freeze();
        let Outgoing { stamps, order, .. } = outgoing();
        let kinds = [Bytes::from_static(&[1, 3]), Bytes::from_static(&[2])];
        assert_eq!(
            decode_marks(marks.clone()).unwrap(),
            EventExtras { stamps: stamps.clone(), order: order.clone(), kinds: Some(kinds) }
        );
        for length in 0..marks.len() {
            assert!(decode_marks(marks.slice(..length)).is_err(), "{length}");
        }
        let mut earlier = BytesMut::from(&marks[..marks.len() - 11]);
        earlier[0] &= !KINDS;
        assert_eq!(decode_marks(earlier.freeze()).unwrap(), EventExtras { stamps, order, kinds: None });
    }

    #[test]
    fn every_cut_is_an_error_and_no_panic() {
        let bytes = encode(&outgoing()).freeze();
        for length in 0..bytes.len() {
            assert!(decode(&"/".into(), bytes.slice(..length)).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&"/".into(), bytes.into());
        }
    }
}
