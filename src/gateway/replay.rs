//! Joins a room that has a history: the client gets the history first, then the live events, without a gap or a
//! duplicate.
//!
//! ```text
//! begin_replay   from here on, live events of the session are held
//! join           live events of the room arrive, and are held
//! settled        Redis has confirmed that live events of other nodes arrive too
//! read           the join takes effect here: older events are history, newer ones are live
//! send           the part of the history that the contract shows
//! end_replay     the held events that were not sent above follow, in order
//! ```
//!
//! There is no gap, because an event that is appended after the read reaches this node's sessions live: between the
//! join and the read, the node waits until Redis has confirmed that the room's events arrive here
//! ([`Rooms::settled`]).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::contract::model::RoomDef;
use crate::event::{Event, RecoveryMark, Stamp};
use crate::history::replay::{first_shown, plan};
use crate::history::{History, HistoryPage, HistoryQuery, HistoryStart, MAX_PAGE, PageOrder, RoomKey};
use crate::room::Rooms;
use crate::session::offsets::HistoryPoint;
use crate::session::{HeldRelease, MAX_SHOWN_IDS, Replayed, RoomName, SendError, Session};

/// How long a client may take for each page of a history. A client that takes longer is not sent the rest.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How soon sending is tried again after the client's write queue was full.
pub(super) const RETRY: Duration = Duration::from_millis(10);

/// The result of joining a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinResult {
    /// Whether the client was added to the room. False when the client was in the room already, or is gone.
    pub new: bool,
    /// Which part of the history the client was sent; `None` where the contract shows nothing.
    pub replay: Option<ReplayOutcome>,
}

/// Which part of a room's history a joining client was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayOutcome {
    /// The room.
    pub room: RoomName,
    /// The history's epoch; 0 when the room has no history, or the history could not be read.
    pub epoch: u64,
    /// The offset of the newest event at the time of the join. Live events follow it.
    pub offset: u64,
    /// Whether the client has all events that the contract, and the client's `since`, ask for.
    pub complete: bool,
    /// How many events the client was sent.
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

/// Joins a room and sends the client the part of its history that the contract shows, before any newer live event.
///
/// `since` is the offset that the client names (`payload.since`). Joining again sends the history again, because the
/// client asked for it. While the history cannot be read, the client joins without a history and is told that the
/// history is incomplete.
pub async fn join_with_replay(
    rooms: &Rooms,
    history: &History,
    session: &Arc<Session>,
    room: &RoomName,
    def: &RoomDef,
    since: Option<HistoryStart>,
) -> JoinResult {
    let Some((policy, query)) = def.history.as_ref().and_then(|policy| Some((policy, plan(policy, since)?))) else {
        let new = rooms.join(session, room);
        rooms.settled(session.namespace(), room).await;
        return JoinResult { new, replay: None };
    };
    let hold = ReplayHold::begin(session, room);
    let new = rooms.join(session, room);
    let heard = rooms.settled(session.namespace(), room).await;
    let key = RoomKey { namespace: session.namespace().clone(), room: room.clone() };
    let mut outcome = ReplayOutcome { room: room.clone(), epoch: 0, offset: 0, complete: false, replayed: 0 };
    let why = match history.read(&key, query).await {
        Ok(newest) => {
            outcome.epoch = newest.epoch;
            outcome.offset = newest.last_offset;
            let first = first_shown(policy.replay, query, &newest);
            begin_trail(session, room, &newest, first);
            let mut showing =
                HistoryReplay { session, history, key: &key, epoch: newest.epoch, sent: 0, ids: Vec::new() };
            let why = showing.show(query, &newest, first).await;
            outcome.replayed = showing.sent;
            session.note_shown(showing.ids);
            let held_sent = hold.end(shown(&newest, first), Instant::now() + PATIENCE).await;
            match (heard, held_sent) {
                // Live events of other nodes may be missing, because Redis has not confirmed the subscription.
                (false, _) => Some("unavailable"),
                (true, false) => Some("slow"),
                (true, true) => why,
            }
        }
        Err(_) => {
            hold.end(None, Instant::now() + PATIENCE).await;
            Some("unavailable")
        }
    };
    outcome.complete = why.is_none();
    history.count_replay(session.namespace(), outcome.replayed, why);
    if let (false, Some(name)) = (outcome.complete, &policy.incomplete)
        && let Ok(event) = Event::encode(name, &[outcome.to_json()])
    {
        // A failure is ignored: the client's write queue has already been full for as long as [`PATIENCE`] permits.
        let _ = send_patiently(session, &event, &[], Instant::now() + PATIENCE).await;
    }
    JoinResult { new, replay: Some(outcome) }
}

/// Sends a room's history to a client. Live events are held back during that time.
struct HistoryReplay<'a> {
    session: &'a Session,
    history: &'a History,
    key: &'a RoomKey,
    epoch: u64,
    sent: usize,
    /// The short ids of the newest events that were sent to the client.
    ids: Vec<u64>,
}

