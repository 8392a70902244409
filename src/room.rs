//! The rooms of this node and their members: one index for all engines.

mod members;
mod recipients;
mod session_set;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use self::members::RoomMembers;
pub use self::recipients::Recipients;
use self::session_set::{ById, SessionSet};
use crate::contract::model::Contract;
use crate::event::{Event, SlowClientPolicy};
use crate::protocol::{is_reserved_room, socket_room, user_of, user_room};
use crate::session::{RoomName, Session, Watcher};
use crate::telemetry::metrics::Metrics;

/// Observes which rooms have members on this node, in order. The room index calls the methods while the index's lock is
/// held, so an implementation must not wait and must not call the index.
pub trait RoomObserver: Send + Sync {
    /// The room has got its first member on this node.
    fn began(&self, namespace: &Arc<str>, room: &RoomName);
    /// The room's last member on this node is gone.
    fn ended(&self, namespace: &Arc<str>, room: &RoomName);
    /// Returns a future that resolves to `true` once the node receives the events that other nodes send to the room,
    /// and to `false` when the node cannot find that out. Returns `None` when the node receives them already.
    fn settled<'a>(&'a self, namespace: &Arc<str>, room: &RoomName) -> Option<BoxFuture<'a, bool>>;
}

/// The rooms and sessions of every namespace on this node.
///
/// Joining and leaving are O(1). Each namespace has its own lock.
#[derive(Default)]
pub struct Rooms {
    namespaces: HashMap<Arc<str>, RwLock<NamespaceIndex>>,
    watchers: Vec<Arc<dyn Watcher>>,
    /// How events for slow clients are treated, by namespace and event name. Events with the default treatment (they
    /// are dropped) are not listed.
    slow: HashMap<Arc<str>, HashMap<String, SlowClientPolicy>>,
    /// Sessions for which events are kept because the client's write queue is full.
    laggards: Mutex<Vec<Weak<Session>>>,
    /// The number of rooms that a session may join, and the metrics that count refused joins.
    bound: Option<(usize, Arc<Metrics>)>,
    observer: OnceLock<Arc<dyn RoomObserver>>,
}

#[derive(Default)]
struct NamespaceIndex {
    sessions: SessionSet<ById>,
    rooms: HashMap<RoomName, IndexedRoom>,
}

struct IndexedRoom {
    sessions: RoomMembers,
    created_at: SystemTime,
}

/// A snapshot of one room.
#[derive(Debug, Clone)]
pub struct RoomSnapshot {
    /// The room's name.
    pub name: RoomName,
    /// The number of members on this node.
    pub members: usize,
    /// When the first member joined on this node, counted from the time when the room last had no member here.
    pub created_at: SystemTime,
}

/// Counts of the sessions, rooms and users in one namespace of this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NamespaceCounts {
    /// The number of sessions.
    pub sessions: usize,
    /// The number of rooms with members. Rooms that belong to one socket or user are not counted.
    pub rooms: usize,
    /// The sum of the members of the rooms that `rooms` counts.
    pub memberships: usize,
    /// The number of authenticated users with at least one session.
    pub users: usize,
}

impl Rooms {
    /// Creates an index for these namespaces. For any other namespace, calls change nothing and find nothing.
    pub fn new(namespaces: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self {
            namespaces: namespaces.into_iter().map(|path| (path, RwLock::default())).collect(),
            watchers: Vec::new(),
            slow: HashMap::new(),
            laggards: Mutex::default(),
            bound: None,
            observer: OnceLock::new(),
        }
    }

    /// Sets the observer of rooms that gain their first or lose their last member. Call it once, before clients
    /// connect.
    pub fn set_interest(&self, observer: Arc<dyn RoomObserver>) {
        let _ = self.observer.set(observer);
    }

