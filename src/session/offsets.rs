//! Records which events a client has received in each of its rooms, so that a returning client can be given the rest.
//!
//! Only sessions that can be recovered have a trail. The tail, a short text form of the trail, goes to the client with
//! the events, as their last argument. The official client remembers the last tail that it received, and sends it back
//! when it reconnects.

mod client;
mod room;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Link, RoomName, SendError};
use crate::event::{Event, Stamp};

pub use client::{ClaimedPosition, ClientOffset};
use room::RoomOffsets;
pub use room::{HistoryPoint, RoomPosition};

/// Maximum number of rooms of a session that can be recovered. A client in more rooms is sent a tail that does not
/// permit recovery.
pub const MAX_ROOMS: usize = 256;

/// Returns a number while this node receives the other nodes' messages, and `None` while messages may be getting lost.
/// The number changes each time messages may have been lost. A session's position is proven only over a time in which
/// the number stays the same.
pub type ReceptionRun = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// The trail of one session.
pub struct SessionOffsets {
    /// The key under which the session is stored. The key is derived from the session's secret and does not reveal the
    /// secret.
    key: Arc<str>,
    /// The number of times that the session was recovered.
    generation: u64,
    hearing: ReceptionRun,
    state: Mutex<OffsetsState>,
}

#[derive(Default)]
struct OffsetsState {
    room_offsets: HashMap<RoomName, RoomOffsets>,
    /// Grows with each change of the rooms and of the points at which they begin.
    version: u64,
    /// The newest version that was stored.
    saved: u64,
    /// Whether the stored state may be incomplete. While it may be, the client is sent a tail that does not permit
    /// recovery.
    unsaved: bool,
    client_offset: Option<Arc<str>>,
}

/// A trail as it is stored: the rooms, each with the point at which the session began in it (`None` while that point is
/// not known).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetsSnapshot {
    /// The version of the trail.
    pub version: u64,
    /// The rooms, each with the point at which the session began in it.
    pub rooms: Vec<(RoomName, Option<HistoryPoint>)>,
}

impl SessionOffsets {
    /// Creates a trail without rooms.
    pub fn new(key: Arc<str>, generation: u64, hearing: ReceptionRun) -> Box<Self> {
        Box::new(Self { key, generation, hearing, state: Mutex::default() })
    }

    /// The key under which the session is stored.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The number of times that the session was recovered.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds a room that the session joined. The point at which the session began in the room is not known until
    /// [`SessionOffsets::begin`].
    pub fn enter(&self, room: &RoomName) {
        let mut state = self.state();
        if !state.room_offsets.contains_key(room) {
            state.room_offsets.insert(room.clone(), RoomOffsets::new(room, (self.hearing)()));
            state.version += 1;
        }
    }

    /// Sets the point at which the session began in a room; the client is not sent events before this point when it
    /// returns. The point is valid only if this node has received the other nodes' messages without a loss since the
    /// join; otherwise the session can no longer be recovered with this room.
    pub fn begin(&self, room: &RoomName, point: HistoryPoint) {
        let heard = (self.hearing)();
        self.change(room, |place| place.begin(point, heard));
    }

    /// Marks a room as not recoverable, because the point at which the session began in it could not be read at the
    /// join. A point read later would skip events published in between, so the session cannot be recovered with this
    /// room.
    pub fn give_up(&self, room: &RoomName) {
        self.change(room, RoomOffsets::give_up);
    }

    fn change(&self, room: &RoomName, work: impl FnOnce(&mut RoomOffsets) -> bool) {
        let mut state = self.state();
        if state.room_offsets.get_mut(room).is_some_and(work) {
            state.version += 1;
            state.client_offset = None;
        }
    }

    /// Adds a room of a recovered session, with the position that the client has reached. `unsure` are short ids of
    /// events that the client has received, but whose offsets are not known.
    pub fn resume(&self, room: &RoomName, position: RoomPosition, unsure: &[u64]) {
        let mut state = self.state();
        state.room_offsets.insert(room.clone(), RoomOffsets::resumed(room, position, unsure, (self.hearing)()));
        state.version += 1;
        state.client_offset = None;
    }

