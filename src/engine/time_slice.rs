//! The time for which a task may hold its thread before it lets other tasks run.

use std::time::{Duration, Instant};

use prometheus::Histogram;

/// How long a task may hold its thread. It is half of the promised 1 ms, because system calls between two looks at
/// the clock take time, too.
const MOST: Duration = Duration::from_micros(500);

/// How long a task has held its thread in this turn.
#[derive(Default)]
pub(super) struct TimeSlice(Duration);

impl TimeSlice {
    /// Adds the time since `since`, and sets `since` to now. Returns true when the task should yield its thread.
    pub(super) fn is_over(&mut self, since: &mut Instant) -> bool {
        let now = Instant::now();
        self.0 += now.duration_since(*since);
        *since = now;
        self.0 >= MOST
    }

    /// Ends the turn, because the task yields its thread, and records the turn's length.
    pub(super) fn end(&mut self, held: &Histogram) {
        if !self.0.is_zero() {
            held.observe(self.0.as_secs_f64());
        }
        self.0 = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn turn_ends_by_its_length_and_is_noted_once() {
        let metrics = Metrics::default();
        let held = metrics.delivery_turn_seconds.with_label_values::<&str>(&[]);
        let mut time_slice = TimeSlice::default();
        time_slice.end(&held);
        assert_eq!(held.get_sample_count(), 0, "nothing was written");
        let mut since = Instant::now();
        assert!(!time_slice.is_over(&mut since));
        since -= MOST;
        assert!(time_slice.is_over(&mut since) && since.elapsed() < MOST);
        time_slice.end(&held);
        time_slice.end(&held);
        assert_eq!(held.get_sample_count(), 1);
        assert!(held.get_sample_sum() >= MOST.as_secs_f64());
    }
}
