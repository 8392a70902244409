//! Holds back a session's live events while a room's history is replayed to it, and remembers which events the replay
//! has shown.
//!
//! A room is joined in this order: `begin_replay`, join, read the history, send the events that were read,
//! `end_replay`. Between the first and the last step every live event of the session waits in one queue. So no live
//! event overtakes the replay, and no event of another room overtakes an event that was held back earlier. The range
//! that the replay has shown is remembered for [`MAX_COPY_DELAY`], because another node's copy of a replayed event can
//! arrive after the replay.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::{RoomName, SendError};
use crate::event::{Event, Stamp};

/// Maximum number of live events that wait while history is replayed to a session.
pub const MAX_REPLAY_BACKLOG: usize = 4096;

/// How long after a replay a copy of a replayed event from another node is recognised. A later copy is sent to the
/// client again. The time is limited because a Redis that fails over to a replica can use the newest offsets again.
pub const MAX_COPY_DELAY: Duration = Duration::from_secs(30);

/// Maximum number of replayed events that are remembered by their ids, for copies that come without an offset. Only the
/// newest events need this: an append that was not answered is at most `redis.command_timeout` old.
pub const MAX_SHOWN_IDS: usize = 256;

/// The range of a room's history that was replayed to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// The history's epoch.
    pub epoch: u64,
    /// The first offset that was sent; `last + 1` when no event was sent.
    pub first: u64,
    /// The newest offset when the history was read. The join took effect at this offset.
    pub last: u64,
}

/// The result of delivering a live event to one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveDelivery {
    /// The event was queued for the client.
    Sent,
    /// The event is held back until the replay has ended, or until the client's full write queue has space.
    Held,
    /// The event was not sent: a replay has shown it, or the event is older than the start of the replay.
    Replayed,
    /// The event is kept because the client's queue is full, and another kept event was dropped for it.
    Replaced,
}

/// Whether the held events could be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldRelease {
    /// All held events were sent, or another replay is still active.
    Done {
        /// Live events that were dropped because [`MAX_REPLAY_BACKLOG`] events waited already.
        lost: usize,
    },
    /// The client's write queue is full, so try again soon. Live events still wait, in order.
    Blocked,
    /// The client is gone.
    Closed,
}

/// The output of a session: gets the events that the session has decided to send to the client.
pub(super) trait SessionOutput {
    /// Queues an event with its stamps.
    fn send(&self, event: &Event, stamps: &[Stamp]) -> Result<(), SendError>;
    /// Notes that the event with these stamps does not have to be sent.
    fn pass_over(&self, stamps: &[Stamp]);
}

#[derive(Default)]
pub(super) struct ReplayState {
    active: usize,
    held: VecDeque<HeldDuringReplay>,
    lost: usize,
    shown: HashMap<RoomName, (Replayed, Instant)>,
    /// The short ids of replayed events, and when they were last added.
    ids: Option<(Vec<u64>, Instant)>,
}

struct HeldDuringReplay {
    event: Event,
    rooms: Vec<RoomName>,
    stamps: Vec<Stamp>,
}

impl ReplayState {
    pub(super) fn begin(&mut self) {
        self.active += 1;
    }

    /// Whether live events can be sent without asking [`ReplayState`]: no event is held back and no replay is
    /// remembered.
    pub(super) fn is_idle(&self) -> bool {
        !self.holds() && self.shown.is_empty() && self.ids.is_none()
    }

    pub(super) fn holds(&self) -> bool {
        self.active > 0 || !self.held.is_empty()
    }

    /// Forgets replays that ended more than [`MAX_COPY_DELAY`] ago.
    fn expire(&mut self) {
        self.shown.retain(|_, (_, at)| at.elapsed() < MAX_COPY_DELAY);
        self.ids.take_if(|(_, at)| at.elapsed() >= MAX_COPY_DELAY);
    }

    /// Remembers replayed events by their short ids, for copies that come without an offset.
    pub(super) fn show_ids(&mut self, ids: Vec<u64>) {
        if !ids.is_empty() {
            self.ids = Some((ids, Instant::now()));
        }
    }

    fn has_id(&self, id: u64) -> bool {
        self.ids.as_ref().is_some_and(|(ids, _)| ids.contains(&id))
    }

    fn shown_of(&self, stamp: &Stamp) -> Option<Replayed> {
        let shown = self.shown.get(&stamp.room).map(|(shown, _)| *shown);
        shown.filter(|shown| shown.epoch == stamp.epoch && stamp.unsure_id().is_none())
    }

