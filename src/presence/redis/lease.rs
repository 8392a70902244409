//! Renews this node's lease in each namespace, and removes the data of nodes whose lease has ended.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fred::error::Error;
use tokio::time::MissedTickBehavior;

use super::queue::RewriteReason;
use super::script::{ReplyHeader, ScriptReply, node_of};
use super::{PresenceState, texts};

/// The number of connections and rooms of a dead node that one script call removes.
const REAP_CHUNK: &str = "100";

/// Maximum number of removing calls in a row for one namespace.
const REAP_CALLS: usize = 1000;

/// This node's leases, and what is known about the leases of other nodes.
#[derive(Default)]
pub(super) struct Leases(Mutex<LeaseState>);

#[derive(Default)]
struct LeaseState {
    /// The incarnation of this node that reads count.
    current: Option<String>,
    /// The incarnation that is being written and will replace the current one.
    staged: Option<String>,
    /// The epoch of each namespace when this node last read it. A different epoch means that Redis has lost its data.
    epochs: HashMap<usize, String>,
    /// Nodes whose lease had not ended when Redis was last asked.
    known: BTreeSet<String>,
    /// Nodes that had a lease before an outage of Redis, and may not have renewed it yet.
    awaited: BTreeSet<String>,
    renewed: Option<Instant>,
    /// After an outage, this node removes no data before this time: the other nodes need time to renew their leases.
    reap_from: Option<Instant>,
}

impl Leases {
    pub(super) fn current(&self) -> Option<String> {
        self.with(|state| state.current.clone())
    }

    pub(super) fn stage(&self, incarnation: &str) {
        self.with(|state| state.staged = Some(incarnation.to_owned()));
    }

    pub(super) fn unstage(&self) {
        self.with(|state| state.staged = None);
    }

    /// Makes the staged incarnation the current one. Returns the incarnation that was current before.
    pub(super) fn take_over(&self) -> Option<String> {
        self.with(|state| std::mem::replace(&mut state.current, state.staged.take()))
    }

    /// Stores a namespace's epoch. Returns true if the epoch has not changed, or if no epoch was stored before.
    pub(super) fn note_epoch(&self, space: usize, epoch: String) -> bool {
        self.with(|state| state.epochs.insert(space, epoch.clone()).is_none_or(|known| known == epoch))
    }

    /// Other nodes whose lease had not ended when Redis was last asked.
    pub(super) fn known(&self, own: &str) -> Vec<String> {
        self.with(|state| state.known.iter().filter(|node| *node != own).cloned().collect())
    }

    /// Nodes that have not renewed their lease since an outage of Redis, so that their part is missing from the answer.
    pub(super) fn awaited(&self, header: &ReplyHeader) -> Vec<String> {
        self.with(|state| {
            if state.reap_from.is_none_or(|from| from <= Instant::now()) {
                state.awaited.clear();
            }
            let live: BTreeSet<&str> = header.nodes().collect();
            state.awaited.iter().filter(|node| !live.contains(node.as_str())).cloned().collect()
        })
    }

    /// Whether more time than the length of a lease has passed since the last renewal. False before the first renewal.
    pub(super) fn is_overdue(&self, lease: Duration) -> bool {
        self.with(|state| state.renewed.is_some_and(|last| last.elapsed() >= lease))
    }

    /// Notes the nodes whose lease had not ended when Redis answered.
    fn note_known(&self, header: &ReplyHeader) {
        self.with(|state| state.known.extend(header.nodes().map(str::to_owned)));
    }

    pub(super) fn may_reap(&self) -> bool {
        self.with(|state| state.reap_from.is_none_or(|from| from <= Instant::now()))
    }

    /// The current incarnation, and the incarnation that is being written.
    pub(super) fn incarnations(&self) -> Vec<String> {
        self.with(|state| state.current.iter().chain(&state.staged).cloned().collect())
    }

