//! The events that a client missed, merged from the histories of its rooms.

use std::collections::{HashMap, HashSet, VecDeque};

use super::RecoveryFailure;
use crate::event::{Event, RecoveryMark, Stamp};
use crate::history::{HistoryPage, HistoryQuery, HistoryStart, MAX_PAGE, PageOrder};
use crate::session::offsets::RoomPosition;
use crate::session::{MAX_SHOWN_IDS, Replayed, RoomName};

/// How far a room's history was read for a returning client.
#[derive(Debug, Clone)]
pub struct HistoryCursor {
    /// The room's name.
    pub room: RoomName,
    /// The client's position when it left.
    pub had: RoomPosition,
    /// The short ids of events that the client has received and whose offsets are not known.
    pub unsure: Vec<u64>,
    read: RoomPosition,
}

/// An event that a returning client missed.
#[derive(Debug, Clone)]
pub struct MissedEvent {
    /// The event to send.
    pub event: Event,
    /// The event's offsets in those rooms of the client that were read.
    pub stamps: Vec<Stamp>,
    /// Whether to send the event: the client is not excluded from it and was not shown it before.
    pub wanted: bool,
}

/// The short ids of the events that a client was shown.
#[derive(Debug, Default)]
pub struct ShownEvents {
    ids: HashSet<u64>,
    /// The newest of these ids.
    newest: VecDeque<u64>,
}

impl ShownEvents {
    /// Creates the set from the events that the client had received and whose offsets are not known.
    pub(super) fn from_cursors(cursors: &[HistoryCursor]) -> Self {
        let mut shown = Self::default();
        for id in cursors.iter().flat_map(|cursor| &cursor.unsure) {
            shown.add(*id);
        }
        shown
    }

    /// Adds an event. Returns false when the client was shown it before.
    fn add(&mut self, id: u64) -> bool {
        let is_new = self.ids.insert(id);
        if is_new {
            self.newest.push_back(id);
            if self.newest.len() > MAX_SHOWN_IDS {
                self.newest.pop_front();
            }
        }
        is_new
    }

    /// The short ids of the newest events, at most [`MAX_SHOWN_IDS`].
    pub fn newest(&self) -> Vec<u64> {
        self.newest.iter().copied().collect()
    }
}

impl HistoryCursor {
    pub(super) fn new(room: RoomName, had: RoomPosition, unsure: &[u64]) -> Self {
        Self { room, read: had.clone(), had, unsure: unsure.to_vec() }
    }

    pub(super) fn query(&self) -> HistoryQuery {
        let since = HistoryStart { epoch: Some(self.read.epoch), offset: self.read.floor };
        HistoryQuery { limit: MAX_PAGE, since: Some(since), order: PageOrder::Asc }
    }

    /// The range that was read and does not have to be sent live; `None` when the room has no history.
    pub fn replayed(&self) -> Option<Replayed> {
        let RoomPosition { epoch, floor, .. } = self.read;
        (epoch != 0).then_some(Replayed { epoch, first: 1, last: floor })
    }
}

/// One event from the page of one room.
struct Row {
    id: u128,
    stamp: Stamp,
    event: Event,
}

/// Merges pages that [`HistoryCursor::query`] asked for, and advances the cursors.
///
/// Keeps the order of each room. Among events of different rooms, the one that was published first comes first.
pub(super) fn merge(
    cursors: &mut [HistoryCursor],
    pages: Vec<HistoryPage>,
    most: usize,
    shown: &mut ShownEvents,
) -> Result<Vec<MissedEvent>, RecoveryFailure> {
    let rooms: HashSet<RoomName> = cursors.iter().map(|cursor| cursor.room.clone()).collect();
    let mut lists = Vec::with_capacity(cursors.len());
    let mut count = 0;
    for (cursor, page) in cursors.iter_mut().zip(pages) {
        let rows = take(cursor, page)?;
        count += rows.len();
        lists.push(rows);
    }
    if count > most {
        return Err(RecoveryFailure::TooMuch);
    }
    let mut copies: HashMap<u128, usize> = HashMap::new();
    lists.iter().flatten().for_each(|row| *copies.entry(row.id).or_default() += 1);
    let mut missed = Vec::with_capacity(count);
    while let Some(id) = next(&lists, &copies) {
        let mut stamps = Vec::new();
        let mut event = None;
        for list in &mut lists {
            // Two nodes can append two events to two rooms in different orders. One of the two events is then sent
            // earlier.
            if let Some(at) = list.iter().position(|row| row.id == id)
                && let Some(row) = list.remove(at)
            {
                stamps.push(row.stamp);
                event = Some(row.event);
            }
        }
        let Some(event) = event else { break };
        let except = event.mark().map_or(&[][..], |mark| &mark.except);
        let wanted =
            !except.iter().any(|room| rooms.contains(room)) && shown.add(event.mark().map_or(0, RecoveryMark::short));
        missed.push(MissedEvent { event, stamps, wanted });
    }
    Ok(missed)
}

/// The events of a page that the client does not have yet. Advances the cursor.
fn take(cursor: &mut HistoryCursor, page: HistoryPage) -> Result<VecDeque<Row>, RecoveryFailure> {
    let reached = page.events.last().map_or(cursor.read.floor, |(offset, _)| *offset);
    if !page.complete {
        return Err(RecoveryFailure::Incomplete);
    }
    if reached != page.last_offset {
        return Err(RecoveryFailure::TooMuch);
    }
    let had = std::mem::take(&mut cursor.read);
    cursor.read = RoomPosition { epoch: page.epoch, floor: page.last_offset, beyond: Vec::new() };
    let fresh = page.events.into_iter().filter(|(offset, _)| !had.has(*offset));
    let rows = fresh.map(|(offset, event)| {
        let id = event.mark().ok_or(RecoveryFailure::Incomplete)?.id;
        Ok(Row { id, stamp: Stamp { room: cursor.room.clone(), epoch: page.epoch, offset }, event })
    });
    rows.collect()
}

