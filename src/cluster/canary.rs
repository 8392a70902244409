//! Canaries: every node sends a small message to all others at a fixed interval. Canaries pass through the same queues,
//! connections and Redis as events, so events between two nodes have the same loss and delay as canaries.
//!
//! Every canary has a number, even a canary that cannot be sent. The other nodes count each number exactly once: as
//! received, or as lost if the canary has not arrived [`GRACE`] after a canary with a higher number.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::frame::{Frame, FrameSender};
use super::pubsub::{Incoming, PubSub};
use crate::publish::RemoteFailure;
use crate::redis::Redis;
use crate::telemetry::metrics::Metrics;

/// A canary counts as lost if it has not arrived this long after a canary with a higher number.
const GRACE: Duration = Duration::from_secs(5);

/// A node that has sent no canary for this long is forgotten, with its metrics.
const FORGET: Duration = Duration::from_secs(300);

/// How often this node checks for lost canaries and for nodes to forget.
const LOOK: Duration = Duration::from_secs(1);

/// Maximum number of nodes whose canaries are counted. Each of these nodes adds a few time series to the metrics.
const MAX_NODES: usize = 128;

/// Maximum number of missing canaries that this node waits for, for each sender. If more are missing, the oldest count
/// as lost at once.
const MAX_MISSING: usize = 1024;

/// Maximum number of received canaries that wait to be counted.
const BUFFER: usize = 1024;

/// Counts the canaries of the other nodes.
pub(super) struct Canaries {
    metrics: Arc<Metrics>,
    canaries: Mutex<CanaryNumbers>,
}

impl Canaries {
    /// Starts to send a canary at each interval `every`, and to count the canaries of other nodes.
    pub(super) fn start(redis: &Redis, pubsub: &Arc<PubSub>, metrics: Arc<Metrics>, every: Duration) -> Arc<Self> {
        let channel: Arc<str> = redis.keys().canary_channel().into();
        let incoming = pubsub.subscribe(&channel, BUFFER);
        let canaries = Arc::new(Self { metrics: metrics.clone(), canaries: Mutex::default() });
        tokio::spawn(send(redis.clone(), pubsub.clone(), channel, metrics, every));
        tokio::spawn(canaries.clone().count(incoming, redis.clone()));
        canaries
    }

    /// Forgets a node that has announced that it leaves, and removes its metrics.
    pub(super) fn forget(&self, node: &str) {
        self.canaries.lock().expect("no thread panics while it holds this lock").nodes.remove(node);
        self.forget_metrics(node);
    }

    async fn count(self: Arc<Self>, mut incoming: mpsc::Receiver<Incoming>, redis: Redis) {
        let mut find_lost = tokio::time::interval(LOOK);
        find_lost.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                arrived = incoming.recv() => match arrived {
                    Some(arrived) => self.note(&arrived.frame, Instant::now()),
                    None => return,
                },
                _ = find_lost.tick() => {
                    if redis.is_closed() {
                        return;
                    }
                    self.find_lost(Instant::now());
                }
            }
        }
    }

    fn note(&self, frame: &Frame, now: Instant) {
        let Ok(number) = <[u8; 8]>::try_from(&*frame.body).map(u64::from_be_bytes) else { return };
        let noted =
            self.canaries.lock().expect("no thread panics while it holds this lock").note(&frame.origin, number, now);
        let from = &*frame.origin.node;
        if noted.received {
            self.metrics.canaries_received_total.with_label_values(&[from]).inc();
            self.metrics.canary_delay_seconds.with_label_values(&[from]).observe(frame.age().as_secs_f64());
        }
        if noted.known {
            self.metrics.canaries_lost_total.with_label_values(&[from]).inc_by(noted.lost);
        }
    }

    fn find_lost(&self, now: Instant) {
        let (lost, forgotten) = self.canaries.lock().expect("no thread panics while it holds this lock").find_lost(now);
        for (node, lost) in lost {
            self.metrics.canaries_lost_total.with_label_values(&[&*node]).inc_by(lost);
        }
        forgotten.iter().for_each(|node| self.forget_metrics(node));
    }

    fn forget_metrics(&self, node: &str) {
        // An error means that this node had no metrics for that node.
        let _ = self.metrics.canaries_received_total.remove_label_values(&[node]);
        let _ = self.metrics.canaries_lost_total.remove_label_values(&[node]);
        let _ = self.metrics.canary_delay_seconds.remove_label_values(&[node]);
    }
}

async fn send(redis: Redis, pubsub: Arc<PubSub>, channel: Arc<str>, metrics: Arc<Metrics>, every: Duration) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 1_u64.. {
        tick.tick().await;
        if redis.is_closed() {
            return;
        }
        metrics.canaries_sent_total.with_label_values::<&str>(&[]).inc();
        let metrics = metrics.clone();
        let count =
            move |why: RemoteFailure| metrics.canaries_not_carried_total.with_label_values(&[why.as_str()]).inc();
        match pubsub.tell(&channel, &number.to_be_bytes()) {
            Err(why) => count(why),
            // The next canary is sent without waiting for this receipt. The time-out of Redis commands limits how many
            // receipts are open.
            Ok(receipt) => drop(tokio::spawn(async move {
                if let Err(why) = receipt.await {
                    count(why);
                }
            })),
        }
    }
}

/// The canary numbers that have arrived from each other node.
#[derive(Default)]
struct CanaryNumbers {
    nodes: HashMap<Arc<str>, CanarySender>,
}

struct CanarySender {
    incarnation: u64,
    next: u64,
    /// Numbers before `next` that have not arrived, with the time at which each was found to be missing.
    missing: BTreeMap<u64, Instant>,
    last: Instant,
}

