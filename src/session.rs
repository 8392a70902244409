//! A client in a namespace: what everything behind the engines knows of it.

mod held;
mod joined;
mod link;
mod notes;
#[cfg(test)]
pub mod recorder;
mod replay;
pub mod trail;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytestring::ByteString;

use crate::event::{Args, Event, Slow, Stamp};
use crate::user::User;

use held::Held;
pub use held::MAX_HELD;
use joined::Joined;
pub use link::{AckId, Backlog, Close, Link, MAX_ASKED, Peer, Reply, SendError, Watcher};
use notes::Notes;
pub use notes::{MAX_METADATA_BYTES, MAX_NOTES_PER_SESSION, Undo};
pub use replay::{Delivery, MAX_COPY_DELAY, MAX_REPLAY_BACKLOG, Release, Replayed};
use replay::{Out, Replays};
use trail::{EVERYBODY, Trail};

/// How the names of rooms begin that are a socket's own.
const OWN_ROOMS: char = '$';

/// A room's name.
pub type RoomName = Arc<str>;

/// One client in one namespace.
pub struct Session {
    id: ByteString,
    namespace: Arc<str>,
    user: Mutex<Arc<User>>,
    peer: Peer,
    connected_at: SystemTime,
    link: Box<dyn Link>,
    state: Mutex<State>,
    // Apart from `state`, because events are sent while it is held. `None` as long as no room was replayed.
    replays: Mutex<Option<Box<Replays>>>,
    replays_used: AtomicBool,
    // What is kept beyond a full queue; `None` for a client that reads.
    held: Mutex<Option<Box<Held>>>,
    holds: AtomicBool,
    dropped: AtomicU32,
    // `None` where the session cannot be recovered.
    trail: Option<Box<Trail>>,
}

#[derive(Default)]
struct State {
    rooms: Joined,
    // Most sessions have none.
    notes: Option<Box<Notes>>,
    closed: bool,
}

impl Session {
    /// A session on an engine's link.
    pub fn new(
        id: impl Into<ByteString>,
        namespace: Arc<str>,
        user: Arc<User>,
        peer: Peer,
        link: Box<dyn Link>,
    ) -> Arc<Self> {
        Self::with_trail(id, namespace, user, peer, link, None)
    }

    /// A session on an engine's link that can be recovered, if it has a trail.
    pub fn with_trail(
        id: impl Into<ByteString>,
        namespace: Arc<str>,
        user: Arc<User>,
        peer: Peer,
        link: Box<dyn Link>,
        trail: Option<Box<Trail>>,
    ) -> Arc<Self> {
        if let Some(trail) = &trail {
            trail.enter(&EVERYBODY.into());
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
            trail,
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

    /// Who it is now; a refreshed token may replace it.
    pub fn user(&self) -> Arc<User> {
        self.user.lock().expect("no panic while held").clone()
    }

    /// Replaces the user after a token was refreshed.
    pub fn set_user(&self, user: Arc<User>) {
        *self.user.lock().expect("no panic while held") = user;
    }

    /// The connection.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// When it connected.
    pub fn connected_at(&self) -> SystemTime {
        self.connected_at
    }

    /// Its rooms, in no order.
    pub fn rooms(&self) -> Vec<RoomName> {
        self.with(|state| state.rooms.names())
    }

    /// How many rooms it has joined, those not counted that are its own or its user's.
    pub fn joined_rooms(&self) -> usize {
        self.with(|state| state.rooms.keys().filter(|room| !room.starts_with(OWN_ROOMS)).count())
    }

    /// When it joined the room; `None` when it is not in it.
    pub fn joined_at(&self, room: &str) -> Option<SystemTime> {
        self.with(|state| state.rooms.get(room))
    }

    /// Whether it is in the room.
    pub fn is_in(&self, room: &str) -> bool {
        self.with(|state| state.rooms.get(room).is_some())
    }

    /// Queues an event for this client alone.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn send(&self, event: &Event) -> Result<(), SendError> {
        self.send_placed(event, &[])
    }

    /// Queues an event for this client alone, which has these places in the histories of its rooms.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn send_placed(&self, event: &Event, stamps: &[Stamp]) -> Result<(), SendError> {
        match &self.trail {
            None => self.link.send(event),
            Some(trail) => trail.send(&*self.link, event, stamps),
        }
    }

    /// Queues an event that the client is to acknowledge: with its arguments `reply` is answered.
    ///
    /// # Errors
    /// As [`Link::ask`].
    pub fn ask(&self, event: &Event, reply: Reply) -> Result<(), SendError> {
        // Without its trail: the official client looks for an offset in the last argument, and here that is the function
        // with which it answers.
        self.link.ask(event, reply)
    }

    /// An event with these places is not sent to this client: it is not for it, or it has it.
    pub fn pass_over(&self, stamps: &[Stamp]) {
        if let Some(trail) = &self.trail {
            trail.pass_over(stamps);
        }
    }

    /// What it has had of its rooms; `None` where it cannot be recovered.
    pub fn trail(&self) -> Option<&Trail> {
        self.trail.as_deref()
    }

    /// Whether the client takes what it is sent; see [`Link::is_writable`].
    pub fn is_writable(&self) -> bool {
        self.link.is_writable()
    }

