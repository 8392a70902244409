//! When tokens end: one sorted list for all clients. A client whose token has no end costs nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use super::Client;

/// What is to happen to a client at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// It is told that its token ends soon.
    Warning,
    /// Its token has ended.
    End,
}

/// A client's place: Unix time in ms, and its address. Its memory is not used again as long as it is in the list.
type Place = (u64, usize);

#[derive(Default)]
pub(super) struct Clock(Mutex<BTreeMap<Place, (Weak<Client>, Due)>>);

impl Clock {
    pub(super) fn add(&self, at: u64, due: Due, client: &Arc<Client>) {
        self.with(|list| list.insert(place(at, client), (Arc::downgrade(client), due)));
    }

    pub(super) fn remove(&self, at: u64, client: &Arc<Client>) {
        self.with(|list| list.remove(&place(at, client)));
    }

    /// Takes what is due, the earliest first, at most so many.
    pub(super) fn take(&self, now: u64, most: usize) -> Vec<(Arc<Client>, Due)> {
        let mut due = Vec::new();
        while due.len() < most {
            let next = self.with(|list| {
                let first = list.first_entry().filter(|entry| entry.key().0 <= now)?;
                Some(first.remove())
            });
            match next {
                Some((client, what)) => due.extend(client.upgrade().map(|client| (client, what))),
                None => break,
            }
        }
        due
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.with(|list| list.len())
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<Place, (Weak<Client>, Due)>) -> T) -> T {
        work(&mut self.0.lock().expect("no panic while held"))
    }
}

fn place(at: u64, client: &Arc<Client>) -> Place {
    (at, Arc::as_ptr(client) as usize)
}
