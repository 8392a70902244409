//! Answers questions about the whole cluster. While Redis is unavailable, this node answers from its own data and marks
//! the answer as partial.

use futures_util::FutureExt;
use serde_json::Map;

use super::script::{ReplyHeader, ScriptReply, node_of};
use super::{PresenceState, RedisPresence, texts};
use crate::directory::{
    ConnectionInfo, Count, CountOf, DEFAULT_PAGE, Directory, DirectoryError, DirectoryFuture, MemberInfo, Page,
    PageRequest, RoomInfo, Slowness, UserInfo,
};
use crate::presence::local::{count, room_info};
use crate::presence::page::{MAX_CONNECTIONS_BYTES, MissingPart, PageCursor, limit, mark};
use crate::presence::shown;
use crate::protocol::user_room;
use crate::time::from_unix_millis;

/// A page of a room's or user's connections, as the script returns it.
struct ConnectionsPage {
    header: ReplyHeader,
    total: u64,
    first_ms: Option<u64>,
    rows: Vec<ConnectionRow>,
    settled: bool,
}

struct ConnectionRow {
    incarnation: String,
    score: String,
    member: String,
    connection: ScriptReply,
}

impl PresenceState {
    fn missing_of(&self, header: &ReplyHeader, settled: bool) -> MissingPart {
        let nodes = self.missing(header, settled);
        MissingPart { partial: !nodes.is_empty(), nodes }
    }

    /// The missing part of an answer for which this node could not ask Redis.
    fn alone(&self) -> MissingPart {
        MissingPart { partial: true, nodes: self.leases.known(&self.node) }
    }

    async fn members_page(
        &self,
        space: usize,
        group: &str,
        page: &PageRequest,
        whole: bool,
    ) -> Result<ConnectionsPage, DirectoryError> {
        let bytes = if whole { MAX_CONNECTIONS_BYTES } else { 0 };
        let mut args = texts(&[group, &page.limit.to_string(), &bytes.to_string()]);
        match PageCursor::of(page)? {
            None => {}
            Some(PageCursor::Member(incarnation, score, member)) => {
                args.extend(texts(&[&incarnation, &score, &member]))
            }
            Some(_) => return Err(DirectoryError::Cursor),
        }
        let (settled, mut reply) = self.read(&self.scripts.members, space, args).await?;
        let header = ReplyHeader::of(reply.list());
        let total = reply.number();
        let first_ms = reply.text().parse().ok();
        let rows = reply.list().each(|mut row| ConnectionRow {
            incarnation: row.text(),
            score: row.text(),
            member: row.text(),
            connection: row.list(),
        });
        Ok(ConnectionsPage { header, total, first_ms, rows, settled })
    }

    async fn names_page(
        &self,
        space: usize,
        kind: &str,
        page: &PageRequest,
    ) -> Result<(MissingPart, Option<String>, ScriptReply), DirectoryError> {
        let mut args = texts(&[kind, &limit(page).to_string()]);
        match PageCursor::of(page)? {
            None => {}
            Some(PageCursor::Name(after) | PageCursor::Local(after)) => args.extend(texts(&[&after])),
            Some(_) => return Err(DirectoryError::Cursor),
        }
        let (settled, mut reply) = self.read(&self.scripts.names, space, args).await?;
        let missing = self.missing_of(&ReplyHeader::of(reply.list()), settled);
        let last = reply.text();
        let next = (!last.is_empty()).then(|| PageCursor::Name(last).text());
        Ok((missing, next, reply.list()))
    }

