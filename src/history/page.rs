//! Queries of a history, and the pages that answer them.

use crate::event::Event;

/// A query of a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Maximum number of events in the answer, at most [`super::MAX_PAGE`].
    pub limit: usize,
    /// The position after which the query wants events. If the position is in another epoch, or ahead of the history,
    /// all stored events match.
    pub since: Option<HistoryStart>,
    /// The order of the events in the answer. Without `since` the page has the newest events, in either order. With
    /// `since`, ascending order begins right after `since`, and descending order with the newest event.
    pub order: PageOrder,
}

/// A position in a room's history, as a client or a backend names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryStart {
    /// The epoch. If the epoch is not known (`None` or 0), only a page from the start can be proven complete.
    pub epoch: Option<u64>,
    /// The offset of the last event that the reader has; 0 if it has no event.
    pub offset: u64,
}

impl HistoryStart {
    /// Reads `{ "epoch": …, "offset": … }`, or a bare offset.
    pub fn from_json(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::Number(offset) => Some(Self { epoch: None, offset: offset.as_u64()? }),
            serde_json::Value::Object(members) => {
                let epoch = match members.get("epoch") {
                    None | Some(serde_json::Value::Null) => None,
                    Some(epoch) => Some(epoch.as_u64()?),
                };
                Some(Self { epoch, offset: members.get("offset")?.as_u64()? })
            }
            _ => None,
        }
    }

    /// The epoch of the position; `None` if it is not known.
    pub(super) fn known_epoch(self) -> Option<u64> {
        self.epoch.filter(|epoch| *epoch != 0)
    }

    /// Whether this can be a position in a history with this epoch and last offset. If not, reading begins at the
    /// oldest stored event.
    pub(super) fn fits(self, epoch: u64, last: u64) -> bool {
        self.known_epoch().is_none_or(|known| known == epoch) && self.offset <= last
    }
}

/// The order of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PageOrder {
    /// The newest event is the last one.
    #[default]
    Asc,
    /// The newest event is the first one.
    Desc,
}

/// A page of a room's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// The room's epoch; 0 when the room has no history.
    pub epoch: u64,
    /// The offset of the oldest stored event; 0 when there is no event.
    pub first_offset: u64,
    /// The offset of the newest event; 0 when there is no event.
    pub last_offset: u64,
    /// Whether no event is missing between `since` and the oldest event of the page. Without `since` this is true,
    /// unless the history is known to lack an event, or may lack an event.
    pub complete: bool,
    /// The events of the page with their offsets.
    pub events: Vec<(u64, Event)>,
}

impl HistoryPage {
    /// Creates the page of a room without a history.
    pub(super) fn empty(query: HistoryQuery) -> Self {
        Self::of(query, 0, 0, 0, Vec::new())
    }

    /// Creates a page from events in ascending order.
    pub(super) fn of(query: HistoryQuery, epoch: u64, first: u64, last: u64, mut events: Vec<(u64, Event)>) -> Self {
        debug_assert!(events.is_sorted_by(|(one, _), (other, _)| one < other), "the offsets do not ascend");
        let oldest = events.first().map(|(offset, _)| *offset);
        let complete = query.since.is_none_or(|since| is_whole(since, epoch, last, oldest));
        if query.order == PageOrder::Desc {
            events.reverse();
        }
        Self { epoch, first_offset: first, last_offset: last, complete, events }
    }

    /// Returns the offset of the page's oldest event.
    pub fn oldest(&self) -> Option<u64> {
        let ends = [self.events.first(), self.events.last()];
        ends.into_iter().flatten().map(|(offset, _)| *offset).min()
    }
}

/// Whether the page is proven complete. An offset without its epoch proves nothing, because the epoch's history may be
/// gone; offset 0 is the exception, because it means "from the start".
fn is_whole(since: HistoryStart, epoch: u64, last: u64, oldest: Option<u64>) -> bool {
    let proven = match since.known_epoch() {
        Some(known) => known == epoch,
        None => since.offset == 0,
    };
    proven && oldest.map_or(since.offset == last, |oldest| since.offset.checked_add(1) == Some(oldest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_object_or_a_number() {
        let read = |text: &str| HistoryStart::from_json(&serde_json::from_str(text).unwrap());
        assert_eq!(read("7"), Some(HistoryStart { epoch: None, offset: 7 }));
        assert_eq!(read(r#"{"epoch":3,"offset":7}"#), Some(HistoryStart { epoch: Some(3), offset: 7 }));
        assert_eq!(read(r#"{"offset":7}"#), Some(HistoryStart { epoch: None, offset: 7 }));
        for rubbish in ["-1", "1.5", "null", "\"7\"", "[]", "{}", r#"{"epoch":"x","offset":7}"#] {
            assert_eq!(read(rubbish), None, "{rubbish}");
        }
    }

    #[test]
    fn only_what_is_proven_is_whole() {
        let since = |epoch, offset| HistoryStart { epoch, offset };
        assert!(is_whole(since(Some(9), 3), 9, 5, Some(4)));
        assert!(is_whole(since(Some(9), 5), 9, 5, None));
        assert!(is_whole(since(None, 0), 9, 5, Some(1)));
        assert!(is_whole(since(None, 0), 0, 0, None));
        assert!(!is_whole(since(Some(8), 3), 9, 5, Some(1)), "another epoch");
        assert!(!is_whole(since(Some(9), 3), 9, 8, Some(5)), "trimmed");
        assert!(!is_whole(since(None, 3), 9, 5, Some(4)), "no epoch");
        assert!(!is_whole(since(None, 0), 9, 5, Some(2)), "the start is gone");
        assert!(!is_whole(since(Some(9), 6), 9, 5, Some(1)), "ahead of the history");
        assert!(!is_whole(since(Some(9), 1), 0, 0, None), "forgotten");
    }
}
