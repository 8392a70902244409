//! Asks clients on every node to acknowledge an event, and collects their answers.
//!
//! The node that gets the request asks its own clients and sends the question to the other nodes. Each other node asks
//! its own clients, and sends their answers back once all clients have answered or the deadline has passed. No node
//! keeps a question after its answers were sent.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::actions::rooms_of;
use super::asked::AskedClients;
use super::heartbeat::WHO;
use super::members::HEARTBEAT;
use super::{ClusterActions, LOOK, MessageHandlers};
use crate::directory::{AckQuestion, Acknowledged, Acknowledgement, SendOutcome};
use crate::event::{Args, Event};
use crate::redis::{Budget, MAX_RECEIVE_BYTES, Metered, ReservedBytes};
use crate::room::Rooms;
use crate::session::RoomName;

const ASK: &str = "ask";
const TOLD: &str = "acknowledged";

/// Maximum size of the acknowledgements that a node collects for one question, in bytes.
const MAX_BYTES: usize = 8 << 20;

/// Maximum size of the acknowledgements of other nodes that are added up for one question, in bytes.
const MAX_TOTAL_BYTES: usize = 64 << 20;

/// How long after the clients' deadline the answers of other nodes are still accepted.
const MARGIN: Duration = Duration::from_secs(2);

/// The longest time that clients get to answer a question from another node.
const LONGEST: Duration = Duration::from_secs(60);

/// How long this node waits for a heartbeat of a node that has received a question but is not known yet.
const INTRODUCTION: Duration = HEARTBEAT;

/// Shortest time between two requests of this node, made because of questions, for the heartbeats of all nodes.
const WHO_PAUSE: Duration = Duration::from_millis(100);

/// Number of entries in the queue of answers that are reserved for nodes that were not known when the question was
/// sent.
const MARGIN_NODES: usize = 64;

/// Maximum number of questions from other nodes that this node works on at once.
const MAX_FOREIGN: usize = 256;

/// A question as the other nodes receive it.
#[derive(Serialize, Deserialize)]
pub(super) struct QuestionMessage {
    id: String,
    namespace: Arc<str>,
    rooms: Vec<RoomName>,
    event: String,
    patience_ms: u64,
}

/// A node's answer: how many of its clients were asked, and the clients' answers.
#[derive(Serialize, Deserialize)]
pub(super) struct AnswerMessage {
    id: String,
    asked: usize,
    not_asked: usize,
    too_large: usize,
    /// For each client that answered: its id, and the text and the attachments (base64) of its answer.
    said: Vec<(Option<String>, String, Vec<String>)>,
}

/// The sending end of the queue of other nodes' answers to one question, each with the node's id.
type AnswerSender = Metered<(Arc<str>, AnswerMessage)>;

/// The receiving end of an [`AnswerSender`].
type AnswerReceiver = mpsc::Receiver<((Arc<str>, AnswerMessage), ReservedBytes)>;

/// The questions that this node works on.
pub(super) struct OpenQuestions {
    /// The queues of other nodes' answers to the questions of this node, by the question's id.
    waiting: Mutex<HashMap<String, AnswerSender>>,
    /// Limits the bytes of the answers in all queues of `waiting` together.
    budget: Budget,
    /// Permits for questions of other nodes, at most [`MAX_FOREIGN`] at the same time.
    foreign: Arc<Semaphore>,
    /// When this node last requested the heartbeats of all nodes because of a question.
    asked_who: Mutex<Option<Instant>>,
}

impl Default for OpenQuestions {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            budget: Budget::new(MAX_RECEIVE_BYTES),
            foreign: Arc::new(Semaphore::new(MAX_FOREIGN)),
            asked_who: Mutex::default(),
        }
    }
}

impl OpenQuestions {
    /// Whether this node may request the heartbeats of all nodes now. Every node answers this request, so questions
    /// that are asked within [`WHO_PAUSE`] share one request.
    fn may_ask_who(&self) -> bool {
        let mut asked = self.asked_who.lock().expect("no thread panics while it holds this lock");
        let now = Instant::now();
        let may = asked.is_none_or(|at| now >= at + WHO_PAUSE);
        if may {
            *asked = Some(now);
        }
        may
    }
}

