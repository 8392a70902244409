//! Writes this node's presence to Redis: single changes, or everything again (a rewrite).

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fred::error::Error;
use fred::types::Value;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::change::{PresenceChange, WriterItem};
use super::queue::RewriteReason;
use super::script::ScriptReply;
use super::{PresenceState, texts};
use crate::presence::MemberChange;
use crate::session::Session;

/// Maximum number of items that one script call writes. While a script runs, Redis does nothing else.
const BATCH: usize = 64;

/// Maximum number of sessions that one script call writes in a rewrite.
const REWRITE_CHUNK: usize = 16;

/// The interval at which some keys get a new time to live, until a round over all sessions is complete.
const REFRESH_TICK: Duration = Duration::from_millis(50);

/// Why a write failed.
enum WriteFailure {
    /// Redis returned an error or did not answer.
    Redis(Error),
    /// The node's lease had ended.
    Gone,
}

impl From<Error> for WriteFailure {
    fn from(error: Error) -> Self {
        Self::Redis(error)
    }
}

/// The sessions whose keys have not got a new time to live in this round.
type Round = VecDeque<(usize, Weak<Session>)>;

impl PresenceState {
    /// Writes queued changes until the node stops.
    pub(super) async fn keep_writing(&self, mut items: mpsc::Receiver<WriterItem>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut rounds = tokio::time::interval(self.times.key_ttl / 4);
        rounds.tick().await;
        let mut ticks = tokio::time::interval(REFRESH_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = Round::new();
        loop {
            if !self.changes.queue.is_open() {
                self.rewrite_until_done(&mut items).await;
            }
            batch.clear();
            let written = tokio::select! {
                biased;
                () = self.changes.queue.close_now() => continue,
                count = items.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.write(std::mem::take(&mut batch)).await
                }
                _ = rounds.tick() => {
                    round = self.begin_round();
                    continue;
                }
                _ = ticks.tick(), if !round.is_empty() => self.refresh(&mut round).await,
            };
            match written {
                Ok(()) => {}
                Err(WriteFailure::Gone) => self.changes.queue.close(RewriteReason::Gone),
                Err(WriteFailure::Redis(error)) => {
                    tracing::debug!(redis.error = %error, "presence was not written");
                    self.changes.queue.close(RewriteReason::Failed);
                }
            }
        }
    }

    /// Writes a batch in order. Answers its barriers once the whole batch is written.
    async fn write(&self, batch: Vec<WriterItem>) -> Result<(), WriteFailure> {
        let Some(incarnation) = self.leases.current() else { return Err(WriteFailure::Gone) };
        let mut spaces: Vec<Vec<PresenceChange>> = self.changes.spaces.iter().map(|_| Vec::new()).collect();
        let mut barriers = Vec::new();
        for item in batch {
            match item {
                WriterItem::Change(space, change) => spaces[space].push(change),
                WriterItem::Barrier(answer) => barriers.push(answer),
            }
        }
        for (space, changes) in spaces.iter().enumerate() {
            if let Err(failure) = self.apply(space, &incarnation, changes, true).await {
                let lost: usize = spaces[space..].iter().map(Vec::len).sum();
                self.changes.metrics.presence_queue_dropped_total.with_label_values(&["failed"]).inc_by(lost as u64);
                return Err(failure);
            }
        }
        for answer in barriers {
            // Fails if the caller has stopped waiting, which is harmless.
            let _ = answer.send(());
        }
        Ok(())
    }

    async fn apply(
        &self,
        space: usize,
        incarnation: &str,
        changes: &[PresenceChange],
        tell: bool,
    ) -> Result<(), WriteFailure> {
        if changes.is_empty() {
            return Ok(());
        }
        let ttl = self.times.key_ttl.as_millis().to_string();
        let status_ttl = self.times.status_ttl.as_millis().to_string();
        let mut args: Vec<Value> = texts(&[incarnation, &ttl, &status_ttl, if tell { "1" } else { "0" }]);
        changes.iter().for_each(|change| change.write(&mut args));
        let mut reply = ScriptReply::of(self.run(&self.scripts.apply, space, args).await?);
        if reply.text() == "gone" {
            return Err(WriteFailure::Gone);
        }
        self.changes
            .metrics
            .presence_writes_total
            .with_label_values::<&str>(&[])
            .inc_by(changes.iter().map(PresenceChange::weight).sum());
        self.tell(space, reply);
        for change in changes {
            if let PresenceChange::Metadata { rooms, .. } = change {
                rooms
                    .iter()
                    .for_each(|room| self.announce(&self.changes.spaces[space].path, room, MemberChange::Metadata));
            }
        }
        Ok(())
    }

