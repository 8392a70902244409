//! Holds back live events while a history is replayed to the client; see [`ReplayState`].

use std::sync::atomic::Ordering;

use super::replay::{HeldRelease, ReplayState, Replayed, SessionOutput};
use super::{RoomName, SendError, Session};
use crate::event::{Event, Stamp};
use crate::protocol::EVERYBODY;

impl Session {
    /// Holds back every live event of this session until [`Session::end_replay`]. Call it before the join.
    pub fn begin_replay(&self) {
        self.with_replays(ReplayState::begin);
    }

    /// Ends the replay that [`Session::begin_replay`] began, and sends the held events that the replay has not shown.
    /// `shown` is `None` when no history was read.
    ///
    /// After [`HeldRelease::Blocked`], call [`Session::release_held`] until it returns something else.
    pub fn end_replay(&self, room: &RoomName, shown: Option<Replayed>) -> HeldRelease {
        self.with_replays(|replays| {
            replays.end(room, shown.filter(|_| self.is_in(room) || **room == *EVERYBODY));
            replays.release(self, &|room| self.is_in(room))
        })
    }

    /// Like [`Session::end_replay`], for a recovered session that replays several rooms after a single
    /// [`Session::begin_replay`].
    pub fn end_replays(&self, shown: impl IntoIterator<Item = (RoomName, Replayed)>) -> HeldRelease {
        self.with_replays(|replays| {
            shown.into_iter().for_each(|(room, shown)| replays.show(&room, shown));
            replays.end_one();
            replays.release(self, &|room| self.is_in(room))
        })
    }

    /// Notes that a replay has shown the events with these short ids, at most
    /// [`MAX_SHOWN_IDS`](super::MAX_SHOWN_IDS). A live copy of such an event that comes without an offset is then not
    /// sent again. Call this before the replay ends.
    pub fn note_shown(&self, ids: Vec<u64>) {
        self.with_replays(|replays| replays.show_ids(ids));
    }

    /// Continues to send the held events after [`HeldRelease::Blocked`].
    pub fn release_held(&self) -> HeldRelease {
        self.with_replays(|replays| replays.release(self, &|room| self.is_in(room)))
    }

    /// Drops the events that are held back, so that live events pass again. Returns how many live events were dropped.
    pub fn drop_held(&self) -> usize {
        self.with_replays(ReplayState::drop_held)
    }

    pub(super) fn with_replays<T>(&self, work: impl FnOnce(&mut ReplayState) -> T) -> T {
        let mut guard = self.replays.lock().expect("no thread panics while it holds this lock");
        let replays = guard.get_or_insert_default();
        let done = work(replays);
        let idle = replays.is_idle();
        self.replays_used.store(!idle, Ordering::Release);
        if idle {
            *guard = None;
        }
        done
    }
}

impl SessionOutput for Session {
    fn send(&self, event: &Event, stamps: &[Stamp]) -> Result<(), SendError> {
        self.send_placed(event, stamps)
    }

    fn pass_over(&self, stamps: &[Stamp]) {
        Self::pass_over(self, stamps);
    }
}