impl ClusterActions {
    /// Adds the handlers of the questions and answers of other nodes.
    pub(super) fn handle_questions(self: &Arc<Self>, handlers: MessageHandlers) -> MessageHandlers {
        let (asked, told) = (self.clone(), self.clone());
        handlers.on(ASK, move |_, ask: QuestionMessage| asked.ask_for_another(ask)).on(
            TOLD,
            move |node, tell: AnswerMessage| {
                // Every node receives the answer. Only the node that asked has an entry for the question.
                let waiting = told.questions.waiting.lock().expect("no thread panics while it holds this lock");
                if let Some(asker) = waiting.get(&tell.id) {
                    // If an answer does not fit into the queue, the asking node reports the answering node as missing.
                    asker.offer(tell.size_bytes(), || (node.into(), tell));
                }
            },
        )
    }

    fn ask_for_another(self: &Arc<Self>, ask: QuestionMessage) {
        let permit = self.questions.foreign.clone().try_acquire_owned().ok();
        let actions = self.clone();
        tokio::spawn(async move {
            let Ok(event) = Event::from_wire(ask.event.into(), Vec::new()) else { return };
            let here = if permit.is_some() {
                let until = deadline(ask.patience_ms);
                ask_here(&actions.cluster.rooms, &ask.namespace, &ask.rooms, &event, until).await
            } else {
                // This node is already working on `MAX_FOREIGN` questions. The node that asked is told how many
                // clients were not asked, and counts these clients.
                let not_asked = actions.cluster.rooms.count(&ask.namespace, &ask.rooms, &[]);
                Acknowledged { not_asked, ..Acknowledged::default() }
            };
            actions.cluster.tell(TOLD, &AnswerMessage::of(ask.id, here)).await;
        });
    }

    /// Asks the selected clients on every node.
    pub(super) async fn ask_everywhere(&self, question: AckQuestion) -> Acknowledged {
        let AckQuestion { selection, event, patience } = question;
        let namespace: Arc<str> = selection.namespace.as_str().into();
        let rooms = rooms_of(&selection);
        let until = Instant::now() + patience;
        if self.cluster.link.is_none() || self.has_all(&selection.namespace, &rooms) {
            return ask_here(&self.cluster.rooms, &namespace, &rooms, &event, until).await;
        }
        let id = uuid::Uuid::new_v4().to_string();
        // Each known node answers once; up to `MARGIN_NODES` nodes that are not known yet may answer as well.
        let (asker, told) = Metered::new(self.cluster.others().count() + MARGIN_NODES, self.questions.budget.clone());
        // The entry must exist before the question is sent: another node may answer immediately.
        let _entry = QuestionGuard::new(&self.questions, &id, asker);
        let ask = QuestionMessage {
            id: id.clone(),
            namespace: namespace.clone(),
            rooms: rooms.clone(),
            event: event.text().to_string(),
            patience_ms: crate::time::millis(patience),
        };
        let elsewhere = async {
            let (remote, hearers) = self.cluster.tell_counted(ASK, &ask).await;
            let mut total = Acknowledged { remote, ..Acknowledged::default() };
            if remote == SendOutcome::Carried {
                total.missing_nodes = self.collect(&mut total, told, hearers, until).await;
            }
            total
        };
        let servers = async {
            match self.cluster.wire() {
                Some(wire) => wire.ask_servers(&namespace, &rooms, &event, until).await,
                None => Acknowledged::default(),
            }
        };
        let here = ask_here(&self.cluster.rooms, &namespace, &rooms, &event, until);
        let (here, mut total, servers) = tokio::join!(here, elsewhere, servers);
        if let (SendOutcome::Carried, SendOutcome::NotCarried(_)) = (total.remote, servers.remote) {
            total.remote = servers.remote;
        }
        total.add(here);
        total.add(servers);
        total
    }

    /// Adds up the answers of other nodes until each node has answered or the deadline has passed. Returns the nodes
    /// that have not answered.
    ///
    /// More connections may have received the question than nodes are known: a node has just started, or the connection
    /// of a node that is gone is still open. A running node sends a heartbeat within [`INTRODUCTION`].
    async fn collect(
        &self,
        total: &mut Acknowledged,
        mut told: AnswerReceiver,
        hearers: usize,
        until: Instant,
    ) -> Vec<String> {
        let introduction = Instant::now() + INTRODUCTION;
        let mut bytes = 0;
        let mut known: HashSet<Arc<str>> = self.cluster.others().collect();
        let mut heard: HashSet<Arc<str>> = HashSet::new();
        if known.len() < hearers && self.questions.may_ask_who() {
            self.cluster.tell(WHO, &()).await;
        }
        loop {
            let strangers = known.union(&heard).count() < hearers && Instant::now() < introduction;
            if !strangers && known.is_subset(&heard) {
                break;
            }
            let patience = if strangers { Instant::now() + LOOK } else { until + MARGIN };
            match tokio::time::timeout_at(patience, told.recv()).await {
                Ok(Some(((node, tell), _taken))) => {
                    if heard.insert(node) {
                        bytes += tell.size_bytes();
                        total.add(tell.read(bytes <= MAX_TOTAL_BYTES));
                    }
                }
                Err(_) if strangers => known.extend(self.cluster.others()),
                Ok(None) | Err(_) => break,
            }
        }
        let mut missing: Vec<_> = known.difference(&heard).map(ToString::to_string).collect();
        missing.sort_unstable();
        missing
    }

