//! Records which channels the node needs, and which of these channels are subscribed on the present connection.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::SubscriptionKind;

/// The purpose of a channel, which decides in which order channels are subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The channel of a room with members on this node. Subscribed first.
    Room,
    /// A channel of the node itself. Subscribed after the channels of all rooms.
    Node,
}

/// A subscription or its end, to be sent to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubscriptionChange {
    pub(super) kind: SubscriptionKind,
    pub(super) channel: Arc<str>,
    /// True to subscribe, false to unsubscribe.
    pub(super) wanted: bool,
    rank: Rank,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SubscriptionState {
    Asked,
    /// The Redis user has no right to the channel.
    Refused,
    Confirmed,
    Unwanted,
}

pub(super) const KINDS: [SubscriptionKind; 4] =
    [SubscriptionKind::Plain, SubscriptionKind::Unseen, SubscriptionKind::Below, SubscriptionKind::Sharded];

/// The channels of a node and their states.
#[derive(Default)]
pub(super) struct WantedChannels {
    channels: [HashMap<Arc<str>, (SubscriptionState, Rank)>; KINDS.len()],
    /// Channels whose last change is not confirmed by Redis yet. Outdated entries are removed by
    /// [`WantedChannels::changes`].
    pending: Vec<(SubscriptionKind, Arc<str>)>,
    /// Number of channels of the node itself that are not confirmed.
    incomplete: usize,
    /// Number of channels that Redis refuses.
    refused: usize,
    /// The order in which confirmed channels are subscribed again.
    turns: VecDeque<(SubscriptionKind, Arc<str>)>,
}

impl WantedChannels {
    pub(super) fn want(&mut self, kind: SubscriptionKind, channel: Arc<str>, rank: Rank) {
        // A channel may be unsubscribed and subscribed again before the first change is sent. Redis still has the
        // subscription, but the subscription is sent again.
        self.set(kind, channel.clone(), Some((SubscriptionState::Asked, rank)));
        self.pending.push((kind, channel));
    }

    pub(super) fn drop_channel(&mut self, kind: SubscriptionKind, channel: &str) {
        let Some((name, (_, rank))) = self.channels[kind as usize].get_key_value(channel) else { return };
        let (name, rank) = (name.clone(), *rank);
        self.set(kind, name.clone(), Some((SubscriptionState::Unwanted, rank)));
        self.pending.push((kind, name));
    }

    pub(super) fn is_complete(&self) -> bool {
        self.incomplete == 0
    }

    pub(super) fn has_refused(&self) -> bool {
        self.refused > 0
    }

    /// Records that the Redis user has no right to the channel. [`WantedChannels::changes_and`] requests the channel
    /// again.
    pub(super) fn refuse(&mut self, change: &SubscriptionChange) {
        let now = self.channels[change.kind as usize].get(&change.channel).copied();
        if let (Some((SubscriptionState::Asked, rank)), true) = (now, change.wanted) {
            self.set(change.kind, change.channel.clone(), Some((SubscriptionState::Refused, rank)));
        }
    }

    pub(super) fn is_settled(&self, kind: SubscriptionKind, channel: &str) -> bool {
        self.channels[kind as usize].get(channel).is_none_or(|(state, _)| *state != SubscriptionState::Asked)
    }

    pub(super) fn forget_confirmations(&mut self) {
        self.pending.clear();
        for kind in KINDS {
            for (channel, (state, rank)) in &mut self.channels[kind as usize] {
                match *state {
                    SubscriptionState::Confirmed => self.incomplete += usize::from(*rank == Rank::Node),
                    SubscriptionState::Refused => self.refused -= 1,
                    SubscriptionState::Asked | SubscriptionState::Unwanted => {}
                }
                if *state != SubscriptionState::Unwanted {
                    *state = SubscriptionState::Asked;
                }
                self.pending.push((kind, channel.clone()));
            }
        }
    }

    /// The changes to be sent, in order. A change that is not confirmed is returned again by the next call.
    pub(super) fn changes(&mut self) -> Vec<SubscriptionChange> {
        let mut changes: Vec<_> = std::mem::take(&mut self.pending)
            .into_iter()
            .filter_map(|(kind, channel)| {
                let (state, rank) = *self.channels[kind as usize].get(&channel)?;
                let is_open = matches!(state, SubscriptionState::Asked | SubscriptionState::Unwanted);
                is_open.then_some(SubscriptionChange { kind, channel, wanted: state == SubscriptionState::Asked, rank })
            })
            .collect();
        sort(&mut changes);
        changes.dedup();
        self.pending.extend(changes.iter().map(|change| (change.kind, change.channel.clone())));
        changes
    }