    fn connection_info(&self, space: usize, incarnation: &str, id: &str, fields: ScriptReply) -> ConnectionInfo {
        let mut info = ConnectionInfo {
            socket_id: id.to_owned(),
            user_id: None,
            namespace: self.changes.spaces[space].path.to_string(),
            node: node_of(incarnation).to_owned(),
            transport: String::new(),
            connected_at: from_unix_millis(0),
            rooms: Vec::new(),
            metadata: Map::new(),
            pace: self.local.pace(&self.changes.spaces[space].path, id),
        };
        let mut fields = fields.texts().into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match name.as_str() {
                "u" => info.user_id = Some(value).filter(|id| !id.is_empty()),
                "t" => info.transport = value,
                "at" => info.connected_at = from_unix_millis(value.parse().unwrap_or(0)),
                "md" => info.metadata = serde_json::from_str(&value).unwrap_or_default(),
                _ => info.rooms.extend(name.strip_prefix('r').map(str::to_owned)),
            }
        }
        info.rooms.sort_unstable();
        info
    }

    async fn all_counts(&self, space: usize) -> Result<Count, DirectoryError> {
        let mut retried = false;
        loop {
            let (settled, mut reply) = self.read(&self.scripts.count, space, Vec::new()).await?;
            let header = ReplyHeader::of(reply.list());
            let (connections, rooms, users) = (reply.number(), reply.number(), reply.number());
            if header.expired > 0 && !retried {
                // Data of dead nodes is removed first. Otherwise rooms and users that only dead nodes had would be
                // counted.
                retried = true;
                let own = self.leases.current().filter(|_| self.leases.may_reap());
                if let Some(own) = own
                    && self.reap(space, &own).await.is_ok()
                {
                    continue;
                }
            }
            let mut missing = self.missing_of(&header, settled);
            missing.partial |= header.expired > 0;
            return Ok(count(connections, Some(rooms), Some(users), &missing));
        }
    }

    async fn count_of(&self, space: usize, group: &str) -> Result<Count, DirectoryError> {
        let (settled, mut reply) = self.read(&self.scripts.count, space, texts(&[group])).await?;
        let missing = self.missing_of(&ReplyHeader::of(reply.list()), settled);
        Ok(count(reply.number(), None, None, &missing))
    }

    async fn cluster_connections(
        &self,
        space: usize,
        page: &PageRequest,
    ) -> Result<Page<ConnectionInfo>, DirectoryError> {
        let mut args = texts(&[&(limit(page) + 1).to_string(), &MAX_CONNECTIONS_BYTES.to_string()]);
        match PageCursor::of(page)? {
            None => {}
            Some(PageCursor::Connection(incarnation, id)) => args.extend(texts(&[&incarnation, &id])),
            Some(_) => return Err(DirectoryError::Cursor),
        }
        let (settled, mut reply) = self.read(&self.scripts.connections, space, args).await?;
        let missing = self.missing_of(&ReplyHeader::of(reply.list()), settled);
        let mut rows = reply.list().each(|mut row| (row.text(), row.text(), row.list()));
        // The script returns no fields for connections that exceed the byte limit of a page.
        let most = rows.iter().position(|(_, _, fields)| fields.is_empty()).unwrap_or_else(|| limit(page));
        let more = rows.len() > most;
        rows.truncate(most);
        let last = rows.last().filter(|_| more);
        let next = last.map(|(incarnation, id, _)| PageCursor::Connection(incarnation.clone(), id.clone()).text());
        let items = rows.into_iter().map(|(inc, id, fields)| self.connection_info(space, &inc, &id, fields)).collect();
        Ok(mark(Page { next, ..Page::complete(items) }, &missing))
    }

    async fn cluster_members<T>(
        &self,
        space: usize,
        group: &str,
        page: &PageRequest,
        whole: bool,
        show: impl Fn(&Self, ConnectionRow) -> T,
    ) -> Result<Page<T>, DirectoryError> {
        let ask = PageRequest { limit: limit(page) + 1, cursor: page.cursor.clone() };
        let mut members = self.members_page(space, group, &ask, whole).await?;
        let cut = members.rows.iter().position(|row| whole && row.connection.is_empty());
        let most = cut.unwrap_or_else(|| limit(page));
        let more = members.rows.len() > most;
        members.rows.truncate(most);
        let last = members.rows.last().filter(|_| more);
        let next =
            last.map(|row| PageCursor::Member(row.incarnation.clone(), row.score.clone(), row.member.clone()).text());
        let missing = self.missing_of(&members.header, members.settled);
        let items = members.rows.into_iter().map(|row| show(self, row)).collect();
        Ok(mark(Page { next, ..Page::complete(items) }, &missing))
    }

    async fn cluster_room(&self, space: usize, room: &str) -> Result<Option<RoomInfo>, DirectoryError> {
        let first = PageRequest { limit: DEFAULT_PAGE, cursor: None };
        let members = self.members_page(space, room, &first, false).await?;
        let missing = self.missing_of(&members.header, members.settled);
        if members.total == 0 {
            // If a node's part is missing, its sessions may be in the room.
            return if missing.partial { Err(DirectoryError::Unavailable) } else { Ok(None) };
        }
        let total = usize::try_from(members.total).unwrap_or(usize::MAX);
        let info = room_info(&self.changes.spaces[space].path, room, total, members.first_ms.map(from_unix_millis));
        let members = members.rows.into_iter().map(member_info).collect();
        Ok(Some(RoomInfo { members, partial: missing.partial, missing_nodes: missing.nodes, ..info }))
    }

    async fn cluster_connection(&self, space: usize, id: &str) -> Result<Option<ConnectionInfo>, DirectoryError> {
        let (settled, mut reply) = self.read(&self.scripts.connection, space, texts(&[id])).await?;
        let missing = self.missing_of(&ReplyHeader::of(reply.list()), settled);
        let incarnation = reply.text();
        match incarnation.is_empty() {
            true if missing.partial => Err(DirectoryError::Unavailable),
            true => Ok(None),
            false => Ok(Some(self.connection_info(space, &incarnation, id, reply.list()))),
        }
    }

    async fn cluster_user(&self, space: usize, id: &str) -> Result<Option<UserInfo>, DirectoryError> {
        let (settled, mut reply) = self.read(&self.scripts.status, space, texts(&[id])).await?;
        let missing = self.missing_of(&ReplyHeader::of(reply.list()), settled);
        let status = Some(reply.text()).filter(|text| !text.is_empty());
        match reply.number() {
            0 if missing.partial => Err(DirectoryError::Unavailable),
            0 => Ok(None),
            sockets => Ok(Some(self.user_info(space, id.to_owned(), sockets, status))),
        }
    }

    fn user_info(&self, space: usize, user_id: String, connections: u64, status: Option<String>) -> UserInfo {
        let status = status.and_then(|text| serde_json::from_str(&text).ok()).map(|status| shown(&status));
        UserInfo { user_id, namespace: self.changes.spaces[space].path.to_string(), connections, status }
    }
}

