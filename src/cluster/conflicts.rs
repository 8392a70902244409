//! Finds nodes that must not be in one cluster: two nodes with the same id, or two nodes with different contracts on
//! one Redis prefix.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::frame::FrameSender;

/// A conflict is over if no heartbeat has shown it for this long, which is four heartbeat intervals.
const OVER: Duration = Duration::from_secs(4);

/// How often a lasting conflict is logged again.
const AGAIN: Duration = Duration::from_secs(60);

/// How many heartbeats must show a conflict before it is reported. One heartbeat proves nothing: the last heartbeat
/// before a node's restart may arrive after the first heartbeat that follows the restart.
const FEWEST: u32 = 2;

/// Maximum number of conflicts, and of nodes whose newest start time is remembered.
const MAX_NODES: usize = 1024;

/// The kind of conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConflictKind {
    /// Two nodes have one id.
    SameId,
    /// Two nodes have different contracts.
    OtherContracts,
}

impl ConflictKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::SameId, Self::OtherContracts];

    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SameId => "same_id",
            Self::OtherContracts => "other_contracts",
        }
    }
}

/// A conflict with a node, or between two nodes with one id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The kind of conflict.
    pub kind: ConflictKind,
    /// The node's id.
    pub node: Arc<str>,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let node = &self.node;
        match self.kind {
            ConflictKind::SameId => write!(f, "two nodes have the id {node:?}: give each a node.id of its own"),
            ConflictKind::OtherContracts => {
                write!(
                    f,
                    "the node {node:?} has other contracts and the same redis.prefix: give both the same contracts"
                )
            }
        }
    }
}

/// The conflicts that this node sees.
pub(super) struct Conflicts {
    own: FrameSender,
    contracts: String,
    table: Mutex<ConflictTable>,
}

#[derive(Default)]
struct ConflictTable {
    seen: HashMap<(ConflictKind, Arc<str>), SeenNode>,
    /// The newest [`FrameSender::incarnation`] (the start time) of each node.
    newest: HashMap<Arc<str>, u64>,
}

struct SeenNode {
    times: u32,
    last: Instant,
    told: Option<Instant>,
}

impl Conflicts {
    /// Creates an empty record of conflicts for this node. `contracts` is the digest of this node's contracts.
    pub(super) fn new(own: FrameSender, contracts: &str) -> Self {
        Self { own, contracts: contracts.to_owned(), table: Mutex::default() }
    }

    /// The digest of this node's contracts.
    pub(super) fn contracts(&self) -> &str {
        &self.contracts
    }

    /// Compares a heartbeat of another node with this node's contracts and with earlier heartbeats. Returns the
    /// conflicts to be logged now.
    pub(super) fn note(&self, origin: &FrameSender, contracts: &str, now: Instant) -> Vec<Conflict> {
        let mut table = self.table();
        let mut told = Vec::new();
        // Nodes of earlier versions send no digest.
        if !contracts.is_empty() && contracts != self.contracts {
            told.extend(table.see(ConflictKind::OtherContracts, &origin.node, now));
        }
        if table.is_second(origin, &self.own) {
            told.extend(table.see(ConflictKind::SameId, &origin.node, now));
        }
        told
    }

    /// The conflicts at this moment, sorted.
    pub(super) fn now(&self, now: Instant) -> Vec<Conflict> {
        let mut table = self.table();
        table.seen.retain(|_, seen| now.saturating_duration_since(seen.last) < OVER);
        let lasting = table.seen.iter().filter(|(_, seen)| seen.times >= FEWEST);
        let mut all: Vec<_> = lasting.map(|((kind, node), _)| Conflict { kind: *kind, node: node.clone() }).collect();
        all.sort();
        all
    }

    fn table(&self) -> std::sync::MutexGuard<'_, ConflictTable> {
        self.table.lock().expect("no thread panics while it holds this lock")
    }
}

impl ConflictTable {
    /// Whether the sender shares its id with another running node: with this node, or with a node that was started
    /// later than the sender.
    fn is_second(&mut self, origin: &FrameSender, own: &FrameSender) -> bool {
        if origin.node == own.node {
            return origin.incarnation != own.incarnation;
        }
        if self.newest.len() >= MAX_NODES && !self.newest.contains_key(&origin.node) {
            self.newest.clear();
        }
        let newest = self.newest.entry(origin.node.clone()).or_insert(origin.incarnation);
        *newest = (*newest).max(origin.incarnation);
        origin.incarnation < *newest
    }

    fn see(&mut self, kind: ConflictKind, node: &Arc<str>, now: Instant) -> Option<Conflict> {
        let key = (kind, node.clone());
        if self.seen.len() >= MAX_NODES && !self.seen.contains_key(&key) {
            return None;
        }
        let seen = self.seen.entry(key).or_insert(SeenNode { times: 0, last: now, told: None });
        if now.saturating_duration_since(seen.last) >= OVER {
            (seen.times, seen.told) = (0, None);
        }
        seen.times += 1;
        seen.last = now;
        let is_due = seen.told.is_none_or(|told| now.saturating_duration_since(told) >= AGAIN);
        if seen.times < FEWEST || !is_due {
            return None;
        }
        seen.told = Some(now);
        Some(Conflict { kind, node: node.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(node: &str, incarnation: u64) -> FrameSender {
        FrameSender { node: node.into(), incarnation }
    }

    fn conflicts() -> (Conflicts, Instant) {
        (Conflicts::new(origin("a", 5), "digest"), Instant::now())
    }

    #[test]
    fn a_namesake_is_told_once_and_once_a_minute() {
        let (conflicts, start) = conflicts();
        let note = |at: u64| conflicts.note(&origin("a", 9), "digest", start + Duration::from_secs(at)).len();
        assert_eq!(note(0), 0, "a former run's last words");
        assert_eq!(note(1), 1);
        assert_eq!((2..61).map(note).sum::<usize>(), 0);
        assert_eq!(note(61), 1);
        let now = conflicts.now(start + Duration::from_secs(61));
        assert_eq!(now, [Conflict { kind: ConflictKind::SameId, node: "a".into() }]);
        assert_eq!(conflicts.now(start + Duration::from_secs(70)), []);
    }

    #[test]
    fn two_others_of_one_id_are_seen_and_a_restart_is_not() {
        let (conflicts, start) = conflicts();
        let note = |incarnation| conflicts.note(&origin("b", incarnation), "digest", start).len();
        assert_eq!([note(1), note(1), note(2), note(2), note(3)], [0; 5], "started again, twice");
        assert_eq!([note(2), note(3), note(2)], [0, 0, 1]);
    }

    #[test]
    fn other_contracts_are_seen_and_versions_that_say_nothing_are_not() {
        let (conflicts, start) = conflicts();
        let note = |contracts| conflicts.note(&origin("b", 1), contracts, start).len();
        assert_eq!([note("digest"), note(""), note("digest")], [0; 3]);
        assert_eq!([note("other"), note("other"), note("other")], [0, 1, 0]);
        assert_eq!(conflicts.now(start), [Conflict { kind: ConflictKind::OtherContracts, node: "b".into() }]);
    }
}
