//! The course of leaving, as a machine without clock, sockets or neighbours: it is told of them, and says what to do.
//!
//! ```text
//! serving ─ begin ─> leaving ─ delay over ─> closing ─ nobody left, or time over ─> drained
//!    ^                  │                      │                                       │
//!    └─────── undo ─────┴──────────────────────┴───────────────────────────────────────┘   unless the process ends
//! ```

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::standing::Offer;
use crate::config;

/// The time between two waves.
pub const WAVE: Duration = Duration::from_millis(100);

/// Where a node is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It takes clients.
    Serving,
    /// It takes no new clients, and keeps those that it has until load balancers know.
    Leaving,
    /// It closes sockets, in waves.
    Closing,
    /// It has none.
    Drained,
}

impl Phase {
    /// All, in their order.
    pub const ALL: [Self; 4] = [Self::Serving, Self::Leaving, Self::Closing, Self::Drained];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Leaving => "leaving",
            Self::Closing => "closing",
            Self::Drained => "drained",
        }
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something is told.
    Rest,
    /// Nothing, for so long.
    Wait(Duration),
    /// Close so many sockets, then wait.
    Close(usize, Duration),
    /// Nobody is left, or it is time.
    Done,
}

/// The clients of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Nobody has told them to go.
    pub unasked: usize,
    /// They are connected, or do not know yet that they are not.
    pub open: usize,
}

/// The process has been told to end: there is no way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the process has been told to end")]
pub struct ForGood;

/// A node's way out.
#[derive(Debug, Clone)]
pub struct Course {
    config: config::Drain,
    phase: Phase,
    for_good: bool,
    began: Instant,
    last_wave: Instant,
    /// Of a socket: what the waves until now have left over.
    rest: f64,
    pace: f64,
}

impl Course {
    /// A node that serves.
    pub fn new(config: config::Drain, now: Instant) -> Self {
        Self { config, phase: Phase::Serving, for_good: false, began: now, last_wave: now, rest: 0.0, pace: 0.0 }
    }

    /// Where the node is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the process ends.
    pub fn is_for_good(&self) -> bool {
        self.for_good
    }

    /// Sockets a second that the last wave was of; 0 unless sockets are being closed.
    pub fn pace(&self) -> f64 {
        if self.phase == Phase::Closing { self.pace } else { 0.0 }
    }

    /// By when nobody may be left.
    pub fn sockets_by(&self) -> Instant {
        self.began + self.config.deadline.saturating_sub(*self.config.last_words)
    }

    /// By when all must have ended.
    pub fn ends_by(&self) -> Instant {
        self.began + *self.config.deadline
    }

    /// Begins to leave, or goes on; `for_good`: the process ends. What has begun is not begun anew, but the time that is
    /// left to a process counts from when it was told.
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

    /// Serves again.
    ///
    /// # Errors
    /// When the process ends.
    pub fn undo(&mut self) -> Result<(), ForGood> {
        if self.for_good {
            return Err(ForGood);
        }
        self.phase = Phase::Serving;
        Ok(())
    }

    /// Goes on. `luck`: a number from -1 to 1.
    pub fn step(&mut self, now: Instant, left: Left, offer: Offer, luck: f64) -> Step {
        loop {
            match self.phase {
                Phase::Serving => return Step::Rest,
                // Who came while a handshake was under way is closed, too.
                Phase::Drained if left.unasked == 0 => return Step::Done,
                Phase::Drained => self.close_from(now),
                Phase::Leaving => {
                    let over = self.began + *self.config.delay;
                    if offer.takers > 0 && now < over {
                        return Step::Wait((over - now).min(WAVE));
                    }
                    self.close_from(now);
                }
                Phase::Closing if left.unasked > 0 => return self.wave(now, left.unasked, offer, luck),
                Phase::Closing if left.open > 0 && now < self.sockets_by() => return Step::Wait(WAVE),
                Phase::Closing => {
                    self.phase = Phase::Drained;
                    return Step::Done;
                }
            }
        }
    }

    fn close_from(&mut self, now: Instant) {
        self.phase = Phase::Closing;
        // The first wave comes at once, of one interval's size.
        self.last_wave = now.checked_sub(WAVE).unwrap_or(now);
        self.rest = 0.0;
    }

    fn wave(&mut self, now: Instant, left: usize, offer: Offer, luck: f64) -> Step {
        let by = self.sockets_by();
        if now >= by {
            return Step::Close(left, WAVE);
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
        // Not zero, whatever the jitter: a wave of nothing would follow.
        Step::Close(count, WAVE.mul_f64(jitter.max(0.05)).min(by - now))
    }

    /// Sockets a second: what the others can take, but what the deadline needs at least.
    #[expect(clippy::cast_precision_loss, reason = "numbers of sockets are small")]
    fn rate(&self, time: Duration, left: usize, offer: Offer) -> f64 {
        // Where nobody else takes them, whoever replaces this node is believed to take what it took.
        let offered = if offer.takers == 0 { self.config.accepts } else { offer.rate };
        let most = if self.config.pace == 0 { u32::MAX } else { self.config.pace };
        let needed = left as f64 / time.as_secs_f64();
        f64::from(offered.min(most)).max(needed)
    }
}

#[cfg(test)]
mod tests;
