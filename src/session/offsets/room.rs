//! The position of a session in one room of its trail.

use sha2::{Digest, Sha256};

use std::time::Duration;

use tokio::time::Instant;

use super::ReceptionRun;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Maximum number of separate runs of received events after a missing event. With more runs, the room can no longer be
/// recovered.
const MAX_RUNS: usize = 8;

/// Maximum number of events of a room that are remembered because their offsets are not known. With more such events,
/// the room can no longer be recovered.
pub(super) const MAX_UNSURE: usize = 8;

/// How long after an event without a known offset later events can still arrive before that event's append. Redis
/// carries out an append within `redis.command_timeout` or not at all, so this time is long enough.
const UNSURE_FOR: Duration = Duration::from_secs(60);

/// A point in a room's history; `(0, 0)` stands for the start, before any event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HistoryPoint {
    /// The history's epoch; 0 when the room had no history.
    pub epoch: u64,
    /// The offset of the last event up to this point.
    pub offset: u64,
}

/// The events of a room that a session has: everything up to `floor`, and the runs in `beyond`.
///
/// Events of several nodes can arrive in a different order than their offsets, so runs can occur.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomPosition {
    /// The history's epoch; 0 when the room had no history.
    pub epoch: u64,
    /// The session has every event up to this offset.
    pub floor: u64,
    /// Runs as first and last offset, in ascending order. At least one event is missing before each run.
    pub beyond: Vec<(u64, u64)>,
}

/// A room of a trail: where the session began in it, and the position that it has reached.
#[derive(Debug, Clone)]
pub(super) struct RoomOffsets {
    mark: String,
    /// The value of [`ReceptionRun`] when the session joined the room.
    heard: Option<u64>,
    /// The point at which the session began in the room; `None` while it is not known.
    base: Option<HistoryPoint>,
    /// The position that the session has reached. Its floor is 0 while `base` is `None`.
    at: RoomPosition,
    /// Whether the room is not recoverable: the session's beginning, its position, or the end of an earlier epoch is
    /// not known.
    lost: bool,
    /// Events whose offsets are not known. Boxed, because nearly all rooms have no such events: then only a pointer
    /// takes memory.
    unsure: Option<Box<UnsureEvents>>,
}

/// Events that the session has received, and that the history may have stored at offsets that are not known.
#[derive(Debug, Clone)]
struct UnsureEvents {
    /// The short ids of these events, oldest first.
    ids: Vec<u64>,
    /// When the newest of these events arrived.
    newest: Instant,
}

/// The mark of a room: eight characters of a hash of its name, which stand for the room in a tail.
pub(super) fn mark_of(room: &str) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(room.as_bytes())[..6])
}

impl RoomOffsets {
    pub(super) fn new(room: &str, heard: Option<u64>) -> Self {
        Self { mark: mark_of(room), heard, base: None, at: RoomPosition::default(), lost: false, unsure: None }
    }

    pub(super) fn resumed(room: &str, position: RoomPosition, unsure: &[u64], heard: Option<u64>) -> Self {
        let base = Some(HistoryPoint { epoch: position.epoch, offset: position.floor });
        let unsure =
            (!unsure.is_empty()).then(|| Box::new(UnsureEvents { ids: unsure.to_vec(), newest: Instant::now() }));
        Self { mark: mark_of(room), heard, base, at: position, lost: false, unsure }
    }

    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    pub(super) fn base(&self) -> Option<HistoryPoint> {
        self.base
    }

