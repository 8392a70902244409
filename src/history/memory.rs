//! The histories of a single node, in memory.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::page::HistoryQuery;
use super::{
    Appended, HistoryError, HistoryPage, HistoryStore, ListCopy, MAX_LIFE, MAX_PAGE, PageOrder, Retention, RoomKey,
    new_epoch,
};
use crate::event::Event;
use crate::telemetry::metrics::Metrics;

/// Maximum number of rooms that have a history in memory. Beyond it, the history that would expire next is removed.
pub const MAX_MEMORY_ROOMS: usize = 65_536;

/// Maximum size of the events in memory over all rooms, in bytes.
pub const MAX_MEMORY_BYTES: usize = 256 * 1024 * 1024;

/// The histories in memory, which are bounded and end with the process.
pub struct MemoryHistory {
    table: Mutex<HistoryTable>,
    bounds: MemoryBounds,
    metrics: Arc<Metrics>,
}

#[derive(Clone, Copy)]
struct MemoryBounds {
    rooms: usize,
    bytes: usize,
}

#[derive(Default)]
struct HistoryTable {
    rooms: HashMap<RoomKey, StoredRoom>,
    /// Orders the rooms by the time at which they expire.
    ends: BTreeSet<(Instant, RoomKey)>,
    bytes: usize,
}

struct StoredRoom {
    epoch: u64,
    last: u64,
    events: VecDeque<Event>,
    ends_at: Instant,
}

impl MemoryHistory {
    /// Creates an empty store with the default bounds.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self::bounded(metrics, MAX_MEMORY_ROOMS, MAX_MEMORY_BYTES)
    }

    /// Creates an empty store with these bounds.
    pub fn bounded(metrics: Arc<Metrics>, rooms: usize, bytes: usize) -> Self {
        Self { table: Mutex::default(), bounds: MemoryBounds { rooms, bytes }, metrics }
    }

    /// The number of rooms that have a history.
    #[cfg(test)]
    pub fn room_count(&self) -> usize {
        self.with(Instant::now(), |table| table.rooms.len())
    }

    fn with<T>(&self, now: Instant, work: impl FnOnce(&mut HistoryTable) -> T) -> T {
        let mut table = self.table.lock().expect("no thread panics while it holds this lock");
        table.expire(now);
        work(&mut table)
    }
}

impl HistoryStore for MemoryHistory {
    async fn append(
        &self,
        key: &RoomKey,
        keep: Retention,
        _copy: Option<ListCopy<'_>>,
        event: &Event,
    ) -> Result<Appended, HistoryError> {
        let now = Instant::now();
        Ok(self.with(now, |table| {
            if !table.rooms.contains_key(key) {
                table.insert(key, now);
            }
            let appended = table.push(key, keep, event);
            table.end_at(key, now + keep.ttl.min(MAX_LIFE));
            let evicted = table.evict(self.bounds, key);
            self.metrics.history_evicted_total.with_label_values::<&str>(&[]).inc_by(evicted);
            appended
        }))
    }

    async fn read(&self, key: &RoomKey, query: HistoryQuery) -> Result<HistoryPage, HistoryError> {
        Ok(self.with(Instant::now(), |table| match table.rooms.get(key) {
            Some(room) => room.read(query),
            None => HistoryPage::empty(query),
        }))
    }

    fn note_unrecorded(&self, _namespace: &Arc<str>, _life: Duration) {}

    async fn lacks_events(&self, _namespace: &str) -> Result<bool, HistoryError> {
        Ok(false)
    }

    fn size(&self) -> (usize, usize) {
        self.with(Instant::now(), |table| (table.rooms.len(), table.bytes))
    }
}

impl HistoryTable {
    fn insert(&mut self, key: &RoomKey, now: Instant) {
        self.rooms
            .insert(key.clone(), StoredRoom { epoch: new_epoch(), last: 0, events: VecDeque::new(), ends_at: now });
        self.ends.insert((now, key.clone()));
    }

    fn push(&mut self, key: &RoomKey, keep: Retention, event: &Event) -> Appended {
        let room = self.rooms.get_mut(key).expect("inserted before");
        room.last += 1;
        room.events.push_back(event.clone());
        self.bytes += event.size_bytes();
        while room.events.len() > keep.events as usize {
            self.bytes -= room.events.pop_front().map_or(0, |event| event.size_bytes());
        }
        Appended { epoch: room.epoch, offset: room.last }
    }

