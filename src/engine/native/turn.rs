//! Writes the connections that have something to say: each once in a turn, however much was appended to it.
//!
//! No timer: a turn begins as soon as the runtime comes to it, which is after the publisher's own step. A large room is
//! written in slices, by as many writers as there are processors, so that none of them holds a thread for long.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use prometheus::IntCounter;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::wire::{Flushed, Wire};

/// So many connections are written before others may run: about half a millisecond.
const SLICE: usize = 128;

/// An idle list keeps no more room than this.
const KEPT_CAPACITY: usize = 4096;

/// Connections that wait to be written.
pub(super) struct Turns {
    waiting: Mutex<VecDeque<Arc<Wire>>>,
    wake: Notify,
    writers: Mutex<Vec<AbortHandle>>,
    sent: IntCounter,
}

impl Turns {
    /// Begins to write, with so many writers; `sent` counts the bytes. Needs a Tokio runtime.
    pub(super) fn start(writers: usize, sent: IntCounter) -> Arc<Self> {
        let turns = Arc::new(Self { waiting: Mutex::default(), wake: Notify::new(), writers: Mutex::default(), sent });
        let tasks = (0..writers.max(1)).map(|_| tokio::spawn(write(turns.clone())).abort_handle()).collect();
        *turns.writers.lock().expect("no panic while held") = tasks;
        turns
    }

    /// Counts bytes that were written.
    pub(super) fn count(&self, bytes: usize) {
        self.sent.inc_by(bytes as u64);
    }

    /// Ends the writers.
    pub(super) fn stop(&self) {
        self.writers.lock().expect("no panic while held").drain(..).for_each(|writer| writer.abort());
    }

    /// A connection waits for its turn. It does so once: see [`Wire::flush`].
    pub(super) fn add(&self, wire: Arc<Wire>) {
        let mut waiting = self.waiting.lock().expect("no panic while held");
        waiting.push_back(wire);
        let first = waiting.len() == 1;
        drop(waiting);
        if first {
            self.wake.notify_one();
        }
    }

    /// Takes a slice. Another writer is woken for the rest.
    fn take(&self, slice: &mut Vec<Arc<Wire>>) {
        let mut waiting = self.waiting.lock().expect("no panic while held");
        let count = waiting.len().min(SLICE);
        slice.extend(waiting.drain(..count));
        let more = !waiting.is_empty();
        if !more && waiting.capacity() > KEPT_CAPACITY {
            *waiting = VecDeque::new();
        }
        drop(waiting);
        if more {
            self.wake.notify_one();
        }
    }
}

async fn write(turns: Arc<Turns>) {
    let mut slice = Vec::with_capacity(SLICE);
    loop {
        turns.take(&mut slice);
        if slice.is_empty() {
            turns.wake.notified().await;
            continue;
        }
        for wire in slice.drain(..) {
            if wire.flush() == Flushed::More {
                turns.add(wire);
            }
        }
        tokio::task::yield_now().await;
    }
}