impl HistoryReplay<'_> {
    /// Sends all events of the history from offset `first` on, oldest first. `newest` is the page with the newest of
    /// these events. Returns the reason if the client did not get everything that it may expect.
    async fn show(&mut self, query: HistoryQuery, newest: &HistoryPage, first: u64) -> Option<&'static str> {
        let oldest = newest.oldest().unwrap_or(newest.last_offset + 1);
        let why = if first < oldest {
            self.show_earlier(query.since, first, oldest).await
        } else {
            (!newest.complete).then_some("gone")
        };
        if why == Some(SLOW) {
            return why;
        }
        // The newest page of the history is sorted newest first, so it is sent in reverse.
        self.send(newest.events.iter().rev()).await.err().or(why)
    }

    /// Sends the pages before the newest one, which begins at offset `oldest`. Events that the history drops before
    /// they are read are missing.
    async fn show_earlier(&mut self, since: Option<HistoryStart>, first: u64, oldest: u64) -> Option<&'static str> {
        let mut next = first;
        let mut why = None;
        let mut from = since.unwrap_or(HistoryStart { epoch: None, offset: 0 });
        while next < oldest {
            let query = HistoryQuery { limit: MAX_PAGE, since: Some(from), order: PageOrder::Asc };
            let Ok(page) = self.history.read(self.key, query).await else { return Some("unavailable") };
            let proven = page.complete || (next == first && since.is_none());
            let earlier = || page.events.iter().take_while(|(offset, _)| *offset < oldest);
            let (Some((start, _)), true) = (earlier().next(), page.epoch == self.epoch) else { return Some("gone") };
            if *start != next || !proven {
                why = Some("gone");
            }
            let end = earlier().last().map_or(*start, |(offset, _)| *offset);
            if let Err(slow) = self.send(earlier()).await {
                return Some(slow);
            }
            next = end + 1;
            from = HistoryStart { epoch: Some(self.epoch), offset: end };
        }
        why
    }

    /// Sends one page of the history, in order.
    async fn send<'e>(&mut self, events: impl Iterator<Item = &'e (u64, Event)>) -> Result<(), &'static str> {
        let until = Instant::now() + PATIENCE;
        for (offset, event) in events {
            let stamp = Stamp { room: self.key.room.clone(), epoch: self.epoch, offset: *offset };
            send_patiently(self.session, event, &[stamp], until).await.map_err(|_| SLOW)?;
            self.sent += 1;
            self.ids.extend(event.mark().map(RecoveryMark::short));
        }
        self.ids.drain(..self.ids.len().saturating_sub(MAX_SHOWN_IDS));
        Ok(())
    }
}

/// Returns the reason if the client did not read the history within [`PATIENCE`] for each page.
const SLOW: &str = "slow";

/// Queues an event. Waits while the client's write queue is full, at most until `until`.
async fn send_patiently(session: &Session, event: &Event, stamps: &[Stamp], until: Instant) -> Result<(), SendError> {
    loop {
        match session.send_placed(event, stamps) {
            Err(SendError::Full) if Instant::now() < until => tokio::time::sleep(RETRY).await,
            sent => return sent,
        }
    }
}

/// Records the offset before the first event of the history. A client whose connection breaks while the history is sent
/// gets the rest when it recovers its session.
fn begin_trail(session: &Session, room: &RoomName, newest: &HistoryPage, first: u64) {
    if let Some(offsets) = session.offsets() {
        offsets.begin(room, HistoryPoint { epoch: newest.epoch, offset: first - 1 });
    }
}

/// The offsets of the events that the session has been sent, so that these events are not sent again live. `None` when
/// the room has no history.
fn shown(newest: &HistoryPage, first: u64) -> Option<Replayed> {
    (newest.epoch != 0).then_some(Replayed { epoch: newest.epoch, first, last: newest.last_offset })
}

/// Holds back the session's live events as long as this value exists.
struct ReplayHold<'a> {
    session: &'a Session,
    room: &'a RoomName,
    ended: bool,
}

impl<'a> ReplayHold<'a> {
    fn begin(session: &'a Session, room: &'a RoomName) -> Self {
        session.begin_replay();
        Self { session, room, ended: false }
    }

    /// Ends the replay: sends the live events that were held back during it, and lets later ones pass. Returns false
    /// when some events were dropped, because the client was too slow or too many events were held back.
    async fn end(mut self, shown: Option<Replayed>, until: Instant) -> bool {
        self.ended = true;
        let mut release = self.session.end_replay(self.room, shown);
        while release == HeldRelease::Blocked && Instant::now() < until {
            tokio::time::sleep(RETRY).await;
            release = self.session.release_held();
        }
        match release {
            HeldRelease::Done { lost } => lost == 0,
            HeldRelease::Blocked => self.session.drop_held() == 0,
            HeldRelease::Closed => true,
        }
    }
}

// The join was abandoned before its end: the held events are released, so that they do not wait forever.
impl Drop for ReplayHold<'_> {
    fn drop(&mut self) {
        if !self.ended && self.session.end_replay(self.room, None) == HeldRelease::Blocked {
            self.session.drop_held();
        }
    }
}
