//! Finds messages of other nodes that never arrived, by the numbers of the messages that each node publishes on a
//! channel.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::FrameSender;
use super::numbers::Number;

/// Maximum number of nodes whose message numbers are remembered. The node that was silent longest is forgotten first.
const MAX_NODES: usize = 1024;

/// When [`MAX_NODES`] is reached, nodes that were silent for this long are forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// Maximum number of remembered heartbeats of one node that report how many runs of numbers the node had begun.
const MAX_KNOWN: usize = 32;

/// The next number that is expected of each node on each channel.
#[derive(Default)]
pub(super) struct Gaps {
    /// Channels that this node is subscribed to for as long as it runs, each with the time of the subscription.
    heard: HashMap<Arc<str>, Instant>,
    /// Channels of rooms that have members on this node, each with the time of the subscription.
    rooms: HashMap<Arc<str>, Instant>,
    nodes: HashMap<Arc<str>, SeenChannel>,
}

struct SeenChannel {
    incarnation: u64,
    channels: HashMap<Arc<str>, Expected>,
    /// How many runs of numbers the node had begun, with the time at which the node reported this number; in ascending
    /// order. The first entry is the node's start, when the node had begun no run.
    known: VecDeque<(u32, Instant)>,
    last: Instant,
}

struct Expected {
    run: u32,
    next: u64,
    /// The newest number of this run that the node reported in its last heartbeat.
    said: u64,
    /// Run and number of the newest message that has arrived.
    came: (u32, u64),
}

/// When another node sent a message, as far as this node can tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendTime {
    /// When the message was sent, by this node's clock.
    pub(super) at: Instant,
    /// How long the sender had been running when it sent the message.
    pub(super) uptime: Duration,
}

/// Whether a message arrived in the order of its sender and channel, judged by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArrivalOrder {
    /// The message is in order. The value is how many messages before this one are missing and were not counted as
    /// missing yet.
    After(u64),
    /// A newer message of the same node and channel has arrived before. The late message was counted as missing when
    /// the newer one arrived, and would now be delivered out of order.
    Late,
}

impl Gaps {
    /// Records that this node listens to a channel.
    pub(super) fn listen(&mut self, channel: &Arc<str>) {
        self.heard.entry(channel.clone()).or_insert_with(Instant::now);
    }

    /// The channels that this node listens to for as long as it runs.
    pub(super) fn listens(&self) -> Vec<Arc<str>> {
        self.heard.keys().cloned().collect()
    }

    /// Records that this node listens to the channel of a room.
    pub(super) fn follow(&mut self, channel: &Arc<str>) {
        self.rooms.entry(channel.clone()).or_insert_with(Instant::now);
    }

    /// Records that this node no longer listens to the channel of a room. The numbers received there are forgotten.
    pub(super) fn unfollow(&mut self, channel: &str) {
        self.rooms.remove(channel);
        self.nodes.values_mut().for_each(|seen| {
            seen.channels.remove(channel);
        });
    }

    /// Records a message that has arrived, and returns whether it is in order and how many messages are missing before
    /// it.
    ///
    /// Within a run of numbers, counting begins with the first message that arrives, because messages that were sent
    /// before this node subscribed do not count as missing. If this node was certainly subscribed when the run began,
    /// counting begins with number 1.
    pub(super) fn note(
        &mut self,
        origin: &FrameSender,
        channel: &Arc<str>,
        number: u64,
        sent: SendTime,
    ) -> ArrivalOrder {
        let Some(since) = self.since(channel) else { return ArrivalOrder::After(0) };
        let number = Number::unpack(number);
        let count = u64::from(number.count);
        let seen = self.seen(origin, sent);
        let fresh = Expected { run: number.run, next: count + 1, said: 0, came: (number.run, count) };
        let Some(expected) = seen.channels.get_mut(channel) else {
            let missing = if seen.began_after(number.run, since) { count.saturating_sub(1) } else { 0 };
            seen.channels.insert(channel.clone(), fresh);
            return ArrivalOrder::After(missing);
        };
        if (number.run, count) <= expected.came {
            return ArrivalOrder::Late;
        }
        expected.came = fresh.came;
        // This run of numbers began after the previous run on this channel, so this node was already subscribed.
        if expected.run < number.run {
            *expected = fresh;
            return ArrivalOrder::After(count.saturating_sub(1));
        }
        // If the sender's heartbeat was handled before this message, the message was already counted as missing.
        let missing = if expected.run == number.run { count.saturating_sub(expected.next) } else { 0 };
        if expected.run == number.run {
            expected.next = expected.next.max(count + 1);
        }
        ArrivalOrder::After(missing)
    }