    /// Returns [`WantedChannels::changes`], the refused channels, and the confirmed channels among the next `most`
    /// channels. The calls go through all channels in turn.
    pub(super) fn changes_and(&mut self, most: usize) -> Vec<SubscriptionChange> {
        self.ask_refused_again();
        let mut changes = self.changes();
        if self.turns.is_empty() {
            for kind in KINDS {
                self.turns.extend(self.channels[kind as usize].keys().map(|channel| (kind, channel.clone())));
            }
        }
        for _ in 0..most {
            let Some((kind, channel)) = self.turns.pop_front() else { break };
            if let Some((SubscriptionState::Confirmed, rank)) = self.channels[kind as usize].get(&channel) {
                changes.push(SubscriptionChange { kind, channel, wanted: true, rank: *rank });
            }
        }
        sort(&mut changes);
        changes
    }

    /// Returns the changes that subscribe a channel that was not subscribed before.
    pub(super) fn asked<'a>(&self, changes: &'a [SubscriptionChange]) -> impl Iterator<Item = &'a SubscriptionChange> {
        let is_asked = |change: &&SubscriptionChange| change.wanted && !self.is_settled(change.kind, &change.channel);
        changes.iter().filter(is_asked)
    }

    /// Records that Redis has made the changes, and calls `tell` for each channel that was not subscribed before. A
    /// channel that has changed again since the changes were sent keeps its newer state.
    pub(super) fn confirm(&mut self, changes: &[SubscriptionChange], mut tell: impl FnMut(&SubscriptionChange)) {
        for change in changes {
            let now = self.channels[change.kind as usize].get(&change.channel).copied();
            match (now, change.wanted) {
                (Some((SubscriptionState::Asked, rank)), true) => {
                    self.set(change.kind, change.channel.clone(), Some((SubscriptionState::Confirmed, rank)));
                    tell(change);
                }
                (Some((SubscriptionState::Unwanted, _)), false) => self.set(change.kind, change.channel.clone(), None),
                _ => {}
            }
        }
    }

    fn ask_refused_again(&mut self) {
        for kind in KINDS.into_iter().filter(|_| self.refused > 0) {
            for (channel, (state, _)) in &mut self.channels[kind as usize] {
                if *state == SubscriptionState::Refused {
                    *state = SubscriptionState::Asked;
                    self.pending.push((kind, channel.clone()));
                }
            }
        }
        self.refused = 0;
    }

    fn set(&mut self, kind: SubscriptionKind, channel: Arc<str>, to: Option<(SubscriptionState, Rank)>) {
        let misses = |of: Option<(SubscriptionState, Rank)>| {
            usize::from(of.is_some_and(|(state, rank)| rank == Rank::Node && is_missing(state)))
        };
        let is_refused = |of: Option<(SubscriptionState, Rank)>| {
            usize::from(of.is_some_and(|(state, _)| state == SubscriptionState::Refused))
        };
        let before = match to {
            Some(to) => self.channels[kind as usize].insert(channel, to),
            None => self.channels[kind as usize].remove(&channel),
        };
        self.incomplete = self.incomplete + misses(to) - misses(before);
        self.refused = self.refused + is_refused(to) - is_refused(before);
    }
}

fn is_missing(state: SubscriptionState) -> bool {
    matches!(state, SubscriptionState::Asked | SubscriptionState::Refused)
}

fn sort(changes: &mut [SubscriptionChange]) {
    let place = |change: &SubscriptionChange| (change.rank, change.wanted, change.kind as usize);
    changes.sort_unstable_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.channel.cmp(&b.channel)));
}

