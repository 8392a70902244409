//! Rooms and their members on this node: one index for all engines.

mod audience;
mod crowd;
mod roster;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

pub use self::audience::Audience;
use self::crowd::{ById, Crowd};
use self::roster::Roster;
use crate::contract::model::Contract;
use crate::event::{Event, Slow};
use crate::session::{RoomName, Session, Watcher};
use crate::telemetry::metrics::Metrics;

/// Names that contracts cannot make: a client's own rooms.
pub const RESERVED_PREFIX: char = '$';

/// The room of one socket.
pub fn socket_room(id: &str) -> RoomName {
    [SOCKET_PREFIX, id].concat().into()
}

/// Whether a room is that of one socket.
pub fn is_socket_room(room: &str) -> bool {
    room.starts_with(SOCKET_PREFIX)
}

/// The room of all sockets of one user.
pub fn user_room(id: &str) -> RoomName {
    [USER_PREFIX, id].concat().into()
}

/// The user whose room it is, if it is one.
pub fn user_of(room: &str) -> Option<&str> {
    room.strip_prefix(USER_PREFIX)
}

const SOCKET_PREFIX: &str = "$sid:";
const USER_PREFIX: &str = "$user:";

/// Told of rooms that begin and end to have members on this node, in order; called by the index, and so must not wait or
/// call it back.
pub trait Interest: Send + Sync {
    /// A room has its first member.
    fn began(&self, namespace: &Arc<str>, room: &RoomName);
    /// A room's last member is gone.
    fn ended(&self, namespace: &Arc<str>, room: &RoomName);
    /// Resolves when it is known whether what is sent to the room elsewhere arrives here: true, it does. `None`: it does already.
    fn settled<'a>(&'a self, namespace: &Arc<str>, room: &RoomName) -> Option<BoxFuture<'a, bool>>;
}

/// Every namespace's rooms and sessions on this node.
///
/// Joining and leaving are O(1); nothing is locked across namespaces.
#[derive(Default)]
pub struct Rooms {
    namespaces: HashMap<Arc<str>, RwLock<Table>>,
    watchers: Vec<Arc<dyn Watcher>>,
    /// What becomes of events for slow clients, by namespace and event, where it is not the usual.
    slow: HashMap<Arc<str>, HashMap<String, Slow>>,
    /// Sessions for which something is kept beyond their full queue.
    laggards: Mutex<Vec<Weak<Session>>>,
    /// How many rooms a session may join, and who counts those that it may not.
    bound: Option<(usize, Arc<Metrics>)>,
    interest: OnceLock<Arc<dyn Interest>>,
}

#[derive(Default)]
struct Table {
    sessions: Crowd<ById>,
    rooms: HashMap<RoomName, Members>,
}

struct Members {
    sessions: Roster,
    created_at: SystemTime,
}

/// A room as the index knows it.
#[derive(Debug, Clone)]
pub struct RoomInfo {
    /// Its name.
    pub name: RoomName,
    /// Members on this node.
    pub members: usize,
    /// When its first present member joined on this node.
    pub created_at: SystemTime,
}

/// How much of everything there is in a namespace of this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Clients.
    pub sessions: usize,
    /// Rooms with members, without the clients' own.
    pub rooms: usize,
    /// Memberships in those rooms.
    pub memberships: usize,
    /// Users who are known and have a client.
    pub users: usize,
}

impl Rooms {
    /// An index for these namespaces; there are no others.
    pub fn new(namespaces: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self {
            namespaces: namespaces.into_iter().map(|path| (path, RwLock::default())).collect(),
            watchers: Vec::new(),
            slow: HashMap::new(),
            laggards: Mutex::default(),
            bound: None,
            interest: OnceLock::new(),
        }
    }

    /// Sets who is told of rooms that begin and end. To be called once, before clients connect.
    pub fn set_interest(&self, interest: Arc<dyn Interest>) {
        let _ = self.interest.set(interest);
    }

    /// Waits until what other nodes send to a room reaches its members here: a join takes effect then. At once where
    /// that is so already, or cannot be because Redis is away: false.
    pub async fn settled(&self, namespace: &Arc<str>, room: &RoomName) -> bool {
        match self.interest.get().and_then(|interest| interest.settled(namespace, room)) {
            Some(settled) => settled.await,
            None => true,
        }
    }