    /// Records that a heartbeat of a node reports `head` as the newest number on a channel. Returns how many messages
    /// are certainly missing: messages that have not arrived although the node's previous heartbeat already reported
    /// their numbers.
    pub(super) fn note_head(&mut self, origin: &FrameSender, channel: &Arc<str>, head: u64, sent: SendTime) -> u64 {
        let Some(since) = self.since(channel) else { return 0 };
        let head = Number::unpack(head);
        let count = u64::from(head.count);
        let seen = self.seen(origin, sent);
        let Some(expected) = seen.channels.get_mut(channel) else {
            let next = if seen.began_after(head.run, since) { 1 } else { count + 1 };
            seen.channels.insert(channel.clone(), Expected { run: head.run, next, said: count, came: (0, 0) });
            return 0;
        };
        if expected.run < head.run {
            *expected = Expected { run: head.run, next: 1, said: 0, came: expected.came };
        } else if expected.run > head.run {
            return 0;
        }
        let said = std::mem::replace(&mut expected.said, count);
        let missing = (said + 1).saturating_sub(expected.next);
        expected.next += missing;
        missing
    }

    /// Records how many runs of numbers a node had begun when the node sent its heartbeat.
    pub(super) fn note_runs(&mut self, origin: &FrameSender, runs: u32, sent: SendTime) {
        let known = &mut self.seen(origin, sent).known;
        match known.back_mut() {
            Some(last) if last.0 == runs => last.1 = last.1.max(sent.at),
            Some(last) if last.0 > runs => {}
            _ => known.push_back((runs, sent.at)),
        }
        if known.len() > MAX_KNOWN {
            known.pop_front();
        }
    }

    fn since(&self, channel: &str) -> Option<Instant> {
        self.heard.get(channel).or_else(|| self.rooms.get(channel)).copied()
    }

