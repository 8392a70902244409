//! Presence of a single node, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde_json::Value;
use tokio::sync::mpsc;

use super::local::{LocalPresence, user_id};
use super::users::{LocalUsers, TimedStatus};
use super::{
    MemberChange, Policies, Presence, PresenceRecorder, RoomChange, RoomChangeListener, RoomMember, SharedRooms,
    UserStatus, may_have_status,
};
use crate::directory::{
    ConnectionInfo, Count, CountOf, Directory, DirectoryFuture, MemberInfo, Page, PageRequest, RoomInfo, Slowness,
    UserInfo,
};
use crate::protocol::{is_reserved_room, user_of};
use crate::room::Rooms;
use crate::session::{RoomName, Session, Watcher};
use crate::telemetry::metrics::Metrics;

/// Maximum number of joins and leaves that wait to be announced.
const MAX_UNTOLD: usize = 65_536;

/// A member of a room, with its namespace and room.
type MemberKey = (Arc<str>, RoomName, RoomMember);

/// Creates the recorder of a node that is the whole deployment. Its presence is lost when the process ends.
pub fn in_memory(node: &str, policies: Policies, status_ttl: Duration, metrics: Arc<Metrics>) -> PresenceRecorder {
    let (untold, mut told) = mpsc::channel::<RoomChange>(MAX_UNTOLD);
    let users = Arc::new(LocalUsers::new(Some(status_ttl)));
    let changes = MemoryRecorder { users: users.clone(), policies, sockets: Mutex::default(), untold, metrics };
    let node = node.to_owned();
    let start = move |rooms: Arc<Rooms>, tell: RoomChangeListener| -> Arc<dyn Presence> {
        tokio::spawn(async move {
            while let Some(one) = told.recv().await {
                tell(one);
            }
        });
        Arc::new(MemoryPresence(LocalPresence::new(&node, rooms, users)))
    };
    PresenceRecorder { watcher: Arc::new(changes), start: Box::new(start) }
}

/// Counts users, and finds the joins and leaves to be announced.
struct MemoryRecorder {
    users: Arc<LocalUsers>,
    policies: Policies,
    /// The number of sockets of each member in rooms whose joins and leaves are announced.
    sockets: Mutex<HashMap<MemberKey, u64>>,
    untold: mpsc::Sender<RoomChange>,
    metrics: Arc<Metrics>,
}

/// Answers from the index of rooms.
struct MemoryPresence(LocalPresence);

impl MemoryRecorder {
    fn step(&self, session: &Session, room: &RoomName, what: MemberChange) {
        if let Some(user) = user_of(room) {
            match what {
                MemberChange::Joined => self.users.connected(session.namespace(), user),
                MemberChange::Left => self.users.disconnected(session.namespace(), user),
            }
            return;
        }
        if is_reserved_room(room) || !self.policies.has(session.namespace(), room) {
            return;
        }
        let member = RoomMember::of(session);
        if self.is_first_or_last((session.namespace().clone(), room.clone(), member.clone()), what)
            && let Some(told) = self.policies.told(session.namespace(), room, member, what)
            && self.untold.try_send(told).is_err()
        {
            self.metrics.presence_queue_dropped_total.with_label_values(&["events"]).inc();
        }
    }

    fn is_first_or_last(&self, seat: MemberKey, what: MemberChange) -> bool {
        let mut sockets = self.sockets.lock().expect("no panic while held");
        let count = sockets.entry(seat.clone()).or_default();
        match what {
            MemberChange::Joined => {
                *count += 1;
                *count == 1
            }
            MemberChange::Left => {
                debug_assert!(*count > 0, "a socket left a room that it had not joined");
                *count = count.saturating_sub(1);
                let last = *count == 0;
                if last {
                    sockets.remove(&seat);
                }
                last
            }
        }
    }
}

impl Watcher for MemoryRecorder {
    fn opened(&self, _session: &Session) {}

    fn joined(&self, session: &Session, room: &RoomName) {
        self.step(session, room, MemberChange::Joined);
    }

    fn left(&self, session: &Session, room: &RoomName) {
        self.step(session, room, MemberChange::Left);
    }

    fn closed(&self, session: &Session, rooms: &[RoomName]) {
        for room in rooms {
            self.step(session, room, MemberChange::Left);
        }
    }
}

impl Presence for MemoryPresence {
    fn set_status(&self, session: &Session, status: &Value) -> bool {
        let Some(user) = user_id(session).filter(|_| may_have_status(session, status)) else { return false };
        self.0.users.set_status(session.namespace(), &user, TimedStatus::now(status))
    }

    fn status<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> DirectoryFuture<'a, UserStatus> {
        ready(Ok(self.0.users.status(namespace, user_id))).boxed()
    }

    fn shared_rooms<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> BoxFuture<'a, SharedRooms> {
        ready(self.0.shared_rooms(namespace, user_id)).boxed()
    }

    fn settle(&self) -> BoxFuture<'_, bool> {
        ready(true).boxed()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

impl Directory for MemoryPresence {
    fn connections<'a>(&'a self, namespace: &'a str, page: PageRequest) -> DirectoryFuture<'a, Page<ConnectionInfo>> {
        ready(self.0.connections(namespace, &page)).boxed()
    }

    fn slowest_here(&self, namespace: &str, by: Slowness, limit: usize) -> Vec<ConnectionInfo> {
        self.0.slowest(namespace, by, limit)
    }

    fn connection<'a>(&'a self, namespace: &'a str, socket_id: &'a str) -> DirectoryFuture<'a, Option<ConnectionInfo>> {
        ready(Ok(self.0.connection(namespace, socket_id))).boxed()
    }

    fn rooms<'a>(&'a self, namespace: &'a str, page: PageRequest) -> DirectoryFuture<'a, Page<RoomInfo>> {
        ready(self.0.rooms_page(namespace, &page)).boxed()
    }

    fn room<'a>(&'a self, namespace: &'a str, room: &'a str) -> DirectoryFuture<'a, Option<RoomInfo>> {
        ready(Ok(self.0.room(namespace, room))).boxed()
    }

    fn members<'a>(
        &'a self,
        namespace: &'a str,
        room: &'a str,
        page: PageRequest,
    ) -> DirectoryFuture<'a, Page<MemberInfo>> {
        ready(self.0.members(namespace, room, &page)).boxed()
    }

    fn users<'a>(&'a self, namespace: &'a str, page: PageRequest) -> DirectoryFuture<'a, Page<UserInfo>> {
        ready(self.0.users(namespace, &page)).boxed()
    }

    fn user<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> DirectoryFuture<'a, Option<UserInfo>> {
        ready(Ok(self.0.users.info(namespace, user_id))).boxed()
    }

    fn user_connections<'a>(
        &'a self,
        namespace: &'a str,
        user_id: &'a str,
        page: PageRequest,
    ) -> DirectoryFuture<'a, Page<ConnectionInfo>> {
        ready(self.0.user_connections(namespace, user_id, &page)).boxed()
    }

    fn count<'a>(&'a self, namespace: &'a str, of: CountOf<'a>) -> DirectoryFuture<'a, Count> {
        ready(Ok(self.0.count(namespace, of))).boxed()
    }
}