fn member_info(row: ConnectionRow) -> MemberInfo {
    let (id, user) = row.member.split_once('\0').unwrap_or((&row.member, ""));
    MemberInfo {
        socket_id: id.to_owned(),
        user_id: Some(user.to_owned()).filter(|user| !user.is_empty()),
        node: node_of(&row.incarnation).to_owned(),
    }
}

fn row_connection(inner: &PresenceState, space: usize, row: ConnectionRow) -> ConnectionInfo {
    let id = row.member.split('\0').next().unwrap_or_default().to_owned();
    inner.connection_info(space, &row.incarnation, &id, row.connection)
}

/// Whether the page follows a page that this node answered without Redis. If so, this node answers without Redis again.
fn is_local(page: &PageRequest) -> Result<bool, DirectoryError> {
    Ok(matches!(PageCursor::of(page)?, Some(PageCursor::Local(_))))
}

/// Asks Redis about the whole cluster or, if Redis is unavailable, only this node.
macro_rules! ask {
    ($self:ident, $namespace:ident, |$inner:ident, $space:ident| $cluster:expr, |$missing:ident| $local:expr) => {
        async move {
            let $inner = &*$self.inner;
            let Some($space) = $inner.changes.space($namespace) else { return Err(DirectoryError::Unavailable) };
            match $cluster {
                Err(DirectoryError::Unavailable) => {
                    let $missing = $inner.alone();
                    $local
                }
                answer => answer,
            }
        }
        .boxed()
    };
}

/// Returns the value if this node has it. Otherwise it may be on another node, so the answer is `Unavailable`.
fn found<T>(here: Option<T>) -> Result<Option<T>, DirectoryError> {
    here.map(Some).ok_or(DirectoryError::Unavailable)
}

impl Directory for RedisPresence {
    fn connections<'a>(&'a self, namespace: &'a str, page: PageRequest) -> DirectoryFuture<'a, Page<ConnectionInfo>> {
        ask!(
            self,
            namespace,
            |inner, space| match is_local(&page)? {
                true => Err(DirectoryError::Unavailable),
                false => inner.cluster_connections(space, &page).await,
            },
            |missing| Ok(mark(inner.local.connections(namespace, &page)?, &missing))
        )
    }

    fn slowest_here(&self, namespace: &str, by: Slowness, limit: usize) -> Vec<ConnectionInfo> {
        self.inner.local.slowest(namespace, by, limit)
    }

