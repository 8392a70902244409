//! The short text form of a trail, called the tail, which goes to the client with each event that changes the trail.
//!
//! ```text
//! r1:                                  nothing since the session began
//! r1:<mark><epoch>.<floor>             one room, numbers in hexadecimal; more follow, with commas between
//! r1:<mark><epoch>.-+<from>-<to>       where the session began in the room is not known yet
//! r1:<mark><epoch>.<floor>~<id>        also the event with this short id, whose offset is not known
//! r1:<mark>!                           the session's position in this room is not known
//! r1!                                  no position is known: the client cannot recover its session
//! ```

use std::fmt::Write as _;

use super::room::{HistoryPoint, MAX_UNSURE, RoomOffsets, RoomPosition, mark_of};

const HEAD: &str = "r1";

/// Length of a mark, in characters.
const MARK: usize = 8;

/// Maximum number of rooms in a tail.
const MAX_TOLD: usize = 32;

/// Maximum length of a tail, in bytes.
const MAX_BYTES: usize = 8192;

/// The tail that a client sends back: its claimed position in each room.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClientOffset {
    rooms: Vec<(String, Option<ClaimedPosition>)>,
}

/// A client's claimed position in one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedPosition {
    epoch: u64,
    floor: Option<u64>,
    beyond: Vec<(u64, u64)>,
    unsure: Vec<u64>,
}

impl ClientOffset {
    /// Writes the positions that have changed since the session began. `None`, or more than 32 changed rooms, gives a
    /// tail that does not permit recovery.
    pub(super) fn write<'a>(room_offsets: Option<impl Iterator<Item = &'a RoomOffsets>>) -> String {
        let mut client_offset = String::from(HEAD);
        let moved = room_offsets.map(|room_offsets| room_offsets.filter(|place| place.has_moved()).collect::<Vec<_>>());
        let Some(mut moved) = moved.filter(|moved| moved.len() <= MAX_TOLD) else {
            client_offset.push('!');
            return client_offset;
        };
        // Sorted, so that sessions with the same positions get the same tail.
        moved.sort_unstable_by(|a, b| a.mark().cmp(b.mark()));
        client_offset.push(':');
        for (at, place) in moved.into_iter().enumerate() {
            if at > 0 {
                client_offset.push(',');
            }
            write_place(&mut client_offset, place);
        }
        client_offset
    }

    /// Reads the tail that a client sends back. When the client sends no tail (`text` is `None`), the result is an
    /// empty tail. Returns `None` when the text is not a tail, or is a tail that does not permit recovery.
    pub fn read(text: Option<&str>) -> Option<Self> {
        let Some(text) = text else { return Some(Self::default()) };
        let list = text.strip_prefix(HEAD)?.strip_prefix(':').filter(|_| text.len() <= MAX_BYTES)?;
        let rooms = list.split(',').filter(|item| !item.is_empty()).map(read_place).collect::<Option<Vec<_>>>()?;
        (rooms.len() <= MAX_TOLD).then_some(Self { rooms })
    }

    /// The short ids of the room's events that the client has received and whose offsets are not known.
    pub fn unsure(&self, room: &str) -> &[u64] {
        let mark = mark_of(room);
        let claim = self.rooms.iter().find(|(of, _)| *of == mark).and_then(|(_, claim)| claim.as_ref());
        claim.map_or(&[], |claim| &claim.unsure)
    }

    /// The session's position in a room in which it began at `base`. `None` when it is not known.
    pub fn position(&self, room: &str, base: Option<HistoryPoint>) -> Option<RoomPosition> {
        let (mark, base) = (mark_of(room), base?);
        let mut claims = self.rooms.iter().filter(|(of, _)| *of == mark).map(|(_, claim)| claim);
        let claim = claims.next();
        if claims.next().is_some() {
            return None;
        }
        let began = || Some(RoomPosition::new(base.epoch, base.offset, Vec::new()));
        match claim {
            None => began(),
            Some(None) => None,
            // The claim is from an earlier epoch, before the session left the room and joined it again.
            Some(Some(claim)) if claim.epoch < base.epoch => began(),
            // The position is never before the base, because earlier events are not for this session.
            Some(Some(claim)) => {
                let least = if claim.epoch == base.epoch { base.offset } else { 0 };
                let floor = claim.floor.unwrap_or(least).max(least);
                Some(RoomPosition::new(claim.epoch, floor, claim.beyond.clone()))
            }
        }
    }
}

fn write_place(client_offset: &mut String, place: &RoomOffsets) {
    client_offset.push_str(place.mark());
    if place.is_lost() {
        client_offset.push('!');
        return;
    }
    let at = place.at();
    // Writing to a string cannot fail.
    let _ = match place.base() {
        Some(_) => write!(client_offset, "{:x}.{:x}", at.epoch, at.floor),
        None => write!(client_offset, "{:x}.-", at.epoch),
    };
    for (from, to) in &at.beyond {
        let _ = write!(client_offset, "+{from:x}-{to:x}");
    }
    for id in place.unsure() {
        let _ = write!(client_offset, "~{id:x}");
    }
}

fn read_place(item: &str) -> Option<(String, Option<ClaimedPosition>)> {
    let (mark, rest) = item.split_at_checked(MARK)?;
    if rest == "!" {
        return Some((mark.to_owned(), None));
    }
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut ids = rest.split('~');
    let (epoch, rest) = ids.next()?.split_once('.')?;
    let unsure = ids.map(number).collect::<Option<Vec<_>>>().filter(|ids| ids.len() <= MAX_UNSURE)?;
    let mut parts = rest.split('+');
    let floor = match parts.next()? {
        "-" => None,
        floor => Some(number(floor)?),
    };
    let run = |text: &str| {
        let (from, to) = text.split_once('-')?;
        Some((number(from)?, number(to)?)).filter(|(from, to)| from <= to)
    };
    let beyond = parts.map(run).collect::<Option<Vec<_>>>()?;
    Some((mark.to_owned(), Some(ClaimedPosition { epoch: number(epoch)?, floor, beyond, unsure })))
}
