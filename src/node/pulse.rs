//! Whether the runtime turns, for `/live`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// How often it is tried.
const BEAT: Duration = Duration::from_millis(500);

/// A task that does nothing but wait for its timer, and notes when it ran.
pub(super) struct Pulse {
    started: Instant,
    /// Milliseconds after `started`.
    last: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Pulse {
    /// Begins on the runtime of the caller.
    pub(super) fn start() -> Self {
        let (started, last) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let noted = last.clone();
        let task = tokio::spawn(async move {
            loop {
                // A fresh task each time: one that is found, woken and run says more than one that goes on.
                if tokio::spawn(tokio::time::sleep(BEAT)).await.is_err() {
                    return;
                }
                noted.store(millis(started.elapsed()), Ordering::Relaxed);
            }
        });
        Self { started, last, task }
    }

    /// How long ago it last ran.
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

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
        // Nobody turns it.
        std::thread::sleep(BEAT * 3);
        assert!(pulse.since() >= BEAT * 3);
        runtime.block_on(turns(&pulse));
    }
}
