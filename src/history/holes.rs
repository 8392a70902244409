//! Rooms whose history lacks an event that was published live, because the append failed or may have failed.
//!
//! Offsets do not show such a missing event, called a hole. The node remembers the room, and reports the room's pages
//! as incomplete, until Redis has stored the position of the hole. After that every node can read from Redis that the
//! history is not complete around that position.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fred::types::Value;
use tokio::time::Instant;

use super::page::{HistoryPage, HistoryQuery};
use super::{MAX_LIFE, RoomKey};
use crate::redis::Redis;
use crate::redis::script::Script;

/// Time to wait before the remaining holes are written to Redis again.
const RETRY: Duration = Duration::from_millis(200);

/// Maximum number of rooms that are remembered until their holes are written to Redis. Beyond it, every page that this
/// node reads is incomplete for [`OVERFLOW`].
const MAX_OPEN: usize = 65_536;

/// How long pages are incomplete after more than [`MAX_OPEN`] rooms had holes.
const OVERFLOW: Duration = Duration::from_secs(60 * 60);

/// How long pages are incomplete after Redis refused a write: in that time other nodes may have holes that are not
/// written to Redis yet.
const SETTLING: Duration = Duration::from_secs(3);

/// The holes of this node that are not written to Redis yet.
pub(super) struct Holes {
    redis: Redis,
    script: Script,
    open: Mutex<OpenHole>,
}

#[derive(Default)]
struct OpenHole {
    rooms: HashMap<RoomKey, Hole>,
    telling: bool,
    overflow: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Hole {
    ttl: Duration,
    /// Counts the failures in this room, so that a failure during a write to Redis causes another write.
    number: u64,
}

/// The position of the newest event before a hole, as Redis stores it. Epoch 0 means that the history was empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HoleStart {
    pub(super) epoch: u64,
    pub(super) offset: u64,
}

impl Holes {
    pub(super) fn new(redis: Redis) -> Arc<Self> {
        let script = Script::new(include_str!("hole.lua"));
        Arc::new(Self { redis, script, open: Mutex::default() })
    }

    /// Records that an event of the room was published live and may be missing in its history.
    pub(super) fn note(self: &Arc<Self>, room: &RoomKey, ttl: Duration) {
        let mut open = self.open();
        if open.rooms.len() >= MAX_OPEN && !open.rooms.contains_key(room) {
            open.overflow = Some(Instant::now() + OVERFLOW);
            return;
        }
        let hole = open.rooms.entry(room.clone()).or_insert(Hole { ttl, number: 0 });
        hole.number += 1;
        hole.ttl = hole.ttl.max(ttl);
        if !std::mem::replace(&mut open.telling, true) {
            tokio::spawn(tell(self.clone()));
        }
    }

    /// Whether the room's history may lack an event whose hole is not stored in Redis.
    pub(super) fn may_miss(&self, room: &RoomKey) -> bool {
        if !self.redis.takes_writes() || self.redis.refused_within(SETTLING) {
            return true;
        }
        let open = self.open();
        open.rooms.contains_key(room) || open.overflow.is_some_and(|until| until > Instant::now())
    }

    async fn tell_one(&self, room: &RoomKey, hole: Hole) {
        let names = self.redis.keys();
        let keys = ["events", "hole"].map(|part| names.history(&room.namespace, &room.room, part)).into();
        let life: Vec<Value> = vec![hole.ttl.min(MAX_LIFE).as_millis().max(1).to_string().into()];
        if self.script.run(&self.redis, keys, life).await.is_ok() {
            let mut open = self.open();
            if open.rooms.get(room) == Some(&hole) {
                open.rooms.remove(room);
            }
        }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, OpenHole> {
        self.open.lock().expect("no thread panics while it holds this lock")
    }
}

/// Writes all holes of this node to Redis. Ends when no hole is left.
async fn tell(holes: Arc<Holes>) {
    while !holes.redis.is_closed() {
        let rooms: Vec<(RoomKey, Hole)> = {
            let mut open = holes.open();
            if open.rooms.is_empty() {
                open.telling = false;
                return;
            }
            match holes.redis.takes_writes() {
                true => open.rooms.iter().map(|(room, hole)| (room.clone(), *hole)).collect(),
                false => Vec::new(),
            }
        };
        for (room, hole) in rooms {
            if !holes.redis.takes_writes() {
                break;
            }
            holes.tell_one(&room, hole).await;
        }
        tokio::time::sleep(RETRY).await;
    }
}

impl HoleStart {
    /// Whether the answer may lack the missing event: the hole is not before the query's `since` or, without `since`,
    /// not before the page's oldest event.
    pub(super) fn is_in(self, page: &HistoryPage, query: HistoryQuery) -> bool {
        if self.epoch != page.epoch && self.epoch != 0 {
            return false;
        }
        match query.since {
            Some(since) => since.offset <= self.offset,
            None => page.oldest().is_none_or(|oldest| oldest <= self.offset.max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HistoryStart, PageOrder};
    use super::*;
    use crate::event::Event;

    fn page(epoch: u64, offsets: std::ops::RangeInclusive<u64>) -> HistoryPage {
        let event = Event::encode("e", [(); 0]).unwrap();
        let (first, last) = (*offsets.start(), *offsets.end());
        let events = offsets.map(|offset| (offset, event.clone())).collect();
        HistoryPage { epoch, first_offset: first, last_offset: last, complete: true, events }
    }

    fn since(offset: Option<u64>) -> HistoryQuery {
        HistoryQuery {
            limit: 10,
            since: offset.map(|offset| HistoryStart { epoch: Some(7), offset }),
            order: PageOrder::Asc,
        }
    }

    #[test]
    fn a_hole_is_in_what_begins_before_it() {
        let hole = HoleStart { epoch: 7, offset: 5 };
        assert!(hole.is_in(&page(7, 4..=9), since(Some(3))));
        assert!(hole.is_in(&page(7, 6..=9), since(Some(5))));
        assert!(!hole.is_in(&page(7, 7..=9), since(Some(6))), "the reader had what came behind it");
        assert!(!hole.is_in(&page(8, 1..=9), since(Some(3))), "of a history that is gone");
        assert!(hole.is_in(&page(7, 5..=9), since(None)));
        assert!(!hole.is_in(&page(7, 6..=9), since(None)));
    }

    #[test]
    fn a_hole_before_the_first_event_is_in_what_begins_with_it() {
        let hole = HoleStart { epoch: 0, offset: 0 };
        assert!(hole.is_in(&page(7, 1..=2), since(Some(0))));
        assert!(hole.is_in(&page(7, 1..=2), since(None)));
        assert!(!hole.is_in(&page(7, 2..=3), since(Some(1))));
    }
}
