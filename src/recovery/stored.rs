//! The stored state of a session, from which it is recovered when its client returns.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::secret;
use crate::session::offsets::{HistoryPoint, OffsetsSnapshot, SessionOffsets};
use crate::session::{MetadataSetter, RoomName, Session};

/// The stored state of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSession {
    /// The session's id.
    pub id: String,
    /// The session's rooms, each with the point at which the session began in it (`None` while that point is not
    /// known).
    #[serde(with = "rooms")]
    pub rooms: Vec<(RoomName, Option<HistoryPoint>)>,
    /// The session's metadata.
    pub metadata: Map<String, Value>,
    /// The members of the metadata that a hook has set.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub set_by_hooks: BTreeSet<String>,
    /// The number of times that the session was recovered.
    pub generation: u64,
    /// The version of this state.
    pub version: u64,
}

/// A session that has ended, as it is given to a store.
pub struct EndedSession {
    /// The key under which the session is stored.
    pub key: Arc<str>,
    /// A digest of the session's user. Only the same user can take the session.
    pub digest: String,
    /// The last state of the session.
    pub state: StoredSession,
    /// How long the client may return. Zero if it may not.
    pub window: Duration,
    /// Whether any state of the session was stored while the session was connected.
    pub was_saved: bool,
    /// Whether the newest state was stored while the session was connected. If not, the session cannot be recovered
    /// from what was stored.
    pub is_whole: bool,
}

impl EndedSession {
    /// Describes a session that ends now.
    pub(super) fn of(session: &Session, offsets: &SessionOffsets, window: Duration) -> Self {
        Self {
            key: offsets.key().clone(),
            digest: secret::digest(&session.user()),
            state: StoredSession::of(session, offsets.snapshot()),
            window,
            was_saved: offsets.was_saved(),
            is_whole: offsets.to_save().is_none(),
        }
    }

    /// Describes a session that was taken and is stored again.
    pub(super) fn again(key: &Arc<str>, digest: String, state: &StoredSession, window: Duration) -> Self {
        Self { key: key.clone(), digest, state: state.clone(), window, was_saved: false, is_whole: true }
    }
}

impl StoredSession {
    /// Reads the current state of a session.
    pub(super) fn of(session: &Session, snapshot: OffsetsSnapshot) -> Self {
        Self {
            id: session.id().to_owned(),
            rooms: snapshot.rooms,
            metadata: session.metadata(),
            set_by_hooks: session.metadata_set_by_hooks(),
            generation: session.offsets().map_or(0, |offsets| offsets.generation()),
            version: snapshot.version,
        }
    }

    /// The members of the metadata, divided by who has set them.
    pub fn metadata_by_setter(&self) -> [(MetadataSetter, Map<String, Value>); 2] {
        let metadata = self.metadata.clone();
        let (hook, event) = metadata.into_iter().partition(|(name, _)| self.set_by_hooks.contains(name));
        [(MetadataSetter::Hook, hook), (MetadataSetter::Event, event)]
    }

    /// The same state for a session that is being recovered.
    pub(super) fn next_generation(self) -> Self {
        Self { generation: self.generation + 1, ..self }
    }
}

// Reads and writes room names as plain strings.
mod rooms {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{HistoryPoint, RoomName};

    pub(super) fn serialize<S: Serializer>(
        rooms: &[(RoomName, Option<HistoryPoint>)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        rooms.iter().map(|(room, point)| (&**room, *point)).collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        deserializer: D,
    ) -> Result<Vec<(RoomName, Option<HistoryPoint>)>, D::Error> {
        let rooms = Vec::<(String, Option<HistoryPoint>)>::deserialize(deserializer)?;
        Ok(rooms.into_iter().map(|(room, point)| (room.into(), point)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{RECOVERY, frozen};

    #[test]
    fn session_survives_redis() {
        let kept = StoredSession {
            id: "x".into(),
            rooms: vec![("a\"é".into(), Some(HistoryPoint { epoch: 1 << 50, offset: 3 })), ("b".into(), None)],
            metadata: Map::from_iter([("k".to_owned(), Value::from(1))]),
            set_by_hooks: BTreeSet::new(),
            generation: 2,
            version: 9,
        };
        assert_eq!(frozen::check_json(&RECOVERY, "session.json", &kept), kept);
    }
}
