//! Asks the clients of Socket.IO's servers to acknowledge an event, if these servers receive the messages of roomcast
//! nodes.
//!
//! The exchange is the same as between those servers: each one reports at once how many of its clients it has asked,
//! and then passes on each client's answer. The number of servers is the number of subscribers that Redis counts,
//! because nodes have no list of servers.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use fred::error::Error;
use fred::interfaces::{ClientLike, PubsubInterface};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ClusterAdapter;
use super::space::NamespaceChannels;
use crate::cluster::socketio::{ServerQuestion, ServerResponse};
use crate::config;
use crate::directory::{Acknowledged, Acknowledgement, SendOutcome};
use crate::event::Event;
use crate::protocol::user_of;
use crate::redis::{Budget, MAX_RECEIVE_BYTES, Metered, ReservedBytes, SubscriptionKind};
use crate::session::RoomName;

use super::names::ForeignNames;

/// Maximum number of answers in the queue of one question.
const WAITING: usize = 4096;

/// Maximum size of the clients' answers to one question, in bytes. Further answers are dropped and counted as too
/// large.
const MAX_BYTES: usize = 8 << 20;

/// Questions to other servers that still wait for answers.
pub(super) struct ServerQuestions {
    /// The queue of the answers to each question, by the question's request id.
    open: Mutex<HashMap<String, Metered<ServerResponse>>>,
    /// Limits the bytes of the answers in all these queues together.
    budget: Budget,
}

impl Default for ServerQuestions {
    fn default() -> Self {
        Self { open: Mutex::default(), budget: Budget::new(MAX_RECEIVE_BYTES) }
    }
}

/// A question that waits for answers; dropping this guard removes the question.
struct ServerQuestionGuard<'a> {
    asking: &'a ServerQuestions,
    request_id: String,
}

impl ClusterAdapter {
    /// Asks the clients in these rooms that are connected to servers of Node.js, and waits for the clients' answers
    /// until the deadline.
    pub(in crate::cluster) async fn ask_servers(
        &self,
        namespace: &str,
        rooms: &[RoomName],
        event: &Event,
        until: Instant,
    ) -> Acknowledged {
        // Servers of Node.js have no rooms of users.
        let rooms: Vec<RoomName> = rooms.iter().filter(|room| user_of(room).is_none()).cloned().collect();
        let heard = self.speaks == config::WireFormat::Socketio && self.socketio.is_some();
        let Some(space) = self.spaces.get(namespace).filter(|_| heard && !rooms.is_empty()) else {
            return Acknowledged::default();
        };
        let request_id = uuid::Uuid::new_v4().simple().to_string();
        let question = ServerQuestion {
            uid: &space.uid,
            request_id: &request_id,
            namespace,
            event,
            rooms: &ForeignNames::of(&rooms).names,
            patience: until.saturating_duration_since(Instant::now()),
        };
        let (Ok(question), Ok(servers)) = (question.encode(), self.count_servers(&space.requests).await) else {
            return Acknowledged { remote: SendOutcome::NotCarried("away"), ..Acknowledged::default() };
        };
        // The entry must exist before the question is sent: a server may answer immediately.
        let (entry, answers) = ServerQuestionGuard::new(&self.asking, request_id);
        let sent = match self.pubsub.send_as(SubscriptionKind::Plain, &space.requests, question) {
            Ok(receipt) => receipt.await,
            Err(why) => Err(why),
        };
        if let Err(why) = sent {
            return Acknowledged { remote: SendOutcome::NotCarried(why.as_str()), ..Acknowledged::default() };
        }
        let total = collect(answers, servers, until).await;
        drop(entry);
        total
    }

    /// Takes a server's answer to a question of this node.
    pub(super) fn response(&self, body: &Bytes) {
        if self.asking.open.lock().expect("no thread panics while it holds this lock").is_empty() {
            return;
        }
        let (request_id, response) = match ServerResponse::read(body) {
            Ok(Some(answer)) => answer,
            Ok(None) => return,
            Err(why) => return self.drop_foreign(why.as_str()),
        };
        let asking = self.asking.open.lock().expect("no thread panics while it holds this lock");
        // Every server receives the answer, also those that did not ask. Only the server that asked has an entry for
        // the question.
        if asking.get(&request_id).is_some_and(|asker| !asker.offer(body.len(), || response)) {
            self.drop_foreign("full");
        }
    }

    /// Whether this channel is one of the two on which servers answer this node.
    pub(super) fn is_response(space: &NamespaceChannels, channel: &str) -> bool {
        channel == &*space.responses || channel == &*space.own_responses
    }

    /// How many servers will answer, including nodes that other servers count as servers.
    async fn count_servers(&self, channel: &str) -> Result<usize, Error> {
        let client = self.redis.client();
        if !client.is_clustered() {
            let (_, count): (String, usize) = client.pubsub_numsub(channel).await?;
            return Ok(count);
        }
        let mut sum = 0;
        for server in client.active_connections() {
            let (_, count): (String, usize) = client.with_cluster_node(server).pubsub_numsub(channel).await?;
            sum += count;
        }
        Ok(sum)
    }
}

/// Adds up the answers until each server has said how many clients it has asked, and all of these have answered.
async fn collect(
    mut answers: mpsc::Receiver<(ServerResponse, ReservedBytes)>,
    servers: usize,
    until: Instant,
) -> Acknowledged {
    let mut total = Acknowledged { remote: SendOutcome::Carried, ..Acknowledged::default() };
    let (mut told, mut bytes) = (0, 0);
    while told < servers || total.said.len() + total.too_large < total.asked {
        match tokio::time::timeout_at(until, answers.recv()).await {
            Ok(Some((ServerResponse::Asked(clients), _))) => {
                told += 1;
                total.asked = total.asked.saturating_add(clients);
            }
            Ok(Some((ServerResponse::Said(args), _))) => {
                bytes += args.size_bytes();
                if bytes > MAX_BYTES {
                    total.too_large += 1;
                } else {
                    total.said.push(Acknowledgement { socket_id: None, args });
                }
            }
            Ok(None) | Err(_) => break,
        }
    }
    total.missing_servers = servers.saturating_sub(told);
    total
}

impl<'a> ServerQuestionGuard<'a> {
    fn new(asking: &'a ServerQuestions, request_id: String) -> (Self, mpsc::Receiver<(ServerResponse, ReservedBytes)>) {
        let (asker, answers) = Metered::new(WAITING, asking.budget.clone());
        asking.open.lock().expect("no thread panics while it holds this lock").insert(request_id.clone(), asker);
        (Self { asking, request_id }, answers)
    }
}

impl Drop for ServerQuestionGuard<'_> {
    fn drop(&mut self) {
        self.asking.open.lock().expect("no thread panics while it holds this lock").remove(&self.request_id);
    }
}
