//! Presence of a single node, in memory.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde_json::Value;

use super::announce::{self, ChangeSender};
use super::local::LocalPresence;
use super::member::user_id;
use super::roster::LocalRosters;
use super::users::{LocalUsers, TimedStatus};
use super::{
    MemberChange, Policies, Presence, PresenceRecorder, RoomMember, Roster, SharedRooms, UserStatus, may_have_status,
};
use crate::directory::{
    ConnectionInfo, Count, CountOf, Directory, DirectoryFuture, MemberInfo, Page, PageRequest, RoomInfo, Slowness,
    UserInfo,
};
use crate::protocol::user_of;
use crate::room::Rooms;
use crate::session::{RoomName, Session, Watcher};
use crate::telemetry::metrics::Metrics;

/// Creates the recorder of a node that is the whole deployment. Its presence is lost when the process ends.
pub fn in_memory(node: &str, policies: Policies, status_ttl: Duration, metrics: Arc<Metrics>) -> PresenceRecorder {
    let (untold, changes) = announce::queue(metrics);
    let untold = Arc::new(untold);
    let (users, rosters) = (Arc::new(LocalUsers::new(Some(status_ttl))), Arc::new(LocalRosters::default()));
    let recorder = MemoryRecorder { users: users.clone(), rosters: rosters.clone(), policies, untold: untold.clone() };
    let node = node.to_owned();
    let start = move |rooms: Arc<Rooms>| -> (Arc<dyn Presence>, _) {
        let local = LocalPresence::new(&node, rooms, users, rosters);
        (Arc::new(MemoryPresence { local, untold }), changes)
    };
    PresenceRecorder { watcher: Arc::new(recorder), start: Box::new(start) }
}

/// Counts users, lists the members of rooms, and finds the changes to be announced.
struct MemoryRecorder {
    users: Arc<LocalUsers>,
    rosters: Arc<LocalRosters>,
    policies: Policies,
    untold: Arc<ChangeSender>,
}

/// Answers from the index of rooms.
struct MemoryPresence {
    local: LocalPresence,
    untold: Arc<ChangeSender>,
}

impl MemoryRecorder {
    fn left_room(&self, session: &Session, room: &RoomName) {
        if let Some(user) = user_of(room) {
            self.users.disconnected(session.namespace(), user);
        }
        let Some(each) = self.policies.each(session.namespace(), room) else { return };
        if let Some(joined_at_ms) = self.rosters.left(session, room, each) {
            self.announce(session, room, MemberChange::Left(RoomMember::of(session, each, joined_at_ms)));
        }
    }

    fn announce(&self, session: &Session, room: &RoomName, what: MemberChange) {
        if let Some(change) = self.policies.change(session.namespace(), room, what) {
            self.untold.push(change);
        }
    }
}

impl Watcher for MemoryRecorder {
    fn opened(&self, _session: &Session) {}

    fn joined(&self, session: &Session, room: &RoomName) {
        if let Some(user) = user_of(room) {
            self.users.connected(session.namespace(), user);
        }
        let Some(each) = self.policies.each(session.namespace(), room) else { return };
        if let Some(joined_at_ms) = self.rosters.joined(session, room, each) {
            self.announce(session, room, MemberChange::Joined(RoomMember::of(session, each, joined_at_ms)));
        }
    }

    fn left(&self, session: &Session, room: &RoomName) {
        self.left_room(session, room);
    }

    fn closed(&self, session: &Session, rooms: &[RoomName]) {
        rooms.iter().for_each(|room| self.left_room(session, room));
    }

    fn changed(&self, session: &Session) {
        for room in self.policies.rooms_showing(session) {
            self.announce(session, &room, MemberChange::Metadata);
        }
    }
}

impl Presence for MemoryPresence {
    fn set_status(&self, session: &Session, status: &Value) -> bool {
        let Some(user) = user_id(session).filter(|_| may_have_status(session, status)) else { return false };
        self.local.users.set_status(session.namespace(), &user, TimedStatus::now(status))
    }

    fn status<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> DirectoryFuture<'a, UserStatus> {
        ready(Ok(self.local.users.status(namespace, user_id))).boxed()
    }

    fn shared_rooms<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> BoxFuture<'a, SharedRooms> {
        ready(self.local.shared_rooms(namespace, user_id)).boxed()
    }

    fn roster<'a>(&'a self, namespace: &'a str, room: &'a str, most: usize) -> BoxFuture<'a, Roster> {
        ready(self.local.roster(namespace, room, most)).boxed()
    }

    fn settle(&self) -> BoxFuture<'_, bool> {
        async move {
            self.untold.announced().await;
            true
        }
        .boxed()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

impl Directory for MemoryPresence {
    fn connections<'a>(&'a self, namespace: &'a str, page: PageRequest) -> DirectoryFuture<'a, Page<ConnectionInfo>> {
        ready(self.local.connections(namespace, &page)).boxed()
    }

    fn slowest_here(&self, namespace: &str, by: Slowness, limit: usize) -> Vec<ConnectionInfo> {
        self.local.slowest(namespace, by, limit)
    }

    fn connection<'a>(&'a self, namespace: &'a str, socket_id: &'a str) -> DirectoryFuture<'a, Option<ConnectionInfo>> {
        ready(Ok(self.local.connection(namespace, socket_id))).boxed()
    }

    fn rooms<'a>(&'a self, namespace: &'a str, page: PageRequest) -> DirectoryFuture<'a, Page<RoomInfo>> {
        ready(self.local.rooms_page(namespace, &page)).boxed()
    }

    fn room<'a>(&'a self, namespace: &'a str, room: &'a str) -> DirectoryFuture<'a, Option<RoomInfo>> {
        ready(Ok(self.local.room(namespace, room))).boxed()
    }

    fn members<'a>(
        &'a self,
        namespace: &'a str,
        room: &'a str,
        page: PageRequest,
    ) -> DirectoryFuture<'a, Page<MemberInfo>> {
        ready(self.local.members(namespace, room, &page)).boxed()
    }

    fn users<'a>(&'a self, namespace: &'a str, page: PageRequest) -> DirectoryFuture<'a, Page<UserInfo>> {
        ready(self.local.users(namespace, &page)).boxed()
    }

    fn user<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> DirectoryFuture<'a, Option<UserInfo>> {
        ready(Ok(self.local.users.info(namespace, user_id))).boxed()
    }

    fn user_connections<'a>(
        &'a self,
        namespace: &'a str,
        user_id: &'a str,
        page: PageRequest,
    ) -> DirectoryFuture<'a, Page<ConnectionInfo>> {
        ready(self.local.user_connections(namespace, user_id, &page)).boxed()
    }

    fn count<'a>(&'a self, namespace: &'a str, of: CountOf<'a>) -> DirectoryFuture<'a, Count> {
        ready(Ok(self.local.count(namespace, of))).boxed()
    }
}