    /// Waits until the node receives the events that other nodes send to a room, so that a join is complete. Returns
    /// `true` once the node receives them, and at once if it does already. Returns `false` when the node cannot find
    /// that out, for example because Redis is unavailable.
    pub async fn settled(&self, namespace: &Arc<str>, room: &RoomName) -> bool {
        match self.observer.get().and_then(|observer| observer.settled(namespace, room)) {
            Some(settled) => settled.await,
            None => true,
        }
    }

    /// Stores how the events of these contracts are treated for slow clients.
    #[must_use]
    pub fn minding(mut self, contracts: &[Arc<Contract>]) -> Self {
        for contract in contracts {
            for event in contract.server.values().filter(|event| event.slow != SlowClientPolicy::Drop) {
                let events = self.slow.entry(contract.namespace.clone()).or_default();
                events.entry(event.name.clone()).or_insert(event.slow);
            }
        }
        self
    }

    /// The event, marked with the treatment that a contract sets for slow clients; `None` where no contract sets a
    /// treatment.
    pub fn minded(&self, namespace: &str, event: &Event, rooms: &[RoomName]) -> Option<Event> {
        let slow = *self.slow.get(namespace)?.get(event.name())?;
        Some(event.clone().with_slow(slow, rooms))
    }

    /// Remembers sessions for which events are kept; [`Rooms::release_laggards`] sends the events when the write queues
    /// have space.
    pub fn note_laggards(&self, sessions: impl IntoIterator<Item = Weak<Session>>) {
        self.laggards.lock().expect("no panic while held").extend(sessions);
    }

    /// Sends the events that are kept for slow clients, as far as the write queues have space.
    pub fn release_laggards(&self) {
        let waiting = std::mem::take(&mut *self.laggards.lock().expect("no panic while held"));
        let still = |session: &Weak<Session>| session.upgrade().is_some_and(|session| session.release_slow());
        let left: Vec<_> = waiting.into_iter().filter(still).collect();
        if !left.is_empty() {
            self.note_laggards(left);
        }
    }

    /// Limits the number of rooms that a session may join, not counting the session's own room and its user's room.
    #[must_use]
    pub fn bounded(mut self, max_rooms: usize, metrics: Arc<Metrics>) -> Self {
        self.bound = Some((max_rooms, metrics));
        self
    }

    /// Adds an observer of all sessions and memberships.
    #[must_use]
    pub fn watched_by(mut self, watcher: Arc<dyn Watcher>) -> Self {
        self.watchers.push(watcher);
        self
    }

