//! The stored state of a session, from which it is recovered when its client returns.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::session::trail::{Point, Snapshot};
use crate::session::{RoomName, Session};

/// The stored state of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The session's id.
    pub id: String,
    /// The session's rooms, each with the point at which the session began in it (`None` while that point is not
    /// known).
    #[serde(with = "rooms")]
    pub rooms: Vec<(RoomName, Option<Point>)>,
    /// The session's metadata.
    pub metadata: Map<String, Value>,
    /// The number of times that the session was recovered.
    pub generation: u64,
    /// The version of this state.
    pub version: u64,
}

impl Kept {
    /// Reads the current state of a session.
    pub(super) fn of(session: &Session, snapshot: Snapshot) -> Self {
        Self {
            id: session.id().to_owned(),
            rooms: snapshot.rooms,
            metadata: session.metadata(),
            generation: session.trail().map_or(0, |trail| trail.generation()),
            version: snapshot.version,
        }
    }

    /// The same state for a session that is being recovered.
    pub(super) fn next_generation(self) -> Self {
        Self { generation: self.generation + 1, ..self }
    }
}

// Reads and writes room names as plain strings.
mod rooms {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Point, RoomName};

    pub(super) fn serialize<S: Serializer>(
        rooms: &[(RoomName, Option<Point>)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        rooms.iter().map(|(room, point)| (&**room, *point)).collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        deserializer: D,
    ) -> Result<Vec<(RoomName, Option<Point>)>, D::Error> {
        let rooms = Vec::<(String, Option<Point>)>::deserialize(deserializer)?;
        Ok(rooms.into_iter().map(|(room, point)| (room.into(), point)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_survives_redis() {
        let kept = Kept {
            id: "x".into(),
            rooms: vec![("a\"é".into(), Some(Point { epoch: 1 << 50, offset: 3 })), ("b".into(), None)],
            metadata: Map::from_iter([("k".to_owned(), Value::from(1))]),
            generation: 2,
            version: 9,
        };
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept);
    }
}
