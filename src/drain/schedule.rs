//! The drain as a state machine without clock or sockets: the caller passes in the time and the state, and is told what
//! to do.
//!
//! ```text
//! serving ─ begin ─> leaving ─ delay over ─> closing ─ nobody left, or time over ─> drained
//!    ^                  │                      │                                       │
//!    └─────── undo ─────┴──────────────────────┴───────────────────────────────────────┘   unless the process ends
//! ```

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::report::OfferedCapacity;
use crate::config;

/// Time between two waves, before the jitter.
pub const WAVE: Duration = Duration::from_millis(100);

/// The phase of a node's drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It takes clients.
    Serving,
    /// The node takes no new clients, and keeps its clients until load balancers know.
    Leaving,
    /// The node closes sockets, in waves.
    Closing,
    /// It has none.
    Drained,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 4] = [Self::Serving, Self::Leaving, Self::Closing, Self::Drained];

    /// The phase as it is written in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Leaving => "leaving",
            Self::Closing => "closing",
            Self::Drained => "drained",
        }
    }
}

/// The next step of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainStep {
    /// The node does nothing until the drain begins.
    Rest,
    /// The node does nothing for this time.
    Wait(Duration),
    /// The node closes this many sockets, then waits for this time.
    Close(usize, Duration),
    /// No client is left, or the deadline for closing the sockets has passed.
    Done,
}

/// The clients that are still on a draining node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemainingClients {
    /// Clients that were not asked to leave yet.
    pub unasked: usize,
    /// Clients that are connected, or whose disconnection is not complete.
    pub open: usize,
}

/// Error of [`DrainSchedule::undo`]: the process was told to end, so the drain cannot be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the process is ending")]
pub struct EndIsFinal;

/// The state of a node's drain.
#[derive(Debug, Clone)]
pub struct DrainSchedule {
    config: config::DrainSettings,
    phase: Phase,
    for_good: bool,
    began: Instant,
    last_wave: Instant,
    /// The fraction of a socket by which earlier waves closed too few, because a wave closes only whole sockets.
    rest: f64,
    pace: f64,
}

impl DrainSchedule {
    /// Creates the course of a node that is serving clients.
    pub fn new(config: config::DrainSettings, now: Instant) -> Self {
        Self { config, phase: Phase::Serving, for_good: false, began: now, last_wave: now, rest: 0.0, pace: 0.0 }
    }

    /// The phase that the node is in.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the process ends after the drain.
    pub fn is_for_good(&self) -> bool {
        self.for_good
    }

    /// The pace of the last wave, in sockets per second; 0 unless sockets are being closed.
    pub fn pace(&self) -> f64 {
        if self.phase == Phase::Closing { self.pace } else { 0.0 }
    }

    /// The time by which all sockets must be closed.
    pub fn sockets_by(&self) -> Instant {
        self.began + self.config.deadline.saturating_sub(*self.config.last_words)
    }

    /// The deadline for the whole drain.
    pub fn ends_by(&self) -> Instant {
        self.began + *self.config.deadline
    }

    /// Starts the drain; a drain that has begun continues. Set `for_good` when the process ends after the drain: the
    /// deadline counts from the first call that sets `for_good`.
    pub fn begin(&mut self, for_good: bool, now: Instant) {
        if for_good && !self.for_good {
            self.for_good = true;
            self.began = now;
        }
        if self.phase == Phase::Serving {
            self.began = now;
            self.phase = Phase::Leaving;
        }
    }

    /// Ends the drain, so that the node serves again.
    ///
    /// # Errors
    /// Returns [`EndIsFinal`] when the process ends.
    pub fn undo(&mut self) -> Result<(), EndIsFinal> {
        if self.for_good {
            return Err(EndIsFinal);
        }
        self.phase = Phase::Serving;
        Ok(())
    }

    /// Advances to the next step. `luck` is a random number from -1 to 1 for the jitter.
    pub fn step(&mut self, now: Instant, left: RemainingClients, offer: OfferedCapacity, luck: f64) -> DrainStep {
        loop {
            match self.phase {
                Phase::Serving => return DrainStep::Rest,
                // Clients whose handshake was under way when the node was drained are closed, too.
                Phase::Drained if left.unasked == 0 => return DrainStep::Done,
                Phase::Drained => self.close_from(now),
                Phase::Leaving => {
                    let over = self.began + *self.config.delay;
                    if offer.takers > 0 && now < over {
                        return DrainStep::Wait((over - now).min(WAVE));
                    }
                    self.close_from(now);
                }
                Phase::Closing if left.unasked > 0 => return self.wave(now, left.unasked, offer, luck),
                Phase::Closing if left.open > 0 && now < self.sockets_by() => return DrainStep::Wait(WAVE),
                Phase::Closing => {
                    self.phase = Phase::Drained;
                    return DrainStep::Done;
                }
            }
        }
    }

    fn close_from(&mut self, now: Instant) {
        self.phase = Phase::Closing;
        // The first wave comes at once, with the size of one interval.
        self.last_wave = now.checked_sub(WAVE).unwrap_or(now);
        self.rest = 0.0;
    }

    fn wave(&mut self, now: Instant, left: usize, offer: OfferedCapacity, luck: f64) -> DrainStep {
        let by = self.sockets_by();
        if now >= by {
            return DrainStep::Close(left, WAVE);
        }
        self.pace = self.rate(by - now, left, offer);
        let due = self.pace.mul_add((now - self.last_wave).as_secs_f64(), self.rest);
        self.last_wave = now;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded by `left`, and not negative"
        )]
        let count = (due.floor() as usize).min(left);
        self.rest = due.fract();
        let jitter = 1.0 + luck.clamp(-1.0, 1.0) * f64::from(self.config.jitter) / 100.0;
        // The wait is never zero, whatever the jitter: the next wave would otherwise close nothing.
        DrainStep::Close(count, WAVE.mul_f64(jitter.max(0.05)).min(by - now))
    }

    /// The pace in sockets per second: the rate that the other nodes offer, but at least the rate that meets the
    /// deadline.
    #[expect(clippy::cast_precision_loss, reason = "numbers of sockets are small")]
    fn rate(&self, time: Duration, left: usize, offer: OfferedCapacity) -> f64 {
        // When no other node takes clients, assumes that the node that replaces this one takes as many as this one.
        let offered = if offer.takers == 0 { self.config.accepts } else { offer.rate };
        let most = if self.config.pace == 0 { u32::MAX } else { self.config.pace };
        let needed = left as f64 / time.as_secs_f64();
        f64::from(offered.min(most)).max(needed)
    }
}

#[cfg(test)]
mod tests;
