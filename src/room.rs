//! The rooms of this node and their members: one index for all engines.

mod members;
mod questions;
mod recipients;
mod session_set;
mod table;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use self::members::RoomMembers;
pub use self::questions::NamespaceCounts;
pub use self::recipients::Recipients;
pub use self::table::RoomSnapshot;
use self::table::{IndexedRoom, NamespaceIndex};
use crate::protocol::{is_reserved_room, socket_room, user_room};
use crate::session::{MetadataSetter, RoomName, Session, Watcher};
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
    /// The number of rooms that a session may join, and the metrics that count refused joins.
    bound: Option<(usize, Arc<Metrics>)>,
    /// `None` on a node without other nodes.
    observer: Option<Arc<dyn RoomObserver>>,
}

impl Rooms {
    /// Creates an index for these namespaces. For any other namespace, calls change nothing and find nothing.
    pub fn new(namespaces: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self {
            namespaces: namespaces.into_iter().map(|path| (path, RwLock::default())).collect(),
            watchers: Vec::new(),
            bound: None,
            observer: None,
        }
    }

    /// Sets the observer of rooms that gain their first or lose their last member, which subscribes to their channels.
    #[must_use]
    pub fn subscribed_by(self, observer: Arc<dyn RoomObserver>) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// Waits until the node receives the events that other nodes send to a room, so that a join is complete. Returns
    /// `true` once the node receives them, and at once if it does already. Returns `false` when the node cannot find
    /// that out, for example because Redis is unavailable.
    pub async fn settled(&self, namespace: &Arc<str>, room: &RoomName) -> bool {
        match self.observer.as_ref().and_then(|observer| observer.settled(namespace, room)) {
            Some(settled) => settled.await,
            None => true,
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
                if let Some(observer) = &self.observer {
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
    pub fn merge_metadata(&self, session: &Session, members: &Map<String, Value>, by: MetadataSetter) -> bool {
        if members.is_empty() {
            return true;
        }
        let merged = session.merge_metadata(members, by);
        if merged {
            self.watchers.iter().for_each(|watcher| watcher.changed(session));
        }
        merged
    }

    fn leave_table(&self, table: &mut NamespaceIndex, session: &Session, room: &RoomName) {
        if table.leave(session, room)
            && let Some(observer) = &self.observer
        {
            observer.ended(session.namespace(), room);
        }
    }

    fn read<T>(&self, namespace: &str, work: impl FnOnce(&NamespaceIndex) -> T) -> Option<T> {
        Some(work(&self.namespaces.get(namespace)?.read().expect("no thread panics while it holds this lock")))
    }

    fn write<T>(&self, namespace: &str, work: impl FnOnce(&mut NamespaceIndex) -> T) -> Option<T> {
        Some(work(&mut self.namespaces.get(namespace)?.write().expect("no thread panics while it holds this lock")))
    }
}
