//! A session: one client in one namespace, as everything behind the engines sees it.

mod extras;
mod held_events;
mod joined_rooms;
mod link;
mod membership;
pub mod offsets;
#[cfg(test)]
pub mod recorder;
mod replay;
mod replaying;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytestring::ByteString;

use crate::event::{Args, Event, SlowClientPolicy, Stamp};
use crate::protocol::EVERYBODY;
use crate::user::User;

use extras::SessionExtras;
pub use extras::{LeaveEvent, MAX_METADATA_BYTES, MAX_NOTES_PER_SESSION, MetadataSetter};
use held_events::HeldEvents;
pub use held_events::MAX_HELD;
use joined_rooms::JoinedRooms;
pub use link::{AckId, AckSender, Backlog, ClientFacts, Close, Link, MAX_ASKED, SendError, Watcher};
use offsets::SessionOffsets;
use replay::ReplayState;
pub use replay::{HeldRelease, LiveDelivery, MAX_COPY_DELAY, MAX_REPLAY_BACKLOG, MAX_SHOWN_IDS, Replayed};

/// A room's name.
pub type RoomName = Arc<str>;

/// One client in one namespace.
pub struct Session {
    id: ByteString,
    namespace: Arc<str>,
    user: Mutex<Arc<User>>,
    peer: ClientFacts,
    connected_at: SystemTime,
    link: Box<dyn Link>,
    state: Mutex<SessionState>,
    // Not in `state`, because events are sent while `replays` is locked. `None` while no replay is active or
    // remembered.
    replays: Mutex<Option<Box<ReplayState>>>,
    replays_used: AtomicBool,
    // Events kept for the client while its queue is full. `None` when nothing is kept.
    held: Mutex<Option<Box<HeldEvents>>>,
    holds: AtomicBool,
    dropped: AtomicU32,
    // `None` where the session cannot be recovered.
    offsets: Option<Box<SessionOffsets>>,
}

#[derive(Default)]
struct SessionState {
    rooms: JoinedRooms,
    // Boxed, because most sessions have no notes.
    notes: Option<Box<SessionExtras>>,
    closed: bool,
}

impl Session {
    /// Creates a session on an engine's link. The session cannot be recovered.
    pub fn new(
        id: impl Into<ByteString>,
        namespace: Arc<str>,
        user: Arc<User>,
        peer: ClientFacts,
        link: Box<dyn Link>,
    ) -> Arc<Self> {
        Self::with_trail(id, namespace, user, peer, link, None)
    }

    /// Creates a session on an engine's link. The session can be recovered if it has a trail.
    pub fn with_trail(
        id: impl Into<ByteString>,
        namespace: Arc<str>,
        user: Arc<User>,
        peer: ClientFacts,
        link: Box<dyn Link>,
        offsets: Option<Box<SessionOffsets>>,
    ) -> Arc<Self> {
        if let Some(offsets) = &offsets {
            offsets.enter(&EVERYBODY.into());
        }
        Arc::new(Self {
            id: id.into(),
            namespace,
            user: Mutex::new(user),
            peer,
            connected_at: SystemTime::now(),
            link,
            state: Mutex::default(),
            replays: Mutex::default(),
            replays_used: AtomicBool::new(false),
            held: Mutex::default(),
            holds: AtomicBool::new(false),
            dropped: AtomicU32::new(0),
            offsets,
        })
    }

    /// The Socket.IO id of this client in this namespace.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The namespace's path.
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// The client's current user. A refreshed token can replace it.
    pub fn user(&self) -> Arc<User> {
        self.user.lock().expect("no thread panics while it holds this lock").clone()
    }

    /// Replaces the user after a token was refreshed.
    pub fn set_user(&self, user: Arc<User>) {
        *self.user.lock().expect("no thread panics while it holds this lock") = user;
    }

    /// Facts about the client's connection.
    pub fn peer(&self) -> &ClientFacts {
        &self.peer
    }

    /// When the session was created.
    pub fn connected_at(&self) -> SystemTime {
        self.connected_at
    }