    fn end_at(&mut self, key: &RoomKey, ends_at: Instant) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        self.ends.remove(&(room.ends_at, key.clone()));
        room.ends_at = ends_at;
        self.ends.insert((ends_at, key.clone()));
    }

    fn expire(&mut self, now: Instant) {
        while self.ends.first().is_some_and(|(ends_at, _)| *ends_at <= now) {
            self.forget_next(None);
        }
    }

    /// Removes histories, and then old events, until the bounds are kept. Never removes the room that was written last.
    /// Returns how many histories were removed.
    fn evict(&mut self, bounds: MemoryBounds, newest: &RoomKey) -> u64 {
        let mut evicted = 0;
        while (self.rooms.len() > bounds.rooms || self.bytes > bounds.bytes) && self.forget_next(Some(newest)) {
            evicted += 1;
        }
        while self.bytes > bounds.bytes {
            let Some(room) = self.rooms.get_mut(newest).filter(|room| room.events.len() > 1) else { break };
            self.bytes -= room.events.pop_front().map_or(0, |event| event.size_bytes());
        }
        evicted
    }

    fn forget_next(&mut self, but: Option<&RoomKey>) -> bool {
        let Some(next) = self.ends.iter().find(|(_, key)| Some(key) != but).cloned() else { return false };
        self.ends.remove(&next);
        if let Some(room) = self.rooms.remove(&next.1) {
            self.bytes -= room.events.iter().map(Event::size_bytes).sum::<usize>();
        }
        true
    }
}

impl StoredRoom {
    fn read(&self, query: HistoryQuery) -> HistoryPage {
        let first = self.last + 1 - self.events.len() as u64;
        let after = query.since.filter(|since| since.fits(self.epoch, self.last)).map_or(0, |since| since.offset);
        let from = (after + 1).max(first);
        let wanted = (self.last + 1 - from) as usize;
        let limit = query.limit.clamp(1, MAX_PAGE);
        let skip = match (query.since, query.order) {
            (Some(_), PageOrder::Asc) => 0,
            _ => wanted.saturating_sub(limit),
        };
        let start = from + skip as u64;
        let events = self.events.iter().skip((start - first) as usize).take(limit);
        let events = (start..).zip(events.cloned()).collect();
        HistoryPage::of(query, self.epoch, first, self.last, events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(room: &str) -> RoomKey {
        RoomKey { namespace: "/".into(), room: room.into() }
    }

    fn event(text: &str) -> Event {
        Event::encode("e", &[text]).unwrap()
    }

    fn memory(rooms: usize, bytes: usize) -> MemoryHistory {
        MemoryHistory::bounded(Arc::new(Metrics::new()), rooms, bytes)
    }

    const KEEP: Retention = Retention { events: 10, ttl: Duration::from_secs(60) };
    const ALL: HistoryQuery = HistoryQuery { limit: 100, since: None, order: PageOrder::Asc };

    #[tokio::test]
    async fn room_that_ends_first_makes_way_when_there_are_too_many() {
        let memory = memory(2, usize::MAX);
        memory
            .append(&key("long"), Retention { ttl: Duration::from_secs(600), ..KEEP }, None, &event("x"))
            .await
            .unwrap();
        memory.append(&key("short"), KEEP, None, &event("x")).await.unwrap();
        memory.append(&key("new"), Retention { ttl: Duration::from_secs(1), ..KEEP }, None, &event("x")).await.unwrap();
        assert_eq!(memory.room_count(), 2);
        assert_eq!(memory.read(&key("short"), ALL).await.unwrap().epoch, 0);
        assert_eq!(memory.read(&key("new"), ALL).await.unwrap().events.len(), 1);
        assert_eq!(memory.metrics.history_evicted_total.with_label_values::<&str>(&[]).get(), 1);
    }

    #[tokio::test]
    async fn bytes_are_bounded_even_by_one_room() {
        let memory = memory(100, 100);
        memory.append(&key("other"), KEEP, None, &event("x")).await.unwrap();
        for _ in 0..5 {
            memory.append(&key("big"), KEEP, None, &event(&"x".repeat(40))).await.unwrap();
        }
        let page = memory.read(&key("big"), ALL).await.unwrap();
        assert_eq!((page.first_offset, page.last_offset), (4, 5));
        assert_eq!(memory.room_count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn expired_room_leaves_nothing_behind() {
        let memory = memory(10, usize::MAX);
        memory.append(&key("a"), KEEP, None, &event("x")).await.unwrap();
        memory.append(&key("b"), Retention { ttl: Duration::from_secs(120), ..KEEP }, None, &event("x")).await.unwrap();
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(memory.room_count(), 1);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(memory.room_count(), 0);
        let table = memory.table.lock().unwrap();
        assert_eq!((table.bytes, table.ends.len()), (0, 0));
    }
}
