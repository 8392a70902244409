//! Redis keys that a contract keeps for the application's other services: who is connected, and in which rooms.
//!
//! For each socket a HASH of connection metadata and a SET of rooms, under names of the contract's own. They are written
//! behind the sockets' backs, in order for each socket, and never hold one up: what does not fit into the queue, or finds
//! Redis away, is dropped and counted. They are not removed when the client goes, but live for the contract's `ttl` after
//! the last change, as the services that read them expect. A node without Redis mirrors nothing.

mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::contract::model::{Contract, Mirror as Policy};
use crate::contract::path::iso;
use crate::contract::scope::{Scope, SocketScope};
use crate::contract::template::Template;
use crate::redis::Redis;
use crate::session::{RoomName, Session, Watcher};
use crate::telemetry::metrics::Metrics;

/// At most so many changes wait to be written.
pub const MAX_WAITING: usize = 16_384;

/// Mirrors the sessions of those contracts that want it. The index of rooms tells it of every change.
pub struct Mirror {
    contracts: HashMap<Arc<str>, Vec<Arc<Contract>>>,
    node: Arc<str>,
    queue: mpsc::Sender<Change>,
    metrics: Arc<Metrics>,
}

/// One thing to write.
struct Change {
    /// Changes of one socket are written in order.
    socket: Arc<str>,
    key: String,
    ttl: Duration,
    what: What,
}

enum What {
    /// Fields and values of a HASH.
    Client(Vec<(&'static str, String)>),
    /// A member more in a SET.
    Joined(RoomName),
    /// A member less.
    Left(RoomName),
}

impl Mirror {
    /// Begins to write for these contracts; `None` when none of them wants it.
    pub fn start<'a>(
        contracts: impl IntoIterator<Item = &'a Arc<Contract>>,
        redis: Redis,
        node: &str,
        metrics: Arc<Metrics>,
    ) -> Option<Arc<Self>> {
        let mut mirrored: HashMap<Arc<str>, Vec<Arc<Contract>>> = HashMap::new();
        for contract in contracts.into_iter().filter(|contract| contract.mirror.is_some()) {
            mirrored.entry(contract.namespace.clone()).or_default().push(contract.clone());
        }
        if mirrored.is_empty() {
            return None;
        }
        let (queue, changes) = mpsc::channel(MAX_WAITING);
        tokio::spawn(writer::run(redis, changes, metrics.clone()));
        Some(Arc::new(Self { contracts: mirrored, node: node.into(), queue, metrics }))
    }

    fn note(&self, session: &Session, of: impl Fn(&Contract, &Policy) -> Option<(String, What)>) {
        for contract in self.contracts.get(session.namespace()).into_iter().flatten() {
            let Some(policy) = &contract.mirror else { continue };
            let Some((key, what)) = of(contract, policy) else { continue };
            let change = Change { socket: session.id().into(), key, ttl: policy.ttl, what };
            if self.queue.try_send(change).is_err() {
                self.metrics.mirror_dropped_total.with_label_values(&["full"]).inc();
            }
        }
    }

    fn note_room(&self, session: &Session, room: &RoomName, what: fn(RoomName) -> What) {
        self.note(session, |contract, policy| {
            let template = policy.subscriptions.as_ref()?;
            // Rooms of other contracts, and the clients' own, are not this application's.
            contract.rooms.values().find(|def| def.name.matches(room).is_some())?;
            Some((render(template, session)?, what(room.clone())))
        });
    }

    fn metadata(&self, session: &Session) -> Vec<(&'static str, String)> {
        let (user, peer) = (session.user(), session.peer());
        let known = [
            ("socketId", Some(session.id().to_owned())),
            ("userId", Some(user.id.to_string()).filter(|_| !user.anonymous)),
            ("connectedAt", Some(iso(session.connected_at()))),
            ("ip", Some(peer.ip.to_string())),
            ("userAgent", peer.user_agent.as_deref().map(str::to_owned)),
            ("transport", Some(peer.transport.to_owned())),
            ("namespace", Some(session.namespace().to_string())),
            ("node", Some(self.node.to_string())),
        ];
        known.into_iter().filter_map(|(field, value)| Some((field, value?))).collect()
    }
}

impl Watcher for Mirror {
    fn opened(&self, session: &Session) {
        self.note(session, |_, policy| {
            Some((render(policy.client.as_ref()?, session)?, What::Client(self.metadata(session))))
        });
    }

    fn joined(&self, session: &Session, room: &RoomName) {
        self.note_room(session, room, What::Joined);
    }

    fn left(&self, session: &Session, room: &RoomName) {
        self.note_room(session, room, What::Left);
    }

    // The keys stay until their time is over: a service may ask who it was.
    fn closed(&self, _session: &Session, _rooms: &[RoomName]) {}
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("namespaces", &self.contracts.keys()).finish_non_exhaustive()
    }
}

/// The key's name for this socket; `None` when it has no value for it.
fn render(template: &Template, session: &Session) -> Option<String> {
    let user = session.user();
    let mut scope = Scope::new(&user, &Value::Null, session.connected_at());
    scope.socket = Some(SocketScope { id: session.id(), connected_at: session.connected_at() });
    match template.render(&scope) {
        Value::String(key) if !key.is_empty() => Some(key),
        _ => None,
    }
}
