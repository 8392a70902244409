//! Data that only few sessions have: metadata, events to send when the client leaves, and throttles. All are bounded.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::{RoomName, Session, SessionState};
use crate::contract::scope::SocketState;
use crate::event::Event;
use crate::protocol::is_reserved_room;

/// An event that the server sends for the client when the client leaves a room or disconnects.
#[derive(Clone)]
pub struct LeaveEvent {
    /// The contract that the event belongs to.
    pub contract: Arc<str>,
    /// The event to send, already encoded.
    pub event: Event,
    /// Whether the client itself is excluded from the recipients.
    pub others: bool,
}

/// Maximum number of entries of each kind (undo events, throttles, metadata members) in one session.
pub const MAX_NOTES_PER_SESSION: usize = 256;

/// Maximum size of a session's metadata as JSON, in bytes. Presence and recovery store metadata up to this size.
pub const MAX_METADATA_BYTES: usize = 16 * 1024;

/// Who sets members of a session's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataSetter {
    /// The answer of a hook.
    Hook,
    /// An event of the client.
    Event,
}

#[derive(Default)]
pub(super) struct SessionExtras {
    metadata: Map<String, Value>,
    /// The members of the metadata that a hook has set. Events of the client do not change them.
    set_by_hooks: BTreeSet<String>,
    undo: HashMap<(String, RoomName), LeaveEvent>,
    throttled: HashMap<(String, RoomName), SystemTime>,
}

impl SessionState {
    fn notes(&mut self) -> &mut SessionExtras {
        self.notes.get_or_insert_default()
    }

    /// The metadata with these members merged in; `None` when the result exceeds a limit.
    fn merged_metadata(&self, members: &Map<String, Value>, by: MetadataSetter) -> Option<Map<String, Value>> {
        // Measures the new members first, so that members beyond the limit are never copied.
        if !is_within(members, MAX_METADATA_BYTES) {
            return None;
        }
        let mut merged = self.notes.as_ref().map(|notes| notes.metadata.clone()).unwrap_or_default();
        let is_kept = |name: &str| {
            by == MetadataSetter::Event && self.notes.as_ref().is_some_and(|notes| notes.set_by_hooks.contains(name))
        };
        let members = members.iter().filter(|(name, _)| !is_kept(name));
        merged.extend(members.map(|(name, value)| (name.clone(), value.clone())));
        (merged.len() <= MAX_NOTES_PER_SESSION && is_within(&merged, MAX_METADATA_BYTES)).then_some(merged)
    }
}
impl Session {
    /// The session's metadata, as hooks and events have set it.
    pub fn metadata(&self) -> Map<String, Value> {
        self.with(|state| state.notes.as_ref().map(|notes| notes.metadata.clone()).unwrap_or_default())
    }

    /// The names of the members of the metadata that a hook has set.
    pub fn metadata_set_by_hooks(&self) -> BTreeSet<String> {
        self.with(|state| state.notes.as_ref().map(|notes| notes.set_by_hooks.clone()).unwrap_or_default())
    }

    /// Whether these members can be merged into the metadata within [`MAX_NOTES_PER_SESSION`] and
    /// [`MAX_METADATA_BYTES`].
    pub fn fits_metadata(&self, members: &Map<String, Value>, by: MetadataSetter) -> bool {
        self.with(|state| state.merged_metadata(members, by).is_some())
    }

    /// Merges members into the metadata. An event does not change a member that a hook has set. Nothing is merged if
    /// the result would not fit ([`Session::fits_metadata`]); returns whether it fits.
    pub fn merge_metadata(&self, members: &Map<String, Value>, by: MetadataSetter) -> bool {
        self.with(|state| {
            let Some(merged) = state.merged_metadata(members, by) else { return false };
            let notes = state.notes();
            notes.metadata = merged;
            if by == MetadataSetter::Hook {
                notes.set_by_hooks.extend(members.keys().cloned());
            }
            true
        })
    }

    /// Stores an event to send when the client leaves the room. Returns false when [`MAX_NOTES_PER_SESSION`] are stored
    /// already.
    pub fn set_undo(&self, name: &str, room: &RoomName, undo: LeaveEvent) -> bool {
        self.with(|state| {
            let key = (name.to_owned(), room.clone());
            let kept = &mut state.notes().undo;
            let fits = kept.len() < MAX_NOTES_PER_SESSION || kept.contains_key(&key);
            if fits {
                kept.insert(key, undo);
            }
            fits
        })
    }

    /// Removes a stored undo event, because the client has sent the event itself.
    pub fn clear_undo(&self, name: &str, room: &RoomName) {
        self.with(|state| {
            if let Some(notes) = &mut state.notes {
                notes.undo.remove(&(name.to_owned(), room.clone()));
            }
        });
    }

    /// Removes and returns the events that are to be sent because the client leaves this room (`None`: every room).
    pub fn take_undo(&self, room: Option<&str>) -> Vec<(RoomName, LeaveEvent)> {
        self.with(|state| {
            let Some(SessionExtras { undo, .. }) = state.notes.as_deref_mut() else { return Vec::new() };
            let keys: Vec<_> = undo.keys().filter(|(_, of)| room.is_none_or(|room| **of == *room)).cloned().collect();
            keys.into_iter().filter_map(|key| undo.remove(&key).map(|undo| (key.1, undo))).collect()
        })
    }

    /// Whether this event may be sent to this room now. The event may be sent at most once in each period of length
    /// `every`.
    pub fn pass_throttle(&self, name: &str, room: &RoomName, every: Duration, now: SystemTime) -> bool {
        self.with(|state| {
            let throttled = &mut state.notes().throttled;
            if throttled.len() >= MAX_NOTES_PER_SESSION {
                throttled.retain(|_, until| *until > now);
            }
            let until = throttled.entry((name.to_owned(), room.clone())).or_insert(SystemTime::UNIX_EPOCH);
            let passes = *until <= now;
            if passes {
                *until = now + every;
            }
            passes
        })
    }

    /// Resets the throttle of an event and room, so that the next such event passes at once.
    pub fn reset_throttle(&self, name: &str, room: &RoomName) {
        self.with(|state| {
            if let Some(notes) = &mut state.notes {
                notes.throttled.remove(&(name.to_owned(), room.clone()));
            }
        });
    }
}

impl SocketState for Session {
    fn metadata_member(&self, name: &str) -> Option<Value> {
        self.with(|state| state.notes.as_ref()?.metadata.get(name).cloned())
    }

    fn metadata(&self) -> Map<String, Value> {
        self.metadata()
    }

    fn handshake(&self) -> Option<&Value> {
        self.peer().handshake.as_deref()
    }

    fn rooms(&self) -> Vec<String> {
        let rooms = self.rooms();
        rooms.iter().filter(|room| !is_reserved_room(room)).map(|room| room.to_string()).collect()
    }
}

/// Whether the members take at most `most` bytes as JSON. Stops encoding at the limit.
fn is_within(members: &Map<String, Value>, most: usize) -> bool {
    struct Left(usize);
    impl std::io::Write for Left {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Left(most), members).is_ok()
}
