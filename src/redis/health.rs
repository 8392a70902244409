//! What is known of Redis.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics::Metrics;

/// The state of the connections to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Commands can be sent.
    pub connected: bool,
    /// A message that this node sent to itself came back: other nodes' messages arrive too.
    pub subscribed: bool,
    /// How long the last message to ourselves took.
    pub round_trip: Option<Duration>,
    /// Since when `connected` and `subscribed` have been together what they are.
    pub since: SystemTime,
    /// The last thing that went wrong, cleared when everything works. Never holds a secret.
    pub last_error: Option<String>,
}

impl Health {
    /// Whether everything works.
    pub fn is_good(&self) -> bool {
        self.connected && self.subscribed
    }
}

/// What the background tasks learn.
pub(super) struct State {
    metrics: Arc<Metrics>,
    answers: AtomicBool,
    stopped: CancellationToken,
    lost: Notify,
    known: Mutex<Known>,
}

struct Known {
    heard: bool,
    round_trip: Option<Duration>,
    since: SystemTime,
    last_error: Option<String>,
}

impl State {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let known = Known { heard: false, round_trip: None, since: SystemTime::now(), last_error: None };
        Self {
            metrics,
            answers: AtomicBool::new(true),
            stopped: CancellationToken::new(),
            lost: Notify::new(),
            known: Mutex::new(known),
        }
    }

    /// Whether the last command of the probe was answered in time.
    pub(super) fn answers(&self) -> bool {
        self.answers.load(Ordering::Relaxed)
    }

    pub(super) fn set_answers(&self, answers: bool) {
        self.answers.store(answers, Ordering::Relaxed);
    }

    pub(super) fn health(&self, connected: bool, listening: bool) -> Health {
        let known = self.known.lock().expect("no panic while held");
        Health {
            connected: connected && self.answers(),
            subscribed: listening && known.heard,
            round_trip: known.round_trip,
            since: known.since,
            last_error: known.last_error.clone(),
        }
    }

    /// A message to ourselves came back.
    pub(super) fn heard(&self, round_trip: Duration) {
        self.metrics.redis_round_trip_seconds.with_label_values::<&str>(&[]).observe(round_trip.as_secs_f64());
        let mut known = self.known.lock().expect("no panic while held");
        known.round_trip = Some(round_trip);
        known.last_error = None;
        self.turn(&mut known, true);
    }

    /// A message to ourselves did not come back in time, or a connection broke.
    pub(super) fn unheard(&self, why: &str) {
        let mut known = self.known.lock().expect("no panic while held");
        known.last_error = Some(why.to_owned());
        self.turn(&mut known, false);
    }

    /// Redis has answered the publish of a message to ourselves.
    pub(super) fn answered(&self, after: Duration) {
        self.metrics.redis_command_seconds.with_label_values::<&str>(&[]).observe(after.as_secs_f64());
    }

    /// Counts what became of a message to ourselves.
    pub(super) fn count_probe(&self, result: &str) {
        self.metrics.redis_probes_total.with_label_values(&[result]).inc();
    }

    pub(super) fn count_reconnect(&self) {
        self.metrics.redis_reconnects_total.with_label_values::<&str>(&[]).inc();
    }

    /// Resolves when a message or a connection is lost.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    pub(super) fn stop(&self) {
        self.stopped.cancel();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.is_cancelled()
    }

    pub(super) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    fn turn(&self, known: &mut Known, heard: bool) {
        if known.heard == heard {
            return;
        }
        known.heard = heard;
        known.since = SystemTime::now();
        if !heard {
            self.lost.notify_one();
        }
        match &known.last_error {
            Some(error) => tracing::warn!(redis.error = error, "Redis is away: this node serves its own clients only"),
            None => tracing::info!("Redis is up: a message to ourselves came back"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connected_is_not_subscribed_until_a_message_came_back() {
        let state = State::new(Arc::default());
        assert!(!state.health(true, true).is_good());
        state.heard(Duration::from_millis(1));
        assert!(state.health(true, true).is_good());
        assert!(!state.health(false, true).is_good());
        state.unheard("gone");
        let health = state.health(true, true);
        assert_eq!((health.subscribed, health.last_error.as_deref()), (false, Some("gone")));
    }
}