    fn seen(&mut self, origin: &FrameSender, sent: SendTime) -> &mut SeenChannel {
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&origin.node) {
            self.make_room(sent.at);
        }
        let fresh = || SeenChannel {
            incarnation: origin.incarnation,
            channels: HashMap::new(),
            known: sent.at.checked_sub(sent.uptime).map(|started| (0, started)).into_iter().collect(),
            last: sent.at,
        };
        let seen = self.nodes.entry(origin.node.clone()).or_insert_with(fresh);
        if seen.incarnation != origin.incarnation {
            *seen = fresh();
        }
        seen.last = sent.at;
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

impl SeenChannel {
    /// Whether a run of numbers certainly began after this moment.
    fn began_after(&self, run: u32, moment: Instant) -> bool {
        let before = self.known.iter().rev().find(|(runs, _)| *runs < run);
        before.is_some_and(|(_, at)| *at >= moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message from a node that was started long before this node listened.
    fn long_ago() -> SendTime {
        SendTime { at: Instant::now(), uptime: Duration::from_secs(3600) }
    }

    fn origin(incarnation: u64) -> FrameSender {
        FrameSender { node: "a".into(), incarnation }
    }

    #[test]
    fn gaps_are_counted_once_and_a_new_run_begins_anew() {
        let (mut gaps, now, channel) = (Gaps::default(), long_ago(), Arc::from("c"));
        assert_eq!(gaps.note(&origin(1), &channel, 3, now), ArrivalOrder::After(0), "not heard");
        assert_eq!(gaps.note(&origin(1), &channel, 9, now), ArrivalOrder::After(0), "not heard");
        gaps.listen(&channel);
        let mut note = |run, number| gaps.note(&origin(run), &channel, number, now);
        assert_eq!(note(1, 5), ArrivalOrder::After(0));
        assert_eq!(note(1, 6), ArrivalOrder::After(0));
        assert_eq!(note(1, 10), ArrivalOrder::After(3));
        assert_eq!(note(1, 8), ArrivalOrder::Late);
        assert_eq!(note(1, 11), ArrivalOrder::After(0));
        assert_eq!(note(2, 1), ArrivalOrder::After(0));
        assert_eq!(note(2, 3), ArrivalOrder::After(1));
    }

    #[test]
    fn lost_tail_is_seen_by_the_second_word_of_its_sender() {
        let (mut gaps, now, channel) = (Gaps::default(), long_ago(), Arc::from("c"));
        gaps.listen(&channel);
        gaps.note(&origin(1), &channel, 1, now);
        assert_eq!(gaps.note_head(&origin(1), &channel, 4, now), 0, "may still be on its way");
        assert_eq!(gaps.note(&origin(1), &channel, 2, now), ArrivalOrder::After(0));
        assert_eq!(gaps.note_head(&origin(1), &channel, 6, now), 2, "3 and 4");
        assert_eq!(gaps.note_head(&origin(1), &channel, 6, now), 2, "5 and 6");
        assert_eq!(gaps.note_head(&origin(1), &channel, 6, now), 0);
        assert_eq!(gaps.note(&origin(1), &channel, 7, now), ArrivalOrder::After(0));
    }

    #[test]
    fn a_room_that_was_left_begins_anew_and_so_does_a_run() {
        let (mut gaps, now, channel) = (Gaps::default(), long_ago(), Arc::from("c"));
        let number = |run, count| Number { run, count }.pack();
        gaps.follow(&channel);
        assert_eq!(gaps.note(&origin(1), &channel, number(1, 4), now), ArrivalOrder::After(0));
        gaps.unfollow(&channel);
        gaps.follow(&channel);
        assert_eq!(
            gaps.note(&origin(1), &channel, number(1, 9), now),
            ArrivalOrder::After(0),
            "nobody was here meanwhile"
        );
        assert_eq!(
            gaps.note(&origin(1), &channel, number(3, 1), now),
            ArrivalOrder::After(0),
            "its sender had forgotten the channel"
        );
        assert_eq!(gaps.note(&origin(1), &channel, number(4, 3), now), ArrivalOrder::After(2));
        assert_eq!(gaps.note(&origin(1), &channel, number(3, 2), now), ArrivalOrder::Late);
        assert_eq!(gaps.note_head(&origin(1), &channel, number(5, 2), now), 0);
        assert_eq!(gaps.note_head(&origin(1), &channel, number(5, 2), now), 2);
    }

    #[test]
    fn nodes_are_bounded() {
        let (mut gaps, now, channel) = (Gaps::default(), long_ago(), Arc::from("c"));
        gaps.listen(&channel);
        for node in 0..2 * MAX_NODES {
            let origin = FrameSender { node: node.to_string().into(), incarnation: 1 };
            gaps.note(&origin, &channel, 1, now);
        }
        assert_eq!(gaps.nodes.len(), MAX_NODES);
    }
    #[test]
    fn what_a_node_sent_first_is_missed_by_who_listened_before() {
        let (mut gaps, channel, room) = (Gaps::default(), Arc::from("c"), Arc::from("r"));
        gaps.listen(&channel);
        gaps.follow(&room);
        let later =
            |seconds| SendTime { at: Instant::now() + Duration::from_secs(seconds), uptime: Duration::from_secs(1) };
        let number = |run, count| Number { run, count }.pack();
        // The node was started after this node listened, and its first messages were lost.
        assert_eq!(gaps.note(&origin(1), &channel, number(1, 23), later(60)), ArrivalOrder::After(22));
        assert_eq!(gaps.note(&origin(1), &room, number(2, 3), later(60)), ArrivalOrder::After(2));
        // The other node was running before this node listened. This node cannot know when the first of its runs began,
        // but it knows it of the next.
        let other = FrameSender { node: "b".into(), incarnation: 1 };
        assert_eq!(gaps.note(&other, &channel, number(4, 9), long_ago()), ArrivalOrder::After(0));
        assert_eq!(gaps.note(&other, &room, number(7, 5), long_ago()), ArrivalOrder::After(0));
        gaps.unfollow(&room);
        gaps.follow(&room);
        gaps.note_runs(&other, 7, SendTime { uptime: Duration::from_secs(3600), ..later(2) });
        assert_eq!(gaps.note(&other, &room, number(8, 5), later(3)), ArrivalOrder::After(4));
        gaps.unfollow(&room);
        gaps.follow(&room);
        gaps.note_runs(&other, 8, later(4));
        assert_eq!(gaps.note_head(&other, &room, number(9, 3), later(5)), 0, "may still be on its way");
        assert_eq!(gaps.note_head(&other, &room, number(9, 3), later(6)), 3);
    }

    #[test]
    fn what_is_said_of_a_message_that_still_waits_here_does_not_make_it_late() {
        let (mut gaps, now, channel) = (Gaps::default(), long_ago(), Arc::from("c"));
        let number = |run, count| Number { run, count }.pack();
        gaps.listen(&channel);
        assert_eq!(gaps.note(&origin(1), &channel, number(1, 1), now), ArrivalOrder::After(0));
        gaps.note_head(&origin(1), &channel, number(1, 3), now);
        assert_eq!(gaps.note_head(&origin(1), &channel, number(2, 1), now), 0);
        assert_eq!(gaps.note(&origin(1), &channel, number(1, 2), now), ArrivalOrder::After(0));
        assert_eq!(gaps.note(&origin(1), &channel, number(2, 1), now), ArrivalOrder::After(0));
        assert_eq!(gaps.note(&origin(1), &channel, number(1, 3), now), ArrivalOrder::Late);
    }
}
