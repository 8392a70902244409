//! Writes the connections that have something to say: each once in a turn, however much was appended to it.
//!
//! No timer: a turn begins as soon as the runtime comes to it, which is after the publisher's own step. A small room is
//! written by the client's task that spoke, at the end of its step ([`Turns::own`]): no other task, and no other thread, is woken
//! for it. A large room is written in slices, by as many writers as there are processors, so that none of them holds a thread
//! for long.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::poll;
use prometheus::{Histogram, IntCounter};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::wire::{Flushed, Wire};
use crate::telemetry::metrics::Metrics;

/// A writer takes so many connections at once, so that the others have some, too.
const SLICE: usize = 128;

/// A writer that has held its thread for so long lets others run. Half of what is promised (1 ms): between two looks at the
/// clock the kernel takes its time, too.
const MOST: Duration = Duration::from_micros(500);

/// After so many connections it looks at the clock: at 3 to 10 µs a write, every 12 to 40 µs.
const LOOK: usize = 4;

/// So many connections a client's task writes by itself: about 0.1 ms.
const OWN: usize = 32;

/// An idle list keeps no more room than this.
const KEPT_CAPACITY: usize = 4096;

thread_local! {
    static OWNED: RefCell<Owned> = const { RefCell::new(Owned { open: false, wires: Vec::new() }) };
}

/// What the task that runs now will write by itself.
struct Owned {
    /// Whether there is one.
    open: bool,
    wires: Vec<Arc<Wire>>,
}

/// Connections that wait to be written.
pub(super) struct Turns {
    waiting: Mutex<VecDeque<Arc<Wire>>>,
    wake: Notify,
    writers: Mutex<Vec<AbortHandle>>,
    sent: IntCounter,
    held: Histogram,
}

impl Turns {
    /// Begins to write, with so many writers; `sent` counts the bytes. Needs a Tokio runtime.
    pub(super) fn start(writers: usize, sent: IntCounter, metrics: &Metrics) -> Arc<Self> {
        let held = metrics.delivery_turn_seconds.with_label_values::<&str>(&[]);
        let turns = Self { waiting: Mutex::default(), wake: Notify::new(), writers: Mutex::default(), sent, held };
        let turns = Arc::new(turns);
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

    /// What is added on this thread from now on is written when [`Own::write`] says so, as far as it is little.
    pub(super) fn own(&self) -> Own<'_> {
        let first = OWNED.with_borrow_mut(|owned| !std::mem::replace(&mut owned.open, true));
        Own { turns: self, first }
    }

    /// A connection waits for its turn. It does so once: see [`Wire::flush`].
    pub(super) fn add(&self, wire: Arc<Wire>) {
        let others = OWNED.with_borrow_mut(|owned| {
            if owned.open && owned.wires.len() < OWN {
                owned.wires.push(wire);
                return None;
            }
            Some(wire)
        });
        if let Some(wire) = others {
            self.queue(wire);
        }
    }

    fn queue(&self, wire: Arc<Wire>) {
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

/// A task that writes by itself what it adds. Whatever ends it, the rest is left to the writers.
pub(super) struct Own<'a> {
    turns: &'a Turns,
    /// One within another leaves everything to that one.
    first: bool,
}

impl Own<'_> {
    /// Writes it.
    pub(super) fn write(self) {
        self.end(|wire| {
            if wire.flush() == Flushed::More {
                self.turns.queue(wire);
            }
        });
    }

    /// What is added from now on is for the writers again.
    fn end(&self, each: impl FnMut(Arc<Wire>)) {
        if !self.first {
            return;
        }
        let mut wires = OWNED.with_borrow_mut(|owned| {
            owned.open = false;
            std::mem::take(&mut owned.wires)
        });
        wires.drain(..).for_each(each);
        // The next task needs as much room.
        OWNED.with_borrow_mut(|owned| owned.wires = wires);
    }
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        self.end(|wire| self.turns.queue(wire));
    }
}

async fn write(turns: Arc<Turns>) {
    let mut slice = Vec::with_capacity(SLICE);
    let mut turn = Turn::default();
    loop {
        turns.take(&mut slice);
        if slice.is_empty() {
            let mut woken = pin!(turns.wake.notified());
            // Woken already, it goes on with the same turn: the thread was not given back.
            if poll!(woken.as_mut()).is_pending() {
                turn.end(&turns.held);
                woken.await;
            }
            continue;
        }
        let mut since = Instant::now();
        for few in slice.chunks(LOOK) {
            few.iter().for_each(|wire| wire.warm());
            for wire in few {
                if wire.flush() == Flushed::More {
                    turns.add(wire.clone());
                }
            }
            if turn.is_over(&mut since) {
                turn.end(&turns.held);
                tokio::task::yield_now().await;
                since = Instant::now();
            }
        }
        slice.clear();
    }
}

/// For how long somebody has held its thread.
#[derive(Default)]
pub(super) struct Turn(Duration);

impl Turn {
    /// Counts the time since then. True when others are to have the thread.
    pub(super) fn is_over(&mut self, since: &mut Instant) -> bool {
        let now = Instant::now();
        self.0 += now.duration_since(*since);
        *since = now;
        self.0 >= MOST
    }

    /// The thread is given back.
    pub(super) fn end(&mut self, held: &Histogram) {
        if !self.0.is_zero() {
            held.observe(self.0.as_secs_f64());
        }
        self.0 = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::engine::outstanding::Bounds;

    /// A connection and its client.
    async fn wire(turns: &Arc<Turns>) -> (Arc<Wire>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_, out) = listener.accept().await.unwrap().0.into_split();
        (Wire::websocket(out, Bounds { packets: 8, bytes: 1000 }, None, turns.clone(), Arc::default()), client)
    }

    #[tokio::test]
    async fn what_a_task_adds_it_writes_itself_and_the_rest_is_left_to_the_writers() {
        let turns = Turns::start(1, prometheus::IntCounter::new("sent", "-").unwrap(), &Metrics::default());
        let mut wires = Vec::new();
        for _ in 0..OWN + 2 {
            wires.push(wire(&turns).await);
        }
        let send_all = || wires.iter().for_each(|(wire, _)| wire.send(Bytes::from_static(b"x")).unwrap());
        let own = turns.own();
        send_all();
        assert_eq!(turns.waiting.lock().unwrap().len(), 2, "what is more than little");
        own.write();
        assert_eq!(turns.sent.get(), OWN as u64, "no writer has run yet");
        tokio::time::sleep(Duration::from_millis(10)).await;
        let own = turns.own();
        turns.own().write();
        send_all();
        drop(own);
        assert_eq!(turns.waiting.lock().unwrap().len(), OWN + 2, "a task that ended early, and one within it");
        let mut got = [0; 2];
        for (_, client) in &mut wires {
            client.read_exact(&mut got).await.unwrap();
        }
    }

    #[test]
    fn turn_ends_by_its_length_and_is_noted_once() {
        let metrics = Metrics::default();
        let held = metrics.delivery_turn_seconds.with_label_values::<&str>(&[]);
        let mut turn = Turn::default();
        turn.end(&held);
        assert_eq!(held.get_sample_count(), 0, "nothing was written");
        let mut since = Instant::now();
        assert!(!turn.is_over(&mut since));
        since -= MOST;
        assert!(turn.is_over(&mut since) && since.elapsed() < MOST);
        turn.end(&held);
        turn.end(&held);
        assert_eq!(held.get_sample_count(), 1);
        assert!(held.get_sample_sum() >= MOST.as_secs_f64());
    }
}