    pub(super) fn deliver(
        &mut self,
        out: &dyn SessionOutput,
        event: &Event,
        rooms: &[RoomName],
        stamps: &[Stamp],
        is_in: &dyn Fn(&str) -> bool,
    ) -> Result<LiveDelivery, SendError> {
        if self.holds() {
            if self.held.len() >= MAX_REPLAY_BACKLOG {
                self.lost += 1;
                return Err(SendError::Full);
            }
            self.held.push_back(HeldDuringReplay {
                event: event.clone(),
                rooms: rooms.to_vec(),
                stamps: stamps.to_vec(),
            });
            return Ok(LiveDelivery::Held);
        }
        self.expire();
        if self.was_shown(rooms, stamps, is_in) {
            out.pass_over(stamps);
            return Ok(LiveDelivery::Replayed);
        }
        out.send(event, stamps).map(|()| LiveDelivery::Sent)
    }

    pub(super) fn end(&mut self, room: &RoomName, shown: Option<Replayed>) {
        self.end_one();
        if let Some(shown) = shown {
            self.show(room, shown);
        }
    }

    pub(super) fn end_one(&mut self) {
        debug_assert!(self.active > 0, "a replay ended that had not begun");
        self.active = self.active.saturating_sub(1);
    }

    pub(super) fn show(&mut self, room: &RoomName, shown: Replayed) {
        self.shown.insert(room.clone(), (shown, Instant::now()));
    }

    /// Sends the held events, unless another replay is still active.
    pub(super) fn release(&mut self, out: &dyn SessionOutput, is_in: &dyn Fn(&str) -> bool) -> HeldRelease {
        while self.active == 0 {
            let Some(next) = self.held.pop_front() else { break };
            if self.was_shown(&next.rooms, &next.stamps, is_in) {
                out.pass_over(&next.stamps);
                continue;
            }
            match out.send(&next.event, &next.stamps) {
                Ok(()) => {}
                Err(SendError::Full) => {
                    self.held.push_front(next);
                    return HeldRelease::Blocked;
                }
                Err(SendError::Closed) => {
                    self.held.clear();
                    return HeldRelease::Closed;
                }
            }
        }
        let lost = self.lost;
        if self.active == 0 {
            self.lost = 0;
        }
        HeldRelease::Done { lost }
    }

    pub(super) fn drop_held(&mut self) -> usize {
        std::mem::take(&mut self.held).len() + std::mem::take(&mut self.lost)
    }

    pub(super) fn left(&mut self, room: &str) {
        self.shown.remove(room);
    }

    /// Whether the event must not be sent, because a replay has shown it or began after it. A client in several of the
    /// event's rooms gets the event once: an event that one room's replay has shown is not sent for another room. An
    /// event older than one room's replay is sent only if another of the client's rooms brings it.
    fn was_shown(&self, rooms: &[RoomName], stamps: &[Stamp], is_in: &dyn Fn(&str) -> bool) -> bool {
        let mut older = false;
        for stamp in stamps {
            if stamp.unsure_id().is_some_and(|id| self.has_id(id)) {
                return true;
            }
            let Some(shown) = self.shown_of(stamp) else { continue };
            if stamp.offset > shown.last {
                continue;
            }
            if stamp.offset >= shown.first {
                return true;
            }
            older = true;
        }
        older && !rooms.iter().any(|room| is_in(room) && !self.precedes(room, stamps))
    }

    /// Whether the event is not newer than the replay of this room.
    fn precedes(&self, room: &str, stamps: &[Stamp]) -> bool {
        stamps
            .iter()
            .filter(|stamp| *stamp.room == *room)
            .any(|stamp| self.shown_of(stamp).is_some_and(|shown| stamp.offset <= shown.last))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    #[derive(Default, Clone)]
    struct Wire {
        sent: Arc<Mutex<Vec<String>>>,
        room_left: Arc<Mutex<Option<usize>>>,
    }

    impl SessionOutput for Wire {
        fn send(&self, event: &Event, _: &[Stamp]) -> Result<(), SendError> {
            let mut left = self.room_left.lock().unwrap();
            match left.as_mut() {
                Some(0) => return Err(SendError::Full),
                Some(left) => *left -= 1,
                None => {}
            }
            self.sent.lock().unwrap().push(event.name().to_owned());
            Ok(())
        }

        fn pass_over(&self, _: &[Stamp]) {}
    }

    impl Wire {
        fn sent(&self) -> Vec<String> {
            self.sent.lock().unwrap().clone()
        }
    }

    const DONE: HeldRelease = HeldRelease::Done { lost: 0 };

    struct Fixture {
        wire: Wire,
        replays: ReplayState,
        rooms: &'static [&'static str],
    }

    impl Fixture {
        fn new(rooms: &'static [&'static str]) -> Self {
            Self { wire: Wire::default(), replays: ReplayState::default(), rooms }
        }

        fn deliver(&mut self, name: &str, rooms: &[&str], stamps: &[(&str, u64, u64)]) -> LiveDelivery {
            let rooms: Vec<RoomName> = rooms.iter().map(|&room| room.into()).collect();
            let stamps: Vec<_> =
                stamps.iter().map(|&(room, epoch, offset)| Stamp { room: room.into(), epoch, offset }).collect();
            let event = Event::encode(name, [(); 0]).unwrap();
            let mine = self.rooms;
            self.replays.deliver(&self.wire, &event, &rooms, &stamps, &|room| mine.contains(&room)).unwrap()
        }

