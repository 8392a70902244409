//! Which events are kept for clients whose write queue is full, and for which clients events are kept now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::contract::model::Contract;
use crate::event::{Event, SlowClientPolicy};
use crate::session::{RoomName, Session};

/// How often the node tries again to send the events that it keeps for slow clients.
const LOOK: Duration = Duration::from_millis(50);

/// The clients that read too slowly, and the treatment that their contracts ask for.
pub(super) struct SlowClients {
    /// How events for slow clients are treated, by namespace and event name. Events with the default treatment (they
    /// are dropped) are not listed.
    policies: HashMap<Arc<str>, HashMap<String, SlowClientPolicy>>,
    /// Sessions for which events are kept because the client's write queue is full.
    laggards: Mutex<Vec<Weak<Session>>>,
}

impl SlowClients {
    /// Starts to send kept events as soon as their clients read again, until the returned value is dropped. Must be
    /// called within a Tokio runtime.
    pub(super) fn start(contracts: &[Arc<Contract>]) -> Arc<Self> {
        let mut policies: HashMap<_, HashMap<_, _>> = HashMap::new();
        for contract in contracts {
            for event in contract.server.values().filter(|event| event.slow != SlowClientPolicy::Drop) {
                let events = policies.entry(contract.namespace.clone()).or_default();
                events.entry(event.name.clone()).or_insert(event.slow);
            }
        }
        let clients = Arc::new(Self { policies, laggards: Mutex::default() });
        tokio::spawn(release(Arc::downgrade(&clients)));
        clients
    }

    /// The event, marked with the treatment that a contract sets for slow clients; `None` where no contract sets a
    /// treatment.
    pub(super) fn marked(&self, namespace: &str, event: &Event, rooms: &[RoomName]) -> Option<Event> {
        let slow = *self.policies.get(namespace)?.get(event.name())?;
        Some(event.clone().with_slow(slow, rooms))
    }

    /// Remembers sessions for which events are kept, until their write queues have space.
    pub(super) fn note(&self, sessions: Vec<Weak<Session>>) {
        if !sessions.is_empty() {
            self.laggards.lock().expect("no thread panics while it holds this lock").extend(sessions);
        }
    }

    /// Sends the events that are kept, as far as the write queues have space.
    fn release(&self) {
        let waiting = std::mem::take(&mut *self.laggards.lock().expect("no thread panics while it holds this lock"));
        let still = |session: &Weak<Session>| session.upgrade().is_some_and(|session| session.release_slow());
        self.note(waiting.into_iter().filter(still).collect());
    }
}

async fn release(clients: Weak<SlowClients>) {
    loop {
        tokio::time::sleep(LOOK).await;
        match clients.upgrade() {
            Some(clients) => clients.release(),
            None => return,
        }
    }
}
