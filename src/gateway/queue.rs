//! A queue for each client (its lane): the client's events are handled one after the other, also when an event has to
//! wait.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Instant;

use tokio_util::sync::ReusableBoxFuture;

use super::pending::{EVENT_BYTES, PendingBytes, PendingShare};
use crate::contract::model::Contract;
use crate::error::Refusal;
use crate::event::Event;
use crate::hooks::HookAnswer;
use crate::recovery::RecoveredSession;
use crate::session::AckId;

/// An item of a lane.
#[derive(Debug)]
pub(super) enum QueueItem {
    /// An event of the client, the acknowledgement that the client asked for, and when the event arrived.
    Event(Event, Option<AckId>, Instant),
    /// An event that was refused before it was handled, and why.
    Refused(Box<RefusedEvent>),
    /// The client has just connected. Contains the answers of the connect hooks.
    Opened(Vec<(Arc<Contract>, HookAnswer)>),
    /// The client has recovered an earlier session.
    Back(Box<RecoveredSession>),
}

/// An event that was refused before it was handled, and why.
#[derive(Debug)]
pub(super) struct RefusedEvent {
    pub(super) event: Event,
    pub(super) ack: Option<AckId>,
    pub(super) received_at: Instant,
    pub(super) refusal: Refusal,
}

/// The future that handles one item.
pub(super) type Work = ReusableBoxFuture<'static, ()>;

/// An allocation for the future that handles an event, reused by the next event on this thread. The future is large,
/// and for most events it is polled only once.
#[derive(Default)]
pub(super) struct FutureBox(Option<Work>);

thread_local! {
    static PLACE: Cell<FutureBox> = const { Cell::new(FutureBox(None)) };
}

impl FutureBox {
    /// Moves a future into the allocation, or into a new one when there is none.
    pub(super) fn hold(self, future: impl Future<Output = ()> + Send + 'static) -> Work {
        match self.0 {
            Some(mut work) => {
                work.set(future);
                work
            }
            None => Work::new(future),
        }
    }
}

/// Handles the items of one client in order. An item that does not have to wait is handled on the caller's thread. An
/// item that waits continues in a task, and later items queue behind it.
#[derive(Default)]
pub struct ClientQueue {
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    busy: bool,
    waiting: VecDeque<(QueueItem, PendingShare)>,
    bytes: usize,
}

/// Bounds on the items that wait in a lane.
pub(super) struct QueueBounds<'a> {
    /// Maximum number of waiting items of one client.
    pub(super) items: usize,
    /// Maximum size of the waiting items of one client, in bytes. A single item may always wait, whatever its size.
    pub(super) bytes: usize,
    /// The bound on the waiting bytes of all clients of the node.
    pub(super) node: &'a Arc<PendingBytes>,
}

/// The bound that an item has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueBound {
    /// [`QueueBounds::items`].
    Items,
    /// [`QueueBounds::bytes`].
    Bytes,
    /// [`QueueBounds::node`].
    Node,
}

/// An item that did not fit, and the bound it exceeded.
#[derive(Debug)]
pub(super) struct ClientQueueFull(pub(super) QueueItem, pub(super) QueueBound);

impl ClientQueue {
    /// Handles an item: at once, or after the items that were queued before it.
    ///
    /// # Errors
    /// Returns [`ClientQueueFull`] when the item would have to wait and a bound is reached.
    #[expect(
        clippy::result_large_err,
        reason = "it is given back as it came; a box would cost every event an allocation"
    )]
    pub(super) fn push<F>(
        self: &Arc<Self>,
        item: QueueItem,
        bounds: &QueueBounds<'_>,
        work: F,
    ) -> Result<(), ClientQueueFull>
    where
        F: Fn(QueueItem, FutureBox) -> Work + Send + 'static,
    {
        {
            let mut state = self.state.lock().expect("no thread panics while it holds this lock");
            if state.busy {
                return state.wait(item, bounds);
            }
            state.busy = true;
        }
        let mut next = Some(item);
        while let Some(item) = next {
            let mut future = work(item, PLACE.take());
            // Most events never wait: one poll completes them, and no task is spawned.
            if future.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                let queue = self.clone();
                tokio::spawn(async move {
                    future.await;
                    while let Some(item) = queue.next() {
                        work(item, FutureBox::default()).await;
                    }
                });
                return Ok(());
            }
            PLACE.set(FutureBox(Some(future)));
            next = self.next();
        }
        Ok(())
    }

    /// Removes and returns the next waiting item. If there is no waiting item, the lane becomes idle.
    fn next(&self) -> Option<QueueItem> {
        let mut state = self.state.lock().expect("no thread panics while it holds this lock");
        let Some((next, _share)) = state.waiting.pop_front() else {
            state.busy = false;
            return None;
        };
        state.bytes -= next.bytes();
        Some(next)
    }
}