        fn end(&mut self, room: &str, first: u64, last: u64) -> HeldRelease {
            self.replays.end(&room.into(), Some(Replayed { epoch: 1, first, last }));
            self.release()
        }

        fn release(&mut self) -> HeldRelease {
            let mine = self.rooms;
            self.replays.release(&self.wire, &|room| mine.contains(&room))
        }
    }

    #[test]
    fn replayed_events_are_not_sent_again_and_newer_ones_follow_in_order() {
        let mut it = Fixture::new(&["a", "b"]);
        it.replays.begin();
        for (name, rooms, stamps) in [
            ("a2", &["a"][..], &[("a", 1, 2)][..]),
            ("bare", &["a"], &[]),
            ("b", &["b"], &[]),
            ("a3", &["a"], &[("a", 1, 3)]),
            ("new epoch", &["a"], &[("a", 2, 1)]),
        ] {
            assert_eq!(it.deliver(name, rooms, stamps), LiveDelivery::Held);
        }
        assert_eq!(it.end("a", 1, 2), DONE);
        assert_eq!(it.wire.sent(), ["bare", "b", "a3", "new epoch"]);
        assert_eq!(it.deliver("late copy", &["a"], &[("a", 1, 2)]), LiveDelivery::Replayed);
        assert_eq!(it.deliver("a4", &["a"], &[("a", 1, 4)]), LiveDelivery::Sent);
    }

    #[test]
    fn what_is_older_than_a_partial_replay_still_comes_through_another_room() {
        let mut it = Fixture::new(&["a", "b"]);
        it.replays.begin();
        it.end("a", 5, 5);
        assert_eq!(it.deliver("older", &["a"], &[("a", 1, 4)]), LiveDelivery::Replayed);
        assert_eq!(it.deliver("older, not a member", &["a", "c"], &[("a", 1, 4)]), LiveDelivery::Replayed);
        assert_eq!(it.deliver("older", &["a", "b"], &[("a", 1, 4)]), LiveDelivery::Sent);
        assert_eq!(it.deliver("shown", &["a", "b"], &[("a", 1, 5)]), LiveDelivery::Replayed);
    }

    #[test]
    fn full_queue_keeps_the_order_until_there_is_room() {
        let mut it = Fixture::new(&["a"]);
        it.replays.begin();
        it.deliver("1", &["a"], &[]);
        it.deliver("2", &["a"], &[]);
        *it.wire.room_left.lock().unwrap() = Some(1);
        assert_eq!(it.end("a", 1, 0), HeldRelease::Blocked);
        assert_eq!(it.deliver("3", &["a"], &[]), LiveDelivery::Held);
        *it.wire.room_left.lock().unwrap() = None;
        assert_eq!(it.release(), DONE);
        assert_eq!(it.deliver("4", &["a"], &[]), LiveDelivery::Sent);
        assert_eq!(it.wire.sent(), ["1", "2", "3", "4"]);
    }

    #[test]
    fn backlog_is_bounded() {
        let mut it = Fixture::new(&["a"]);
        it.replays.begin();
        for _ in 0..MAX_REPLAY_BACKLOG {
            it.deliver("x", &["a"], &[]);
        }
        let event = Event::encode("x", [(); 0]).unwrap();
        let refused = it.replays.deliver(&it.wire, &event, &["a".into()], &[], &|_| true);
        assert_eq!(refused, Err(SendError::Full));
        assert_eq!(it.end("a", 1, 0), HeldRelease::Done { lost: 1 }, "and what was lost is told");
        assert_eq!(it.wire.sent().len(), MAX_REPLAY_BACKLOG);
        assert_eq!(it.release(), DONE, "once");
    }

    #[test]
    fn copy_of_a_replayed_event_that_has_no_offset_is_recognised_by_its_id() {
        let mut it = Fixture::new(&["a"]);
        it.replays.begin();
        assert_eq!(it.deliver("held copy", &["a"], &[("a", 0, 7)]), LiveDelivery::Held);
        it.replays.show_ids(vec![6, 7]);
        assert_eq!(it.end("a", 1, 9), DONE);
        assert_eq!(it.deliver("copy", &["a"], &[("a", 0, 6)]), LiveDelivery::Replayed);
        assert_eq!(it.deliver("another", &["a"], &[("a", 0, 8)]), LiveDelivery::Sent);
        assert_eq!(it.wire.sent(), ["another"]);
    }

    #[test]
    fn leaving_forgets_what_was_shown() {
        let mut it = Fixture::new(&["a"]);
        it.replays.begin();
        it.end("a", 1, 9);
        assert!(!it.replays.is_idle());
        it.replays.left("a");
        assert!(it.replays.is_idle());
    }
}
