//! The health of Redis, as far as this node knows it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::cause::{Cause, CauseKind};
use super::report::HealthReport;
use crate::telemetry::metrics::Metrics;

/// How long a refused command counts as a failure of Redis even if another write succeeds. The other write proves
/// nothing if the user lacks a right to one key, or if one server of a Redis Cluster refuses writes.
const REFUSED_LASTS: Duration = Duration::from_secs(15);

/// The state of the connections to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisHealth {
    /// Redis is connected and answers commands.
    pub connected: bool,
    /// The last message that this node sent to itself through Redis has arrived, so messages of other nodes arrive too.
    pub subscribed: bool,
    /// Redis accepts writes: no write was refused since the probe's last accepted write, and no refusal for a single
    /// key or server in the last 15 s.
    pub writes: bool,
    /// How long the last message from this node to itself through Redis took to arrive.
    pub round_trip: Option<Duration>,
    /// When messages from this node to itself last began to arrive, or last stopped arriving.
    pub since: SystemTime,
    /// Why a part of Redis does not work. `None` if every part works. Never contains a secret.
    pub cause: Option<Cause>,
    /// True once all parts of Redis have worked at the same time.
    pub worked: bool,
}

impl RedisHealth {
    /// Whether every part of Redis works.
    pub fn is_good(&self) -> bool {
        self.hears() && self.writes && self.cause.is_none()
    }

    /// Whether this node can send events to the other nodes and receive events from them, even if Redis refuses writes.
    pub fn hears(&self) -> bool {
        self.connected && self.subscribed
    }
}

/// The parts of Redis that can fail independently. If several have failed, the first in this order is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RedisPart {
    /// The connection for commands.
    Commands,
    /// The connection that receives messages.
    Listener,
    /// The subscriptions.
    Subscriptions,
    /// The messages that this node sends to itself.
    Echo,
    /// The writes of the probe and of all other commands.
    Writes,
}

const PARTS: usize = 5;

/// The state of Redis, as the background tasks have found it.
pub(super) struct RedisState {
    metrics: Arc<Metrics>,
    answers: AtomicBool,
    read_only: AtomicBool,
    refuses: AtomicBool,
    stopped: CancellationToken,
    lost: Notify,
    demoted: Notify,
    known: Mutex<KnownHealth>,
    report: Mutex<HealthReport>,
}

struct KnownHealth {
    heard: bool,
    round_trip: Option<Duration>,
    since: SystemTime,
    worked: bool,
    causes: [Option<Cause>; PARTS],
    /// The time until which a refused write counts as a failure, even if the probe's write was accepted.
    refused_until: Option<Instant>,
    /// When a write was last refused.
    refused_last: Option<Instant>,
}