    /// Notes what these contracts say of slow clients.
    #[must_use]
    pub fn minding(mut self, contracts: &[Arc<Contract>]) -> Self {
        for contract in contracts {
            for event in contract.server.values().filter(|event| event.slow != Slow::Drop) {
                let events = self.slow.entry(contract.namespace.clone()).or_default();
                events.entry(event.name.clone()).or_insert(event.slow);
            }
        }
        self
    }

    /// The event as it is delivered where a contract says something of slow clients; `None`: as it is.
    pub fn minded(&self, namespace: &str, event: &Event, rooms: &[RoomName]) -> Option<Event> {
        let slow = *self.slow.get(namespace)?.get(event.name())?;
        Some(event.clone().with_slow(slow, rooms))
    }

    /// Notes sessions for which something is kept: it is sent as soon as it fits.
    pub fn note_laggards(&self, sessions: impl IntoIterator<Item = Weak<Session>>) {
        self.laggards.lock().expect("no panic while held").extend(sessions);
    }

    /// Sends what is kept for slow clients, as far as it fits.
    pub fn release_laggards(&self) {
        let waiting = std::mem::take(&mut *self.laggards.lock().expect("no panic while held"));
        let still = |session: &Weak<Session>| session.upgrade().is_some_and(|session| session.release_slow());
        let left: Vec<_> = waiting.into_iter().filter(still).collect();
        if !left.is_empty() {
            self.note_laggards(left);
        }
    }

    /// Lets a session be in so many rooms, its own not counted.
    #[must_use]
    pub fn bounded(mut self, max_rooms: usize, metrics: Arc<Metrics>) -> Self {
        self.bound = Some((max_rooms, metrics));
        self
    }

    /// Adds somebody who is told of every session and membership.
    #[must_use]
    pub fn watched_by(mut self, watcher: Arc<dyn Watcher>) -> Self {
        self.watchers.push(watcher);
        self
    }