    /// Whether all selected clients are known to be connected to this node, so that no other node need be asked.
    fn has_all(&self, namespace: &str, rooms: &[RoomName]) -> bool {
        rooms
            .iter()
            .all(|room| crate::protocol::is_socket_room(room) && self.cluster.rooms.has_members(namespace, room))
    }
}

/// The deadline of a question from another node: at most [`LONGEST`] from now, even if the question allows more time.
fn deadline(patience_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(patience_ms).min(LONGEST)
}

/// Asks clients of this node, each once, and waits for their answers until the deadline.
async fn ask_here(rooms: &Rooms, namespace: &str, to: &[RoomName], event: &Event, until: Instant) -> Acknowledged {
    // An empty selection means no client, but `recipients` would treat an empty list as every client.
    let sessions = if to.is_empty() { Vec::new() } else { rooms.recipients(namespace, to, &[]) };
    let mut asked = AskedClients::of(&sessions, event);
    let mut done =
        Acknowledged { asked: asked.count(), not_asked: sessions.len() - asked.count(), ..Acknowledged::default() };
    let mut bytes = 0;
    while let Ok(Some(said)) = tokio::time::timeout_at(until, asked.next()).await {
        let size = said.args.size_bytes();
        if bytes + size <= MAX_BYTES {
            bytes += size;
            done.said.push(said);
        } else {
            done.too_large += 1;
        }
    }
    done
}

/// An entry in `OpenQuestions::waiting`; dropping this guard removes the entry.
struct QuestionGuard<'a> {
    questions: &'a OpenQuestions,
    id: &'a str,
}

impl<'a> QuestionGuard<'a> {
    fn new(questions: &'a OpenQuestions, id: &'a str, asker: AnswerSender) -> Self {
        questions.waiting.lock().expect("no thread panics while it holds this lock").insert(id.to_owned(), asker);
        Self { questions, id }
    }
}

impl Drop for QuestionGuard<'_> {
    fn drop(&mut self) {
        self.questions.waiting.lock().expect("no thread panics while it holds this lock").remove(self.id);
    }
}

// === impl Tell ===

impl AnswerMessage {
    fn of(id: String, here: Acknowledged) -> Self {
        let Acknowledged { asked, not_asked, too_large, said, .. } = here;
        let said = said.into_iter().map(|Acknowledgement { socket_id, args }| {
            let attachments = args.attachments().iter().map(|bytes| STANDARD.encode(bytes)).collect();
            (socket_id, args.text().to_string(), attachments)
        });
        Self { id, asked, not_asked, too_large, said: said.collect() }
    }

    /// The size of the clients' answers, in bytes.
    fn size_bytes(&self) -> usize {
        let size = |(_, text, attachments): &(_, String, Vec<String>)| {
            text.len() + attachments.iter().map(String::len).sum::<usize>()
        };
        self.said.iter().map(size).sum()
    }

    /// Converts the node's answer, so that answers of several nodes can be added up. If `fits` is false, the clients'
    /// answers are dropped and counted as too large.
    fn read(self, fits: bool) -> Acknowledged {
        let Self { asked, not_asked, mut too_large, mut said, .. } = self;
        if !fits {
            too_large += said.len();
            said.clear();
        }
        let said = said.into_iter().filter_map(|(socket_id, text, attachments)| {
            let attachments = attachments.iter().map(|text| STANDARD.decode(text).map(Bytes::from));
            let args = Args::from_wire(text.into(), attachments.collect::<Result<_, _>>().ok()?);
            Some(Acknowledgement { socket_id, args })
        });
        Acknowledged { asked, not_asked, too_large, said: said.collect(), ..Acknowledged::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_node_makes_another_wait_for_long() {
        assert!(deadline(u64::MAX) <= Instant::now() + LONGEST);
        assert!(deadline(0) <= Instant::now());
    }
}