    pub(super) fn at(&self) -> &RoomPosition {
        &self.at
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The short ids of the events whose offsets are not known.
    pub(super) fn unsure(&self) -> &[u64] {
        self.unsure.as_ref().map_or(&[], |unsure| &unsure.ids)
    }

    /// Whether the position differs from the point at which the session began.
    pub(super) fn has_moved(&self) -> bool {
        let began = self.base.unwrap_or(HistoryPoint { epoch: 0, offset: 0 });
        let is_there = self.at.epoch == began.epoch && self.at.floor == began.offset && self.at.beyond.is_empty();
        self.lost || !is_there || self.unsure.is_some()
    }

    /// Sets the point at which the session began. `heard` is the value of [`ReceptionRun`] after the point was read.
    /// Returns true when something has changed.
    pub(super) fn begin(&mut self, point: HistoryPoint, heard: Option<u64>) -> bool {
        if self.base.is_some() || self.lost {
            return false;
        }
        if heard.is_none() || heard != self.heard {
            return self.give_up();
        }
        self.base = Some(point);
        if self.at.epoch < point.epoch {
            self.at = RoomPosition { epoch: point.epoch, floor: point.offset, beyond: Vec::new() };
        } else if self.at.epoch == point.epoch {
            self.at.floor = point.offset;
        }
        // If the position is in a newer epoch than the point, the client must get all events of that epoch.
        self.absorb();
        true
    }

    /// Marks the room as not recoverable. Returns false when it was marked already.
    pub(super) fn give_up(&mut self) -> bool {
        self.at.beyond.clear();
        self.unsure = None;
        !std::mem::replace(&mut self.lost, true)
    }

    pub(super) fn note(&mut self, epoch: u64, offset: u64, hearing: &ReceptionRun) {
        if epoch < self.at.epoch || self.lost {
            return;
        }
        if epoch > self.at.epoch {
            // The last events of the previous epoch may be among the lost messages, and no offset could show that.
            if self.at.epoch != 0 && (self.heard.is_none() || hearing() != self.heard) {
                self.give_up();
                return;
            }
            self.at = RoomPosition { epoch, ..RoomPosition::default() };
        }
        if offset > self.at.floor {
            self.at.add(offset);
            if self.base.is_some() {
                self.absorb();
            }
            if self.at.beyond.len() > MAX_RUNS {
                self.give_up();
            }
        }
        self.forget_unsure();
    }

    /// Notes an event that the history may have stored at an offset that is not known.
    pub(super) fn note_unsure(&mut self, id: u64) {
        if self.lost {
            return;
        }
        let now = Instant::now();
        let unsure = self.unsure.get_or_insert_with(|| Box::new(UnsureEvents { ids: Vec::new(), newest: now }));
        unsure.newest = now;
        if !unsure.ids.contains(&id) {
            unsure.ids.push(id);
        }
        if unsure.ids.len() > MAX_UNSURE {
            self.give_up();
        }
    }

    /// Forgets the events without a known offset once no later read of the history can return them: the session has
    /// everything up to an event that was appended after all of them.
    fn forget_unsure(&mut self) {
        let is_over = |unsure: &UnsureEvents| unsure.newest.elapsed() >= UNSURE_FOR;
        if self.base.is_some() && self.at.beyond.is_empty() && self.unsure.as_deref().is_some_and(is_over) {
            self.unsure = None;
        }
    }

    fn absorb(&mut self) {
        self.at.absorb();
    }
}

impl RoomPosition {
    /// Whether the session has the event with this offset.
    pub fn has(&self, offset: u64) -> bool {
        offset <= self.floor || self.beyond.iter().any(|&(from, to)| (from..=to).contains(&offset))
    }

    /// Creates a position from a floor and runs in any order. Runs that overlap or meet become one: a client may claim
    /// any runs.
    pub(super) fn new(epoch: u64, floor: u64, mut runs: Vec<(u64, u64)>) -> Self {
        runs.sort_unstable();
        let mut beyond: Vec<(u64, u64)> = Vec::with_capacity(runs.len());
        for (from, to) in runs {
            match beyond.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => beyond.push((from, to)),
            }
        }
        let mut position = Self { epoch, floor, beyond };
        position.absorb();
        position
    }

    fn add(&mut self, offset: u64) {
        let at = self.beyond.partition_point(|&(_, to)| to < offset);
        if self.beyond.get(at).is_some_and(|&(from, _)| from <= offset) {
            return;
        }
        let joins_next = self.beyond.get(at).is_some_and(|&(from, _)| from == offset + 1);
        let joins_last = at > 0 && self.beyond[at - 1].1 + 1 == offset;
        match (joins_last, joins_next) {
            (true, true) => {
                self.beyond[at - 1].1 = self.beyond[at].1;
                self.beyond.remove(at);
            }
            (true, false) => self.beyond[at - 1].1 = offset,
            (false, true) => self.beyond[at].0 = offset,
            (false, false) => self.beyond.insert(at, (offset, offset)),
        }
    }

    fn absorb(&mut self) {
        while let Some(&(from, to)) = self.beyond.first() {
            if from > self.floor.saturating_add(1) {
                break;
            }
            self.floor = self.floor.max(to);
            self.beyond.remove(0);
        }
        debug_assert!(
            self.beyond.is_sorted_by(|before, after| before.1.saturating_add(1) < after.0),
            "no event is missing between two runs"
        );
    }
}