    /// The namespaces' paths.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces.keys()
    }

    /// Adds a session, in its own room and its user's.
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

    /// Removes a session from everything. Returns the rooms it was in; empty when it was removed before.
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

    /// Puts a session into a room. False when it was in it, has ended, or is in as many rooms as it may be in.
    pub fn join(&self, session: &Arc<Session>, room: &RoomName) -> bool {
        self.write(session.namespace(), |table| {
            if self.has_no_room_for(session, room) {
                return false;
            }
            self.join_table(table, session, room, SystemTime::now())
        })
        .unwrap_or(false)
    }

    fn join_table(&self, table: &mut Table, session: &Arc<Session>, room: &RoomName, now: SystemTime) -> bool {
        let new = session.note_joined(room, now);
        if new {
            let members = table.rooms.entry(room.clone()).or_insert_with(|| {
                if let Some(interest) = self.interest.get() {
                    interest.began(session.namespace(), room);
                }
                Members { sessions: Roster::default(), created_at: now }
            });
            members.sessions.insert(session);
            self.watchers.iter().for_each(|watcher| watcher.joined(session, room));
        }
        new
    }

    fn has_no_room_for(&self, session: &Session, room: &RoomName) -> bool {
        let Some((most, metrics)) = &self.bound else { return false };
        if room.starts_with(RESERVED_PREFIX) || session.is_in(room) || session.joined_rooms() < *most {
            return false;
        }
        metrics.joins_refused_total.with_label_values(&["max_rooms"]).inc();
        true
    }

    /// Takes a session out of a room. False when it was not in it.
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

    /// Merges members into a session's metadata. False when they do not fit ([`Session::fits_metadata`]): nothing has
    /// changed then.
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

    /// One session.
    pub fn session(&self, namespace: &str, id: &str) -> Option<Arc<Session>> {
        self.read(namespace, |table| table.sessions.get(id).cloned()).flatten()
    }

    /// Every session of the namespace.
    pub fn sessions(&self, namespace: &str) -> Vec<Arc<Session>> {
        self.read(namespace, |table| table.sessions.values().cloned().collect()).unwrap_or_default()
    }

    /// Who gets an event: the members of `rooms` (of the namespace, when empty) that are in no room of `except`,
    /// each once.
    pub fn recipients(&self, namespace: &str, rooms: &[RoomName], except: &[RoomName]) -> Vec<Arc<Session>> {
        self.read(namespace, |table| table.select(rooms, except).cloned().collect()).unwrap_or_default()
    }

    /// Works on those who would get an event (see [`Rooms::recipients`]) while nobody can join or leave.
    ///
    /// `work` must not come back to the index.
    pub fn visit<T>(
        &self,
        namespace: &str,
        rooms: &[RoomName],
        except: &[RoomName],
        work: impl FnOnce(&mut dyn Iterator<Item = &Arc<Session>>) -> T,
    ) -> Option<T> {
        self.read(namespace, |table| work(&mut table.select(rooms, except)))
    }

    /// How many would get an event; see [`Rooms::recipients`].
    pub fn count(&self, namespace: &str, rooms: &[RoomName], except: &[RoomName]) -> usize {
        self.read(namespace, |table| match (rooms, except) {
            ([] | [_], []) => table.size(rooms),
            _ => table.select(rooms, except).count(),
        })
        .unwrap_or(0)
    }

    /// How many sessions the namespace has on this node.
    pub fn session_count(&self, namespace: &str) -> usize {
        self.read(namespace, |table| table.sessions.len()).unwrap_or(0)
    }

    /// The rooms of the namespace, without the clients' own.
    pub fn rooms(&self, namespace: &str) -> Vec<RoomInfo> {
        self.read(namespace, |table| {
            table
                .rooms
                .iter()
                .filter(|(name, _)| !name.starts_with(RESERVED_PREFIX))
                .map(|(name, members)| members.info(name))
                .collect()
        })
        .unwrap_or_default()
    }

    /// How many rooms the namespace has on this node, without the clients' own.
    pub fn room_count(&self, namespace: &str) -> usize {
        self.read(namespace, |table| table.rooms.keys().filter(|name| !name.starts_with(RESERVED_PREFIX)).count())
            .unwrap_or(0)
    }

    /// One room.
    pub fn room(&self, namespace: &str, name: &str) -> Option<RoomInfo> {
        self.read(namespace, |table| table.rooms.get_key_value(name).map(|(name, members)| members.info(name)))
            .flatten()
    }

    /// How much of everything there is in a namespace. Visits every room: for what is asked seldom.
    pub fn census(&self, namespace: &str) -> Census {
        let count = |table: &Table| {
            let mut census = Census { sessions: table.sessions.len(), ..Census::default() };
            for (name, members) in &table.rooms {
                if !name.starts_with(RESERVED_PREFIX) {
                    census.rooms += 1;
                    census.memberships += members.sessions.len();
                } else if user_of(name).is_some() {
                    census.users += 1;
                }
            }
            census
        };
        self.read(namespace, count).unwrap_or_default()
    }

    /// Whether a room has members on this node.
    pub fn has_members(&self, namespace: &str, room: &str) -> bool {
        self.read(namespace, |table| table.rooms.contains_key(room)).unwrap_or(false)
    }

    fn leave_table(&self, table: &mut Table, session: &Session, room: &RoomName) {
        if table.leave(session, room)
            && let Some(interest) = self.interest.get()
        {
            interest.ended(session.namespace(), room);
        }
    }

    fn read<T>(&self, namespace: &str, work: impl FnOnce(&Table) -> T) -> Option<T> {
        Some(work(&self.namespaces.get(namespace)?.read().expect("no panic while held")))
    }

    fn write<T>(&self, namespace: &str, work: impl FnOnce(&mut Table) -> T) -> Option<T> {
        Some(work(&mut self.namespaces.get(namespace)?.write().expect("no panic while held")))
    }
}

// === impl Table ===

impl Table {
    /// True when the room is gone with it.
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
        let welcome = self.welcome(except);
        match rooms {
            [] => Box::new(self.sessions.values().filter(welcome)),
            [room] => Box::new(self.members(room).filter(welcome)),
            _ => {
                let mut met = HashSet::new();
                let new = move |session: &&Arc<Session>| met.insert(Arc::as_ptr(session));
                Box::new(rooms.iter().flat_map(|room| self.members(room)).filter(new).filter(welcome))
            }
        }
    }

    /// Whether somebody is in none of these rooms.
    fn welcome<'a>(&'a self, except: &'a [RoomName]) -> impl Fn(&&Arc<Session>) -> bool + 'a {
        let unwelcome: Vec<&Members> = except.iter().filter_map(|room| self.rooms.get(room)).collect();
        move |session| !unwelcome.iter().any(|room| room.sessions.contains(session))
    }

    /// How many members the rooms have (the namespace, when there are none), one who is in several counted in each.
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

impl Members {
    fn info(&self, name: &RoomName) -> RoomInfo {
        RoomInfo { name: name.clone(), members: self.sessions.len(), created_at: self.created_at }
    }
}
