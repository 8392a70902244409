//! Events for a client that does not read as fast as they are sent: what is kept for it when its queue is full, by the
//! contract's word (`slow`).

use std::collections::VecDeque;

use super::{Link, SendError};
use crate::event::{Event, Slow};

/// At most so many events are kept beyond a client's full queue.
pub const MAX_HELD: usize = 64;

#[derive(Default)]
pub(super) struct Held(VecDeque<Event>);

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends what fits, the oldest first.
    pub(super) fn release(&mut self, link: &dyn Link) {
        while let Some(event) = self.0.front() {
            match link.send(event) {
                Ok(()) => drop(self.0.pop_front()),
                Err(SendError::Full) => return,
                Err(SendError::Closed) => self.0.clear(),
            }
        }
    }

    /// Keeps an event. True when another one is dropped for it.
    pub(super) fn hold(&mut self, event: Event) -> bool {
        let same = |kept: &Event| event.slow() == Slow::KeepLatest && kept.lane() == event.lane();
        // At the end, so that nothing overtakes what was sent before it.
        let replaced = self.0.iter().position(same).and_then(|at| self.0.remove(at)).is_some();
        self.0.push_back(event);
        replaced || (self.0.len() > MAX_HELD && self.0.pop_front().is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::event::Args;
    use crate::session::{AckId, Close, RoomName};

    /// Takes so many, then is full.
    struct Narrow(Mutex<(usize, Vec<String>)>);

    impl Link for Narrow {
        fn send(&self, event: &Event) -> Result<(), SendError> {
            let mut it = self.0.lock().unwrap();
            it.0 = it.0.checked_sub(1).ok_or(SendError::Full)?;
            it.1.push(event.text().to_string());
            Ok(())
        }
        fn ack(&self, _: AckId, _: &Args) -> Result<(), SendError> {
            Ok(())
        }
        fn joined(&self, _: &RoomName) {}
        fn left(&self, _: &RoomName) {}
        fn close(&self, _: Close) {}
    }

    fn event(slow: Slow, name: &str, n: usize, rooms: &[&str]) -> Event {
        let rooms: Vec<RoomName> = rooms.iter().map(|&room| room.into()).collect();
        Event::encode(name, &[n]).unwrap().with_slow(slow, &rooms)
    }

    #[test]
    fn oldest_is_dropped_beyond_the_bound_and_the_rest_comes_in_order() {
        let mut held = Held::default();
        let dropped = (0..100).filter(|&n| held.hold(event(Slow::DropOldest, "e", n, &["r"]))).count();
        assert_eq!(dropped, 100 - MAX_HELD);
        let link = Narrow(Mutex::new((10, Vec::new())));
        held.release(&link);
        assert!(!held.is_empty());
        link.0.lock().unwrap().0 = 1000;
        held.release(&link);
        assert!(held.is_empty());
        let expected: Vec<_> = (100 - MAX_HELD..100).map(|n| format!(r#"["e",{n}]"#)).collect();
        assert_eq!(link.0.lock().unwrap().1, expected);
    }

    #[test]
    fn only_the_latest_of_an_event_and_room_is_kept() {
        let mut held = Held::default();
        for n in 0..1000 {
            held.hold(event(Slow::KeepLatest, "a", n, &["r"]));
            held.hold(event(Slow::KeepLatest, "a", n, &["s"]));
            held.hold(event(Slow::KeepLatest, "b", n, &["r"]));
        }
        let link = Narrow(Mutex::new((1000, Vec::new())));
        held.release(&link);
        assert_eq!(link.0.lock().unwrap().1, [r#"["a",999]"#, r#"["a",999]"#, r#"["b",999]"#]);
    }
}