    // --- rewrites ---

    /// Repeats the rewrite until it succeeds.
    async fn rewrite_until_done(&self, items: &mut mpsc::Receiver<WriterItem>) {
        let mut pause = self.times.reap;
        loop {
            while !self.redis.is_up() {
                tokio::time::sleep(self.times.reap.min(Duration::from_millis(100))).await;
            }
            match self.rewrite(items).await {
                Ok(reason) => {
                    self.changes.metrics.presence_resyncs_total.with_label_values(&[reason.as_str()]).inc();
                    return;
                }
                Err(failure) => {
                    if let WriteFailure::Redis(error) = failure {
                        tracing::debug!(redis.error = %error, "presence was not written again completely");
                    }
                    self.leases.unstage();
                    self.changes.queue.close(RewriteReason::Failed);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.times.beat);
        }
    }

    /// Writes everything under a new incarnation, which then replaces the current one in one step.
    async fn rewrite(&self, items: &mut mpsc::Receiver<WriterItem>) -> Result<RewriteReason, WriteFailure> {
        // The waiting changes are dropped: the index, which is read after this, contains them.
        while items.try_recv().is_ok() {}
        let reason = self.changes.queue.reopen();
        let incarnation = self.new_incarnation();
        self.leases.stage(&incarnation);
        for space in 0..self.changes.spaces.len() {
            let said = self.lease(space, "stage", &incarnation, &incarnation).await?;
            // If Redis has lost its data, every member would seem to join, so no join is announced.
            let tell = self.leases.note_epoch(space, said.epoch);
            self.rewrite_space(space, &incarnation, tell).await?;
        }
        let replaced = self.leases.take_over().unwrap_or_default();
        for space in 0..self.changes.spaces.len() {
            if self.lease(space, "commit", &incarnation, &replaced).await?.gone {
                return Err(WriteFailure::Gone);
            }
        }
        tracing::debug!(reason = reason.as_str(), "presence was written again completely");
        Ok(reason)
    }

    async fn rewrite_space(&self, space: usize, incarnation: &str, tell: bool) -> Result<(), WriteFailure> {
        for sessions in self.sessions(space).chunks(REWRITE_CHUNK) {
            let changes: Vec<PresenceChange> =
                sessions.iter().flat_map(|session| PresenceChange::all_of(session, &self.changes.policies)).collect();
            self.apply(space, incarnation, &changes, tell).await?;
        }
        let statuses = self.local.users.statuses(&self.changes.spaces[space].path);
        for statuses in statuses.chunks(BATCH) {
            let changes: Vec<PresenceChange> = statuses
                .iter()
                .map(|(user, status)| PresenceChange::Status { user: user.clone(), status: status.clone() })
                .collect();
            self.apply(space, incarnation, &changes, tell).await?;
        }
        Ok(())
    }

    fn sessions(&self, space: usize) -> Vec<Arc<Session>> {
        self.local.rooms.sessions(&self.changes.spaces[space].path)
    }

    // --- new TTLs ---

    fn begin_round(&self) -> Round {
        (0..self.changes.spaces.len())
            .flat_map(|space| self.sessions(space).into_iter().map(move |session| (space, Arc::downgrade(&session))))
            .collect()
    }

    /// Writes some sessions again. This changes only the time to live of their keys.
    async fn refresh(&self, round: &mut Round) -> Result<(), WriteFailure> {
        let Some(incarnation) = self.leases.current() else { return Err(WriteFailure::Gone) };
        let part: Vec<_> = round.drain(..round.len().min(REWRITE_CHUNK)).collect();
        for space in 0..self.changes.spaces.len() {
            let changes: Vec<PresenceChange> = part
                .iter()
                .filter(|(of, _)| *of == space)
                .filter_map(|(_, session)| session.upgrade())
                .flat_map(|session| PresenceChange::all_of(&session, &self.changes.policies))
                .collect();
            self.apply(space, &incarnation, &changes, true).await?;
        }
        Ok(())
    }
}
