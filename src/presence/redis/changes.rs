//! Queues every change that the index of rooms reports.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Space;
use super::change::{Change, Item};
use super::queue::Queue;
use crate::presence::Policies;
use crate::presence::users::Users;
use crate::protocol::user_of;
use crate::session::{RoomName, Session, Watcher};
use crate::telemetry::metrics::Metrics;

/// The half of presence to which the index reports. It needs no index.
pub(super) struct Changes {
    pub(super) spaces: Vec<Space>,
    pub(super) policies: Policies,
    pub(super) queue: Queue,
    pub(super) metrics: Arc<Metrics>,
    users: Arc<Users>,
}

impl Changes {
    /// Creates the queue for at most `bound` changes, and the end from which they are written.
    pub(super) fn new(
        spaces: Vec<Space>,
        policies: Policies,
        bound: usize,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<Item>) {
        let (queue, items) = Queue::new(bound);
        (Self { spaces, policies, queue, metrics, users: Arc::new(Users::new(None)) }, items)
    }

    /// The users that are connected to this node.
    pub(super) fn users(&self) -> &Arc<Users> {
        &self.users
    }

    /// The position of a namespace in `spaces`.
    pub(super) fn space(&self, namespace: &str) -> Option<usize> {
        self.spaces.iter().position(|space| *space.path == *namespace)
    }

    pub(super) fn push(&self, session: &Session, change: Option<Change>) {
        if let (Some(change), Some(space)) = (change, self.space(session.namespace())) {
            self.queue.push(Item::Change(space, change), &self.metrics);
        }
    }
}

impl Watcher for Changes {
    fn opened(&self, session: &Session) {
        self.push(session, Some(Change::opened(session)));
    }

    fn joined(&self, session: &Session, room: &RoomName) {
        if let Some(user) = user_of(room) {
            self.users.came(session.namespace(), user);
        }
        self.push(session, Change::joined(session, room, &self.policies));
    }

    fn left(&self, session: &Session, room: &RoomName) {
        if let Some(user) = user_of(room) {
            self.users.went(session.namespace(), user);
        }
        self.push(session, Change::left(session, room, &self.policies));
    }

    fn closed(&self, session: &Session, rooms: &[RoomName]) {
        for user in rooms.iter().filter_map(|room| user_of(room)) {
            self.users.went(session.namespace(), user);
        }
        self.push(session, Some(Change::closed(session, rooms, &self.policies)));
    }

    fn changed(&self, session: &Session) {
        self.push(session, Some(Change::metadata(session)));
    }
}
