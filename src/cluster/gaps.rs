//! Which messages of other nodes never arrived: each node numbers what it publishes on a channel.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::Origin;
use super::numbers::Number;

/// At most so many nodes are followed; those that were silent longest are forgotten.
const MAX_NODES: usize = 1024;

/// A node that was silent for so long is forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// The numbers that are expected next.
#[derive(Default)]
pub(super) struct Gaps {
    /// Channels that this node listens to as long as it lives.
    heard: HashSet<Arc<str>>,
    /// Channels of rooms with members here.
    rooms: HashSet<Arc<str>>,
    nodes: HashMap<Arc<str>, Seen>,
}

struct Seen {
    incarnation: u64,
    channels: HashMap<Arc<str>, Expected>,
    last: Instant,
}

struct Expected {
    run: u32,
    next: u64,
    /// The newest number of this run that the node said it had given, when it last said so.
    said: u64,
}

impl Gaps {
    /// Notes that this node listens to a channel.
    pub(super) fn listen(&mut self, channel: &Arc<str>) {
        self.heard.insert(channel.clone());
    }

    /// The channels that this node listens to.
    pub(super) fn listens(&self) -> Vec<Arc<str>> {
        self.heard.iter().cloned().collect()
    }

    /// Notes that this node listens to a room's channel.
    pub(super) fn follow(&mut self, channel: &Arc<str>) {
        self.rooms.insert(channel.clone());
    }

    /// Notes that it does so no more; what was heard there is forgotten.
    pub(super) fn unfollow(&mut self, channel: &str) {
        self.rooms.remove(channel);
        self.nodes.values_mut().for_each(|seen| {
            seen.channels.remove(channel);
        });
    }

    /// Notes a message. Returns how many before it are missing.
    ///
    /// The first message of a node's run begins the count: what was sent before this node listened is not missed.
    pub(super) fn note(&mut self, origin: &Origin, channel: &Arc<str>, number: u64, now: Instant) -> u64 {
        if !self.listens_to(channel) {
            return 0;
        }
        let number = Number::unpack(number);
        let count = u64::from(number.count);
        let seen = self.seen(origin, now);
        let fresh = Expected { run: number.run, next: count + 1, said: 0 };
        match seen.channels.get_mut(channel) {
            None => {
                seen.channels.insert(channel.clone(), fresh);
                0
            }
            // This node listened when the run began.
            Some(expected) if expected.run < number.run => {
                *expected = fresh;
                count.saturating_sub(1)
            }
            // A late one was counted as missing when the gap was seen.
            Some(expected) if expected.run > number.run || count < expected.next => 0,
            Some(expected) => {
                let missing = count - expected.next;
                expected.next = count + 1;
                missing
            }
        }
    }

    /// Notes that a node has given numbers up to `head` on a channel. Returns how many are missing for certain: those
    /// that it had given already when it last said so.
    pub(super) fn note_head(&mut self, origin: &Origin, channel: &Arc<str>, head: u64, now: Instant) -> u64 {
        if !self.listens_to(channel) {
            return 0;
        }
        let head = Number::unpack(head);
        let count = u64::from(head.count);
        let seen = self.seen(origin, now);
        let Some(expected) = seen.channels.get_mut(channel) else {
            seen.channels.insert(channel.clone(), Expected { run: head.run, next: count + 1, said: count });
            return 0;
        };
        if expected.run < head.run {
            *expected = Expected { run: head.run, next: 1, said: 0 };
        } else if expected.run > head.run {
            return 0;
        }
        let said = std::mem::replace(&mut expected.said, count);
        let missing = (said + 1).saturating_sub(expected.next);
        expected.next += missing;
        missing
    }

    fn listens_to(&self, channel: &str) -> bool {
        self.heard.contains(channel) || self.rooms.contains(channel)
    }

