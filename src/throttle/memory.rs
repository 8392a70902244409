//! Conflation on one node, in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Closing, DueEvent, ThrottleDecision, ThrottleKey, ThrottleStore};

/// Maximum number of pairs of event and room that are conflated at a time. Beyond it, events are not throttled.
pub const MAX_THROTTLED: usize = 65_536;

/// The throttles of one node.
#[derive(Default)]
pub struct MemoryThrottles {
    gates: Mutex<HashMap<ThrottleKey, ThrottledRoom>>,
    /// The newest number that was assigned.
    number: AtomicU64,
}

struct ThrottledRoom {
    open_at: Instant,
    held: Option<Vec<u8>>,
}

impl ThrottleStore for MemoryThrottles {
    async fn offer(&self, key: &ThrottleKey, every: Duration, value: &[u8]) -> ThrottleDecision {
        let now = Instant::now();
        let mut gates = self.gates.lock().expect("no thread panics while it holds this lock");
        if gates.len() >= MAX_THROTTLED && !gates.contains_key(key) {
            gates.retain(|_, gate| gate.held.is_some() || gate.open_at > now);
            if gates.len() >= MAX_THROTTLED {
                return ThrottleDecision::Pass(self.next());
            }
        }
        match gates.get_mut(key) {
            Some(gate) if gate.open_at > now => {
                gate.held = Some(value.to_vec());
                ThrottleDecision::Held(gate.open_at - now)
            }
            _ => {
                gates.insert(key.clone(), ThrottledRoom { open_at: now + every, held: None });
                ThrottleDecision::Pass(self.next())
            }
        }
    }

    async fn due(&self, key: &ThrottleKey, every: Duration) -> DueEvent {
        let now = Instant::now();
        let mut gates = self.gates.lock().expect("no thread panics while it holds this lock");
        let Some(gate) = gates.get_mut(key) else { return DueEvent::Nothing };
        if gate.open_at > now {
            return if gate.held.is_some() { DueEvent::Wait(gate.open_at - now) } else { DueEvent::Nothing };
        }
        match gate.held.take() {
            Some(value) => {
                gate.open_at = now + every;
                DueEvent::Send(value, self.next())
            }
            None => {
                gates.remove(key);
                DueEvent::Nothing
            }
        }
    }

    async fn close(&self, scope: &Arc<str>, events: &[Arc<str>]) -> Closing {
        let mut gates = self.gates.lock().expect("no thread panics while it holds this lock");
        let keys = events.iter().map(|event| ThrottleKey { scope: scope.clone(), event: event.clone() });
        let held: Vec<_> = keys.filter_map(|key| gates.remove(&key)?.held).map(|value| (value, self.next())).collect();
        Closing { held, number: self.next() }
    }
}

impl MemoryThrottles {
    /// Returns the next number. Numbers follow the wall clock, as the numbers that Redis assigns do. So they also grow
    /// over restarts, and when this node assigns them because Redis is unavailable.
    fn next(&self) -> u64 {
        let now = now_us();
        let later = |last: u64| now.max(last + 1);
        let last = self.number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(later(last)));
        later(last.unwrap_or_else(|last| last))
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_and_are_never_behind_the_clock() {
        let memory = MemoryThrottles::default();
        let mut last = 0;
        for _ in 0..1000 {
            let now = now_us();
            let number = memory.next();
            assert!(number > last && number >= now, "{last} {now} {number}");
            last = number;
        }
    }
}