    /// Queues an event for this client only.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn send(&self, event: &Event) -> Result<(), SendError> {
        self.send_placed(event, &[])
    }

    /// Queues an event for this client only. `stamps` are the event's offsets in the histories of its rooms.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn send_placed(&self, event: &Event, stamps: &[Stamp]) -> Result<(), SendError> {
        match &self.offsets {
            None => self.link.send(event),
            Some(offsets) => offsets.send(&*self.link, event, stamps),
        }
    }

    /// Queues an event that the client must acknowledge. `reply` receives the arguments of the acknowledgement.
    ///
    /// # Errors
    /// As [`Link::ask`].
    pub fn ask(&self, event: &Event, reply: AckSender) -> Result<(), SendError> {
        // The trail is not appended: the official client looks for an offset in the last argument, and in an event that
        // asks for an acknowledgement the last argument is the callback.
        self.link.ask(event, reply)
    }

    /// Notes in the trail that the event with these stamps needs no sending: the event is not for this client, or the
    /// client has it already.
    pub fn pass_over(&self, stamps: &[Stamp]) {
        if let Some(offsets) = &self.offsets {
            offsets.pass_over(stamps);
        }
    }

    /// The record of which events the client has received in each room; `None` when the session cannot be recovered.
    pub fn offsets(&self) -> Option<&SessionOffsets> {
        self.offsets.as_deref()
    }

    /// Whether the client currently reads the data that is written to its connection; see [`Link::is_writable`].
    pub fn is_writable(&self) -> bool {
        self.link.is_writable()
    }

    /// Sends the acknowledgement that the client asked for.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn ack(&self, id: AckId, args: &Args) -> Result<(), SendError> {
        self.link.ack(id, args)
    }

    /// Asks the engine to close the session. Returns at once; the engine reports the end later.
    pub fn close(&self, how: Close) {
        self.link.close(how);
    }

    /// Delivers a live event that was sent to `rooms` (empty: the whole namespace). The event is queued for the client,
    /// held back while a history is replayed, or dropped because a replay has already shown it.
    ///
    /// Broadcasts call this and never [`Session::send`]. `stamps` are the event's offsets in the histories of its
    /// rooms. An event without a stamp is never recognised as one that was replayed.
    ///
    /// # Errors
    /// As [`Link::send`]; [`SendError::Full`] also when [`MAX_REPLAY_BACKLOG`] events are held back.
    pub fn deliver(&self, event: &Event, rooms: &[RoomName], stamps: &[Stamp]) -> Result<LiveDelivery, SendError> {
        // `begin_replay` runs before the join, and so before any live event of the room arrives.
        if !self.replays_used.load(Ordering::Acquire) {
            return match event.slow() {
                SlowClientPolicy::Drop if !self.holds() => self.send_placed(event, stamps).map(|()| LiveDelivery::Sent),
                _ => self.deliver_slow(event, stamps),
            };
        }
        self.with_replays(|replays| replays.deliver(self, event, rooms, stamps, &|room| self.is_in(room)))
    }

    /// Prefetches the memory that [`Session::deliver`] will read, so that the processor fetches it for several sessions
    /// at once. Takes no lock; memory behind a lock is not prefetched.
    pub fn warm(&self) {
        black_box((self.replays_used.load(Ordering::Relaxed), self.holds.load(Ordering::Relaxed)));
        self.link.warm();
    }

    /// The data that waits to be written to the client; see [`Link::backlog`].
    pub fn backlog(&self) -> Backlog {
        self.link.backlog()
    }

    /// Counts an event that was not queued for this client because the client is slow.
    pub fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of events that were not queued for this client because it is slow.
    pub fn dropped(&self) -> u32 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn with<T>(&self, work: impl FnOnce(&mut SessionState) -> T) -> T {
        work(&mut self.state.lock().expect("no thread panics while it holds this lock"))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("namespace", &self.namespace)
            .field("user", &self.user().id)
            .finish_non_exhaustive()
    }
}
