//! The sessions, users and statuses of this node alone. On a single node this is all of presence; in a cluster it is
//! the part that still works while Redis is unavailable.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::SystemTime;

use super::member::{RoomMember, user_id};
use super::page::{self, MissingPart, PageCursor};
use super::roster::LocalRosters;
use super::users::LocalUsers;
use super::{MAX_ROSTER_BYTES, MAX_SHARED_ROOMS, Roster, SharedRooms};
use crate::directory::{
    ConnectionInfo, Count, CountOf, DEFAULT_PAGE, DirectoryError, MemberInfo, Page, PageRequest, ReadPace, RoomInfo,
    Slowness, UserInfo,
};
use crate::protocol::{is_reserved_room, user_of, user_room};
use crate::room::Rooms;
use crate::session::{Backlog, RoomName, Session};
use crate::time::from_unix_millis;

/// The sessions and users of this node.
pub(super) struct LocalPresence {
    node: Arc<str>,
    pub(super) rooms: Arc<Rooms>,
    pub(super) users: Arc<LocalUsers>,
    rosters: Arc<LocalRosters>,
}

impl LocalPresence {
    pub(super) fn new(node: &str, rooms: Arc<Rooms>, users: Arc<LocalUsers>, rosters: Arc<LocalRosters>) -> Self {
        Self { node: node.into(), rooms, users, rosters }
    }

    /// The members of a room on this node.
    pub(super) fn roster(&self, namespace: &str, room: &str, most: usize) -> Roster {
        let (count, listed) = self.rosters.list(namespace, room, most);
        let mut bytes = 0;
        let members = listed.into_iter().filter_map(|listed| {
            let session = self.rooms.session(namespace, &listed.socket)?;
            Some(RoomMember::of(&session, listed.each, listed.joined_at_ms))
        });
        let fits = |member: &RoomMember| {
            bytes += json_bytes(&member.metadata);
            bytes <= MAX_ROSTER_BYTES
        };
        Roster { count, members: members.take_while(fits).collect(), partial: false }
    }

    pub(super) fn shared_rooms(&self, namespace: &str, user_id: &str) -> SharedRooms {
        let mut rooms: Vec<RoomName> =
            self.members_of(namespace, &user_room(user_id)).iter().flat_map(|session| own_rooms(session)).collect();
        rooms.sort_unstable();
        rooms.dedup();
        let partial = rooms.len() > MAX_SHARED_ROOMS;
        rooms.truncate(MAX_SHARED_ROOMS);
        SharedRooms { rooms, partial }
    }

    pub(super) fn connections(
        &self,
        namespace: &str,
        page: &PageRequest,
    ) -> Result<Page<ConnectionInfo>, DirectoryError> {
        self.connections_of(self.rooms.sessions(namespace), page)
    }

    /// Returns the slowest connections, at most `limit`.
    pub(super) fn slowest(&self, namespace: &str, by: Slowness, limit: usize) -> Vec<ConnectionInfo> {
        let sessions = self.rooms.sessions(namespace);
        let slowness = |session: &Session| {
            let Backlog { bytes, packets, written_at_ms, .. } = session.backlog();
            by.degree(bytes as u64, packets.unwrap_or_default() as u64, session.dropped().into(), written_at_ms)
        };
        let mut slowest: Vec<_> = sessions.into_iter().map(|session| (Reverse(slowness(&session)), session)).collect();
        if slowest.len() > limit {
            slowest.select_nth_unstable_by_key(limit, |(slowness, _)| *slowness);
            slowest.truncate(limit);
        }
        slowest.sort_by(|(one, a), (other, b)| one.cmp(other).then_with(|| a.id().cmp(b.id())));
        self.shown_of(slowest.iter().map(|(_, session)| session))
    }

    /// Measures how fast a client of this node reads.
    pub(super) fn pace(&self, namespace: &str, socket_id: &str) -> Option<ReadPace> {
        self.rooms.session(namespace, socket_id).map(|session| pace(&session))
    }

    pub(super) fn connection(&self, namespace: &str, socket_id: &str) -> Option<ConnectionInfo> {
        self.rooms.session(namespace, socket_id).map(|session| self.connection_info(&session))
    }

    pub(super) fn rooms_page(&self, namespace: &str, page: &PageRequest) -> Result<Page<RoomInfo>, DirectoryError> {
        let items = self.rooms.rooms(namespace).into_iter().map(|room| (room.name.to_string(), room));
        let (rooms, next) = page::cut(items, page)?;
        let items = rooms
            .into_iter()
            .map(|room| room_info(namespace, &room.name, room.members, Some(room.created_at)))
            .collect();
        Ok(Page { next, ..Page::complete(items) })
    }

    pub(super) fn room(&self, namespace: &str, name: &str) -> Option<RoomInfo> {
        let room = self.rooms.room(namespace, name)?;
        let first = PageRequest { limit: DEFAULT_PAGE, cursor: None };
        let members = self.members(namespace, name, &first).map(|page| page.items).unwrap_or_default();
        Some(RoomInfo { members, ..room_info(namespace, &room.name, room.members, Some(room.created_at)) })
    }

    pub(super) fn members(
        &self,
        namespace: &str,
        room: &str,
        page: &PageRequest,
    ) -> Result<Page<MemberInfo>, DirectoryError> {
        self.page_of(self.members_of(namespace, &room.into()), page, |session| self.member_info(session))
    }

    pub(super) fn users(&self, namespace: &str, page: &PageRequest) -> Result<Page<UserInfo>, DirectoryError> {
        let all = self.users.infos(namespace).into_iter().map(|user| (user.user_id.clone(), user));
        let (items, next) = page::cut(all, page)?;
        Ok(Page { next, ..Page::complete(items) })
    }

