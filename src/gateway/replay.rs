//! Joining a room that has a history: what a client is shown first, without a gap or a copy before the live events.
//!
//! ```text
//! begin_replay   every live event of the session waits from here on
//! join           live events of the room come in, and wait
//! settled        Redis has confirmed that those of other nodes do
//! read           the join takes effect here: what is older is history, what is newer is live
//! send           what the contract lets a joining client see
//! end_replay     what waited and was not shown follows, in order
//! ```
//!
//! This is without a gap because an event that is appended after the read reaches this node's sessions live: between the
//! join and the read it is waited until Redis has confirmed that the room's events arrive here ([`Rooms::settled`]).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::contract::model::RoomDef;
use crate::event::Stamp;
use crate::history::replay::{is_complete, plan};
use crate::history::{History, Page, RoomKey, Since};
use crate::room::Rooms;
use crate::session::trail::Point;
use crate::session::{Release, Replayed, RoomName, SendError, Session};

/// A client whose queue stays full this long is not shown the rest.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How soon a full queue is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(10);

/// What came of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// False when the client was in the room already, or is gone.
    pub new: bool,
    /// What it was shown; `None` where the contract shows nothing.
    pub replay: Option<ReplayOutcome>,
}

/// What a joining client was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayOutcome {
    /// The room.
    pub room: RoomName,
    /// The history's epoch; 0 when the room has none, or it could not be read.
    pub epoch: u64,
    /// The newest event when the client joined: live events follow from here.
    pub offset: u64,
    /// Whether the client can be sure to have all that the contract, and its `since`, ask for.
    pub complete: bool,
    /// How many events it was shown.
    pub replayed: usize,
}

impl ReplayOutcome {
    /// The member `history` of a join's default ack.
    pub fn to_json(&self) -> Value {
        json!({
            "room": &*self.room,
            "epoch": self.epoch,
            "offset": self.offset,
            "complete": self.complete,
            "replayed": self.replayed,
        })
    }
}

/// Joins a room and shows the client what the room's contract says, before any newer live event.
///
/// `since` is the place that the client names (`payload.since`). Joining again shows it again, because the client asked
/// for it. While the history cannot be read the join is done without it, and said to be incomplete.
pub async fn join_with_replay(
    rooms: &Rooms,
    history: &History,
    session: &Arc<Session>,
    room: &RoomName,
    def: &RoomDef,
    since: Option<Since>,
) -> Joined {
    let Some((policy, query)) = def.history.as_ref().and_then(|policy| Some((policy, plan(policy, since)?))) else {
        let new = rooms.join(session, room);
        rooms.settled(session.namespace(), room).await;
        return Joined { new, replay: None };
    };
    let hold = Hold::begin(session, room);
    let new = rooms.join(session, room);
    rooms.settled(session.namespace(), room).await;
    let key = RoomKey { namespace: session.namespace().clone(), room: room.clone() };
    let mut outcome = ReplayOutcome { room: room.clone(), epoch: 0, offset: 0, complete: false, replayed: 0 };
    let until = Instant::now() + PATIENCE;
    let why = match history.read(&key, query).await {
        Ok(page) => {
            outcome.epoch = page.epoch;
            outcome.offset = page.last_offset;
            begin_trail(session, room, &page);
            outcome.replayed = send_all(session, room, &page, until).await;
            let all_sent = outcome.replayed == page.events.len();
            let held_sent = hold.end(shown(&page), until).await;
            match (all_sent && held_sent, is_complete(policy.replay, query, &page)) {
                (true, true) => None,
                (true, false) => Some("gone"),
                (false, _) => Some("slow"),
            }
        }
        Err(_) => {
            hold.end(None, until).await;
            Some("unavailable")
        }
    };
    outcome.complete = why.is_none();
    history.count_replay(session.namespace(), outcome.replayed, why);
    Joined { new, replay: Some(outcome) }
}

/// Sends a page, oldest first, and returns how many events were queued. Live events wait meanwhile.
async fn send_all(session: &Session, room: &RoomName, page: &Page, until: Instant) -> usize {
    let mut sent = 0;
    // The plan reads the newest first.
    for (offset, event) in page.events.iter().rev() {
        let stamp = Stamp { room: room.clone(), epoch: page.epoch, offset: *offset };
        loop {
            match session.send_placed(event, std::slice::from_ref(&stamp)) {
                Ok(()) => break,
                Err(SendError::Full) if Instant::now() < until => tokio::time::sleep(RETRY).await,
                Err(_) => return sent,
            }
        }
        sent += 1;
    }
    sent
}

/// A client that is cut off while it is shown the history is owed the rest when it comes back.
fn begin_trail(session: &Session, room: &RoomName, page: &Page) {
    if let Some(trail) = session.trail() {
        let offset = page.oldest().map_or(page.last_offset, |oldest| oldest - 1);
        trail.begin(room, Point { epoch: page.epoch, offset });
    }
}

/// What the session need not be sent live; `None` when the room has no history.
fn shown(page: &Page) -> Option<Replayed> {
    let first = page.oldest().unwrap_or(page.last_offset + 1);
    (page.epoch != 0).then_some(Replayed { epoch: page.epoch, first, last: page.last_offset })
}

/// Live events wait as long as this lives.
struct Hold<'a> {
    session: &'a Session,
    room: &'a RoomName,
    ended: bool,
}

impl<'a> Hold<'a> {
    fn begin(session: &'a Session, room: &'a RoomName) -> Self {
        session.begin_replay();
        Self { session, room, ended: false }
    }

    /// Lets live events pass, those that waited first. False when the client was too slow, or too much
    /// came meanwhile, and some were dropped.
    async fn end(mut self, shown: Option<Replayed>, until: Instant) -> bool {
        self.ended = true;
        let mut release = self.session.end_replay(self.room, shown);
        while release == Release::Blocked && Instant::now() < until {
            tokio::time::sleep(RETRY).await;
            release = self.session.release_held();
        }
        match release {
            Release::Done { lost } => lost == 0,
            Release::Blocked => self.session.drop_held() == 0,
            Release::Closed => true,
        }
    }
}

// The join was given up half-way: nothing waits for ever.
impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if !self.ended && self.session.end_replay(self.room, None) == Release::Blocked {
            self.session.drop_held();
        }
    }
}