/// The oldest event that is first in the lists of all its rooms. If there is no such event, the oldest event that is
/// first in any list.
fn next(lists: &[VecDeque<Row>], copies: &HashMap<u128, usize>) -> Option<u128> {
    let mut heads: HashMap<u128, usize> = HashMap::new();
    lists.iter().filter_map(VecDeque::front).for_each(|row| *heads.entry(row.id).or_default() += 1);
    let whole = heads.iter().filter(|(id, heads)| copies.get(id).is_none_or(|copies| copies == *heads));
    whole.map(|(id, _)| *id).min().or_else(|| heads.keys().copied().min())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u128, except: &[&str]) -> Event {
        let except = except.iter().map(|&room| room.into()).collect();
        Event::encode(&id.to_string(), [1]).unwrap().with_mark(RecoveryMark { id, except })
    }

    fn page(first: u64, events: &[Event]) -> HistoryPage {
        let events: Vec<_> = (first..).zip(events.iter().cloned()).collect();
        let last = first + events.len() as u64 - 1;
        HistoryPage { epoch: 7, first_offset: 1, last_offset: last, complete: true, events }
    }

    fn cursor(room: &str, floor: u64, beyond: &[(u64, u64)]) -> HistoryCursor {
        HistoryCursor::new(room.into(), RoomPosition { epoch: 7, floor, beyond: beyond.to_vec() }, &[])
    }

    fn names(missed: &[MissedEvent]) -> Vec<&str> {
        missed.iter().filter(|missed| missed.wanted).map(|missed| missed.event.name()).collect()
    }

    #[test]
    fn events_of_several_rooms_come_once_and_in_each_rooms_order() {
        let mut cursors = [cursor("a", 3, &[]), cursor("b", 0, &[])];
        // The clocks of two nodes differ: in the first room event 9 comes before event 5.
        let pages =
            vec![page(4, &[event(9, &[]), event(5, &[])]), page(1, &[event(2, &[]), event(5, &[]), event(6, &[])])];
        let mut shown = ShownEvents::default();
        let missed = merge(&mut cursors, pages, 10, &mut shown).unwrap();
        assert_eq!(names(&missed), ["2", "9", "5", "6"]);
        assert_eq!(missed[2].stamps.len(), 2);
        let again = merge(&mut cursors, vec![page(6, &[]), page(4, &[event(9, &[])])], 10, &mut shown);
        let again = again.unwrap();
        assert_eq!((names(&again).len(), again.len()), (0, 1), "shown through the other room before");
    }

    #[test]
    fn event_that_the_client_had_at_an_unknown_offset_does_not_come_again() {
        let had = RoomPosition { epoch: 7, floor: 3, beyond: vec![(5, 5)] };
        let mut cursors = [HistoryCursor::new("a".into(), had, &[2])];
        let mut shown = ShownEvents::from_cursors(&cursors);
        let missed = merge(&mut cursors, vec![page(4, &[event(2, &[]), event(3, &[]), event(4, &[])])], 10, &mut shown);
        let missed = missed.unwrap();
        assert_eq!((names(&missed), missed.len()), (vec!["4"], 2), "its offset is known now");
        assert_eq!(shown.newest(), [2, 4]);
    }

    #[test]
    fn rooms_that_contradict_each_other_end() {
        let mut cursors = [cursor("a", 0, &[]), cursor("b", 0, &[])];
        let pages = vec![page(1, &[event(1, &[]), event(2, &[])]), page(1, &[event(2, &[]), event(1, &[])])];
        assert_eq!(names(&merge(&mut cursors, pages, 10, &mut ShownEvents::default()).unwrap()), ["1", "2"]);
    }

    #[test]
    fn what_the_client_has_or_is_not_meant_for_it_is_left_out() {
        let mut cursors = [cursor("a", 1, &[(3, 3)]), cursor("$sid:me", 0, &[])];
        let pages =
            vec![page(2, &[event(2, &[]), event(3, &[]), event(4, &["$sid:me"]), event(5, &["z"])]), page(1, &[])];
        let missed = merge(&mut cursors, pages, 10, &mut ShownEvents::default()).unwrap();
        assert_eq!(names(&missed), ["2", "5"]);
        assert_eq!(missed.len(), 3, "and that it was not meant is known");
    }

    #[test]
    fn what_is_not_proven_is_refused() {
        let merge = |page| {
            merge(&mut [cursor("a", 3, &[])], vec![page], 2, &mut ShownEvents::default()).map(|missed| missed.len())
        };
        let whole = page(4, &[event(1, &[])]);
        assert_eq!(merge(whole.clone()), Ok(1));
        assert_eq!(merge(HistoryPage { complete: false, ..whole.clone() }), Err(RecoveryFailure::Incomplete));
        assert_eq!(merge(HistoryPage { last_offset: 9, ..whole }), Err(RecoveryFailure::TooMuch));
        assert_eq!(merge(page(4, &[event(1, &[]), event(2, &[]), event(3, &[])])), Err(RecoveryFailure::TooMuch));
        let unmarked = Event::encode("e", [(); 0]).unwrap();
        assert_eq!(merge(page(4, &[unmarked])), Err(RecoveryFailure::Incomplete));
    }
}
