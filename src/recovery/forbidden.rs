//! Ended sessions that must not be recovered although Redis still has them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::telemetry::metrics::Metrics;

/// Maximum number of sessions that are remembered until Redis has removed them. A further session is not remembered,
/// and counted: its client could recover it without its last joins and leaves.
const MAX_FORBIDDEN: usize = 100_000;

/// The keys of the sessions, until Redis has removed the sessions or has stored how they ended.
pub(super) struct Forbidden {
    sessions: Mutex<HashMap<Arc<str>, Instant>>,
    /// Redis has removed a session by itself after this time.
    life: Duration,
    metrics: Arc<Metrics>,
}

impl Forbidden {
    pub(super) fn new(life: Duration, metrics: Arc<Metrics>) -> Self {
        Self { sessions: Mutex::default(), life, metrics }
    }

    /// Forbids that a session is recovered.
    pub(super) fn add(&self, key: &Arc<str>) {
        let mut sessions = self.sessions();
        if sessions.len() >= MAX_FORBIDDEN && !sessions.contains_key(key) {
            self.metrics.recovery_errors_total.with_label_values(&["forbid"]).inc();
            return;
        }
        sessions.insert(key.clone(), Instant::now());
    }

    pub(super) fn remove(&self, key: &Arc<str>) {
        self.sessions().remove(key);
    }

    pub(super) fn contains(&self, key: &Arc<str>) -> bool {
        self.sessions().contains_key(key)
    }

    /// The sessions that Redis may still have.
    pub(super) fn all(&self) -> Vec<Arc<str>> {
        let mut sessions = self.sessions();
        sessions.retain(|_, since| since.elapsed() < self.life);
        sessions.keys().cloned().collect()
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Arc<str>, Instant>> {
        self.sessions.lock().expect("no thread panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_beyond_the_bound_are_counted() {
        let forbidden = Forbidden::new(Duration::from_secs(60), Arc::default());
        let key = |number: usize| Arc::from(number.to_string());
        (0..MAX_FORBIDDEN + 2).for_each(|number| forbidden.add(&key(number)));
        forbidden.add(&key(7));
        let dropped = || forbidden.metrics.recovery_errors_total.with_label_values(&["forbid"]).get();
        assert_eq!((forbidden.all().len(), dropped()), (MAX_FORBIDDEN, 2));
        assert!(forbidden.contains(&key(7)) && !forbidden.contains(&key(MAX_FORBIDDEN)));
        forbidden.remove(&key(7));
        forbidden.add(&key(MAX_FORBIDDEN));
        assert_eq!(dropped(), 2, "another one has made space");
    }

    #[test]
    fn sessions_that_redis_has_removed_by_itself_are_forgotten() {
        let forbidden = Forbidden::new(Duration::ZERO, Arc::default());
        forbidden.add(&"a".into());
        assert!(forbidden.all().is_empty() && !forbidden.contains(&"a".into()));
    }
}