    /// Notes that Redis has answered. There was an outage if more time than the length of a lease has passed since the
    /// last answer, or if this node's lease had ended (`gone`).
    fn heard(&self, header: &ReplyHeader, gone: bool, lease: Duration) {
        let now = Instant::now();
        self.with(|state| {
            let out = gone || state.renewed.is_some_and(|last| now.duration_since(last) >= lease);
            if out {
                let known = std::mem::take(&mut state.known);
                state.awaited.extend(known);
                state.reap_from = Some(now + lease);
            }
            state.renewed = Some(now);
            state.known.extend(header.nodes().map(str::to_owned));
            if !out && state.reap_from.is_none_or(|from| from <= now) {
                state.known = header.nodes().map(str::to_owned).collect();
            }
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut LeaseState) -> T) -> T {
        work(&mut self.0.lock().expect("no thread panics while it holds this lock"))
    }
}

/// The answer of the script that handles leases.
pub(super) struct LeaseReply {
    pub(super) gone: bool,
    pub(super) epoch: String,
    pub(super) header: ReplyHeader,
}

impl PresenceState {
    /// Runs the script that handles leases.
    pub(super) async fn lease(
        &self,
        space: usize,
        what: &str,
        incarnation: &str,
        more: &str,
    ) -> Result<LeaseReply, Error> {
        let lease = self.times.lease.as_millis().to_string();
        let ttl = self.times.key_ttl.as_millis().to_string();
        let args = texts(&[what, incarnation, &lease, &ttl, more]);
        let mut reply = ScriptReply::of(self.run(&self.scripts.lease, space, args).await?);
        let gone = reply.text() == "gone";
        Ok(LeaseReply { gone, epoch: reply.text(), header: ReplyHeader::of(reply.list()) })
    }

    /// Renews the leases until the node stops.
    pub(super) async fn keep_leases(&self) {
        let mut ticks = tokio::time::interval(self.times.beat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for space in 0..self.changes.spaces.len() {
                for incarnation in self.leases.incarnations() {
                    self.renew(space, &incarnation).await;
                }
            }
        }
    }

    async fn renew(&self, space: usize, incarnation: &str) {
        match self.lease(space, "renew", incarnation, "").await {
            Ok(said) => {
                // If another incarnation has replaced this incarnation in the meantime, nothing is lost.
                let gone = said.gone && self.leases.current().as_deref() == Some(incarnation);
                self.leases.heard(&said.header, gone, self.times.lease);
                if gone {
                    self.changes.queue.close(RewriteReason::Gone);
                }
            }
            Err(error) => tracing::debug!(redis.error = %error, "the presence lease was not renewed"),
        }
    }

    /// Removes the data of dead nodes, until this node stops.
    pub(super) async fn keep_reaping(&self) {
        let mut ticks = tokio::time::interval(self.times.reap);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.leases.may_reap() || !self.redis.is_up() {
                continue;
            }
            for space in 0..self.changes.spaces.len() {
                let Some(own) = self.leases.current() else { continue };
                if let Err(error) = self.reap(space, &own).await {
                    tracing::debug!(redis.error = %error, "a dead node's presence was not removed");
                }
            }
        }
    }

    /// Removes data of a namespace's dead nodes. `own` is this node's incarnation, or empty when this node is stopping.
    /// Returns true if no such data is left.
    pub(super) async fn reap(&self, space: usize, own: &str) -> Result<bool, Error> {
        let status_ttl = self.times.status_ttl.as_millis().to_string();
        for _ in 0..REAP_CALLS {
            let args = texts(&[REAP_CHUNK, &status_ttl, own]);
            let mut reply = ScriptReply::of(self.run(&self.scripts.reap, space, args).await?);
            let left = reply.number();
            self.tell(space, reply);
            if left == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The nodes whose part is missing from an answer: the nodes that are being rewritten, the nodes that have not
    /// renewed their lease since an outage, and this node if its own changes are not written.
    pub(super) fn missing(&self, header: &ReplyHeader, settled: bool) -> Vec<String> {
        self.leases.note_known(header);
        let live: BTreeSet<&str> = header.nodes().collect();
        let staged = header.staged.iter().map(|incarnation| node_of(incarnation));
        let mut missing: BTreeSet<String> = staged.filter(|node| !live.contains(node)).map(str::to_owned).collect();
        missing.extend(self.leases.awaited(header));
        if !settled {
            missing.insert(self.node.to_string());
        }
        missing.into_iter().collect()
    }
}
