//! Drain: how a node hands over its clients before it ends. New clients stop coming, then sockets are closed in waves,
//! then the last messages are sent. `docs/drain.md` is the page for users.
//!
//! [`DrainSchedule`] decides what to do next, and [`report`] holds the state that nodes report to each other. This
//! module carries the decisions out. The `node` module implements [`LocalClients`] and [`OtherNodes`].

pub mod report;
pub mod schedule;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config;
use crate::telemetry::metrics::Metrics;
use report::{Capacity, DrainReport, OfferedCapacity};
use schedule::{DrainSchedule, DrainStep, EndIsFinal, Phase, RemainingClients};

/// How often a node checks whether it is busy.
const PULSE: Duration = Duration::from_millis(500);

/// How often a drained node checks for clients that connected late.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The clients of this node. `node` implements it.
pub trait LocalClients: Send + Sync {
    /// Sets whether new clients are accepted from now on.
    fn accept(&self, yes: bool);

    /// The number of clients that are still connected, and of those that were not asked to leave yet.
    fn left(&self) -> RemainingClients;

    /// Closes `count` sockets that were not asked to close yet; their official clients reconnect by themselves. Returns
    /// how many were closed.
    fn close(&self, count: usize) -> usize;
}

/// The other nodes. `node` implements it.
pub trait OtherNodes: Send + Sync {
    /// The newest state that each of the other nodes reported.
    fn drain_reports(&self) -> Vec<DrainReport>;

    /// Sends [`Drain::drain_report`] to the other nodes at once.
    fn tell(&self);
}

/// The progress of a node's drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Status")]
pub struct DrainStatus {
    /// Where it is.
    pub state: Phase,
    /// Whether the process ends; then the drain cannot be undone.
    pub ends: bool,
    /// Number of clients that are connected.
    pub left: u64,
    /// Number of sockets that waves have closed since the node started.
    pub closed: u64,
    /// Number of sockets that are being closed each second.
    pub pace: u64,
    /// Number of other nodes that take clients.
    pub takers: u64,
    /// Number of connections that the other nodes say they can take each second.
    pub offered: u64,
}

/// The drain of a node. It performs the drain and reports its progress.
pub struct Drain {
    schedule: Mutex<DrainSchedule>,
    accepts: AtomicU32,
    places: AtomicU64,
    closed: AtomicU64,
    told: Notify,
    state: watch::Sender<Progress>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    left: RemainingClients,
    offer: OfferedCapacity,
    done: bool,
}

/// The value of `places` for a node without a limit of connections.
const NO_LIMIT: u64 = u64::MAX;

