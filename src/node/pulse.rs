//! Checks whether the runtime still runs tasks, for `/live`.

use crate::time::millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// How often the runtime is checked.
const BEAT: Duration = Duration::from_millis(500);

/// A task that starts a short timer task again and again, and records when one last finished.
pub(super) struct Pulse {
    started: Instant,
    /// When the runtime last finished a timer task, in ms after `started`.
    last: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Pulse {
    /// Starts the task on the runtime of the caller.
    pub(super) fn start() -> Self {
        let (started, last) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let noted = last.clone();
        let task = tokio::spawn(async move {
            loop {
                // Each measurement uses a new task: scheduling, waking and running it tests more of the runtime than a
                // task that continues.
                if tokio::spawn(tokio::time::sleep(BEAT)).await.is_err() {
                    return;
                }
                noted.store(millis(started.elapsed()), Ordering::Relaxed);
            }
        });
        Self { started, last, task }
    }

    /// Returns the time since the runtime last finished a timer task.
    pub(super) fn since(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the thread is the one that must stand still")]
    fn a_runtime_that_stands_still_is_noticed_and_one_that_turns_again_too() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let turns = async |pulse: &Pulse| {
            tokio::time::sleep(BEAT).await;
            while pulse.since() > BEAT * 2 {
                tokio::time::sleep(BEAT / 10).await;
            }
        };
        let pulse = runtime.block_on(async {
            let pulse = Pulse::start();
            turns(&pulse).await;
            pulse
        });
        // While this thread sleeps outside `block_on`, nothing drives the runtime.
        std::thread::sleep(BEAT * 3);
        assert!(pulse.since() >= BEAT * 3);
        runtime.block_on(turns(&pulse));
    }
}
