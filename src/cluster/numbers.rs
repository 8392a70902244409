//! Numbers the messages that this node publishes, separately for each channel.
//!
//! A number consists of a run (a series of consecutive numbers) and a count within that run: `run:32 count:32`.
//! Channels appear and disappear with rooms, so only the most recently used channels are remembered. The next message
//! on a forgotten channel begins a new run, which receivers do not count as missing messages.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Maximum number of channels that are remembered. When it is reached, the less recently used half is forgotten.
pub(super) const MAX_CHANNELS: usize = 65_536;

/// A heartbeat contains a channel's newest number once this node has published nothing on the channel for this long. On
/// a busier channel, receivers detect missing messages by the number of the next message.
const QUIET: Duration = Duration::from_secs(1);

/// How many heartbeats contain the newest number of a quiet channel. Receivers count the missing messages at the second
/// of these heartbeats.
const SAID_TIMES: u8 = 2;

/// A run of numbers, and a count within the run that begins at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) run: u32,
    pub(super) count: u32,
}

impl Number {
    pub(super) fn pack(self) -> u64 {
        u64::from(self.run) << 32 | u64::from(self.count)
    }

    pub(super) fn unpack(packed: u64) -> Self {
        // The casts only split the value into its run and its count.
        Self { run: (packed >> 32) as u32, count: (packed & u64::from(u32::MAX)) as u32 }
    }
}

/// The last number of each channel.
#[derive(Default)]
pub(super) struct ChannelNumbers {
    channels: HashMap<Arc<str>, Last>,
    runs: u32,
    unsaid: VecDeque<Arc<str>>,
}

struct Last {
    number: Number,
    at: Instant,
    to_say: u8,
}

impl ChannelNumbers {
    /// Returns the next number of a channel.
    pub(super) fn next(&mut self, channel: &Arc<str>, now: Instant) -> u64 {
        if !self.channels.contains_key(channel) {
            self.make_room();
            self.runs += 1;
            let number = Number { run: self.runs, count: 0 };
            self.channels.insert(channel.clone(), Last { number, at: now, to_say: 0 });
        }
        let last = self.channels.get_mut(channel).expect("inserted above");
        match last.number.count.checked_add(1) {
            Some(count) => last.number.count = count,
            None => {
                self.runs += 1;
                last.number = Number { run: self.runs, count: 1 };
            }
        }
        if last.to_say == 0 {
            self.unsaid.push_back(channel.clone());
        }
        last.at = now;
        last.to_say = SAID_TIMES;
        last.number.pack()
    }

    /// The newest numbers of at most `most` channels that have fallen quiet. Each channel is returned by two calls.
    pub(super) fn heads(&mut self, most: usize, now: Instant) -> HashMap<Arc<str>, u64> {
        let mut heads = HashMap::new();
        for _ in 0..self.unsaid.len() {
            let Some(channel) = self.unsaid.pop_front() else { break };
            // The channel was forgotten in the meantime.
            let Some(last) = self.channels.get_mut(&channel) else { continue };
            if heads.len() < most && now.duration_since(last.at) >= QUIET {
                last.to_say -= 1;
                heads.insert(channel.clone(), last.number.pack());
            }
            if last.to_say > 0 {
                self.unsaid.push_back(channel);
            }
        }
        heads
    }

    /// How many runs this node has begun.
    pub(super) fn runs(&self) -> u32 {
        self.runs
    }

    /// The last message number of a channel; 0 before the first message.
    pub(super) fn head(&self, channel: &str) -> u64 {
        self.channels.get(channel).map_or(0, |last| last.number.pack())
    }

    /// Forgets the less recently used half of the channels if [`MAX_CHANNELS`] is reached. Half of the channels are
    /// forgotten at once, so that this work is rarely needed.
    fn make_room(&mut self) {
        if self.channels.len() < MAX_CHANNELS {
            return;
        }
        let mut times: Vec<_> = self.channels.values().map(|last| last.at).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        self.channels.retain(|_, last| last.at > median);
        let channels = &self.channels;
        self.unsaid.retain(|channel| channels.contains_key(channel));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_within_a_run() {
        let (mut numbers, now) = (ChannelNumbers::default(), Instant::now());
        let mut next = |channel: &str| Number::unpack(numbers.next(&channel.into(), now));
        assert_eq!(next("a"), Number { run: 1, count: 1 });
        assert_eq!(next("b"), Number { run: 2, count: 1 });
        assert_eq!(next("a"), Number { run: 1, count: 2 });
        assert_eq!((Number::unpack(numbers.head("a")).count, numbers.head("c")), (2, 0));
    }

    #[test]
    fn heads_are_said_twice_once_a_channel_is_quiet() {
        let (mut numbers, now) = (ChannelNumbers::default(), Instant::now());
        numbers.next(&"a".into(), now);
        assert!(numbers.heads(9, now).is_empty(), "the next message may come");
        for _ in 0..2 {
            assert_eq!(numbers.heads(9, now + QUIET).len(), 1);
        }
        assert!(numbers.heads(9, now + QUIET).is_empty());
        for n in 0..5 {
            numbers.next(&n.to_string().into(), now);
        }
        let said: usize = (0..10).map(|_| numbers.heads(2, now + QUIET).len()).sum();
        assert_eq!(said, 10, "each twice, never more than two at once");
    }

    #[test]
    fn memory_is_bounded_and_a_forgotten_channel_begins_a_new_run() {
        let (mut numbers, start) = (ChannelNumbers::default(), Instant::now());
        for n in 0..=MAX_CHANNELS as u64 {
            numbers.next(&n.to_string().into(), start + Duration::from_millis(n));
        }
        assert!(numbers.channels.len() <= MAX_CHANNELS && numbers.unsaid.len() <= MAX_CHANNELS);
        let again = Number::unpack(numbers.next(&"0".into(), start));
        assert!(again.run > MAX_CHANNELS as u32 && again.count == 1);
    }
}