    fn seen(&mut self, origin: &Origin, now: Instant) -> &mut Seen {
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&origin.node) {
            self.make_room(now);
        }
        let fresh = || Seen { incarnation: origin.incarnation, channels: HashMap::new(), last: now };
        let seen = self.nodes.entry(origin.node.clone()).or_insert_with(fresh);
        if seen.incarnation != origin.incarnation {
            *seen = fresh();
        }
        seen.last = now;
        seen
    }

    fn make_room(&mut self, now: Instant) {
        self.nodes.retain(|_, seen| now.duration_since(seen.last) < FORGET);
        if self.nodes.len() >= MAX_NODES {
            let oldest = self.nodes.iter().min_by_key(|(_, seen)| seen.last).map(|(node, _)| node.clone());
            if let Some(node) = oldest {
                self.nodes.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(incarnation: u64) -> Origin {
        Origin { node: "a".into(), incarnation }
    }

    #[test]
    fn gaps_are_counted_once_and_a_new_run_begins_anew() {
        let (mut gaps, now, channel) = (Gaps::default(), Instant::now(), Arc::from("c"));
        assert_eq!(gaps.note(&origin(1), &channel, 3, now) + gaps.note(&origin(1), &channel, 9, now), 0, "not heard");
        gaps.listen(&channel);
        let mut note = |run, number| gaps.note(&origin(run), &channel, number, now);
        assert_eq!(note(1, 5), 0);
        assert_eq!(note(1, 6), 0);
        assert_eq!(note(1, 10), 3);
        assert_eq!(note(1, 8), 0);
        assert_eq!(note(1, 11), 0);
        assert_eq!(note(2, 1), 0);
        assert_eq!(note(2, 3), 1);
    }

    #[test]
    fn lost_tail_is_seen_by_the_second_word_of_its_sender() {
        let (mut gaps, now, channel) = (Gaps::default(), Instant::now(), Arc::from("c"));
        gaps.listen(&channel);
        gaps.note(&origin(1), &channel, 1, now);
        assert_eq!(gaps.note_head(&origin(1), &channel, 4, now), 0, "may still be on its way");
        assert_eq!(gaps.note(&origin(1), &channel, 2, now), 0);
        assert_eq!(gaps.note_head(&origin(1), &channel, 6, now), 2, "3 and 4");
        assert_eq!(gaps.note_head(&origin(1), &channel, 6, now), 2, "5 and 6");
        assert_eq!(gaps.note_head(&origin(1), &channel, 6, now), 0);
        assert_eq!(gaps.note(&origin(1), &channel, 7, now), 0);
    }

    #[test]
    fn a_room_that_was_left_begins_anew_and_so_does_a_run() {
        let (mut gaps, now, channel) = (Gaps::default(), Instant::now(), Arc::from("c"));
        let number = |run, count| Number { run, count }.pack();
        gaps.follow(&channel);
        assert_eq!(gaps.note(&origin(1), &channel, number(1, 4), now), 0);
        gaps.unfollow(&channel);
        gaps.follow(&channel);
        assert_eq!(gaps.note(&origin(1), &channel, number(1, 9), now), 0, "nobody was here meanwhile");
        assert_eq!(gaps.note(&origin(1), &channel, number(3, 1), now), 0, "its sender had forgotten the channel");
        assert_eq!(gaps.note(&origin(1), &channel, number(4, 3), now), 2);
        assert_eq!(gaps.note(&origin(1), &channel, number(3, 2), now), 0, "late");
        assert_eq!(gaps.note_head(&origin(1), &channel, number(5, 2), now), 0);
        assert_eq!(gaps.note_head(&origin(1), &channel, number(5, 2), now), 2);
    }

    #[test]
    fn nodes_are_bounded() {
        let (mut gaps, now, channel) = (Gaps::default(), Instant::now(), Arc::from("c"));
        gaps.listen(&channel);
        for node in 0..2 * MAX_NODES {
            let origin = Origin { node: node.to_string().into(), incarnation: 1 };
            gaps.note(&origin, &channel, 1, now);
        }
        assert_eq!(gaps.nodes.len(), MAX_NODES);
    }
}
