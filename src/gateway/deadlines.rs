//! Finds the clients whose tokens end, by one sorted list for all clients. A client whose token does not end has no
//! entry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use super::GatewayClient;

/// The action that is due for a client at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenAction {
    /// The client is to be warned that its token ends soon.
    Warning,
    /// The client's token has ended.
    End,
}

/// The sort key of an entry: the time in ms of Unix time, and the memory address of the client's allocation. The
/// address stays unique because the entry's weak pointer keeps the allocation.
type DeadlineKey = (u64, usize);

#[derive(Default)]
pub(super) struct TokenDeadlines(Mutex<BTreeMap<DeadlineKey, (Weak<GatewayClient>, TokenAction)>>);

impl TokenDeadlines {
    pub(super) fn add(&self, at: u64, due: TokenAction, client: &Arc<GatewayClient>) {
        self.with(|list| list.insert(place(at, client), (Arc::downgrade(client), due)));
    }

    pub(super) fn remove(&self, at: u64, client: &Arc<GatewayClient>) {
        self.with(|list| list.remove(&place(at, client)));
    }

    /// Removes at most `most` entries that are due at `now`, the earliest first, and returns them. Clients that are
    /// gone are skipped.
    pub(super) fn take(&self, now: u64, most: usize) -> Vec<(Arc<GatewayClient>, TokenAction)> {
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

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<DeadlineKey, (Weak<GatewayClient>, TokenAction)>) -> T) -> T {
        work(&mut self.0.lock().expect("no thread panics while it holds this lock"))
    }
}

fn place(at: u64, client: &Arc<GatewayClient>) -> DeadlineKey {
    (at, Arc::as_ptr(client) as usize)
}
