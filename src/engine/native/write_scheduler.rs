//! Writes connections that have queued packets. A connection is written once in a turn, however many packets were
//! appended to it.
//!
//! A write turn has no timer: it begins as soon as the runtime gets to it, after the publisher's own step. When a
//! client publishes to a small room, its own task writes the room's connections at the end of its step
//! ([`WriteScheduler::own`]), so that no other task or thread must be woken. A large room is written in slices by as
//! many writers as there are worker threads, so that no writer holds a thread for long.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::poll;
use prometheus::{Histogram, IntCounter};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::sender::{ConnectionSender, WriteOutcome};
use crate::engine::time_slice::TimeSlice;
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
    static OWNED: RefCell<ThreadWrites> = const { RefCell::new(ThreadWrites { open: false, senders: Vec::new() }) };
}

/// The connections that the task which is running on this thread will write itself.
struct ThreadWrites {
    /// Whether the running task writes connections itself.
    open: bool,
    senders: Vec<Arc<ConnectionSender>>,
}

/// The connections that wait to be written, and their writers.
pub(super) struct WriteScheduler {
    waiting: Mutex<VecDeque<Arc<ConnectionSender>>>,
    wake: Notify,
    writers: Mutex<Vec<AbortHandle>>,
    sent: IntCounter,
    held: Histogram,
}

impl WriteScheduler {
    /// Starts `writers` writers. `sent` counts the bytes that are written. Must be called within a Tokio runtime.
    pub(super) fn start(writers: usize, sent: IntCounter, metrics: &Metrics) -> Arc<Self> {
        let held = metrics.delivery_turn_seconds.with_label_values::<&str>(&[]);
        let scheduler = Self { waiting: Mutex::default(), wake: Notify::new(), writers: Mutex::default(), sent, held };
        let scheduler = Arc::new(scheduler);
        let tasks = (0..writers.max(1)).map(|_| tokio::spawn(write(scheduler.clone())).abort_handle()).collect();
        *scheduler.writers.lock().expect("no thread panics while it holds this lock") = tasks;
        scheduler
    }

    /// Counts bytes that have been written.
    pub(super) fn count(&self, bytes: usize) {
        self.sent.inc_by(bytes as u64);
    }

    /// Stops the writers.
    pub(super) fn stop(&self) {
        self.writers
            .lock()
            .expect("no thread panics while it holds this lock")
            .drain(..)
            .for_each(|writer| writer.abort());
    }

    /// From now on, the calling task itself writes the connections that are added on this thread, up to a maximum. It
    /// writes them when it calls [`OwnWrites::write`].
    pub(super) fn own(&self) -> OwnWrites<'_> {
        let first = OWNED.with_borrow_mut(|owned| !std::mem::replace(&mut owned.open, true));
        OwnWrites { scheduler: self, first }
    }

    /// Adds a connection that has packets to write to the list of waiting connections. A connection waits only once at
    /// a time: see [`ConnectionSender::flush`].
    pub(super) fn add(&self, sender: Arc<ConnectionSender>) {
        let others = OWNED.with_borrow_mut(|owned| {
            if owned.open && owned.senders.len() < OWN {
                owned.senders.push(sender);
                return None;
            }
            Some(sender)
        });
        if let Some(sender) = others {
            self.queue(sender);
        }
    }

    fn queue(&self, sender: Arc<ConnectionSender>) {
        let mut waiting = self.waiting.lock().expect("no thread panics while it holds this lock");
        waiting.push_back(sender);
        let first = waiting.len() == 1;
        drop(waiting);
        if first {
            self.wake.notify_one();
        }
    }

    /// Takes a slice of the waiting connections. If there are more, it wakes another writer.
    fn take(&self, slice: &mut Vec<Arc<ConnectionSender>>) {
        let mut waiting = self.waiting.lock().expect("no thread panics while it holds this lock");
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

/// A guard for a task that itself writes the connections that it adds. If the guard is dropped without
/// [`OwnWrites::write`], the connections are left to the writers.
pub(super) struct OwnWrites<'a> {
    scheduler: &'a WriteScheduler,
    /// Whether this guard is the only one on this thread; false if another [`OwnWrites`] is active. Then that one
    /// writes the connections.
    first: bool,
}

impl OwnWrites<'_> {
    /// Writes the connections.
    pub(super) fn write(self) {
        self.end(|sender| {
            if sender.flush() == WriteOutcome::More {
                self.scheduler.queue(sender);
            }
        });
    }

    /// Ends the collecting, and passes each collected connection to `each`.
    fn end(&self, each: impl FnMut(Arc<ConnectionSender>)) {
        if !self.first {
            return;
        }
        let mut senders = OWNED.with_borrow_mut(|owned| {
            owned.open = false;
            std::mem::take(&mut owned.senders)
        });
        senders.drain(..).for_each(each);
        // The list keeps its memory for the next task.
        OWNED.with_borrow_mut(|owned| owned.senders = senders);
    }
}

impl Drop for OwnWrites<'_> {
    fn drop(&mut self) {
        self.end(|sender| self.scheduler.queue(sender));
    }
}

async fn write(scheduler: Arc<WriteScheduler>) {
    let mut slice = Vec::with_capacity(SLICE);
    let mut turn = TimeSlice::default();
    loop {
        scheduler.take(&mut slice);
        if slice.is_empty() {
            let mut woken = pin!(scheduler.wake.notified());
            // If another task has already woken this writer, the writer continues the same turn, because it does not
            // yield its thread.
            if poll!(woken.as_mut()).is_pending() {
                turn.end(&scheduler.held);
                woken.await;
            }
            continue;
        }
        let mut since = Instant::now();
        for few in slice.chunks(LOOK) {
            few.iter().for_each(|sender| sender.warm());
            for sender in few {
                if sender.flush() == WriteOutcome::More {
                    scheduler.add(sender.clone());
                }
            }
            if turn.is_over(&mut since) {
                turn.end(&scheduler.held);
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
    use crate::engine::queue_estimate::WriteQueueLimits;

    /// A connection of this test, and its client's stream.
    async fn sender(scheduler: &Arc<WriteScheduler>) -> (Arc<ConnectionSender>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_, out) = listener.accept().await.unwrap().0.into_split();
        (
            ConnectionSender::websocket(
                out,
                WriteQueueLimits { packets: 8, bytes: 1000 },
                None,
                scheduler.clone(),
                Arc::default(),
            ),
            client,
        )
    }

    #[tokio::test]
    async fn what_a_task_adds_it_writes_itself_and_the_rest_is_left_to_the_writers() {
        let scheduler =
            WriteScheduler::start(1, prometheus::IntCounter::new("sent", "-").unwrap(), &Metrics::default());
        let mut senders = Vec::new();
        for _ in 0..OWN + 2 {
            senders.push(sender(&scheduler).await);
        }
        let send_all = || senders.iter().for_each(|(sender, _)| sender.send(Bytes::from_static(b"x")).unwrap());
        let own = scheduler.own();
        send_all();
        assert_eq!(scheduler.waiting.lock().unwrap().len(), 2, "what is more than little");
        own.write();
        assert_eq!(scheduler.sent.get(), OWN as u64, "no writer has run yet");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let own = scheduler.own();
        scheduler.own().write();
        send_all();
        drop(own);
        assert_eq!(scheduler.waiting.lock().unwrap().len(), OWN + 2, "a task that ended early, and one within it");
        let mut got = [0; 2];
        for (_, client) in &mut senders {
            client.read_exact(&mut got).await.unwrap();
        }
    }
}
