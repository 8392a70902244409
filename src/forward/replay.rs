//! Remembers which requests have arrived, so that no request is accepted twice.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::sid::NodeKey;
use super::stamp::TOLERANCE;

/// How many numbers a request may be behind the newest request of its sender. At 5,000 requests a second this is 13
/// seconds.
const WINDOW: u64 = 65_536;

const WORD: u64 = u64::BITS as u64;

/// Maximum number of senders that are remembered.
const MAX_SENDERS: usize = 1024;

/// How long a sender is remembered. After that, its requests are too old to be accepted.
const REMEMBER: Duration = TOLERANCE.saturating_mul(2);

/// The request numbers that have arrived from each sender.
#[derive(Default)]
pub(super) struct SeenRequests(Mutex<HashMap<NodeKey, SeenSender>>);

struct SeenSender {
    heard: Instant,
    numbers: SeenNumbers,
}

/// The newest number of one sender, and which of the last [`WINDOW`] numbers have arrived.
struct SeenNumbers {
    newest: u64,
    /// A ring of bits: one for each number from `newest - WINDOW + 1` to `newest`.
    seen: Box<[u64]>,
}

impl SeenRequests {
    /// Records a number. Returns false if the number has arrived before, if it is [`WINDOW`] or more behind the
    /// sender's newest number, or if [`MAX_SENDERS`] other senders are remembered.
    pub(super) fn is_new(&self, from: NodeKey, number: u64, now: Instant) -> bool {
        let mut senders = self.0.lock().expect("no thread panics while it holds this lock");
        if let Some(sender) = senders.get_mut(&from) {
            sender.heard = now;
            return sender.numbers.note(number);
        }
        senders.retain(|_, sender| now.saturating_duration_since(sender.heard) < REMEMBER);
        if senders.len() >= MAX_SENDERS {
            return false;
        }
        senders.insert(from, SeenSender { heard: now, numbers: SeenNumbers::new(number) });
        true
    }
}

impl SeenNumbers {
    fn new(first: u64) -> Self {
        let words = usize::try_from(WINDOW / WORD).expect("the window fits in memory");
        let mut numbers = Self { newest: first, seen: vec![0; words].into() };
        numbers.set(first);
        numbers
    }

    fn note(&mut self, number: u64) -> bool {
        if number > self.newest {
            let skipped = (number - self.newest).min(WINDOW);
            // The numbers between the previous newest number and this one have not arrived. Their bits still describe
            // older numbers, which are now outside the window, so the bits are cleared.
            for ahead in 1..=skipped {
                self.clear(self.newest.wrapping_add(ahead));
            }
            self.newest = number;
        } else if self.newest - number >= WINDOW || self.has(number) {
            return false;
        }
        self.set(number);
        true
    }

    fn at(number: u64) -> (usize, u64) {
        let bit = number % WINDOW;
        (usize::try_from(bit / WORD).expect("within the window"), 1 << (bit % WORD))
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = Self::at(number);
        self.seen[word] & bit != 0
    }

    fn set(&mut self, number: u64) {
        let (word, bit) = Self::at(number);
        self.seen[word] |= bit;
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = Self::at(number);
        self.seen[word] &= !bit;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_number_is_taken_twice_in_whatever_order_they_come() {
        let (replays, now) = (SeenRequests::default(), Instant::now());
        let (one, two) = (NodeKey::random(), NodeKey::random());
        for number in [5, 3, 9, 4, 70_000, 4_465, 69_999] {
            assert!(replays.is_new(one, number, now), "{number}");
            assert!(!replays.is_new(one, number, now), "{number} again");
            assert!(replays.is_new(two, number, now), "{number} of another sender");
        }
        assert!(!replays.is_new(one, 4_464, now), "too far behind: it is not known whether it came");
        assert!(replays.is_new(one, u64::MAX, now) && !replays.is_new(one, u64::MAX, now));
    }

    #[test]
    fn senders_are_bounded_and_forgotten_in_time() {
        let (replays, start) = (SeenRequests::default(), Instant::now());
        let first = NodeKey::random();
        assert!(replays.is_new(first, 1, start));
        for _ in 1..MAX_SENDERS {
            assert!(replays.is_new(NodeKey::random(), 1, start));
        }
        assert!(!replays.is_new(NodeKey::random(), 1, start), "one too many");
        assert!(!replays.is_new(first, 1, start + REMEMBER / 2), "still remembered");
        assert!(replays.is_new(NodeKey::random(), 1, start + REMEMBER), "those that were silent are forgotten");
    }

    proptest! {
        #[test]
        fn each_number_is_taken_once(numbers in proptest::collection::vec(0u64..200_000, 1..200)) {
            let (mut window, mut taken) = (SeenNumbers::new(1), HashSet::from([1]));
            let mut newest = 1;
            for number in numbers {
                newest = newest.max(number);
                let expected = newest - number < WINDOW && taken.insert(number);
                prop_assert_eq!(window.note(number), expected, "{}", number);
            }
        }
    }
}