/// The result of counting one canary.
#[derive(Debug, Default, PartialEq, Eq)]
struct CountedCanary {
    /// Whether the canaries of the canary's sender are counted: at most [`MAX_NODES`] senders are.
    known: bool,
    /// Whether the canary arrived for the first time, and before it counted as lost.
    received: bool,
    /// How many other canaries turned out to be lost.
    lost: u64,
}

/// A node, and how many of its canaries are lost.
type LostCanaries = (Arc<str>, u64);

impl CanaryNumbers {
    /// Counts a canary. After each start of a sender, counting begins with the first canary that arrives from that
    /// sender.
    fn note(&mut self, origin: &FrameSender, number: u64, now: Instant) -> CountedCanary {
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&origin.node) {
            return CountedCanary::default();
        }
        let fresh =
            || CanarySender { incarnation: origin.incarnation, next: number, missing: BTreeMap::new(), last: now };
        let sender = self.nodes.entry(origin.node.clone()).or_insert_with(fresh);
        let mut lost = 0;
        if sender.incarnation != origin.incarnation {
            // The node of these canaries was started again. The canaries that are missing from before the restart will
            // not arrive any more.
            lost = sender.missing.len() as u64;
            *sender = fresh();
        }
        sender.last = now;
        let (received, more) = sender.note(number, now);
        CountedCanary { known: true, received, lost: lost + more }
    }

    /// Finds canaries that count as lost since the last call, and forgets nodes that were silent for [`FORGET`].
    /// Returns the number of lost canaries for each node, and the forgotten nodes.
    fn find_lost(&mut self, now: Instant) -> (Vec<LostCanaries>, Vec<Arc<str>>) {
        let mut lost = Vec::new();
        for (node, sender) in &mut self.nodes {
            let before = sender.missing.len();
            sender.missing.retain(|_, since| now.saturating_duration_since(*since) < GRACE);
            if sender.missing.len() < before {
                lost.push((node.clone(), (before - sender.missing.len()) as u64));
            }
        }
        let gone = |sender: &CanarySender| now.saturating_duration_since(sender.last) >= FORGET;
        let forgotten: Vec<_> = self.nodes.iter().filter(|(_, s)| gone(s)).map(|(node, _)| node.clone()).collect();
        forgotten.iter().for_each(|node| drop(self.nodes.remove(node)));
        (lost, forgotten)
    }
}

impl CanarySender {
    /// Returns whether the number arrives for the first time and before it counted as lost, and how many other numbers
    /// count as lost from now on.
    fn note(&mut self, number: u64, now: Instant) -> (bool, u64) {
        if number < self.next {
            return (self.missing.remove(&number).is_some(), 0);
        }
        let skipped = number - self.next;
        let waited_for = skipped.min(MAX_MISSING as u64);
        self.missing.extend((number - waited_for..number).map(|number| (number, now)));
        self.next = number.saturating_add(1);
        let mut lost = skipped - waited_for;
        while self.missing.len() > MAX_MISSING {
            self.missing.pop_first();
            lost += 1;
        }
        (true, lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(node: &str, incarnation: u64) -> FrameSender {
        FrameSender { node: node.into(), incarnation }
    }

    fn received(lost: u64) -> CountedCanary {
        CountedCanary { known: true, received: true, lost }
    }

    #[test]
    fn each_number_is_received_or_lost_once() {
        let (mut canaries, start) = (CanaryNumbers::default(), Instant::now());
        let a = origin("a", 1);
        assert_eq!(canaries.note(&a, 7, start), received(0));
        assert_eq!(canaries.note(&a, 11, start), received(0));
        assert_eq!(canaries.note(&a, 9, start), received(0));
        assert_eq!(canaries.note(&a, 9, start), CountedCanary { received: false, ..received(0) });
        assert_eq!(canaries.find_lost(start + GRACE / 2), (vec![], vec![]));
        assert_eq!(canaries.find_lost(start + GRACE), (vec![("a".into(), 2)], vec![]));
        assert_eq!(canaries.note(&a, 8, start + GRACE), CountedCanary { received: false, ..received(0) });
        assert_eq!(canaries.find_lost(start + 2 * GRACE), (vec![], vec![]));
    }

    #[test]
    fn a_new_run_begins_anew_and_what_the_old_one_owes_is_lost() {
        let (mut canaries, now) = (CanaryNumbers::default(), Instant::now());
        canaries.note(&origin("a", 1), 1, now);
        canaries.note(&origin("a", 1), 4, now);
        assert_eq!(canaries.note(&origin("a", 2), 3, now), received(2));
        assert_eq!(canaries.note(&origin("a", 2), 4, now), received(0));
    }

    #[test]
    fn a_long_silence_costs_no_memory() {
        let (mut canaries, now) = (CanaryNumbers::default(), Instant::now());
        let a = origin("a", 1);
        canaries.note(&a, 1, now);
        let CountedCanary { lost, .. } = canaries.note(&a, u64::MAX, now);
        assert_eq!(lost, u64::MAX - 2 - MAX_MISSING as u64);
        assert_eq!(canaries.nodes["a"].missing.len(), MAX_MISSING);
    }

    #[test]
    fn nodes_that_are_silent_are_forgotten_and_too_many_are_not_followed() {
        let (mut canaries, start) = (CanaryNumbers::default(), Instant::now());
        for node in 0..MAX_NODES {
            assert!(canaries.note(&origin(&node.to_string(), 1), 1, start).known);
        }
        assert_eq!(canaries.note(&origin("more", 1), 1, start), CountedCanary::default());
        canaries.note(&origin("7", 1), 2, start + FORGET / 2);
        let (_, forgotten) = canaries.find_lost(start + FORGET);
        assert_eq!((forgotten.len(), canaries.nodes.len()), (MAX_NODES - 1, 1));
    }
}