    /// The paths of all namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces.keys()
    }

    /// Adds a session and puts it into its own room, and into its user's room unless the user is anonymous.
    pub fn add(&self, session: &Arc<Session>) {
        let now = SystemTime::now();
        let user = session.user();
        self.write(session.namespace(), |table| {
            table.sessions.insert(session);
            self.watchers.iter().for_each(|watcher| watcher.opened(session));
            self.join_table(table, session, &socket_room(session.id()), now);
            if !user.anonymous {
                self.join_table(table, session, &user_room(&user.id), now);
            }
        });
    }

    /// Removes a session and all its memberships. Returns the rooms that the session was in; empty when the session was
    /// removed before.
    pub fn remove(&self, session: &Session) -> Vec<RoomName> {
        self.write(session.namespace(), |table| {
            let rooms = session.note_closed();
            for room in &rooms {
                self.leave_table(table, session, room);
            }
            if table.sessions.remove(session) {
                self.watchers.iter().for_each(|watcher| watcher.closed(session, &rooms));
            }
            rooms
        })
        .unwrap_or_default()
    }

    /// Adds a session to a room. Returns false when the session is in the room already, has ended, or is in the maximum
    /// number of rooms.
    pub fn join(&self, session: &Arc<Session>, room: &RoomName) -> bool {
        self.write(session.namespace(), |table| {
            if self.has_no_room_for(session, room) {
                return false;
            }
            self.join_table(table, session, room, SystemTime::now())
        })
        .unwrap_or(false)
    }

    fn join_table(&self, table: &mut NamespaceIndex, session: &Arc<Session>, room: &RoomName, now: SystemTime) -> bool {
        let new = session.note_joined(room, now);
        if new {
            let members = table.rooms.entry(room.clone()).or_insert_with(|| {
                if let Some(observer) = self.observer.get() {
                    observer.began(session.namespace(), room);
                }
                IndexedRoom { sessions: RoomMembers::default(), created_at: now }
            });
            members.sessions.insert(session);
            self.watchers.iter().for_each(|watcher| watcher.joined(session, room));
        }
        new
    }

    fn has_no_room_for(&self, session: &Session, room: &RoomName) -> bool {
        let Some((most, metrics)) = &self.bound else { return false };
        if is_reserved_room(room) || session.is_in(room) || session.joined_rooms() < *most {
            return false;
        }
        metrics.joins_refused_total.with_label_values(&["max_rooms"]).inc();
        true
    }

    /// Removes a session from a room. Returns false when the session was not in the room.
    pub fn leave(&self, session: &Session, room: &RoomName) -> bool {
        self.write(session.namespace(), |table| {
            let was = session.note_left(room);
            if was {
                self.leave_table(table, session, room);
                self.watchers.iter().for_each(|watcher| watcher.left(session, room));
            }
            was
        })
        .unwrap_or(false)
    }

    /// Merges members into a session's metadata. Returns false, and changes nothing, when the result would exceed a
    /// limit ([`Session::fits_metadata`]).
    pub fn merge_metadata(&self, session: &Session, members: &Map<String, Value>) -> bool {
        if members.is_empty() {
            return true;
        }
        let merged = session.merge_metadata(members);
        if merged {
            self.watchers.iter().for_each(|watcher| watcher.changed(session));
        }
        merged
    }

    /// Finds a session by its id.
    pub fn session(&self, namespace: &str, id: &str) -> Option<Arc<Session>> {
        self.read(namespace, |table| table.sessions.get(id).cloned()).flatten()
    }

    /// All sessions of the namespace on this node.
    pub fn sessions(&self, namespace: &str) -> Vec<Arc<Session>> {
        self.read(namespace, |table| table.sessions.values().cloned().collect()).unwrap_or_default()
    }

    /// The recipients of an event: the members of `rooms` (of the whole namespace, when empty) that are in no room of
    /// `except`. Each session appears once.
    pub fn recipients(&self, namespace: &str, rooms: &[RoomName], except: &[RoomName]) -> Vec<Arc<Session>> {
        self.read(namespace, |table| table.select(rooms, except).cloned().collect()).unwrap_or_default()
    }

    /// The number of recipients of an event; see [`Rooms::recipients`].
    pub fn count(&self, namespace: &str, rooms: &[RoomName], except: &[RoomName]) -> usize {
        self.read(namespace, |table| match (rooms, except) {
            ([] | [_], []) => table.size(rooms),
            _ => table.select(rooms, except).count(),
        })
        .unwrap_or(0)
    }

    /// The number of sessions that the namespace has on this node.
    pub fn session_count(&self, namespace: &str) -> usize {
        self.read(namespace, |table| table.sessions.len()).unwrap_or(0)
    }

    /// The rooms of the namespace on this node, without the rooms that belong to one socket or user.
    pub fn rooms(&self, namespace: &str) -> Vec<RoomSnapshot> {
        self.read(namespace, |table| {
            table
                .rooms
                .iter()
                .filter(|(name, _)| !is_reserved_room(name))
                .map(|(name, members)| members.info(name))
                .collect()
        })
        .unwrap_or_default()
    }

    /// The number of rooms that the namespace has on this node, without the rooms that belong to one socket or user.
    pub fn room_count(&self, namespace: &str) -> usize {
        self.read(namespace, |table| table.rooms.keys().filter(|name| !is_reserved_room(name)).count()).unwrap_or(0)
    }

    /// Finds a room by its name.
    pub fn room(&self, namespace: &str, name: &str) -> Option<RoomSnapshot> {
        self.read(namespace, |table| table.rooms.get_key_value(name).map(|(name, members)| members.info(name)))
            .flatten()
    }

    /// Counts the sessions, rooms and users of a namespace. The call visits every room, so call it seldom.
    pub fn namespace_counts(&self, namespace: &str) -> NamespaceCounts {
        let count = |table: &NamespaceIndex| {
            let mut namespace_counts = NamespaceCounts { sessions: table.sessions.len(), ..NamespaceCounts::default() };
            for (name, members) in &table.rooms {
                if !is_reserved_room(name) {
                    namespace_counts.rooms += 1;
                    namespace_counts.memberships += members.sessions.len();
                } else if user_of(name).is_some() {
                    namespace_counts.users += 1;
                }
            }
            namespace_counts
        };
        self.read(namespace, count).unwrap_or_default()
    }

    /// Whether a room has members on this node.
    pub fn has_members(&self, namespace: &str, room: &str) -> bool {
        self.read(namespace, |table| table.rooms.contains_key(room)).unwrap_or(false)
    }

    fn leave_table(&self, table: &mut NamespaceIndex, session: &Session, room: &RoomName) {
        if table.leave(session, room)
            && let Some(observer) = self.observer.get()
        {
            observer.ended(session.namespace(), room);
        }
    }

    fn read<T>(&self, namespace: &str, work: impl FnOnce(&NamespaceIndex) -> T) -> Option<T> {
        Some(work(&self.namespaces.get(namespace)?.read().expect("no panic while held")))
    }

    fn write<T>(&self, namespace: &str, work: impl FnOnce(&mut NamespaceIndex) -> T) -> Option<T> {
        Some(work(&mut self.namespaces.get(namespace)?.write().expect("no panic while held")))
    }
}

