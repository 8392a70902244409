//! Queues an event for very many clients in slices, so that no thread is held for long.
//!
//! While such an event is being delivered, later events of its namespace wait, so that their order is kept. A publisher
//! also waits until its event is delivered before it publishes the next one, so the number of waiting events is limited
//! by the number of publishers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use prometheus::{Histogram, IntGauge};
use tokio::sync::oneshot;

use super::local_delivery::{DeliveryCounts, DeliveryMode, DeliveryRecorder};
use super::slow_clients::SlowClients;
use super::time_slice::TimeSlice;
use crate::publish::{Outgoing, SliceCounts};
use crate::room::{Recipients, Rooms};
use crate::telemetry::metrics::Metrics;

/// The maximum number of clients that are served in one step. That takes about 0.3 ms.
const ONE_STEP: usize = 1024;

/// The maximum number of events of one namespace that wait.
const MAX_WAITING: usize = 16_384;

/// The maximum size of the waiting events of one namespace in bytes. A single event may be larger.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// Whether an event that was given to the slices has been delivered yet.
pub(super) enum DeliveryProgress {
    /// The event has been delivered.
    Now(DeliveryCounts),
    /// Another task delivers the event later.
    Later {
        /// The maximum number of clients that will get the event.
        local: usize,
        /// Receives the result when the event has been delivered.
        served: oneshot::Receiver<SliceCounts>,
    },
}

/// The waiting events of one namespace.
pub(super) struct DeliveryQueue {
    rooms: Arc<Rooms>,
    recorder: DeliveryRecorder,
    queue: Mutex<WaitingEvents>,
    /// Whether an event is being delivered in slices. This flag can be read without taking the lock.
    busy: AtomicBool,
    length: IntGauge,
    held: Histogram,
}

#[derive(Default)]
struct WaitingEvents {
    jobs: VecDeque<DeliveryJob>,
    bytes: usize,
}

struct DeliveryJob {
    outgoing: Outgoing,
    how: DeliveryMode,
    served: oneshot::Sender<SliceCounts>,
}

impl DeliveryQueue {
    pub(super) fn new(
        rooms: &Arc<Rooms>,
        slow: &Arc<SlowClients>,
        namespace: &Arc<str>,
        metrics: &Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            rooms: rooms.clone(),
            recorder: DeliveryRecorder::new(slow, namespace, metrics),
            queue: Mutex::default(),
            busy: AtomicBool::new(false),
            length: metrics.publish_waiting.with_label_values(&[namespace]),
            held: metrics.delivery_turn_seconds.with_label_values::<&str>(&[]),
        })
    }

    /// The counters of the namespace.
    pub(super) fn recorder(&self) -> &DeliveryRecorder {
        &self.recorder
    }

    /// Queues an event for its clients: at once if there are at most [`ONE_STEP`] clients and no event waits; otherwise
    /// another task does it later. Must be called within a Tokio runtime.
    pub(super) fn queue_for_all(self: &Arc<Self>, outgoing: &Outgoing, how: DeliveryMode) -> DeliveryProgress {
        let at_once = if self.busy.load(Ordering::Acquire) { 0 } else { ONE_STEP };
        match self.queue_slice(outgoing, how, at_once) {
            Ok(counts) => DeliveryProgress::Now(counts),
            Err(clients) => self.put(outgoing, how, clients),
        }
    }

    /// Queues an event for its clients if there are at most `most` clients. Otherwise returns the number of clients.
    fn queue_slice(&self, outgoing: &Outgoing, how: DeliveryMode, most: usize) -> Result<DeliveryCounts, usize> {
        let Outgoing { namespace, rooms, except, .. } = outgoing;
        self.rooms
            .visit_few(namespace, rooms, except, most, |sessions| DeliveryCounts::of(sessions, outgoing, how))
            .unwrap_or_else(|| Ok(DeliveryCounts::default()))
    }

    /// Queues an event for the next slice of its recipients. Returns `None` if all recipients have been served.
    fn queue_next_slice(
        &self,
        outgoing: &Outgoing,
        how: DeliveryMode,
        recipient_blocks: &mut Recipients,
    ) -> Option<DeliveryCounts> {
        let Outgoing { namespace, except, .. } = outgoing;
        self.rooms
            .visit_next(namespace, except, recipient_blocks, |sessions| DeliveryCounts::of(sessions, outgoing, how))
    }

    fn put(self: &Arc<Self>, outgoing: &Outgoing, how: DeliveryMode, clients: usize) -> DeliveryProgress {
        let bytes = outgoing.event.size_bytes();
        let mut queue = self.queue.lock().expect("no thread panics while it holds this lock");
        let is_full = queue.bytes + bytes > MAX_WAITING_BYTES && !queue.jobs.is_empty();
        if is_full || queue.jobs.len() >= MAX_WAITING {
            return DeliveryProgress::Now(DeliveryCounts::refused(clients));
        }
        let (served, later) = oneshot::channel();
        queue.jobs.push_back(DeliveryJob { outgoing: outgoing.clone(), how, served });
        queue.bytes += bytes;
        self.length.set(gauge(queue.jobs.len()));
        if !self.busy.swap(true, Ordering::AcqRel) {
            tokio::spawn(run(self.clone()));
        }
        DeliveryProgress::Later { local: clients, served: later }
    }

    fn next(&self) -> Option<DeliveryJob> {
        let mut queue = self.queue.lock().expect("no thread panics while it holds this lock");
        let next = queue.jobs.pop_front();
        self.length.set(gauge(queue.jobs.len()));
        match &next {
            Some(job) => queue.bytes -= job.outgoing.event.size_bytes(),
            None => {
                *queue = WaitingEvents::default();
                self.busy.store(false, Ordering::Release);
            }
        }
        next
    }
}

fn gauge(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Delivers the waiting events until the queue is empty.
async fn run(queue: Arc<DeliveryQueue>) {
    let mut time_slice = TimeSlice::default();
    let mut since = Instant::now();
    while let Some(DeliveryJob { outgoing, how, served }) = queue.next() {
        let mut total = SliceCounts::default();
        match queue.queue_slice(&outgoing, how, ONE_STEP) {
            Ok(counts) => total = queue.recorder.enter(counts),
            Err(_) => {
                let mut recipient_blocks = queue.rooms.recipient_blocks(&outgoing.namespace, &outgoing.rooms);
                while let Some(counts) = queue.queue_next_slice(&outgoing, how, &mut recipient_blocks) {
                    total += queue.recorder.enter(counts);
                    yield_if_due(&mut time_slice, &mut since, &queue.held).await;
                }
            }
        }
        // The publisher may have stopped waiting for the result.
        let _ = served.send(total);
        yield_if_due(&mut time_slice, &mut since, &queue.held).await;
    }
    time_slice.end(&queue.held);
}

/// Yields the thread if it has been held long enough.
async fn yield_if_due(time_slice: &mut TimeSlice, since: &mut Instant, held: &Histogram) {
    if time_slice.is_over(since) {
        time_slice.end(held);
        tokio::task::yield_now().await;
        *since = Instant::now();
    }
}

#[cfg(test)]
mod tests;
