//! Lists the slowest connections of the cluster: asks every node for the node's own slowest connections, and merges the
//! answers.
//!
//! Only the node that serves a client can measure how fast the client reads. This speed changes all the time, so nodes
//! do not store it in Redis.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::{Cluster, MessageHandlers};
use crate::directory::{
    ConnectionInfo, Directory, DirectoryFuture, MAX_PAGE, Page, ReadPace, SendOutcome, Slowness, Survey,
};
use crate::redis::{Budget, MAX_RECEIVE_BYTES, Metered, ReservedBytes};
use crate::time::{from_unix_millis, unix_millis};

const ASK: &str = "slowest";
const TELL: &str = "slowest_are";

/// How long the other nodes may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Maximum size of the connections in one node's answer, in bytes. Connections that do not fit are left out, and the
/// merged page is marked as partial.
const MAX_BYTES: usize = 4 << 20;

/// Maximum number of questions for slow connections that this node answers at once. A node that does not answer counts
/// as missing.
const MAX_ANSWERING: usize = 4;

/// The sending end of the queue of other nodes' answers to one question, each with the node's id.
type SlowestSender = Metered<(Arc<str>, SlowestAnswer)>;

/// Asks every node for its slowest connections.
pub struct SlowestConnections {
    cluster: Arc<Cluster>,
    own: Arc<dyn Directory>,
    /// The queues in which the answers to a question wait to be merged, by the question's id.
    waiting: Mutex<HashMap<String, SlowestSender>>,
    budget: Budget,
    answering: Arc<Semaphore>,
}

/// The question as the other nodes receive it.
#[derive(Serialize, Deserialize)]
pub(super) struct SlowestQuestion {
    id: String,
    namespace: String,
    by: String,
    limit: usize,
}

/// A node's answer.
#[derive(Serialize, Deserialize)]
pub(super) struct SlowestAnswer {
    id: String,
    /// The node's slowest connections; each is a [`SlowConnection`] as JSON.
    items: Vec<Box<RawValue>>,
    /// Whether the node left out some connections.
    cut: bool,
}

/// The description of a connection in messages between nodes. Times are Unix times in milliseconds.
#[derive(Serialize, Deserialize)]
pub(super) struct SlowConnection {
    socket_id: String,
    user_id: Option<String>,
    transport: String,
    connected_at_ms: u64,
    rooms: Vec<String>,
    metadata: Map<String, Value>,
    queued_bytes: u64,
    queued_packets: Option<u64>,
    dropped: u64,
    last_write_at_ms: Option<u64>,
}

impl SlowestConnections {
    /// Creates the survey of slow connections of a node. `own` lists this node's connections.
    pub fn new(cluster: &Arc<Cluster>, own: Arc<dyn Directory>) -> Arc<Self> {
        Arc::new(Self {
            cluster: cluster.clone(),
            own,
            waiting: Mutex::default(),
            budget: Budget::new(MAX_RECEIVE_BYTES),
            answering: Arc::new(Semaphore::new(MAX_ANSWERING)),
        })
    }

    /// Adds the handlers of the questions and answers of other nodes.
    #[must_use]
    pub fn handle(self: &Arc<Self>, handlers: MessageHandlers) -> MessageHandlers {
        let (asked, told) = (self.clone(), self.clone());
        handlers.on(ASK, move |_, ask: SlowestQuestion| asked.answer(ask)).on(TELL, move |node, tell: SlowestAnswer| {
            // Every node receives the answer. Only the node that asked has an entry for the question.
            if let Some(asker) = told.waiting.lock().expect("no thread panics while it holds this lock").get(&tell.id) {
                // A node whose answer does not fit into the queue counts as missing.
                asker.offer(tell.size_bytes(), || (node.into(), tell));
            }
        })
    }

    fn answer(self: &Arc<Self>, ask: SlowestQuestion) {
        let (Some(by), Ok(permit)) = (Slowness::parse(&ask.by), self.answering.clone().try_acquire_owned()) else {
            return;
        };
        let survey = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let here = survey.own.slowest_here(&ask.namespace, by, ask.limit.min(MAX_PAGE));
            survey.cluster.tell(TELL, &SlowestAnswer::of(ask.id, here)).await;
        });
    }

    async fn everywhere(&self, namespace: &str, by: Slowness, limit: usize) -> Page<ConnectionInfo> {
        let mut page = Page::complete(self.own.slowest_here(namespace, by, limit));
        let mut missing: HashSet<Arc<str>> = self.cluster.others().collect();
        if !missing.is_empty() {
            let (asker, mut answers) = Metered::new(missing.len(), self.budget.clone());
            let entry = SlowestGuard::new(self, asker);
            let ask =
                SlowestQuestion { id: entry.id.clone(), namespace: namespace.into(), by: by.as_str().into(), limit };
            if self.cluster.tell(ASK, &ask).await == SendOutcome::Carried {
                let until = Instant::now() + PATIENCE;
                collect(&mut page, &mut missing, &mut answers, (namespace, until)).await;
            }
            page.partial |= !missing.is_empty();
            page.missing_nodes = missing.iter().map(ToString::to_string).collect();
            page.missing_nodes.sort_unstable();
        }
        page.items.sort_by_cached_key(|item| (Reverse(degree(by, item)), item.socket_id.clone()));
        page.items.truncate(limit);
        page
    }
}

impl Survey for SlowestConnections {
    fn slowest_connections<'a>(
        &'a self,
        namespace: &'a str,
        by: Slowness,
        limit: usize,
    ) -> DirectoryFuture<'a, Page<ConnectionInfo>> {
        Box::pin(async move { Ok(self.everywhere(namespace, by, limit).await) })
    }
}