/// Splits the changes into groups of consecutive changes, each for one command. `most` returns the maximum size of a
/// group, for each kind.
pub(super) fn groups(
    changes: Vec<SubscriptionChange>,
    most: impl Fn(SubscriptionKind) -> usize,
) -> Vec<Vec<SubscriptionChange>> {
    let mut groups: Vec<Vec<SubscriptionChange>> = Vec::new();
    for change in changes {
        match groups.last_mut() {
            Some(group)
                if group.len() < most(change.kind)
                    && (group[0].kind, group[0].wanted) == (change.kind, change.wanted) =>
            {
                group.push(change);
            }
            _ => groups.push(vec![change]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(changes: &[SubscriptionChange]) -> Vec<(&str, bool)> {
        changes.iter().map(|change| (&*change.channel, change.wanted)).collect()
    }

    #[test]
    fn rooms_come_before_the_node_and_what_is_confirmed_is_not_sent_again() {
        let mut wanted = WantedChannels::default();
        wanted.want(SubscriptionKind::Sharded, "node".into(), Rank::Node);
        wanted.want(SubscriptionKind::Sharded, "room".into(), Rank::Room);
        let first = wanted.changes();
        assert_eq!(names(&first), [("room", true), ("node", true)]);
        assert!(!wanted.is_complete());
        assert_eq!(wanted.changes(), first, "until it is confirmed");
        wanted.confirm(&first, |_| ());
        assert!(wanted.is_complete() && wanted.changes().is_empty());
        wanted.forget_confirmations();
        assert_eq!(names(&wanted.changes()), [("room", true), ("node", true)]);
        assert!(!wanted.is_complete());
    }

    #[test]
    fn what_changes_while_it_is_sent_is_sent_again() {
        let mut wanted = WantedChannels::default();
        wanted.want(SubscriptionKind::Plain, "room".into(), Rank::Room);
        let asked = wanted.changes();
        wanted.drop_channel(SubscriptionKind::Plain, "room");
        wanted.confirm(&asked, |_| ());
        let given_up = wanted.changes();
        assert_eq!(names(&given_up), [("room", false)]);
        wanted.want(SubscriptionKind::Plain, "room".into(), Rank::Room);
        wanted.confirm(&given_up, |_| ());
        assert!(!wanted.is_settled(SubscriptionKind::Plain, "room"));
        let again = wanted.changes();
        assert_eq!(names(&again), [("room", true)]);
        wanted.confirm(&again, |_| ());
        assert!(wanted.is_settled(SubscriptionKind::Plain, "room"));
        wanted.drop_channel(SubscriptionKind::Plain, "room");
        let last = wanted.changes();
        wanted.confirm(&last, |_| ());
        assert!(wanted.channels.iter().all(HashMap::is_empty), "nothing stays behind");
    }

    #[test]
    fn a_refused_channel_is_missing_and_asked_for_again_with_the_next_renewal() {
        let mut wanted = WantedChannels::default();
        wanted.want(SubscriptionKind::Plain, "node".into(), Rank::Node);
        wanted.want(SubscriptionKind::Plain, "room".into(), Rank::Room);
        for change in wanted.changes() {
            wanted.refuse(&change);
        }
        assert!(wanted.has_refused() && !wanted.is_complete() && wanted.changes().is_empty());
        assert!(wanted.is_settled(SubscriptionKind::Plain, "room"), "a join does not wait for it");
        let again = wanted.changes_and(0);
        assert_eq!(names(&again), [("room", true), ("node", true)]);
        wanted.refuse(&again[0]);
        wanted.confirm(&again[1..], |_| ());
        assert!(wanted.has_refused() && wanted.is_complete());
        wanted.forget_confirmations();
        assert!(!wanted.has_refused() && !wanted.is_complete());
        let all = wanted.changes();
        wanted.confirm(&all, |_| ());
        assert!(!wanted.has_refused() && wanted.is_complete());
    }

    #[test]
    fn only_who_was_not_subscribed_is_told() {
        let mut wanted = WantedChannels::default();
        wanted.want(SubscriptionKind::Plain, "old".into(), Rank::Room);
        let old = wanted.changes();
        wanted.confirm(&old, |_| ());
        wanted.want(SubscriptionKind::Plain, "new".into(), Rank::Room);
        wanted.want(SubscriptionKind::Plain, "given up".into(), Rank::Room);
        let group = wanted.changes_and(9);
        assert_eq!(group.len(), 3);
        wanted.drop_channel(SubscriptionKind::Plain, "given up");
        assert_eq!(wanted.asked(&group).map(|change| &*change.channel).collect::<Vec<_>>(), ["new"]);
        let mut told = Vec::new();
        wanted.confirm(&group, |change| told.push(change.channel.clone()));
        assert_eq!(told, ["new".into()]);
        assert_eq!(wanted.asked(&group).count(), 0);
    }

    #[test]
    fn renewing_takes_turns() {
        let mut wanted = WantedChannels::default();
        for n in 0..5 {
            wanted.want(SubscriptionKind::Sharded, n.to_string().into(), Rank::Room);
        }
        let all = wanted.changes();
        wanted.confirm(&all, |_| ());
        let mut seen: Vec<_> = (0..3).flat_map(|_| wanted.changes_and(2)).map(|change| change.channel).collect();
        seen.sort();
        assert_eq!(seen.len(), 5);
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn groups_are_of_one_kind_and_bounded() {
        let change = |kind, wanted| SubscriptionChange { kind, channel: "c".into(), wanted, rank: Rank::Room };
        let changes = vec![
            change(SubscriptionKind::Plain, true),
            change(SubscriptionKind::Plain, true),
            change(SubscriptionKind::Plain, true),
            change(SubscriptionKind::Sharded, true),
            change(SubscriptionKind::Sharded, false),
        ];
        assert_eq!(groups(changes, |_| 2).iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 1]);
    }
}
