//! Queues every change that the index of rooms reports.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::NamespaceKeys;
use super::change::{PresenceChange, WriterItem};
use super::queue::ChangeQueue;
use crate::presence::Policies;
use crate::presence::roster::LocalRosters;
use crate::presence::users::LocalUsers;
use crate::protocol::user_of;
use crate::session::{RoomName, Session, Watcher};
use crate::telemetry::metrics::Metrics;

/// The half of presence to which the index reports. It needs no index.
pub(super) struct ChangeRecorder {
    pub(super) spaces: Vec<NamespaceKeys>,
    pub(super) policies: Policies,
    pub(super) queue: ChangeQueue,
    pub(super) metrics: Arc<Metrics>,
    users: Arc<LocalUsers>,
    rosters: Arc<LocalRosters>,
}

impl ChangeRecorder {
    /// Creates the queue for at most `bound` changes, and the end from which they are written.
    pub(super) fn new(
        spaces: Vec<NamespaceKeys>,
        policies: Policies,
        bound: usize,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<WriterItem>) {
        let (queue, items) = ChangeQueue::new(bound);
        let (users, rosters) = (Arc::new(LocalUsers::new(None)), Arc::default());
        (Self { spaces, policies, queue, metrics, users, rosters }, items)
    }

    /// The lists of the members that rooms have on this node, for answers while Redis is unavailable.
    pub(super) fn rosters(&self) -> &Arc<LocalRosters> {
        &self.rosters
    }

    /// The users that are connected to this node.
    pub(super) fn users(&self) -> &Arc<LocalUsers> {
        &self.users
    }

    /// The position of a namespace in `spaces`.
    pub(super) fn space(&self, namespace: &str) -> Option<usize> {
        self.spaces.iter().position(|space| *space.path == *namespace)
    }

    fn unlist(&self, session: &Session, room: &RoomName) {
        if let Some(each) = self.policies.each(session.namespace(), room) {
            self.rosters.left(session, room, each);
        }
    }

    pub(super) fn push(&self, session: &Session, change: Option<PresenceChange>) {
        if let (Some(change), Some(space)) = (change, self.space(session.namespace())) {
            self.queue.push(WriterItem::Change(space, change), &self.metrics);
        }
    }
}

impl Watcher for ChangeRecorder {
    fn opened(&self, session: &Session) {
        self.push(session, Some(PresenceChange::opened(session)));
    }

    fn joined(&self, session: &Session, room: &RoomName) {
        if let Some(user) = user_of(room) {
            self.users.connected(session.namespace(), user);
        }
        if let Some(each) = self.policies.each(session.namespace(), room) {
            self.rosters.joined(session, room, each);
        }
        self.push(session, PresenceChange::joined(session, room, &self.policies));
    }

    fn left(&self, session: &Session, room: &RoomName) {
        if let Some(user) = user_of(room) {
            self.users.disconnected(session.namespace(), user);
        }
        self.unlist(session, room);
        self.push(session, PresenceChange::left(session, room, &self.policies));
    }

    fn closed(&self, session: &Session, rooms: &[RoomName]) {
        for user in rooms.iter().filter_map(|room| user_of(room)) {
            self.users.disconnected(session.namespace(), user);
        }
        rooms.iter().for_each(|room| self.unlist(session, room));
        self.push(session, Some(PresenceChange::closed(session, rooms, &self.policies)));
    }

    fn changed(&self, session: &Session) {
        self.push(session, Some(PresenceChange::metadata(session, &self.policies)));
    }
}
