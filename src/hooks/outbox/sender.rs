//! Delivers the notices of one hook to its backend, one after the other.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::sleep;

use super::{HookOutbox, Outbox};
use crate::hooks::backend::Backend;
use crate::hooks::error::HookError;
use crate::hooks::retry;
use crate::store::on_store;
use crate::telemetry::log_limit::log_seldom;
use crate::telemetry::metrics::Metrics;

/// The longest pause between two attempts, whatever the backend asks for.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Delivers the notices of one hook.
pub(super) struct NoticeSender {
    backend: Arc<Backend>,
    outbox: Arc<HookOutbox>,
    delivered: IntCounter,
    refused: IntCounter,
    retried: IntCounter,
}

impl NoticeSender {
    pub(super) fn new(backend: Arc<Backend>, outbox: Arc<HookOutbox>, metrics: &Metrics) -> Self {
        let count = |result| metrics.hook_notices_total.with_label_values(&[backend.name(), result]);
        let (delivered, refused, retried) = (count("delivered"), count("refused"), count("retried"));
        Self { backend, outbox, delivered, refused, retried }
    }

    /// Delivers notices until the task is stopped.
    pub(super) async fn run(self) {
        let mut failed = 0;
        loop {
            let notice = on_store!(&*self.outbox, outbox => outbox.oldest().await);
            match self.backend.deliver(&notice).await {
                Ok(()) => self.delivered.inc(),
                Err(error) if error.is_final() => {
                    log_seldom!(warn, hook = self.backend.name(), notice.id, %error, "the backend refused a notice; it is dropped");
                    self.refused.inc();
                }
                Err(error) => {
                    failed += 1;
                    self.retried.inc();
                    sleep(pause(&error, failed)).await;
                    continue;
                }
            }
            failed = 0;
            on_store!(&*self.outbox, outbox => outbox.done(&notice).await);
        }
    }
}

fn pause(error: &HookError, failed: u32) -> Duration {
    let wanted = match error {
        HookError::Open(left) => *left,
        error => error.retry_after().unwrap_or_default().max(retry::NOTICE.after(failed)),
    };
    wanted.clamp(Duration::from_millis(1), MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_follows_the_breaker_and_the_backend_within_its_bound() {
        let second = Duration::from_secs(1);
        assert_eq!(pause(&HookError::Open(second), 1), second);
        let busy = |seconds| HookError::Status { status: 503, retry_after: Some(Duration::from_secs(seconds)) };
        assert_eq!(pause(&busy(3), 1), 3 * second);
        assert_eq!(pause(&busy(3600), 1), MAX_PAUSE);
        assert!(pause(&HookError::Unreachable, 1) < second);
    }
}