/// Adds the answers of other nodes to the page until each node has answered or [`PATIENCE`] has passed.
async fn collect(
    page: &mut Page<ConnectionInfo>,
    missing: &mut HashSet<Arc<str>>,
    answers: &mut mpsc::Receiver<((Arc<str>, SlowestAnswer), ReservedBytes)>,
    (namespace, until): (&str, Instant),
) {
    while !missing.is_empty() {
        let Ok(Some(((node, tell), _taken))) = tokio::time::timeout_at(until, answers.recv()).await else { return };
        if missing.remove(&node) {
            page.partial |= tell.cut;
            page.items.extend(tell.read(namespace, &node));
        }
    }
}

fn degree(by: Slowness, connection: &ConnectionInfo) -> u64 {
    connection.pace.as_ref().map_or(0, |pace| {
        let written_at_ms = pace.last_write_at.map_or(0, unix_millis);
        by.degree(pace.queued_bytes, pace.queued_packets.unwrap_or_default(), pace.dropped, written_at_ms)
    })
}

/// An entry in `SlowestConnections::waiting`; dropping this guard removes the entry.
struct SlowestGuard<'a> {
    survey: &'a SlowestConnections,
    id: String,
}

impl<'a> SlowestGuard<'a> {
    fn new(survey: &'a SlowestConnections, asker: SlowestSender) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        survey.waiting.lock().expect("no thread panics while it holds this lock").insert(id.clone(), asker);
        Self { survey, id }
    }
}

impl Drop for SlowestGuard<'_> {
    fn drop(&mut self) {
        self.survey.waiting.lock().expect("no thread panics while it holds this lock").remove(&self.id);
    }
}

// === impl Tell ===

impl SlowestAnswer {
    fn of(id: String, connections: Vec<ConnectionInfo>) -> Self {
        let (mut items, mut bytes, mut cut) = (Vec::with_capacity(connections.len()), 0, false);
        for connection in connections {
            // A connection has only texts, numbers and JSON, so this conversion cannot fail.
            let Ok(item) = serde_json::value::to_raw_value(&SlowConnection::of(connection)) else { continue };
            bytes += item.get().len();
            if bytes > MAX_BYTES {
                cut = true;
                break;
            }
            items.push(item);
        }
        Self { id, items, cut }
    }

    fn size_bytes(&self) -> usize {
        self.items.iter().map(|item| item.get().len()).sum()
    }

    fn read(self, namespace: &str, node: &str) -> impl Iterator<Item = ConnectionInfo> {
        let items = self.items.into_iter().filter_map(|item| serde_json::from_str::<SlowConnection>(item.get()).ok());
        items.map(move |item| item.read(namespace, node))
    }
}

// === impl Item ===

impl SlowConnection {
    fn of(connection: ConnectionInfo) -> Self {
        let ConnectionInfo { socket_id, user_id, transport, connected_at, rooms, metadata, pace, .. } = connection;
        let pace = pace.unwrap_or(ReadPace { queued_bytes: 0, queued_packets: None, dropped: 0, last_write_at: None });
        Self {
            socket_id,
            user_id,
            transport,
            connected_at_ms: unix_millis(connected_at),
            rooms,
            metadata,
            queued_bytes: pace.queued_bytes,
            queued_packets: pace.queued_packets,
            dropped: pace.dropped,
            last_write_at_ms: pace.last_write_at.map(unix_millis),
        }
    }

    fn read(self, namespace: &str, node: &str) -> ConnectionInfo {
        let pace = ReadPace {
            queued_bytes: self.queued_bytes,
            queued_packets: self.queued_packets,
            dropped: self.dropped,
            last_write_at: self.last_write_at_ms.map(from_unix_millis),
        };
        ConnectionInfo {
            socket_id: self.socket_id,
            user_id: self.user_id,
            namespace: namespace.to_owned(),
            node: node.to_owned(),
            transport: self.transport,
            connected_at: from_unix_millis(self.connected_at_ms),
            rooms: self.rooms,
            metadata: self.metadata,
            pace: Some(pace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(metadata: usize) -> ConnectionInfo {
        ConnectionInfo {
            socket_id: "s".into(),
            user_id: Some("ada".into()),
            namespace: "/".into(),
            node: "b".into(),
            transport: "websocket".into(),
            connected_at: from_unix_millis(1500),
            rooms: vec!["r".into()],
            metadata: Map::from_iter([("k".to_owned(), Value::from("x".repeat(metadata)))]),
            pace: Some(ReadPace {
                queued_bytes: 7,
                queued_packets: None,
                dropped: 2,
                last_write_at: Some(from_unix_millis(9)),
            }),
        }
    }

    #[test]
    fn connection_survives_the_way_between_nodes() {
        let tell = serde_json::to_string(&SlowestAnswer::of("id".into(), vec![connection(3)])).unwrap();
        let tell: SlowestAnswer = serde_json::from_str(&tell).unwrap();
        assert_eq!((&*tell.id, tell.cut), ("id", false));
        assert_eq!(tell.read("/", "b").collect::<Vec<_>>(), [connection(3)]);
    }

    #[test]
    fn an_answer_is_bounded_and_says_that_it_was_cut() {
        let tell = SlowestAnswer::of("id".into(), vec![connection(MAX_BYTES / 3); 4]);
        assert!(tell.cut && tell.items.len() == 2 && tell.size_bytes() <= MAX_BYTES);
    }
}