    /// Removes a room that the session left.
    pub fn leave(&self, room: &str) {
        let mut state = self.state();
        if state.room_offsets.remove(room).is_some() {
            state.version += 1;
            state.client_offset = None;
        }
    }

    /// The rooms in which the point where the session began is not known yet.
    pub fn unknown(&self) -> Vec<RoomName> {
        let state = self.state();
        state
            .room_offsets
            .iter()
            .filter(|(_, place)| place.base().is_none() && !place.is_lost())
            .map(|(room, _)| room.clone())
            .collect()
    }

    /// The state to store; `None` when the newest version is stored.
    pub fn to_save(&self) -> Option<OffsetsSnapshot> {
        let state = self.state();
        (state.unsaved || state.saved < state.version).then(|| state.snapshot())
    }

    /// The trail as it is now.
    pub fn snapshot(&self) -> OffsetsSnapshot {
        self.state().snapshot()
    }

    /// Notes that this version was stored (`kept`), or that storing it failed.
    pub fn note_saved(&self, version: u64, kept: bool) {
        let mut state = self.state();
        if kept {
            state.saved = state.saved.max(version);
        }
        let unsaved = state.saved < version;
        if state.unsaved != unsaved {
            state.unsaved = unsaved;
            state.client_offset = None;
        }
    }

    /// Whether any version was stored.
    pub fn was_saved(&self) -> bool {
        self.state().saved > 0
    }

    /// Marks the trail as changed, so that it is stored again.
    pub fn touch(&self) {
        self.state().version += 1;
    }

    /// Queues an event for the client. The event carries the client's new position (the tail) when it has a stamp in
    /// one of the client's rooms, or when its last argument is a string.
    ///
    /// # Errors
    /// As [`Link::send`]. After an error the trail is unchanged.
    pub(super) fn send(&self, link: &dyn Link, event: &Event, stamps: &[Stamp]) -> Result<(), SendError> {
        let mut state = self.state();
        let before = state.note(stamps, &self.hearing);
        // The official client takes any string in the last argument for an offset, even the event's name. So a tail
        // follows an event that ends with a string, even an event without stamps.
        if before.is_empty() && !event.ends_with_string() {
            drop(state);
            return link.send(event);
        }
        let client_offset = state.client_offset();
        let sent = event.tailed(&client_offset, |event| link.send(event));
        if sent.is_err() {
            state.restore(before);
        }
        sent
    }

    /// Notes that the event with these stamps is not for this session, or that the session has received it already.
    pub(super) fn pass_over(&self, stamps: &[Stamp]) {
        self.state().note(stamps, &self.hearing);
    }

    fn state(&self) -> MutexGuard<'_, OffsetsState> {
        self.state.lock().expect("no thread panics while it holds this lock")
    }
}

impl OffsetsState {
    fn snapshot(&self) -> OffsetsSnapshot {
        let rooms = self.room_offsets.iter().map(|(room, place)| (room.clone(), place.base())).collect();
        OffsetsSnapshot { version: self.version, rooms }
    }

    /// Notes an event in its rooms, and returns the previous state of the rooms that it changed.
    fn note(&mut self, stamps: &[Stamp], hearing: &ReceptionRun) -> Vec<(RoomName, RoomOffsets)> {
        let mut before = Vec::new();
        for stamp in stamps {
            if let Some(place) = self.room_offsets.get_mut(&stamp.room) {
                before.push((stamp.room.clone(), place.clone()));
                match stamp.unsure_id() {
                    Some(id) => place.note_unsure(id),
                    None => place.note(stamp.epoch, stamp.offset, hearing),
                }
                self.client_offset = None;
            }
        }
        before
    }

    fn restore(&mut self, before: Vec<(RoomName, RoomOffsets)>) {
        self.client_offset = None;
        self.room_offsets.extend(before);
    }

    fn client_offset(&mut self) -> Arc<str> {
        if let Some(client_offset) = &self.client_offset {
            return client_offset.clone();
        }
        let usable = !self.unsaved && self.room_offsets.len() <= MAX_ROOMS;
        let client_offset: Arc<str> = ClientOffset::write(usable.then(|| self.room_offsets.values())).into();
        self.client_offset = Some(client_offset.clone());
        client_offset
    }
}

impl std::fmt::Debug for SessionOffsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trail").field("generation", &self.generation).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