    pub(super) fn user_connections(
        &self,
        namespace: &str,
        user_id: &str,
        page: &PageRequest,
    ) -> Result<Page<ConnectionInfo>, DirectoryError> {
        let sessions = self.members_of(namespace, &user_room(user_id));
        self.connections_of(sessions, page)
    }

    pub(super) fn count(&self, namespace: &str, of: CountOf<'_>) -> Count {
        let members = |room: &RoomName| self.rooms.count(namespace, std::slice::from_ref(room), &[]) as u64;
        match of {
            CountOf::Room(room) => count(members(&room.into()), None, None, &MissingPart::default()),
            CountOf::User(user) => count(members(&user_room(user)), None, None, &MissingPart::default()),
            CountOf::Namespace => count(
                self.rooms.session_count(namespace) as u64,
                Some(self.rooms.room_count(namespace) as u64),
                Some(self.users.count(namespace) as u64),
                &MissingPart::default(),
            ),
        }
    }

    // --- helpers ---

    fn members_of(&self, namespace: &str, room: &RoomName) -> Vec<Arc<Session>> {
        self.rooms.recipients(namespace, std::slice::from_ref(room), &[])
    }

    fn page_of<T>(
        &self,
        sessions: Vec<Arc<Session>>,
        page: &PageRequest,
        show: impl Fn(&Session) -> T,
    ) -> Result<Page<T>, DirectoryError> {
        let items = sessions.into_iter().map(|session| (session.id().to_owned(), session));
        let (sessions, next) = page::cut(items, page)?;
        Ok(Page { next, ..Page::complete(sessions.iter().map(|session| show(session)).collect()) })
    }

    /// Returns a page of connections, of at most [`page::MAX_CONNECTIONS_BYTES`].
    fn connections_of(
        &self,
        sessions: Vec<Arc<Session>>,
        page: &PageRequest,
    ) -> Result<Page<ConnectionInfo>, DirectoryError> {
        let items = sessions.into_iter().map(|session| (session.id().to_owned(), session));
        let (sessions, mut next) = page::cut(items, page)?;
        let shown = self.shown_of(&sessions);
        if let Some(last) = shown.last().filter(|_| shown.len() < sessions.len()) {
            next = Some(PageCursor::Local(last.socket_id.clone()).text());
        }
        Ok(Page { next, ..Page::complete(shown) })
    }

    /// Returns the first of these connections, as many as [`page::MAX_CONNECTIONS_BYTES`] permits, but at least one.
    fn shown_of<'s>(&self, sessions: impl IntoIterator<Item = &'s Arc<Session>>) -> Vec<ConnectionInfo> {
        let mut shown = Vec::new();
        let mut bytes = 0;
        for session in sessions {
            let info = self.connection_info(session);
            bytes += page::bytes_of(&info);
            if bytes > page::MAX_CONNECTIONS_BYTES && !shown.is_empty() {
                break;
            }
            shown.push(info);
        }
        shown
    }

    fn connection_info(&self, session: &Session) -> ConnectionInfo {
        let mut rooms: Vec<String> = own_rooms(session).map(|room| room.to_string()).collect();
        rooms.sort_unstable();
        ConnectionInfo {
            socket_id: session.id().to_owned(),
            user_id: user_id(session).map(|id| id.to_string()),
            namespace: session.namespace().to_string(),
            node: self.node.to_string(),
            transport: session.peer().transport.to_owned(),
            connected_at: session.connected_at(),
            rooms,
            metadata: session.metadata(),
            pace: Some(pace(session)),
        }
    }

    fn member_info(&self, session: &Session) -> MemberInfo {
        MemberInfo {
            socket_id: session.id().to_owned(),
            user_id: user_id(session).map(|id| id.to_string()),
            node: self.node.to_string(),
        }
    }
}

fn pace(session: &Session) -> ReadPace {
    let Backlog { bytes, packets, written_at_ms } = session.backlog();
    ReadPace {
        queued_bytes: bytes as u64,
        queued_packets: packets.map(|packets| packets as u64),
        dropped: session.dropped().into(),
        last_write_at: (written_at_ms > 0).then(|| from_unix_millis(written_at_ms)),
    }
}

fn json_bytes(metadata: &serde_json::Map<String, serde_json::Value>) -> usize {
    if metadata.is_empty() { 0 } else { serde_json::to_string(metadata).map_or(0, |text| text.len()) }
}

/// Returns the session's rooms, without the rooms that belong to one client or one user.
pub(super) fn own_rooms(session: &Session) -> impl Iterator<Item = RoomName> {
    session.rooms().into_iter().filter(|room| !is_reserved_room(room))
}

/// Whether presence records the room: rooms of contracts, and users' rooms.
pub(super) fn is_kept(room: &str) -> bool {
    !is_reserved_room(room) || user_of(room).is_some()
}

/// Describes a room without listing its members.
pub(super) fn room_info(namespace: &str, name: &str, members: usize, created_at: Option<SystemTime>) -> RoomInfo {
    RoomInfo {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        member_count: members as u64,
        members: Vec::new(),
        created_at,
        partial: false,
        missing_nodes: Vec::new(),
    }
}

/// A count, with what is missing from it.
pub(super) fn count(connections: u64, rooms: Option<u64>, users: Option<u64>, missing: &MissingPart) -> Count {
    Count { connections, rooms, users, partial: missing.partial, missing_nodes: missing.nodes.clone() }
}