impl Drain {
    /// Creates the drain of a node that is serving clients.
    pub fn new(config: &config::DrainSettings, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            schedule: Mutex::new(DrainSchedule::new(config.clone(), Instant::now())),
            accepts: AtomicU32::new(config.accepts),
            places: AtomicU64::new(NO_LIMIT),
            closed: AtomicU64::new(0),
            told: Notify::new(),
            state: watch::channel(Progress::default()).0,
            metrics,
        })
    }

    /// Starts the background tasks. `most` is the maximum number of connections of the node, 0 for no limit. Needs a
    /// Tokio runtime.
    pub fn start(self: &Arc<Self>, sockets: Arc<dyn LocalClients>, others: Arc<dyn OtherNodes>, most: u64) {
        tokio::spawn(self.clone().feel_pulse(sockets.clone(), most));
        tokio::spawn(self.clone().run(sockets, others));
    }

    /// Starts the drain; a drain that has begun continues. Set `for_good` when the process ends after the drain.
    pub fn begin(&self, for_good: bool) {
        self.schedule().begin(for_good, Instant::now());
        self.state.send_modify(|progress| progress.done = false);
        self.told.notify_one();
    }

    /// Ends the drain, so that the node serves again.
    ///
    /// # Errors
    /// Returns [`EndIsFinal`] when the process ends.
    pub fn undo(&self) -> Result<(), EndIsFinal> {
        self.schedule().undo()?;
        self.told.notify_one();
        Ok(())
    }

    /// Whether the node drains or is drained, and so refuses new clients.
    pub fn is_leaving(&self) -> bool {
        self.schedule().phase() != Phase::Serving
    }

    /// Waits until no client is left, or the deadline for closing the sockets has passed.
    pub async fn finished(&self) {
        let mut state = self.state.subscribe();
        // The sender lives as long as `self`, so receiving cannot fail.
        let _ = state.wait_for(|progress| progress.done).await;
    }

    /// The deadline for the whole drain.
    pub fn ends_by(&self) -> Instant {
        self.schedule().ends_by()
    }

    /// The state that the node reports to the other nodes.
    pub fn drain_report(&self) -> DrainReport {
        let places = self.places.load(Ordering::Relaxed);
        DrainReport {
            leaving: self.is_leaving(),
            accepts: self.accepts.load(Ordering::Relaxed),
            places: (places != NO_LIMIT).then_some(places),
        }
    }

    /// The progress of the drain.
    pub fn status(&self) -> DrainStatus {
        let Progress { left, offer, .. } = *self.state.borrow();
        let schedule = self.schedule();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small number that is not negative"
        )]
        let pace = schedule.pace().round() as u64;
        DrainStatus {
            state: schedule.phase(),
            ends: schedule.is_for_good(),
            left: left.open as u64,
            closed: self.closed.load(Ordering::Relaxed),
            pace,
            takers: offer.takers as u64,
            offered: u64::from(offer.rate),
        }
    }

    /// Sets the metrics' gauges to the present values.
    pub fn report(&self) {
        let status = self.status();
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for phase in Phase::ALL {
            let is_it = i64::from(phase == status.state);
            self.metrics.drain_state.with_label_values(&[phase.as_str()]).set(is_it);
        }
        let leaves = status.state != Phase::Serving;
        let none: &[&str] = &[];
        self.metrics.drain_sockets_left.with_label_values(none).set(if leaves { count(status.left) } else { 0 });
        self.metrics.drain_pace.with_label_values(none).set(count(status.pace));
        self.metrics.drain_offered.with_label_values(none).set(count(status.offered));
        self.metrics.drain_accepts.with_label_values(none).set(i64::from(self.accepts.load(Ordering::Relaxed)));
    }

    async fn run(self: Arc<Self>, sockets: Arc<dyn LocalClients>, others: Arc<dyn OtherNodes>) {
        let mut accepts = true;
        loop {
            let now = !self.is_leaving();
            if std::mem::replace(&mut accepts, now) != now {
                sockets.accept(now);
                others.tell();
                let state = self.schedule().phase().as_str();
                tracing::info!(state, left = sockets.left().open, "the node's state has changed");
            }
            let pause = self.step(&*sockets, &*others);
            // A call of `begin` or `undo` wakes the loop at once.
            tokio::select! {
                () = self.told.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Performs the next step of the drain. Returns the time to wait before the next one.
    fn step(&self, sockets: &dyn LocalClients, others: &dyn OtherNodes) -> Duration {
        let (left, offer) = (sockets.left(), OfferedCapacity::of(others.drain_reports()));
        let (before, step, after) = {
            let mut schedule = self.schedule();
            let before = schedule.phase();
            let step = schedule.step(Instant::now(), left, offer, random_offset());
            (before, step, schedule.phase())
        };
        if before != after {
            tracing::info!(
                state = after.as_str(),
                left = left.open,
                takers = offer.takers,
                offered = offer.rate,
                "leaving"
            );
        }
        self.state.send_replace(Progress { left, offer, done: step == DrainStep::Done });
        match step {
            // The loop runs on while the node serves, so that `status` is at most 500 ms old.
            DrainStep::Rest => PULSE,
            DrainStep::Wait(time) => time,
            DrainStep::Done => LOOK_AGAIN,
            DrainStep::Close(count, time) => {
                let closed = sockets.close(count) as u64;
                self.closed.fetch_add(closed, Ordering::Relaxed);
                let none: &[&str] = &[];
                self.metrics.drain_closed_total.with_label_values(none).inc_by(closed);
                if closed > 0 {
                    self.metrics.drain_waves_total.with_label_values(none).inc();
                }
                time
            }
        }
    }

    /// Measures how many new connections the node can take. The number falls while timers are late.
    async fn feel_pulse(self: Arc<Self>, sockets: Arc<dyn LocalClients>, most: u64) {
        let mut capacity = Capacity::new(self.accepts.load(Ordering::Relaxed));
        loop {
            let before = Instant::now();
            tokio::time::sleep(PULSE).await;
            capacity.note(before.elapsed().saturating_sub(PULSE));
            self.accepts.store(capacity.accepts(), Ordering::Relaxed);
            let places = if most == 0 { NO_LIMIT } else { most.saturating_sub(sockets.left().open as u64) };
            self.places.store(places, Ordering::Relaxed);
        }
    }

    fn schedule(&self) -> MutexGuard<'_, DrainSchedule> {
        self.schedule.lock().expect("no thread panics while it holds this lock")
    }
}

/// Returns a random number from -1 to 1, different on each node.
fn random_offset() -> f64 {
    // The standard library's hash seed is random enough for this.
    let number = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or(0);
    f64::from(number) / f64::from(u32::MAX) * 2.0 - 1.0
}

impl std::fmt::Debug for Drain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drain").field("status", &self.status()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
