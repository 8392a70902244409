//! The node's lease in each namespace, and what is left of nodes whose lease has ended.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fred::error::Error;
use tokio::time::MissedTickBehavior;

use super::queue::Reason;
use super::script::{Header, Reply, node_of};
use super::{Inner, texts};

/// So many connections and rooms of a dead node are removed by one call.
const REAP_CHUNK: &str = "100";

/// So many calls follow one another at most, before others are looked at.
const REAP_CALLS: usize = 1000;

/// What the node holds.
#[derive(Default)]
pub(super) struct Leases(Mutex<State>);

#[derive(Default)]
struct State {
    /// The incarnation that answers count.
    current: Option<String>,
    /// The one that is being written.
    staged: Option<String>,
    /// Each namespace's, as this node last saw it: another one means that Redis has lost its data.
    epochs: HashMap<usize, String>,
    /// Nodes that were live when Redis was last asked.
    known: BTreeSet<String>,
    /// Nodes that were live before an outage, and may not be back yet.
    awaited: BTreeSet<String>,
    renewed: Option<Instant>,
    /// After an outage, not before: the others must have the time to come back.
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

    /// The staged incarnation takes over; returns the one that it replaces.
    pub(super) fn take_over(&self) -> Option<String> {
        self.with(|state| std::mem::replace(&mut state.current, state.staged.take()))
    }

    /// Remembers a namespace's epoch. True when what it remembered is still there, or it remembered nothing.
    pub(super) fn note_epoch(&self, space: usize, epoch: String) -> bool {
        self.with(|state| state.epochs.insert(space, epoch.clone()).is_none_or(|known| known == epoch))
    }

    /// Other nodes that were live when Redis was last asked.
    pub(super) fn known(&self, own: &str) -> Vec<String> {
        self.with(|state| state.known.iter().filter(|node| *node != own).cloned().collect())
    }

    /// Nodes that have not come back from an outage, of which the answer therefore lacks something.
    pub(super) fn awaited(&self, header: &Header) -> Vec<String> {
        self.with(|state| {
            if state.reap_from.is_none_or(|from| from <= Instant::now()) {
                state.awaited.clear();
            }
            let live: BTreeSet<&str> = header.nodes().collect();
            state.awaited.iter().filter(|node| !live.contains(node.as_str())).cloned().collect()
        })
    }

    /// Whether the lease has not been renewed in time, although it once was.
    pub(super) fn is_overdue(&self, lease: Duration) -> bool {
        self.with(|state| state.renewed.is_some_and(|last| last.elapsed() >= lease))
    }

    /// Remembers who was live when Redis was last asked.
    fn note_known(&self, header: &Header) {
        self.with(|state| state.known.extend(header.nodes().map(str::to_owned)));
    }

    pub(super) fn may_reap(&self) -> bool {
        self.with(|state| state.reap_from.is_none_or(|from| from <= Instant::now()))
    }

    /// The current one, and the one that is being written.
    pub(super) fn incarnations(&self) -> Vec<String> {
        self.with(|state| state.current.iter().chain(&state.staged).cloned().collect())
    }

    /// Redis has answered. After longer than a lease, or when the own lease had ended, there was an outage.
    fn heard(&self, header: &Header, gone: bool, lease: Duration) {
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

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().expect("no panic while held"))
    }
}

/// What a lease's script said.
pub(super) struct Said {
    pub(super) gone: bool,
    pub(super) epoch: String,
    pub(super) header: Header,
}

impl Inner {
    /// Runs the script of leases.
    pub(super) async fn lease(&self, space: usize, what: &str, incarnation: &str, more: &str) -> Result<Said, Error> {
        let lease = self.times.lease.as_millis().to_string();
        let ttl = self.times.key_ttl.as_millis().to_string();
        let args = texts(&[what, incarnation, &lease, &ttl, more]);
        let mut reply = Reply::of(self.run(&self.scripts.lease, space, args).await?);
        let gone = reply.text() == "gone";
        Ok(Said { gone, epoch: reply.text(), header: Header::of(reply.list()) })
    }

    /// Renews the leases until the node stops.
    pub(super) async fn keep_leases(&self) {
        let mut ticks = tokio::time::interval(self.times.beat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for space in 0..self.spaces.len() {
                for incarnation in self.leases.incarnations() {
                    self.renew(space, &incarnation).await;
                }
            }
        }
    }

    async fn renew(&self, space: usize, incarnation: &str) {
        match self.lease(space, "renew", incarnation, "").await {
            Ok(said) => {
                // Replaced in the meantime: that is no loss.
                let gone = said.gone && self.leases.current().as_deref() == Some(incarnation);
                self.leases.heard(&said.header, gone, self.times.lease);
                if gone {
                    self.queue.shut(Reason::Gone);
                }
            }
            Err(error) => tracing::debug!(redis.error = %error, "the presence lease was not renewed"),
        }
    }

    /// Removes what dead nodes left behind, until the node stops.
    pub(super) async fn keep_reaping(&self) {
        let mut ticks = tokio::time::interval(self.times.reap);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.leases.may_reap() || !self.redis.is_up() {
                continue;
            }
            for space in 0..self.spaces.len() {
                let Some(own) = self.leases.current() else { continue };
                if let Err(error) = self.reap(space, &own).await {
                    tracing::debug!(redis.error = %error, "a dead node's presence was not removed");
                }
            }
        }
    }

    /// Removes what it can of a namespace's dead nodes, as the incarnation `own`; empty when this node is going. True
    /// when nothing is left of them.
    pub(super) async fn reap(&self, space: usize, own: &str) -> Result<bool, Error> {
        let status_ttl = self.times.status_ttl.as_millis().to_string();
        for _ in 0..REAP_CALLS {
            let args = texts(&[REAP_CHUNK, &status_ttl, own]);
            let mut reply = Reply::of(self.run(&self.scripts.reap, space, args).await?);
            let left = reply.number();
            self.tell(space, reply);
            if left == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What an answer lacks: nodes that are being rewritten, that have not come back, or this one.
    pub(super) fn missing(&self, header: &Header, settled: bool) -> Vec<String> {
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