    /// Answers a request for an acknowledgement.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn ack(&self, id: AckId, args: &Args) -> Result<(), SendError> {
        self.link.ack(id, args)
    }

    /// Ends the session; the engine reports the end in its own time.
    pub fn close(&self, how: Close) {
        self.link.close(how);
    }

    /// Delivers a live event that was sent to `rooms` (empty: the whole namespace): queues it for the client, or holds
    /// it back while a history is replayed, or drops it because a replay has shown it.
    ///
    /// Carriers call this and never [`Session::send`]. `stamps` are the event's places in the histories of its rooms; an
    /// event without one is never taken for a replayed one.
    ///
    /// # Errors
    /// As [`Link::send`]; [`SendError::Full`] also when [`MAX_REPLAY_BACKLOG`] events are held back.
    pub fn deliver(&self, event: &Event, rooms: &[RoomName], stamps: &[Stamp]) -> Result<Delivery, SendError> {
        // `begin_replay` comes before the join, and so before any live event of the room.
        if !self.replays_used.load(Ordering::Acquire) {
            return match event.slow() {
                Slow::Drop if !self.holds() => self.send_placed(event, stamps).map(|()| Delivery::Sent),
                _ => self.deliver_slow(event, stamps),
            };
        }
        self.with_replays(|replays| replays.deliver(self, event, rooms, stamps, &|room| self.is_in(room)))
    }

    /// Looks at what [`Session::deliver`] will need, so that the processor fetches it for several sessions side by side:
    /// nothing after a lock is fetched before it is taken.
    pub fn warm(&self) {
        black_box((self.replays_used.load(Ordering::Relaxed), self.holds.load(Ordering::Relaxed)));
        self.link.warm();
    }

    /// Whether a live event may be sent to it together with others, without [`Session::deliver`]: nothing was replayed lately.
    pub fn is_plain(&self) -> bool {
        !self.replays_used.load(Ordering::Acquire) && !self.holds()
    }

    /// Whether an event of so many bytes is sent to it together with others (see [`Link::share`]).
    pub fn shares(&self, bytes: usize) -> bool {
        self.is_plain() && self.link.share(bytes)
    }

    /// Such an event was perhaps not queued (see [`Link::unshare`]).
    pub fn unshare(&self, bytes: usize) {
        self.link.unshare(bytes);
    }

    /// What waits for the client; see [`Link::backlog`].
    pub fn backlog(&self) -> Backlog {
        self.link.backlog()
    }

    /// Counts an event that was meant for this client and was not queued for it, because the client is slow.
    pub fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// How many events were not queued for this client, because it is slow.
    pub fn dropped(&self) -> u32 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Whether something is kept beyond the client's full queue.
    pub fn holds(&self) -> bool {
        self.holds.load(Ordering::Acquire)
    }

    /// Sends of it what fits now. True when something is left.
    pub fn release_slow(&self) -> bool {
        self.with_held(|held| held.release(self));
        self.holds()
    }

    /// Holds every live event of this session back until [`Session::end_replay`]. To be called before the join.
    pub fn begin_replay(&self) {
        self.with_replays(Replays::begin);
    }

    /// Whether live events are held back.
    pub fn is_replaying(&self) -> bool {
        self.replays_used.load(Ordering::Acquire) && self.with_replays(|replays| replays.holds())
    }

    /// Ends what [`Session::begin_replay`] began, and sends what was held back and not shown. `None`: nothing was read.
    ///
    /// After [`Release::Blocked`], [`Session::release_held`] is to be called until it says otherwise.
    pub fn end_replay(&self, room: &RoomName, shown: Option<Replayed>) -> Release {
        self.with_replays(|replays| {
            replays.end(room, shown.filter(|_| self.is_in(room) || **room == *EVERYBODY));
            replays.release(self, &|room| self.is_in(room))
        })
    }

    /// The same for a session that came back to several rooms, after one [`Session::begin_replay`].
    pub fn end_replays(&self, shown: impl IntoIterator<Item = (RoomName, Replayed)>) -> Release {
        self.with_replays(|replays| {
            shown.into_iter().for_each(|(room, shown)| replays.show(&room, shown));
            replays.end_one();
            replays.release(self, &|room| self.is_in(room))
        })
    }

    /// Goes on sending what was held back.
    pub fn release_held(&self) -> Release {
        self.with_replays(|replays| replays.release(self, &|room| self.is_in(room)))
    }

    /// Gives up on what was held back; live events pass again. Returns how many live events were dropped.
    pub fn drop_held(&self) -> usize {
        self.with_replays(Replays::drop_held)
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.with(|state| state.closed)
    }

    // Rooms change only through the index, which keeps both sides alike.

    pub(crate) fn note_joined(&self, room: &RoomName, then: SystemTime) -> bool {
        let new = self.with(|state| !state.closed && state.rooms.insert(room, then));
        if new {
            if let Some(trail) = &self.trail {
                trail.enter(room);
            }
            self.link.joined(room);
        }
        new
    }

    pub(crate) fn note_left(&self, room: &RoomName) -> bool {
        let was = self.with(|state| state.rooms.remove(room));
        if was {
            if self.replays_used.load(Ordering::Acquire) {
                self.with_replays(|replays| replays.left(room));
            }
            if let Some(trail) = &self.trail {
                trail.leave(room);
            }
            self.link.left(room);
        }
        was
    }

    pub(crate) fn note_closed(&self) -> Vec<RoomName> {
        self.with(|state| {
            state.closed = true;
            state.rooms.take()
        })
    }

    fn with_replays<T>(&self, work: impl FnOnce(&mut Replays) -> T) -> T {
        let mut guard = self.replays.lock().expect("no panic while held");
        let replays = guard.get_or_insert_default();
        let done = work(replays);
        let idle = replays.is_idle();
        self.replays_used.store(!idle, Ordering::Release);
        if idle {
            *guard = None;
        }
        done
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().expect("no panic while held"))
    }
}

impl Out for Session {
    fn send(&self, event: &Event, stamps: &[Stamp]) -> Result<(), SendError> {
        self.send_placed(event, stamps)
    }

    fn pass_over(&self, stamps: &[Stamp]) {
        Self::pass_over(self, stamps);
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
