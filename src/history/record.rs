//! Records one event in the histories of all its rooms.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::{History, HistoryError, ListCopy, Retention, RoomKey, RoomTurn};
use crate::contract::model::{RecoveryPolicy, RoomDef};
use crate::event::{Event, Stamp};
use crate::session::RoomName;

/// How much longer than the recovery window a history is kept that exists only for recovery. A client cannot be
/// recovered across two epochs; the longer time keeps the epoch of a room with few events.
const RETURNS_KEPT: Duration = Duration::from_secs(60 * 60);

/// The history and the list that the contract keeps for a room of an event.
#[derive(Debug, Clone)]
pub struct RoomRecord {
    /// The room.
    pub room: RoomKey,
    /// How many events the history keeps, and for how long.
    pub retention: Retention,
    /// The contract's own list, which is written in addition to the history.
    pub list: Option<ListTarget>,
}

/// A list that other services read; see [`ListCopy`].
#[derive(Debug, Clone)]
pub struct ListTarget {
    key: String,
    events: u32,
    ttl: Duration,
}

/// The result of recording an event: its stamps, and the turn in its rooms, which keeps later events waiting. Emit the
/// event before this value is dropped.
#[must_use = "the event is to be emitted while the turn lasts"]
pub struct Recorded {
    /// The event's position in each history that stored it, and a [`Stamp::unsure`] for each history that may have
    /// stored it.
    pub stamps: Vec<Stamp>,
    /// Whether every history is known to have stored the event.
    pub is_whole: bool,
    /// Whether another node has the lease to publish this event now. The event must not be emitted then.
    pub is_fenced: bool,
    /// Whether too many bytes wait to be recorded. The event must not be emitted then, because it would overtake the
    /// events that wait.
    pub is_refused: bool,
    _turn: Option<RoomTurn>,
}

impl RoomRecord {
    /// The history and the list of a room; `None` when the contract keeps no history for the room. `vars` are the
    /// variables of the room's name.
    pub fn of(
        def: &RoomDef,
        namespace: &Arc<str>,
        name: &RoomName,
        vars: &[(String, String)],
        terminal: bool,
    ) -> Option<Self> {
        let policy = def.history.as_ref()?;
        let key = policy.key.as_ref().and_then(|template| template.fill(vars));
        Some(Self {
            room: RoomKey { namespace: namespace.clone(), room: name.clone() },
            retention: Retention::of(def, terminal)?,
            // The list belongs to the application, so it does not expire with the room.
            list: key.map(|key| ListTarget { key, events: policy.events.max(1), ttl: policy.ttl }),
        })
    }

    /// How much history to keep for a room that has a history only for recovery.
    pub fn for_returns(namespace: &Arc<str>, name: &RoomName, policy: &RecoveryPolicy) -> Self {
        Self {
            room: RoomKey { namespace: namespace.clone(), room: name.clone() },
            retention: Retention { events: policy.events, ttl: policy.window + RETURNS_KEPT },
            list: None,
        }
    }
}

impl History {
    /// Waits for the turn in the rooms, and appends the event to the history of each. Returns without waiting if
    /// `keepings` is empty.
    ///
    /// Errors are counted. After an error the event has no position in that history. It is still published live, unless
    /// `is_fenced` or `is_refused` is set.
    pub async fn record(&self, keepings: &[RoomRecord], event: &Event) -> Recorded {
        let Some(_taken) = self.waiting.take(event.size_bytes()) else {
            self.metrics.history_errors_total.with_label_values(&["append", "full"]).inc();
            return Recorded { stamps: Vec::new(), is_whole: false, is_fenced: false, is_refused: true, _turn: None };
        };
        let rooms: Vec<_> = keepings.iter().map(|keeping| keeping.room.clone()).collect();
        let turn = self.sequencer.turn(&rooms).await;
        let payload = match keepings.iter().any(|keeping| keeping.list.is_some()) {
            true => event.args().ok().and_then(|args| args.first().map(|payload| payload.get().to_owned())),
            false => None,
        };
        let appends = keepings.iter().map(|keeping| self.append_one(keeping, payload.as_deref(), event));
        let appended = join_all(appends).await;
        let is_fenced = appended.iter().any(|appended| matches!(appended, Err(HistoryError::Fenced)));
        let is_whole = appended.iter().all(Result::is_ok);
        let stamps = keepings.iter().zip(appended).filter_map(|(keeping, appended)| match appended {
            Ok(stamp) => Some(stamp),
            Err(HistoryError::Timeout) => Some(Stamp::unsure(keeping.room.room.clone(), event.mark()?)),
            Err(_) => None,
        });
        Recorded { stamps: stamps.collect(), is_whole, is_fenced, is_refused: false, _turn: Some(turn) }
    }

    async fn append_one(
        &self,
        keeping: &RoomRecord,
        payload: Option<&str>,
        event: &Event,
    ) -> Result<Stamp, HistoryError> {
        let copy = keeping.list.as_ref().map(|list| ListCopy {
            key: &list.key,
            payload: payload.unwrap_or("null"),
            events: list.events,
            ttl: list.ttl,
        });
        let appended = self.append(&keeping.room, keeping.retention, copy, event).await?;
        Ok(Stamp { room: keeping.room.room.clone(), epoch: appended.epoch, offset: appended.offset })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn keeping(room: &str) -> RoomRecord {
        RoomRecord {
            room: RoomKey { namespace: "/".into(), room: room.into() },
            retention: Retention { events: 1000, ttl: Duration::from_secs(60) },
            list: None,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn events_are_emitted_in_the_order_of_their_offsets() {
        let history = Arc::new(History::in_memory(Arc::new(Metrics::new())));
        let emitted = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let (history, emitted) = (history.clone(), emitted.clone());
                tokio::spawn(async move {
                    let rooms = if task % 2 == 0 { vec![keeping("a"), keeping("b")] } else { vec![keeping("a")] };
                    let event = Event::encode("e", [(); 0]).unwrap();
                    for _ in 0..100 {
                        let recorded = history.record(&rooms, &event).await;
                        tokio::task::yield_now().await;
                        emitted.lock().unwrap().push(recorded.stamps[0].offset);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*emitted.lock().unwrap(), (1..=800).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn event_without_a_history_is_recorded_nowhere_and_at_once() {
        let history = History::in_memory(Arc::new(Metrics::new()));
        let event = Event::encode("e", [(); 0]).unwrap();
        assert_eq!(history.record(&[], &event).await.stamps, []);
    }
}