// === impl Table ===

impl NamespaceIndex {
    /// Removes a member. Returns true when the room is empty and was removed.
    fn leave(&mut self, session: &Session, room: &RoomName) -> bool {
        let Some(members) = self.rooms.get_mut(room) else { return false };
        members.sessions.remove(session);
        let empty = members.sessions.is_empty();
        if empty {
            self.rooms.remove(room);
        }
        empty
    }

    fn select<'a>(
        &'a self,
        rooms: &'a [RoomName],
        except: &'a [RoomName],
    ) -> Box<dyn Iterator<Item = &'a Arc<Session>> + 'a> {
        let not_in = self.not_in(except);
        match rooms {
            [] => Box::new(self.sessions.values().filter(not_in)),
            [room] => Box::new(self.members(room).filter(not_in)),
            _ => {
                let mut met = HashSet::new();
                let new = move |session: &&Arc<Session>| met.insert(Arc::as_ptr(session));
                Box::new(rooms.iter().flat_map(|room| self.members(room)).filter(new).filter(not_in))
            }
        }
    }

    /// Returns a filter for the sessions that are in none of these rooms.
    fn not_in<'a>(&'a self, except: &'a [RoomName]) -> impl Fn(&&Arc<Session>) -> bool + 'a {
        let unwelcome: Vec<&IndexedRoom> = except.iter().filter_map(|room| self.rooms.get(room)).collect();
        move |session| !unwelcome.iter().any(|room| room.sessions.contains(session))
    }

    /// The sum of the members of these rooms (of the namespace, when `rooms` is empty). A session in several of the
    /// rooms counts in each.
    fn size(&self, rooms: &[RoomName]) -> usize {
        match rooms {
            [] => self.sessions.len(),
            _ => rooms.iter().filter_map(|room| self.rooms.get(room)).map(|members| members.sessions.len()).sum(),
        }
    }

    fn members(&self, room: &RoomName) -> impl Iterator<Item = &Arc<Session>> {
        self.rooms.get(room).into_iter().flat_map(|members| members.sessions.values())
    }
}

// === impl Members ===

impl IndexedRoom {
    fn info(&self, name: &RoomName) -> RoomSnapshot {
        RoomSnapshot { name: name.clone(), members: self.sessions.len(), created_at: self.created_at }
    }
}
