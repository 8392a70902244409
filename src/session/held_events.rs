//! Events that are kept for a slow client while its write queue is full, where the contract asks for that (`slow`).

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::replay::{LiveDelivery, SessionOutput};
use super::{Close, SendError, Session};
use crate::event::{Event, SlowClientPolicy, Stamp};
use crate::telemetry::audit::{self, AuditEvent, AuditRecord};

/// Maximum number of events that are kept while a client's write queue is full.
pub const MAX_HELD: usize = 64;

#[derive(Default)]
pub(super) struct HeldEvents(VecDeque<(Event, Vec<Stamp>)>);

impl HeldEvents {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends the kept events that fit, oldest first.
    pub(super) fn release(&mut self, out: &dyn SessionOutput) {
        while let Some((event, stamps)) = self.0.front() {
            match out.send(event, stamps) {
                Ok(()) => drop(self.0.pop_front()),
                Err(SendError::Full) => return,
                Err(SendError::Closed) => self.0.clear(),
            }
        }
    }

    /// Keeps an event with its stamps. Returns the stamps of the event that was dropped for it, if one was.
    pub(super) fn hold(&mut self, event: Event, stamps: &[Stamp]) -> Option<Vec<Stamp>> {
        let same = |(kept, _): &(Event, _)| event.slow() == SlowClientPolicy::KeepLatest && kept.lane() == event.lane();
        // The event goes to the end, so that it does not overtake events that were sent before it.
        let replaced = self.0.iter().position(same).and_then(|at| self.0.remove(at));
        self.0.push_back((event, stamps.to_vec()));
        let dropped = replaced.or_else(|| (self.0.len() > MAX_HELD).then(|| self.0.pop_front()).flatten());
        debug_assert!(self.0.len() <= MAX_HELD, "{} events are kept", self.0.len());
        dropped.map(|(_, stamps)| stamps)
    }
}

impl Session {
    /// Whether events are kept for the client because its queue was full.
    pub fn holds(&self) -> bool {
        self.holds.load(Ordering::Acquire)
    }

    /// Queues the kept events that fit now. Returns true when some are left.
    pub fn release_slow(&self) -> bool {
        self.with_held(|held| held.release(self));
        self.holds()
    }

    pub(super) fn deliver_slow(&self, event: &Event, stamps: &[Stamp]) -> Result<LiveDelivery, SendError> {
        self.with_held(|held| {
            held.release(self);
            let waits = !held.is_empty() && event.slow().keeps();
            match if waits { Err(SendError::Full) } else { self.send_placed(event, stamps) } {
                Ok(()) => Ok(LiveDelivery::Sent),
                Err(SendError::Full) => match event.slow() {
                    SlowClientPolicy::Drop => Err(SendError::Full),
                    SlowClientPolicy::Disconnect => {
                        let user = self.user();
                        let about = AuditRecord {
                            nsp: Some(&self.namespace),
                            user: (!user.anonymous).then_some(&*user.id),
                            socket: Some(&self.id),
                            ip: Some(self.peer.ip),
                            ..AuditRecord::default()
                        };
                        audit::record(AuditEvent::SlowDisconnected, about);
                        self.link.close(Close::Transport);
                        Err(SendError::Full)
                    }
                    SlowClientPolicy::DropOldest | SlowClientPolicy::KeepLatest => {
                        let stamps = if self.offsets.is_some() { stamps } else { &[] };
                        let dropped = held.hold(event.clone(), stamps);
                        // A client that recovers its session later is not sent the dropped event either.
                        dropped.iter().for_each(|stamps| self.pass_over(stamps));
                        Ok(if dropped.is_some() { LiveDelivery::Replaced } else { LiveDelivery::Held })
                    }
                },
                Err(closed) => Err(closed),
            }
        })
    }

    pub(super) fn with_held<T>(&self, work: impl FnOnce(&mut HeldEvents) -> T) -> T {
        let mut guard = self.held.lock().expect("no thread panics while it holds this lock");
        let held = guard.get_or_insert_default();
        let done = work(held);
        let idle = held.is_empty();
        self.holds.store(!idle, Ordering::Release);
        if idle {
            *guard = None;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::session::RoomName;

    /// Accepts a given number of events, then is full.
    struct Narrow(Mutex<(usize, Vec<String>)>);

    impl SessionOutput for Narrow {
        fn send(&self, event: &Event, _: &[Stamp]) -> Result<(), SendError> {
            let mut it = self.0.lock().unwrap();
            it.0 = it.0.checked_sub(1).ok_or(SendError::Full)?;
            it.1.push(event.text().to_string());
            Ok(())
        }
        fn pass_over(&self, _: &[Stamp]) {}
    }

    fn event(slow: SlowClientPolicy, name: &str, n: usize, rooms: &[&str]) -> Event {
        let rooms: Vec<RoomName> = rooms.iter().map(|&room| room.into()).collect();
        Event::encode(name, [n]).unwrap().with_slow(slow, &rooms)
    }

    #[test]
    fn oldest_is_dropped_beyond_the_bound_and_the_rest_comes_in_order() {
        let mut held = HeldEvents::default();
        let dropped =
            (0..100).filter(|&n| held.hold(event(SlowClientPolicy::DropOldest, "e", n, &["r"]), &[]).is_some()).count();
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
        let mut held = HeldEvents::default();
        for n in 0..1000 {
            held.hold(event(SlowClientPolicy::KeepLatest, "a", n, &["r"]), &[]);
            held.hold(event(SlowClientPolicy::KeepLatest, "a", n, &["s"]), &[]);
            held.hold(event(SlowClientPolicy::KeepLatest, "b", n, &["r"]), &[]);
        }
        let link = Narrow(Mutex::new((1000, Vec::new())));
        held.release(&link);
        assert_eq!(link.0.lock().unwrap().1, [r#"["a",999]"#, r#"["a",999]"#, r#"["b",999]"#]);
    }
}
