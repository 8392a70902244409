//! One room of a trail.

use sha2::{Digest, Sha256};

use super::Hearing;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// At most so many runs of events beyond a missing one are remembered.
const MAX_RUNS: usize = 8;

/// A point in a room's history; `(0, 0)` is before all history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Point {
    /// The history's epoch; 0: the room had none.
    pub epoch: u64,
    /// The last event of it.
    pub offset: u64,
}

/// What a session has had of a room: everything up to `floor`, and these runs beyond.
///
/// Events of several nodes may come in another order than their offsets, so there can be runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The history's epoch; 0: the room had none.
    pub epoch: u64,
    /// Everything up to here.
    pub floor: u64,
    /// From and to, ascending, with something missing before each.
    pub beyond: Vec<(u64, u64)>,
}

/// One room of a trail.
#[derive(Debug, Clone)]
pub(super) struct Place {
    mark: String,
    /// How this node heard the others when the session came in.
    heard: Option<u64>,
    /// Where the session began.
    base: Option<Point>,
    /// As long as there is no base, the floor is not known and 0.
    at: Position,
    /// Nothing can be told: it is not known where the session began, what it has had, or what an epoch that is gone had.
    lost: bool,
}

/// What stands for a room in a tail: eight characters.
pub(super) fn mark_of(room: &str) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(room.as_bytes())[..6])
}

impl Place {
    pub(super) fn new(room: &str, heard: Option<u64>) -> Self {
        Self { mark: mark_of(room), heard, base: None, at: Position::default(), lost: false }
    }

    pub(super) fn resumed(room: &str, position: Position, heard: Option<u64>) -> Self {
        let base = Some(Point { epoch: position.epoch, offset: position.floor });
        Self { mark: mark_of(room), heard, base, at: position, lost: false }
    }

    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    pub(super) fn base(&self) -> Option<Point> {
        self.base
    }

    pub(super) fn at(&self) -> &Position {
        &self.at
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether the session has had anything since it began.
    pub(super) fn has_moved(&self) -> bool {
        let began = self.base.unwrap_or(Point { epoch: 0, offset: 0 });
        self.lost || self.at.epoch != began.epoch || self.at.floor != began.offset || !self.at.beyond.is_empty()
    }

    /// True when something has changed. `heard`: how this node hears the others after the point was read.
    pub(super) fn begin(&mut self, point: Point, heard: Option<u64>) -> bool {
        if self.base.is_some() || self.lost {
            return false;
        }
        if heard.is_none() || heard != self.heard {
            return self.give_up();
        }
        self.base = Some(point);
        if self.at.epoch < point.epoch {
            self.at = Position { epoch: point.epoch, floor: point.offset, beyond: Vec::new() };
        } else if self.at.epoch == point.epoch {
            self.at.floor = point.offset;
        }
        // Of a newer epoch it is owed everything.
        self.absorb();
        true
    }

    /// Nothing can be told of the room any more. True when something could.
    pub(super) fn give_up(&mut self) -> bool {
        self.at.beyond.clear();
        !std::mem::replace(&mut self.lost, true)
    }

    pub(super) fn note(&mut self, epoch: u64, offset: u64, hearing: &Hearing) {
        if epoch < self.at.epoch || self.lost {
            return;
        }
        if epoch > self.at.epoch {
            // The last events of the epoch that is gone may be among those that were lost, and nobody can tell.
            if self.at.epoch != 0 && (self.heard.is_none() || hearing() != self.heard) {
                self.give_up();
                return;
            }
            self.at = Position { epoch, ..Position::default() };
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
    }

    fn absorb(&mut self) {
        self.at.absorb();
    }
}

impl Position {
    /// Whether the session has this event.
    pub fn has(&self, offset: u64) -> bool {
        offset <= self.floor || self.beyond.iter().any(|&(from, to)| (from..=to).contains(&offset))
    }

    /// Everything up to here, and runs in any order.
    pub(super) fn new(epoch: u64, floor: u64, beyond: Vec<(u64, u64)>) -> Self {
        let mut position = Self { epoch, floor, beyond };
        position.beyond.sort_unstable();
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
    }
}
