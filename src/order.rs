//! Drops a conflated event that arrives after a newer one, from whichever publisher and node the event comes.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The position of an event among a room's conflated events and the events that end them (completions).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflationOrder {
    /// The namespace and room in which the numbers are compared.
    pub scope: Arc<str>,
    /// The event's number, which grows with every conflated event and completion of the room, over all nodes.
    pub number: u64,
    /// Whether this event is a completion. After a completion every event of the room with a smaller number is dropped.
    /// After any other event, only events of the same name with a smaller number are dropped.
    pub closes: bool,
}

/// Maximum number of rooms whose order is remembered. Beyond it, the rooms whose last event is oldest are forgotten
/// first.
pub const MAX_ORDERED_ROOMS: usize = 65_536;

/// How long the order of a room is remembered after its last delivered event.
const REMEMBERED: Duration = Duration::from_secs(60);

const SHARDS: usize = 16;

/// Remembers the newest delivered number of each room.
pub struct OrderGuard {
    hasher: RandomState,
    shards: [Mutex<HashMap<Arc<str>, SeenOrder>>; SHARDS],
}

struct SeenOrder {
    closed: u64,
    events: HashMap<Box<str>, u64>,
    at: Instant,
}

impl OrderGuard {
    /// Runs `work`, which delivers the event, unless a newer event was delivered. If a newer event was delivered
    /// already, does not run `work` and returns `None`.
    ///
    /// Deliveries in one room run one at a time, so that the check still holds when the event is delivered. `work` must
    /// not wait, and must not deliver another ordered event.
    pub fn deliver<T>(&self, order: Option<&ConflationOrder>, event: &str, work: impl FnOnce() -> T) -> Option<T> {
        let Some(order) = order else { return Some(work()) };
        let shard = usize::try_from(self.hasher.hash_one(&order.scope) % SHARDS as u64).expect("below SHARDS");
        let mut rooms = self.shards[shard].lock().expect("no thread panics while it holds this lock");
        if rooms.len() >= MAX_ORDERED_ROOMS / SHARDS && !rooms.contains_key(&order.scope) {
            forget(&mut rooms);
        }
        let seen = rooms.entry(order.scope.clone()).or_insert_with(|| SeenOrder {
            closed: 0,
            events: HashMap::new(),
            at: Instant::now(),
        });
        if seen.at.elapsed() > REMEMBERED {
            *seen = SeenOrder { closed: 0, events: HashMap::new(), at: Instant::now() };
        }
        seen.admit(order, event).then(work)
    }
}

impl Default for OrderGuard {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

// === impl Seen ===

impl SeenOrder {
    fn admit(&mut self, order: &ConflationOrder, event: &str) -> bool {
        let last = self.events.get(event).copied().unwrap_or(0);
        if order.number < self.closed || order.number <= last {
            return false;
        }
        self.at = Instant::now();
        if order.closes {
            self.closed = order.number;
            self.events.clear();
        } else {
            self.events.insert(event.into(), order.number);
        }
        true
    }
}

/// Removes the rooms whose order has expired, to make space. If that is not enough, also removes the older half of the
/// remaining rooms, so that the work is spread over many inserts.
fn forget(rooms: &mut HashMap<Arc<str>, SeenOrder>) {
    rooms.retain(|_, seen| seen.at.elapsed() < REMEMBERED);
    if rooms.len() >= MAX_ORDERED_ROOMS / SHARDS {
        let mut times: Vec<_> = rooms.values().map(|seen| seen.at).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        rooms.retain(|_, seen| seen.at > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(number: u64, closes: bool) -> ConflationOrder {
        ConflationOrder { scope: "/|room".into(), number, closes }
    }

    #[test]
    fn nothing_older_comes_after_a_completion() {
        let guard = OrderGuard::default();
        let deliver = |event: &str, number, closes| guard.deliver(Some(&order(number, closes)), event, || ()).is_some();
        assert!(deliver("progress", 2, false));
        assert!(!deliver("progress", 1, false), "an older one of its own kind");
        assert!(deliver("other", 1, false), "another kind has an order of its own");
        assert!(deliver("complete", 4, true));
        assert!(!deliver("progress", 3, false), "overtaken");
        assert!(deliver("progress", 5, false), "a new story");
    }

    #[test]
    fn memory_is_bounded() {
        let guard = OrderGuard::default();
        for n in 0..MAX_ORDERED_ROOMS * 2 {
            let order = ConflationOrder { scope: n.to_string().into(), number: 1, closes: false };
            guard.deliver(Some(&order), "e", || ());
        }
        let kept: usize = guard.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= MAX_ORDERED_ROOMS);
    }
}
