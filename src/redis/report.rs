//! Reports the health of Redis to operators: in the log when the health changes and once a minute while Redis does not
//! work, and in a metric.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::cause::CauseKind;
use super::health::RedisHealth;
use crate::telemetry::metrics::Metrics;

/// How often a lasting failure is logged again. A failure that comes and goes is not logged more often.
const AGAIN: Duration = Duration::from_secs(60);

/// The last report, and when each kind of failure was last logged.
pub(super) struct HealthReport {
    told: ToldState,
    last: HashMap<CauseKind, Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ToldState {
    Nothing,
    Good,
    Bad(CauseKind),
}

impl HealthReport {
    pub(super) fn new(metrics: &Metrics) -> Self {
        show(metrics, Some(CauseKind::Starting));
        Self { told: ToldState::Nothing, last: HashMap::new() }
    }

    pub(super) fn note(&mut self, health: &RedisHealth, metrics: &Metrics, now: Instant) {
        let kind = health.cause.as_ref().map(|cause| cause.kind);
        show(metrics, kind);
        match kind {
            None if self.told != ToldState::Good => {
                self.told = ToldState::Good;
                self.last.clear();
                tracing::info!("Redis is up: it returned a message of this node to itself, and accepted a write");
            }
            None => {}
            // At the node's start, `Starting` is not a failure. A lasting failure gets another kind, or is logged after
            // a minute.
            Some(CauseKind::Starting) if self.told == ToldState::Nothing => {
                self.told = ToldState::Bad(CauseKind::Starting);
                self.last.insert(CauseKind::Starting, now);
            }
            Some(kind) => {
                let is_new = self.told != ToldState::Bad(kind);
                self.told = ToldState::Bad(kind);
                let last = self.last.get(&kind);
                // A cause that returns within a minute after it was logged is not logged again.
                if last.is_none_or(|last| now.duration_since(*last) >= AGAIN) {
                    self.last.insert(kind, now);
                    tell(health, kind, is_new);
                }
            }
        }
    }
}

fn show(metrics: &Metrics, kind: Option<CauseKind>) {
    for each in CauseKind::ALL {
        metrics.redis_failure.with_label_values(&[each.as_str()]).set(i64::from(kind == Some(each)));
    }
}

fn tell(health: &RedisHealth, kind: CauseKind, is_new: bool) {
    let (kind, cause) = (kind.as_str(), health.cause.as_ref().map(ToString::to_string).unwrap_or_default());
    let still = if is_new { "" } else { "still, " };
    match (health.hears(), health.writes) {
        (false, _) => {
            tracing::warn!(redis.cause = kind, "{still}Redis is away: {cause}; this node serves its own clients only");
        }
        (true, false) => {
            tracing::warn!(
                redis.cause = kind,
                "{still}Redis refuses writes: {cause}; histories, presence, owners and sessions are not stored"
            );
        }
        (true, true) => {
            tracing::warn!(redis.cause = kind, "{still}Redis refuses a subscription: {cause}; its events are missed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::cause::Cause;
    use super::*;

    fn health(cause: Option<CauseKind>) -> RedisHealth {
        RedisHealth {
            connected: cause.is_none(),
            subscribed: true,
            writes: true,
            round_trip: None,
            since: SystemTime::now(),
            cause: cause.map(Cause::new),
            worked: false,
        }
    }

    #[test]
    fn a_failure_is_told_when_it_changes_and_once_a_minute() {
        let (metrics, start) = (Metrics::new(), Instant::now());
        let mut report = HealthReport::new(&metrics);
        let mut told = |kind, at: u64| {
            let now = start + Duration::from_secs(at);
            report.note(&health(kind), &metrics, now);
            report.last.values().filter(|last| **last == now).count()
        };
        let refused = Some(CauseKind::Refused);
        assert_eq!(told(refused, 1), 1);
        assert_eq!(told(refused, 2), 0);
        assert_eq!(told(Some(CauseKind::Timeout), 3), 1);
        assert_eq!(told(refused, 4), 0, "it comes and goes");
        assert_eq!(told(refused, 61), 1);
        assert_eq!(told(None, 62), 0);
        assert_eq!(told(refused, 63), 1, "it was well in between");
        let gauge = |kind: CauseKind| metrics.redis_failure.with_label_values(&[kind.as_str()]).get();
        assert_eq!((gauge(CauseKind::Refused), gauge(CauseKind::Timeout)), (1, 0));
    }
}
