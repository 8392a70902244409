//! Redis keys that are written for an application's other services: which clients are connected, and which rooms each
//! client is in.
//!
//! For each socket there is a HASH of connection metadata and a SET of rooms, under names from the contract. The keys
//! are written in the background, in order for each socket, and writing never delays a socket. A change for which the
//! queue has no space, or that finds Redis unavailable, is dropped and counted. The keys are not removed when the
//! client disconnects; they live for the contract's `ttl` after the last change, as the services that read them expect.
//! A node without Redis mirrors nothing.

mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::contract::model::{Contract, MirrorPolicy as Policy};
use crate::contract::scope::{Scope, SocketScope};
use crate::contract::template::Template;
use crate::redis::Redis;
use crate::session::{RoomName, Session, Watcher};
use crate::telemetry::metrics::Metrics;
use crate::time::iso8601;

/// Maximum number of changes that wait to be written.
pub const MAX_WAITING: usize = 16_384;

/// Mirrors the sessions of contracts that ask for it. The room index reports every change to it.
pub struct Mirror {
    contracts: HashMap<Arc<str>, Vec<Arc<Contract>>>,
    node: Arc<str>,
    queue: mpsc::Sender<MirrorChange>,
    metrics: Arc<Metrics>,
}

/// One change of a mirrored key.
struct MirrorChange {
    /// The socket's id. Changes of one socket are written in order.
    socket: Arc<str>,
    key: String,
    ttl: Duration,
    what: MirrorWrite,
}

enum MirrorWrite {
    /// The change sets fields and values of a HASH.
    Client(Vec<(&'static str, String)>),
    /// The change adds a member to a SET.
    Joined(RoomName),
    /// The change removes a member from a SET.
    Left(RoomName),
}

impl Mirror {
    /// Starts the writer for these contracts. Returns `None` when no contract asks for a mirror.
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

    fn note(&self, session: &Session, of: impl Fn(&Contract, &Policy) -> Option<(String, MirrorWrite)>) {
        for contract in self.contracts.get(session.namespace()).into_iter().flatten() {
            let Some(policy) = &contract.mirror else { continue };
            let Some((key, what)) = of(contract, policy) else { continue };
            let change = MirrorChange { socket: session.id().into(), key, ttl: policy.ttl, what };
            if self.queue.try_send(change).is_err() {
                self.metrics.mirror_dropped_total.with_label_values(&["full"]).inc();
            }
        }
    }

    fn note_room(&self, session: &Session, room: &RoomName, what: fn(RoomName) -> MirrorWrite) {
        self.note(session, |contract, policy| {
            let template = policy.subscriptions.as_ref()?;
            // Leaves out rooms of other contracts and rooms that belong to one socket or user, because these rooms are
            // not part of this application.
            contract.rooms.values().find(|def| def.name.matches(room).is_some())?;
            Some((render(template, session)?, what(room.clone())))
        });
    }

    fn metadata(&self, session: &Session) -> Vec<(&'static str, String)> {
        let (user, peer) = (session.user(), session.peer());
        let known = [
            ("socketId", Some(session.id().to_owned())),
            ("userId", Some(user.id.to_string()).filter(|_| !user.anonymous)),
            ("connectedAt", Some(iso8601(session.connected_at()))),
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
            Some((render(policy.client.as_ref()?, session)?, MirrorWrite::Client(self.metadata(session))))
        });
    }

    fn joined(&self, session: &Session, room: &RoomName) {
        self.note_room(session, room, MirrorWrite::Joined);
    }

    fn left(&self, session: &Session, room: &RoomName) {
        self.note_room(session, room, MirrorWrite::Left);
    }

    // The mirrored keys stay until they expire, because a service may still ask who the client was.
    fn closed(&self, _session: &Session, _rooms: &[RoomName]) {}
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("namespaces", &self.contracts.keys()).finish_non_exhaustive()
    }
}

/// Returns the name of the key for this socket; `None` when the template gives no text.
fn render(template: &Template, session: &Session) -> Option<String> {
    let user = session.user();
    let mut scope = Scope::new(&user, &Value::Null, session.connected_at());
    scope.socket = Some(SocketScope { id: session.id(), connected_at: session.connected_at(), state: Some(session) });
    template.render_text(&scope).filter(|key| !key.is_empty())
}
