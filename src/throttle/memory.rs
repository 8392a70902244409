//! Conflation on one node, in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Closing, DueEvent, ThrottleDecision, ThrottleKey};

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

impl MemoryThrottles {
    pub(super) fn offer(&self, key: &ThrottleKey, every: Duration, value: &[u8]) -> ThrottleDecision {
        let now = Instant::now();
        let mut gates = self.gates.lock().expect("no panic while held");
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

    pub(super) fn due(&self, key: &ThrottleKey, every: Duration) -> DueEvent {
        let now = Instant::now();
        let mut gates = self.gates.lock().expect("no panic while held");
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

    pub(super) fn close(&self, scope: &Arc<str>, events: &[Arc<str>]) -> Closing {
        let mut gates = self.gates.lock().expect("no panic while held");
        let keys = events.iter().map(|event| ThrottleKey { scope: scope.clone(), event: event.clone() });
        let held: Vec<_> = keys.filter_map(|key| gates.remove(&key)?.held).map(|value| (value, self.next())).collect();
        Closing { held, number: self.next() }
    }

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

    const EVERY: Duration = Duration::from_millis(100);

    fn key() -> ThrottleKey {
        ThrottleKey::new("/", "room", "progress")
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_the_declared_rate_and_the_newest_arrives() {
        let memory = MemoryThrottles::default();
        let mut sent = Vec::new();
        for n in 0..1000_u32 {
            if let ThrottleDecision::Pass(_) = memory.offer(&key(), EVERY, &n.to_be_bytes()) {
                sent.push(n);
            }
            tokio::time::advance(Duration::from_millis(1)).await;
            if let DueEvent::Send(value, _) = memory.due(&key(), EVERY) {
                sent.push(u32::from_be_bytes(value.try_into().unwrap()));
            }
        }
        tokio::time::advance(EVERY).await;
        if let DueEvent::Send(value, _) = memory.due(&key(), EVERY) {
            sent.push(u32::from_be_bytes(value.try_into().unwrap()));
        }
        assert!((10..=12).contains(&sent.len()), "{sent:?}");
        assert!(sent.is_sorted(), "{sent:?}");
        assert_eq!(sent.last(), Some(&999));
    }

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

    #[tokio::test(start_paused = true)]
    async fn a_completion_takes_what_is_held_and_has_the_greatest_number() {
        let memory = MemoryThrottles::default();
        memory.offer(&key(), EVERY, b"1");
        memory.offer(&key(), EVERY, b"2");
        let closing = memory.close(&key().scope, &[key().event]);
        assert_eq!(closing.held.len(), 1);
        assert_eq!(closing.held[0].0, b"2");
        assert!(closing.number > closing.held[0].1);
        assert_eq!(memory.due(&key(), EVERY), DueEvent::Nothing);
    }
}
