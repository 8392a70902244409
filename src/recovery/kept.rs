//! A session, as it is kept for its client's return.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::session::trail::{Point, Snapshot};
use crate::session::{RoomName, Session};

/// What a session was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// Its rooms, and where in each it began.
    #[serde(with = "rooms")]
    pub rooms: Vec<(RoomName, Option<Point>)>,
    /// Its metadata.
    pub metadata: Map<String, Value>,
    /// How often it has been recovered.
    pub generation: u64,
    /// Which state of the session it is.
    pub version: u64,
}

impl Kept {
    /// A session as it is now.
    pub(super) fn of(session: &Session, snapshot: Snapshot) -> Self {
        Self {
            id: session.id().to_owned(),
            rooms: snapshot.rooms,
            metadata: session.metadata(),
            generation: session.trail().map_or(0, |trail| trail.generation()),
            version: snapshot.version,
        }
    }
}

// Names are shared text, which serde reads and writes only as plain text.
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
