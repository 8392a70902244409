//! The state that nodes report to each other, so that a node that drains knows how many clients the others can take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Connections per second that a node is assumed to take if its version is too old to report this number.
const UNSAID: u32 = 100;

/// The state that a node reports to the others once a second, and at once when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrainReport {
    /// Whether the node drains, and so takes no new clients.
    pub leaving: bool,
    /// New connections per second that the node can take.
    pub accepts: u32,
    /// Number of connections that the node can still add; `None` for no limit.
    pub places: Option<u64>,
}

impl Default for DrainReport {
    fn default() -> Self {
        Self { leaving: false, accepts: UNSAID, places: None }
    }
}

impl DrainReport {
    fn takes(&self) -> bool {
        !self.leaving && self.places != Some(0)
    }
}

/// The capacity of the other nodes together, for a node that drains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OfferedCapacity {
    /// Number of nodes that take clients.
    pub takers: usize,
    /// Connections per second that this node may move. Nodes that drain at the same time share the sum equally.
    pub rate: u32,
}

impl OfferedCapacity {
    /// Adds up the capacity of the other nodes. The calling node counts as a node that drains.
    pub fn of(others: impl IntoIterator<Item = DrainReport>) -> Self {
        let (mut takers, mut rate, mut leavers) = (0, 0_u32, 1);
        for other in others {
            if other.takes() {
                takers += 1;
                rate = rate.saturating_add(other.accepts);
            } else if other.leaving {
                leavers += 1;
            }
        }
        Self { takers, rate: rate / leavers }
    }
}

/// How late a timer may be before the node counts as busy.
const BUSY: Duration = Duration::from_millis(50);

/// The connections per second that a node reports. It starts at the configured number, is halved each time the node is
/// busy, and rises slowly again.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    most: u32,
    now: u32,
}

impl Capacity {
    /// Creates the capacity of a node that is not busy.
    pub const fn new(most: u32) -> Self {
        Self { most, now: most }
    }

    /// New connections per second that the node can take.
    pub const fn accepts(self) -> u32 {
        self.now
    }

    /// Records how late a timer was. The capacity never falls below a tenth of the configured number, because other
    /// nodes could not drain otherwise.
    pub fn note(&mut self, late: Duration) {
        let least = (self.most / 10).max(1);
        self.now = if late > BUSY { self.now / 2 } else { self.now + least };
        self.now = self.now.clamp(least, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(accepts: u32) -> DrainReport {
        DrainReport { accepts, ..DrainReport::default() }
    }

    #[test]
    fn offer_adds_up_those_who_take() {
        let full = DrainReport { places: Some(0), ..takes(1000) };
        let roomy = DrainReport { places: Some(1), ..takes(30) };
        assert_eq!(OfferedCapacity::of([takes(100), full, roomy]), OfferedCapacity { takers: 2, rate: 130 });
        assert_eq!(OfferedCapacity::of([]), OfferedCapacity { takers: 0, rate: 0 });
    }

    #[test]
    fn nodes_that_leave_together_share_what_is_offered() {
        let leaving = DrainReport { leaving: true, ..takes(1000) };
        assert_eq!(OfferedCapacity::of([takes(100), leaving]), OfferedCapacity { takers: 1, rate: 50 });
    }

    #[test]
    fn a_node_of_an_earlier_version_counts_as_one_that_takes_some() {
        let said: DrainReport = serde_json::from_str("{}").unwrap();
        assert_eq!(OfferedCapacity::of([said]), OfferedCapacity { takers: 1, rate: 100 });
    }

    #[test]
    fn a_busy_node_says_less_and_recovers() {
        let mut capacity = Capacity::new(200);
        for _ in 0..10 {
            capacity.note(Duration::from_millis(200));
        }
        assert_eq!(capacity.accepts(), 20);
        capacity.note(Duration::from_millis(1));
        assert_eq!(capacity.accepts(), 40);
        for _ in 0..10 {
            capacity.note(Duration::ZERO);
        }
        assert_eq!(capacity.accepts(), 200);
        let mut small = Capacity::new(1);
        small.note(Duration::from_secs(1));
        assert_eq!(small.accepts(), 1);
    }
}
