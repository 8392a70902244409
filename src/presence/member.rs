//! The members of rooms.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::contract::model::MemberUnit;
use crate::session::Session;
use crate::time::{from_unix_millis, iso8601};

/// The identity of a member in a room: the member joins with its first socket and leaves with its last one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MemberKey {
    /// A user, by id. A user may have any number of sockets.
    User(Arc<str>),
    /// A socket, by its id: that of an anonymous user, or any socket where the contract counts sockets.
    Socket(Arc<str>),
}

impl MemberKey {
    /// The member that a session counts as.
    pub(super) fn of(session: &Session, each: MemberUnit) -> Self {
        match user_id(session).filter(|_| each == MemberUnit::User) {
            Some(user) => Self::User(user),
            None => Self::Socket(session.id().into()),
        }
    }

    /// The user's or socket's id.
    pub fn id(&self) -> &Arc<str> {
        match self {
            Self::User(id) | Self::Socket(id) => id,
        }
    }
}

/// The first character in the key of a member that is a socket. No user id begins with it ([`script_user`]).
const SOCKET_KEY: char = '\u{1}';

/// A user's id as it is passed to the scripts. U+0001 and NUL are replaced where the scripts would misread them:
/// scripts separate fields by NUL, and keys of sockets begin with U+0001.
pub(super) fn script_user(id: Arc<str>) -> Arc<str> {
    if id.contains('\0') || id.starts_with(SOCKET_KEY) { id.replace(['\0', SOCKET_KEY], "\u{fffd}").into() } else { id }
}

/// A member of a room, described by one of its sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomMember {
    /// The member's identity.
    pub key: MemberKey,
    /// The id of one of the member's sockets: the first one when the member joins, the last one when it leaves.
    pub socket_id: Arc<str>,
    /// The user's id; `None` for anonymous users.
    pub user_id: Option<Arc<str>>,
    /// The metadata of that socket.
    pub metadata: Map<String, Value>,
    /// When the member joined the room, in ms of Unix time.
    pub joined_at_ms: u64,
}

impl RoomMember {
    /// Describes the member that a session counts as.
    pub(super) fn of(session: &Session, each: MemberUnit, joined_at_ms: u64) -> Self {
        Self {
            key: MemberKey::of(session, each),
            socket_id: session.id().into(),
            user_id: user_id(session),
            metadata: session.metadata(),
            joined_at_ms,
        }
    }

    /// Describes a member from the fields that a script returns.
    pub(super) fn of_script(each: MemberUnit, socket: String, user: String, metadata: &str, joined_at_ms: u64) -> Self {
        let socket_id: Arc<str> = socket.into();
        let user_id: Option<Arc<str>> = (!user.is_empty()).then(|| user.into());
        let key = match user_id.clone().filter(|_| each == MemberUnit::User) {
            Some(user) => MemberKey::User(user),
            None => MemberKey::Socket(socket_id.clone()),
        };
        Self { key, socket_id, user_id, metadata: serde_json::from_str(metadata).unwrap_or_default(), joined_at_ms }
    }

    /// The member as templates see it. An anonymous user's `userId` is null; only a socket has a `socketId`.
    pub fn to_json(&self) -> Value {
        let mut member = json!({
            "id": &**self.key.id(),
            "userId": self.user_id.as_deref(),
            "metadata": self.metadata,
            "joinedAt": iso8601(from_unix_millis(self.joined_at_ms)),
        });
        if let (Some(members), MemberKey::Socket(socket)) = (member.as_object_mut(), &self.key) {
            members.insert("socketId".to_owned(), Value::from(&**socket));
        }
        member
    }
}

/// The user's id; `None` for anonymous users.
pub(super) fn user_id(session: &Session) -> Option<Arc<str>> {
    let user = session.user();
    (!user.anonymous).then(|| user.id.clone())
}