    fn connection<'a>(&'a self, namespace: &'a str, socket_id: &'a str) -> DirectoryFuture<'a, Option<ConnectionInfo>> {
        ask!(
            self,
            namespace,
            |inner, space| match inner.local.connection(namespace, socket_id) {
                Some(here) => Ok(Some(here)),
                None => inner.cluster_connection(space, socket_id).await,
            },
            |_missing| found(inner.local.connection(namespace, socket_id))
        )
    }

    fn rooms<'a>(&'a self, namespace: &'a str, page: PageRequest) -> DirectoryFuture<'a, Page<RoomInfo>> {
        ask!(
            self,
            namespace,
            |inner, space| match inner.names_page(space, "rooms", &page).await {
                Err(error) => Err(error),
                Ok((missing, next, rows)) => {
                    let items = rows.each(|mut row| {
                        let (name, members, first) = (row.text(), row.number(), row.text().parse().ok());
                        let members = usize::try_from(members).unwrap_or(usize::MAX);
                        room_info(namespace, &name, members, first.map(from_unix_millis))
                    });
                    Ok(mark(Page { next, ..Page::complete(items) }, &missing))
                }
            },
            |missing| Ok(mark(inner.local.rooms_page(namespace, &page)?, &missing))
        )
    }

    fn room<'a>(&'a self, namespace: &'a str, room: &'a str) -> DirectoryFuture<'a, Option<RoomInfo>> {
        ask!(self, namespace, |inner, space| inner.cluster_room(space, room).await, |missing| {
            found(inner.local.room(namespace, room))
                .map(|room| room.map(|room| RoomInfo { partial: true, missing_nodes: missing.nodes, ..room }))
        })
    }

    fn members<'a>(
        &'a self,
        namespace: &'a str,
        room: &'a str,
        page: PageRequest,
    ) -> DirectoryFuture<'a, Page<MemberInfo>> {
        ask!(
            self,
            namespace,
            |inner, space| match is_local(&page)? {
                true => Err(DirectoryError::Unavailable),
                false => inner.cluster_members(space, room, &page, false, |_, row| member_info(row)).await,
            },
            |missing| Ok(mark(inner.local.members(namespace, room, &page)?, &missing))
        )
    }

    fn users<'a>(&'a self, namespace: &'a str, page: PageRequest) -> DirectoryFuture<'a, Page<UserInfo>> {
        ask!(
            self,
            namespace,
            |inner, space| match inner.names_page(space, "users", &page).await {
                Err(error) => Err(error),
                Ok((missing, next, rows)) => {
                    let items = rows.each(|mut row| {
                        let (id, sockets, _first, status) = (row.text(), row.number(), row.text(), row.text());
                        inner.user_info(space, id, sockets, Some(status))
                    });
                    Ok(mark(Page { next, ..Page::complete(items) }, &missing))
                }
            },
            |missing| Ok(mark(inner.local.users(namespace, &page)?, &missing))
        )
    }

    fn user<'a>(&'a self, namespace: &'a str, user_id: &'a str) -> DirectoryFuture<'a, Option<UserInfo>> {
        ask!(self, namespace, |inner, space| inner.cluster_user(space, user_id).await, |_missing| {
            found(inner.local.users.info(namespace, user_id))
        })
    }

    fn user_connections<'a>(
        &'a self,
        namespace: &'a str,
        user_id: &'a str,
        page: PageRequest,
    ) -> DirectoryFuture<'a, Page<ConnectionInfo>> {
        ask!(
            self,
            namespace,
            |inner, space| match is_local(&page)? {
                true => Err(DirectoryError::Unavailable),
                false => {
                    let group = user_room(user_id);
                    let show = move |inner: &PresenceState, row: ConnectionRow| row_connection(inner, space, row);
                    inner.cluster_members(space, &group, &page, true, show).await
                }
            },
            |missing| Ok(mark(inner.local.user_connections(namespace, user_id, &page)?, &missing))
        )
    }

    fn count<'a>(&'a self, namespace: &'a str, of: CountOf<'a>) -> DirectoryFuture<'a, Count> {
        ask!(
            self,
            namespace,
            |inner, space| match of {
                CountOf::Namespace => inner.all_counts(space).await,
                CountOf::Room(room) => inner.count_of(space, room).await,
                CountOf::User(user) => inner.count_of(space, &user_room(user)).await,
            },
            |missing| {
                let here = inner.local.count(namespace, of);
                Ok(Count { partial: true, missing_nodes: missing.nodes, ..here })
            }
        )
    }
}
