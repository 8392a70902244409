//! One lane a client: its events are handled one after the other, also when one has to wait.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Instant;

use tokio_util::sync::ReusableBoxFuture;

use crate::contract::model::Contract;
use crate::error::Refusal;
use crate::event::Event;
use crate::hooks::HookAnswer;
use crate::recovery::Returned;
use crate::session::AckId;

/// What waits in a lane.
#[derive(Debug)]
pub(super) enum Item {
    /// An event of the client, and when it came.
    Event(Event, Option<AckId>, Instant),
    /// One that is not acted upon, and why.
    Refused(Box<Refused>),
    /// It has just connected; backends that were asked have answered so.
    Opened(Vec<(Arc<Contract>, HookAnswer)>),
    /// It has come back to its session.
    Back(Box<Returned>),
}

/// An event that is not acted upon, and why.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) event: Event,
    pub(super) ack: Option<AckId>,
    pub(super) came: Instant,
    pub(super) refusal: Refusal,
}

/// Handles one item.
pub(super) type Work = ReusableBoxFuture<'static, ()>;

/// What was done at once on this thread leaves its place to the next: the future of an event is large, and most events need it for
/// one poll.
#[derive(Default)]
pub(super) struct Place(Option<Work>);

thread_local! {
    static PLACE: Cell<Place> = const { Cell::new(Place(None)) };
}

impl Place {
    /// Puts a future there.
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

/// Runs at once what can run at once, in the caller's thread; the rest goes on in a task, and what comes meanwhile waits.
#[derive(Default)]
pub struct Lane {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    busy: bool,
    waiting: VecDeque<Item>,
}

/// The lane's bound is reached.
#[derive(Debug)]
pub(super) struct LaneFull(pub(super) Item);

impl Lane {
    /// Handles an item now, or after those before it.
    ///
    /// # Errors
    /// [`LaneFull`] when `bound` items wait already.
    #[expect(
        clippy::result_large_err,
        reason = "it is given back as it came; a box would cost every event an allocation"
    )]
    pub(super) fn push<F>(self: &Arc<Self>, item: Item, bound: usize, work: F) -> Result<(), LaneFull>
    where
        F: Fn(Item, Place) -> Work + Send + 'static,
    {
        {
            let mut state = self.state.lock().expect("no panic while held");
            if state.busy {
                if state.waiting.len() >= bound {
                    return Err(LaneFull(item));
                }
                state.waiting.push_back(item);
                return Ok(());
            }
            state.busy = true;
        }
        let mut next = Some(item);
        while let Some(item) = next {
            let mut future = work(item, PLACE.take());
            // Most events need nothing that waits: they are done after one poll, without a task.
            if future.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                let lane = self.clone();
                tokio::spawn(async move {
                    future.await;
                    while let Some(item) = lane.next() {
                        work(item, Place::default()).await;
                    }
                });
                return Ok(());
            }
            PLACE.set(Place(Some(future)));
            next = self.next();
        }
        Ok(())
    }

    /// The next item; without one the lane is free again.
    fn next(&self) -> Option<Item> {
        let mut state = self.state.lock().expect("no panic while held");
        let next = state.waiting.pop_front();
        state.busy = next.is_some();
        next
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn item(n: usize) -> Item {
        Item::Event(Event::encode(&n.to_string(), &[n]).unwrap(), None, Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_kept_when_some_items_wait() {
        let lane = Arc::new(Lane::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        for n in 0..100 {
            let seen = seen.clone();
            lane.push(item(n), 1000, move |item, place| {
                let seen = seen.clone();
                place.hold(async move {
                    let Item::Event(event, ..) = item else { return };
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
        let lane = Arc::new(Lane::default());
        let done = Arc::new(Mutex::new(0));
        let inner = done.clone();
        lane.push(item(1), 1, move |_, place| {
            *inner.lock().unwrap() += 1;
            place.hold(async {})
        })
        .unwrap();
        assert_eq!(*done.lock().unwrap(), 1);
    }

    #[tokio::test]
    async fn a_full_lane_gives_the_item_back() {
        let lane = Arc::new(Lane::default());
        let forever = |_: Item, place: Place| place.hold(std::future::pending());
        lane.push(item(1), 1, forever).unwrap();
        lane.push(item(2), 1, forever).unwrap();
        let full = lane.push(item(3), 1, forever).unwrap_err();
        assert!(matches!(full, LaneFull(Item::Event(event, None, _)) if event.name() == "3"));
    }
}