impl RedisState {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let known = KnownHealth {
            heard: false,
            round_trip: None,
            since: SystemTime::now(),
            worked: false,
            causes: Default::default(),
            refused_until: None,
            refused_last: None,
        };
        Self {
            report: Mutex::new(HealthReport::new(&metrics)),
            metrics,
            answers: AtomicBool::new(true),
            read_only: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            stopped: CancellationToken::new(),
            lost: Notify::new(),
            demoted: Notify::new(),
            known: Mutex::new(known),
        }
    }

    /// Whether Redis answered the probe's last command within `redis.command_timeout`.
    pub(super) fn answers(&self) -> bool {
        self.answers.load(Ordering::Relaxed)
    }

    /// Records that a command was not answered within `redis.command_timeout`. No further command is sent until Redis
    /// answers a command of the probe.
    pub(super) fn doubt(&self) {
        self.set_answers(false);
        self.lost.notify_one();
    }

    pub(super) fn set_answers(&self, answers: bool) {
        self.answers.store(answers, Ordering::Relaxed);
    }

    /// Whether the server is a replica. A replica may lack data that was written to the primary.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Whether a refused write still counts as a failure. A refusal for a single key or server counts for 15 s, any
    /// other refusal until the probe's next accepted write.
    pub(super) fn refuses_writes(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }

    /// When a write was last refused.
    pub(super) fn refused_last(&self) -> Option<Instant> {
        self.known().refused_last
    }

    pub(super) fn health(&self, connected: bool, listening: bool) -> RedisHealth {
        let known = self.known();
        let connected = connected && self.answers();
        let subscribed = listening && known.heard;
        let writes = connected && !self.refuses_writes();
        let starting = || (!connected || !subscribed).then(|| Cause::new(CauseKind::Starting));
        RedisHealth {
            connected,
            subscribed,
            writes,
            round_trip: known.round_trip,
            since: known.since,
            cause: known.causes.iter().flatten().next().cloned().or_else(starting),
            worked: known.worked,
        }
    }

    /// Records that a part has failed. Unless only a right is missing, messages of other nodes count as not arriving
    /// from now on.
    pub(super) fn failed(&self, part: RedisPart, cause: Cause) {
        let mut known = self.known();
        if cause.kind != CauseKind::NoRight {
            self.turn(&mut known, false);
        }
        known.causes[part as usize] = Some(cause);
    }

    /// Records that a part works again.
    pub(super) fn mended(&self, part: RedisPart) {
        self.known().causes[part as usize] = None;
    }

    /// Records that a message from this node to itself arrived.
    pub(super) fn heard(&self, round_trip: Duration) {
        self.metrics.redis_round_trip_seconds.with_label_values::<&str>(&[]).observe(round_trip.as_secs_f64());
        let mut known = self.known();
        known.round_trip = Some(round_trip);
        for part in [RedisPart::Commands, RedisPart::Listener, RedisPart::Echo] {
            known.causes[part as usize] = None;
        }
        self.turn(&mut known, true);
    }

    /// Records that a message from this node to itself could not be sent.
    pub(super) fn unheard(&self) {
        self.turn(&mut self.known(), false);
    }

    /// Records that Redis refused a command. `elsewhere` is true if a later write may succeed on another server.
    pub(super) fn refused(&self, cause: Cause, elsewhere: bool) {
        self.metrics.redis_refused_total.with_label_values(&[cause.kind.as_str()]).inc();
        let now = Instant::now();
        let mut known = self.known();
        known.refused_last = Some(now);
        if elsewhere || cause.kind == CauseKind::NoRight {
            known.refused_until = Some(now + REFUSED_LASTS);
        }
        self.refuses.store(true, Ordering::Relaxed);
        if cause.kind == CauseKind::ReadOnly {
            self.read_only.store(true, Ordering::Relaxed);
            self.demoted.notify_one();
        }
        known.causes[RedisPart::Writes as usize] = Some(cause);
    }

    /// Records that the probe's write was accepted.
    pub(super) fn wrote(&self) {
        self.read_only.store(false, Ordering::Relaxed);
        let mut known = self.known();
        if known.refused_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        known.refused_until = None;
        known.causes[RedisPart::Writes as usize] = None;
        self.refuses.store(false, Ordering::Relaxed);
    }

    /// Reports the health of Redis to operators if the health has changed or if Redis still does not work.
    pub(super) fn tell(&self, health: &RedisHealth) {
        if health.is_good() {
            self.known().worked = true;
        }
        self.report.lock().expect("no thread panics while it holds this lock").note(
            health,
            &self.metrics,
            Instant::now(),
        );
    }

    /// Records that Redis has answered the publish of a message from this node to itself.
    pub(super) fn answered(&self, after: Duration) {
        self.metrics.redis_command_seconds.with_label_values::<&str>(&[]).observe(after.as_secs_f64());
    }

    /// Counts the result of a message from this node to itself.
    pub(super) fn count_probe(&self, result: &str) {
        self.metrics.redis_probes_total.with_label_values(&[result]).inc();
    }

    pub(super) fn count_reconnect(&self) {
        self.metrics.redis_reconnects_total.with_label_values::<&str>(&[]).inc();
    }

    /// Resolves when Redis stops working: messages of other nodes no longer arrive, or a command was not answered.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Resolves when the server has refused a command because the server is a replica.
    pub(super) async fn demoted(&self) {
        self.demoted.notified().await;
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

    fn known(&self) -> std::sync::MutexGuard<'_, KnownHealth> {
        self.known.lock().expect("no thread panics while it holds this lock")
    }

    fn turn(&self, known: &mut KnownHealth, heard: bool) {
        if known.heard == heard {
            return;
        }
        known.heard = heard;
        known.since = SystemTime::now();
        if !heard {
            self.lost.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(kind: CauseKind) -> Cause {
        Cause::new(kind)
    }

    fn state() -> RedisState {
        let state = RedisState::new(Arc::default());
        state.heard(Duration::from_millis(1));
        state.wrote();
        state
    }

    #[test]
    fn connected_is_not_subscribed_until_a_message_came_back() {
        let state = RedisState::new(Arc::default());
        assert_eq!(state.health(true, true).cause, Some(cause(CauseKind::Starting)));
        state.heard(Duration::from_millis(1));
        assert!(state.health(true, true).is_good());
        assert!(!state.health(false, true).is_good());
        state.failed(RedisPart::Listener, cause(CauseKind::Lost));
        let health = state.health(true, true);
        assert_eq!((health.subscribed, health.cause), (false, Some(cause(CauseKind::Lost))));
    }

    #[test]
    fn a_server_that_refuses_writes_is_not_good_and_events_go_on() {
        let state = state();
        state.refused(cause(CauseKind::OutOfMemory), false);
        let health = state.health(true, true);
        assert!(health.hears() && !health.writes && !health.is_good());
        state.wrote();
        assert!(state.health(true, true).is_good());
    }

    #[test]
    fn a_missing_right_is_not_forgotten_because_another_write_succeeds() {
        let state = state();
        state.refused(cause(CauseKind::NoRight), false);
        state.wrote();
        assert_eq!(state.health(true, true).cause, Some(cause(CauseKind::NoRight)));
    }

    #[test]
    fn a_replica_is_one_until_a_write_is_accepted() {
        let state = state();
        state.refused(cause(CauseKind::ReadOnly), false);
        assert!(state.is_read_only());
        state.wrote();
        assert!(!state.is_read_only());
    }
}