impl QueueState {
    #[expect(clippy::result_large_err, reason = "it is given back as it came")]
    fn wait(&mut self, item: QueueItem, bounds: &QueueBounds<'_>) -> Result<(), ClientQueueFull> {
        debug_assert!(
            matches!(item, QueueItem::Event(..) | QueueItem::Refused(_)),
            "the first item of a client waits for another one"
        );
        let bytes = item.bytes();
        if self.waiting.len() >= bounds.items {
            return Err(ClientQueueFull(item, QueueBound::Items));
        }
        if !self.waiting.is_empty() && self.bytes + bytes > bounds.bytes {
            return Err(ClientQueueFull(item, QueueBound::Bytes));
        }
        let Some(share) = bounds.node.take(bytes) else { return Err(ClientQueueFull(item, QueueBound::Node)) };
        self.bytes += bytes;
        self.waiting.push_back((item, share));
        Ok(())
    }
}

impl QueueItem {
    /// The memory that the item takes while it waits, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Event(event, ..) => EVENT_BYTES + event.size_bytes(),
            Self::Refused(refused) => EVENT_BYTES + refused.event.size_bytes(),
            // An item of this kind is the first item of its client, so it never waits.
            Self::Opened(_) | Self::Back(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    macro_rules! bounds {
        ($items:expr, $bytes:expr, $node:expr) => {
            &QueueBounds { items: $items, bytes: $bytes, node: &PendingBytes::new($node) }
        };
    }

    fn item(n: usize) -> QueueItem {
        QueueItem::Event(Event::encode(&n.to_string(), [n]).unwrap(), None, Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_kept_when_some_items_wait() {
        let queue = Arc::new(ClientQueue::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        for n in 0..100 {
            let seen = seen.clone();
            queue
                .push(item(n), bounds!(1000, usize::MAX, usize::MAX), move |item, place| {
                    let seen = seen.clone();
                    place.hold(async move {
                        let QueueItem::Event(event, ..) = item else { return };
                        let n: usize = event.name().parse().unwrap();
                        if n % 7 == 3 {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        seen.lock().unwrap().push(n);
                    })
                })
                .unwrap();
            if n % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*seen.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_need_not_wait_is_done_when_push_returns() {
        let queue = Arc::new(ClientQueue::default());
        let done = Arc::new(Mutex::new(0));
        let inner = done.clone();
        queue
            .push(item(1), bounds!(1, 1, 1), move |_, place| {
                *inner.lock().unwrap() += 1;
                place.hold(async {})
            })
            .unwrap();
        assert_eq!(*done.lock().unwrap(), 1);
    }

    #[tokio::test]
    async fn a_full_lane_gives_the_item_back() {
        let queue = Arc::new(ClientQueue::default());
        let forever = |_: QueueItem, place: FutureBox| place.hold(std::future::pending());
        let most = usize::MAX;
        queue.push(item(1), bounds!(1, most, most), forever).unwrap();
        queue.push(item(2), bounds!(1, most, most), forever).unwrap();
        let full = queue.push(item(3), bounds!(1, most, most), forever).unwrap_err();
        assert!(
            matches!(full, ClientQueueFull(QueueItem::Event(event, None, _), QueueBound::Items) if event.name() == "3")
        );
    }

    #[tokio::test]
    async fn bytes_are_bounded_for_the_client_and_for_the_node() {
        let forever = |_: QueueItem, place: FutureBox| place.hold(std::future::pending());
        let large = || QueueItem::Event(Event::encode("e", &["x".repeat(1000)]).unwrap(), None, Instant::now());
        let node = PendingBytes::new(4000);
        let queues = [Arc::new(ClientQueue::default()), Arc::new(ClientQueue::default())];
        let push = |queue: &Arc<ClientQueue>, bytes| {
            let bounds = QueueBounds { items: 100, bytes, node: &node };
            queue.push(large(), &bounds, forever).map_err(|ClientQueueFull(_, bound)| bound)
        };
        for queue in &queues {
            push(queue, 2000).unwrap();
        }
        assert_eq!(node.held(), 0, "what is being handled does not wait");
        assert_eq!(push(&queues[0], 2000), Ok(()));
        assert_eq!(push(&queues[0], 2000), Err(QueueBound::Bytes));
        assert_eq!(push(&queues[1], 1), Ok(()), "one may always wait");
        assert_eq!(push(&queues[1], usize::MAX), Err(QueueBound::Node));
        assert_eq!(node.held(), 2 * large().bytes());
        drop(queues);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_given_back_when_an_item_is_handled() {
        let (queue, node) = (Arc::new(ClientQueue::default()), PendingBytes::new(100_000));
        let slow = |_: QueueItem, place: FutureBox| place.hold(tokio::time::sleep(Duration::from_millis(1)));
        for n in 0..20 {
            queue.push(item(n), &QueueBounds { items: 100, bytes: 100_000, node: &node }, slow).unwrap();
        }
        assert!(node.held() >= 19 * EVENT_BYTES);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((node.held(), queue.state.lock().unwrap().bytes), (0, 0));
    }
}
