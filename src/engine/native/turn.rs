//! Writes connections that have queued packets. A connection is written once in a turn, however many packets were
//! appended to it.
//!
//! There is no timer: a turn begins as soon as the runtime gets to it, after the publisher's own step. When a client
//! publishes to a small room, its own task writes the room's connections at the end of its step ([`Turns::own`]), so
//! that no other task or thread must be woken. A large room is written in slices by as many writers as there are
//! worker threads, so that no writer holds a thread for long.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::poll;
use prometheus::{Histogram, IntCounter};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::wire::{Flushed, Wire};
use crate::engine::turn::Turn;
use crate::telemetry::metrics::Metrics;

/// The maximum number of connections that a writer takes at once, so that the other writers also get connections.
const SLICE: usize = 128;

/// A writer looks at the clock after this many connections. A write takes 3 to 10 µs, so that is every 12 to 40 µs.
const LOOK: usize = 4;

/// The maximum number of connections that a client's task writes itself. That takes about 0.1 ms.
const OWN: usize = 32;

/// The maximum capacity that an empty list of waiting connections keeps.
const KEPT_CAPACITY: usize = 4096;

thread_local! {
    static OWNED: RefCell<Owned> = const { RefCell::new(Owned { open: false, wires: Vec::new() }) };
}

/// The connections that the task which is running on this thread will write itself.
struct Owned {
    /// Whether the running task writes connections itself.
    open: bool,
    wires: Vec<Arc<Wire>>,
}

/// The connections that wait to be written, and their writers.
pub(super) struct Turns {
    waiting: Mutex<VecDeque<Arc<Wire>>>,
    wake: Notify,
    writers: Mutex<Vec<AbortHandle>>,
    sent: IntCounter,
    held: Histogram,
}

impl Turns {
    /// Starts `writers` writers. `sent` counts the bytes that are written. Must be called within a Tokio runtime.
    pub(super) fn start(writers: usize, sent: IntCounter, metrics: &Metrics) -> Arc<Self> {
        let held = metrics.delivery_turn_seconds.with_label_values::<&str>(&[]);
        let turns = Self { waiting: Mutex::default(), wake: Notify::new(), writers: Mutex::default(), sent, held };
        let turns = Arc::new(turns);
        let tasks = (0..writers.max(1)).map(|_| tokio::spawn(write(turns.clone())).abort_handle()).collect();
        *turns.writers.lock().expect("no panic while held") = tasks;
        turns
    }

    /// Counts bytes that have been written.
    pub(super) fn count(&self, bytes: usize) {
        self.sent.inc_by(bytes as u64);
    }

    /// Stops the writers.
    pub(super) fn stop(&self) {
        self.writers.lock().expect("no panic while held").drain(..).for_each(|writer| writer.abort());
    }

    /// From now on, the calling task itself writes the connections that are added on this thread, up to a maximum. It
    /// writes them when it calls [`Own::write`].
    pub(super) fn own(&self) -> Own<'_> {
        let first = OWNED.with_borrow_mut(|owned| !std::mem::replace(&mut owned.open, true));
        Own { turns: self, first }
    }

    /// Adds a connection that has packets to write. A connection waits only once at a time: see [`Wire::flush`].
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

    /// Takes a slice of the waiting connections. If there are more, it wakes another writer.
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

/// A guard for a task that itself writes the connections that it adds. If the guard is dropped without [`Own::write`],
/// the connections are left to the writers.
pub(super) struct Own<'a> {
    turns: &'a Turns,
    /// False if another [`Own`] is already active on this thread. Then that one writes the connections.
    first: bool,
}

impl Own<'_> {
    /// Writes the connections.
    pub(super) fn write(self) {
        self.end(|wire| {
            if wire.flush() == Flushed::More {
                self.turns.queue(wire);
            }
        });
    }

    /// Ends the collecting, and passes each collected connection to `each`.
    fn end(&self, each: impl FnMut(Arc<Wire>)) {
        if !self.first {
            return;
        }
        let mut wires = OWNED.with_borrow_mut(|owned| {
            owned.open = false;
            std::mem::take(&mut owned.wires)
        });
        wires.drain(..).for_each(each);
        // Keep the allocation for the next task.
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
            // If another task has already woken this writer, the writer continues the same turn, because it does not
            // yield its thread.
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::engine::outstanding::Bounds;

    /// A connection, and its client's stream.
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
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
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
}
