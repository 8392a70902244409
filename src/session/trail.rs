//! What a client has had of each of its rooms, so that it can be given the rest when it comes back.
//!
//! Only sessions that can be recovered have a trail. Its short form goes to the client with the events, as their last argument:
//! the official client remembers the last one that it saw, and hands it back as it returns.

mod place;
mod tail;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Link, RoomName, SendError};
use crate::event::{Event, Stamp};

use place::Place;
pub use place::{Point, Position};
pub use tail::{Claim, Tail};

/// A session in more rooms cannot be recovered.
pub const MAX_ROOMS: usize = 256;

/// The room that every session of a namespace is in, as far as trails and histories go. The index does not know it.
pub const EVERYBODY: &str = "$all";

/// How well this node hears the other nodes: a number that changes each time that their messages may have been lost, and
/// `None` while they may be. A session's position can be proven only across a time in which the number stayed the same.
pub type Hearing = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// The trail of one session.
pub struct Trail {
    /// Under which name the session is kept; made of its secret, which it does not tell.
    key: Arc<str>,
    /// How often the session has been recovered.
    generation: u64,
    hearing: Hearing,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    places: HashMap<RoomName, Place>,
    /// Counts changes of the rooms and of where they begin.
    version: u64,
    /// The last version that is kept where a return finds it.
    saved: u64,
    /// What is kept may lack something: the client is told nothing that it could return with.
    unsaved: bool,
    tail: Option<Arc<str>>,
}

/// A trail as it is kept: its rooms, and where in each the session began. `None`: that is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which one it is.
    pub version: u64,
    /// The rooms.
    pub rooms: Vec<(RoomName, Option<Point>)>,
}

impl Trail {
    /// A trail without rooms.
    pub fn new(key: Arc<str>, generation: u64, hearing: Hearing) -> Box<Self> {
        Box::new(Self { key, generation, hearing, state: Mutex::default() })
    }

    /// Under which name the session is kept.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// How often the session has been recovered.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The session came into a room; where it began there is to be found out.
    pub fn enter(&self, room: &RoomName) {
        let mut state = self.state();
        if !state.places.contains_key(room) {
            state.places.insert(room.clone(), Place::new(room, (self.hearing)()));
            state.version += 1;
        }
    }

    /// The session has all that the room had until here, or is not owed it. That holds only if this node has heard the
    /// other nodes all the time since the session came into the room; otherwise the room is given up.
    pub fn begin(&self, room: &RoomName, point: Point) {
        let heard = (self.hearing)();
        self.change(room, |place| place.begin(point, heard));
    }

    /// It could not be found out where the session began in a room when it came in. A later answer would pass over what was
    /// published meanwhile, so nothing can be told of this room any more.
    pub fn give_up(&self, room: &RoomName) {
        self.change(room, Place::give_up);
    }

    fn change(&self, room: &RoomName, work: impl FnOnce(&mut Place) -> bool) {
        let mut state = self.state();
        if state.places.get_mut(room).is_some_and(work) {
            state.version += 1;
            state.tail = None;
        }
    }

    /// A returning session has this of the room.
    pub fn resume(&self, room: &RoomName, position: Position) {
        let mut state = self.state();
        state.places.insert(room.clone(), Place::resumed(room, position, (self.hearing)()));
        state.version += 1;
        state.tail = None;
    }

    /// The session left a room.
    pub fn leave(&self, room: &str) {
        let mut state = self.state();
        if state.places.remove(room).is_some() {
            state.version += 1;
            state.tail = None;
        }
    }

    /// Rooms of which it is still to be found out where the session began.
    pub fn unknown(&self) -> Vec<RoomName> {
        let state = self.state();
        state
            .places
            .iter()
            .filter(|(_, place)| place.base().is_none() && !place.is_lost())
            .map(|(room, _)| room.clone())
            .collect()
    }

    /// What is to be kept; `None` when that has been done.
    pub fn to_save(&self) -> Option<Snapshot> {
        let state = self.state();
        (state.unsaved || state.saved < state.version).then(|| state.snapshot())
    }

    /// The trail as it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.state().snapshot()
    }

    /// This version is kept, or could not be.
    pub fn note_saved(&self, version: u64, kept: bool) {
        let mut state = self.state();
        if kept {
            state.saved = state.saved.max(version);
        }
        let unsaved = state.saved < version;
        if state.unsaved != unsaved {
            state.unsaved = unsaved;
            state.tail = None;
        }
    }

    /// Whether any version is kept.
    pub fn was_saved(&self) -> bool {
        self.state().saved > 0
    }

    /// What is kept is to be written again.
    pub fn touch(&self) {
        self.state().version += 1;
    }

    /// Queues an event for the client with what it then has had, as far as that can be told.
    ///
    /// # Errors
    /// As [`Link::send`]; nothing is noted then.
    pub(super) fn send(&self, link: &dyn Link, event: &Event, stamps: &[Stamp]) -> Result<(), SendError> {
        let mut state = self.state();
        let before = state.note(stamps, &self.hearing);
        // The client takes any string at the end for an offset, the event's name too.
        if before.is_empty() && !event.ends_with_string() {
            drop(state);
            return link.send(event);
        }
        let tail = state.tail();
        let sent = event.tailed(&tail, |event| link.send(event));
        if sent.is_err() {
            state.restore(before);
        }
        sent
    }

    /// These events are not for the session, or it has them.
    pub(super) fn pass_over(&self, stamps: &[Stamp]) {
        self.state().note(stamps, &self.hearing);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

impl State {
    fn snapshot(&self) -> Snapshot {
        let rooms = self.places.iter().map(|(room, place)| (room.clone(), place.base())).collect();
        Snapshot { version: self.version, rooms }
    }

    /// Notes an event, and says what was noted before.
    fn note(&mut self, stamps: &[Stamp], hearing: &Hearing) -> Vec<(RoomName, Place)> {
        let mut before = Vec::new();
        for stamp in stamps {
            if let Some(place) = self.places.get_mut(&stamp.room) {
                before.push((stamp.room.clone(), place.clone()));
                place.note(stamp.epoch, stamp.offset, hearing);
                self.tail = None;
            }
        }
        before
    }

    fn restore(&mut self, before: Vec<(RoomName, Place)>) {
        self.tail = None;
        self.places.extend(before);
    }

    fn tail(&mut self) -> Arc<str> {
        if let Some(tail) = &self.tail {
            return tail.clone();
        }
        let usable = !self.unsaved && self.places.len() <= MAX_ROOMS;
        let tail: Arc<str> = Tail::write(usable.then(|| self.places.values())).into();
        self.tail = Some(tail.clone());
        tail
    }
}

impl std::fmt::Debug for Trail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trail").field("generation", &self.generation).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
