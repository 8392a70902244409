//! Executes and answers requests that Socket.IO's emitters and servers send to every server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::space::NamespaceChannels;
use super::{Inbound, names};
use crate::cluster::asked::AskedClients;
use crate::cluster::socketio::{self, RequestAnswer, ServerAction, ServerRequest, Targets};
use crate::config;
use crate::protocol::is_reserved_room;
use crate::redis::SubscriptionKind;
use crate::session::{Close, RoomName, Session};

/// Maximum number of questions from other servers that this node works on at once.
pub(super) const MAX_ASKING: usize = 256;

impl Inbound {
    /// Carries out or answers a request.
    pub(super) fn request(self: &Arc<Self>, space: &NamespaceChannels, body: &Bytes) {
        let request = match socketio::parse(body) {
            Ok(request) => request,
            Err(why) => return self.wire.drop_foreign(why.as_str()),
        };
        let kind = match &request {
            ServerRequest::Act(..) | ServerRequest::ActOn { .. } => "act",
            ServerRequest::ServerSideEmit { .. } => "server_side_emit",
            _ => "question",
        };
        self.wire.metrics.socketio_received_total.with_label_values(&[&*space.namespace, kind]).inc();
        match request {
            ServerRequest::Act(targets, act) => self.act(&self.members(space, &targets), &act),
            ServerRequest::ActOn { socket_id, act, request_id } => {
                if let Some(session) = self.rooms.session(&space.namespace, &socket_id) {
                    self.act(&[session], &act);
                    self.answer(space, &RequestAnswer::done(&request_id));
                }
            }
            // The sender is a roomcast node, so this node ignores the message. That node sends its question to the
            // other roomcast nodes in another way, but still waits for a count from each server.
            ServerRequest::BroadcastWithAck { request_id, ours: true, .. } => {
                if self.wire.speaks == config::WireFormat::Socketio {
                    self.answer(space, &RequestAnswer::clients_asked(&request_id, 0));
                }
            }
            // With `wire = "compact"` the other servers do not count this node, and do not wait for its answer.
            _ if self.wire.speaks == config::WireFormat::Compact => {}
            ServerRequest::ServerSideEmit { request_id: None, .. } => {}
            ServerRequest::ServerSideEmit { uid, .. } if uid == space.uid => {}
            ServerRequest::ServerSideEmit { request_id: Some(id), .. } => {
                self.answer(space, &RequestAnswer::server_side_emit(&id));
            }
            ServerRequest::Sockets { rooms, request_id } => {
                let members = self.members(space, &Targets { rooms, except: Vec::new() });
                self.answer(space, &RequestAnswer::sockets(&request_id, members.iter().map(|session| session.id())));
            }
            ServerRequest::AllRooms { request_id } => {
                self.answer(space, &RequestAnswer::rooms(&request_id, &self.all_rooms(space)))
            }
            ServerRequest::Fetch { targets, request_id } => {
                self.answer(space, &RequestAnswer::fetched(&request_id, &self.members(space, &targets)));
            }
            ServerRequest::BroadcastWithAck { namespace, .. } if namespace != *space.namespace => {
                self.wire.drop_foreign("namespace");
            }
            ServerRequest::BroadcastWithAck { request_id, event, targets, patience, .. } => {
                let Ok(permit) = self.answering.clone().try_acquire_owned() else {
                    self.wire.drop_foreign("full");
                    return self.answer(space, &RequestAnswer::clients_asked(&request_id, 0));
                };
                let asked = AskedClients::of(&self.members(space, &targets), &event);
                self.answer(space, &RequestAnswer::clients_asked(&request_id, asked.count()));
                let passing = self.clone().pass_on(space.responses.clone(), request_id, asked, patience);
                tokio::spawn(async move {
                    let _permit = permit;
                    passing.await;
                });
            }
        }
    }

    /// Sends each client's answer to the server that asked, as soon as the answer arrives, until `patience` has passed.
    async fn pass_on(
        self: Arc<Self>,
        responses: Arc<str>,
        request_id: String,
        mut asked: AskedClients,
        patience: Duration,
    ) {
        let until = Instant::now() + patience;
        while let Ok(Some(said)) = tokio::time::timeout_at(until, asked.next()).await {
            let Some(answer) = RequestAnswer::acknowledged(&request_id, &said.args) else { continue };
            if let Err(why) = self.wire.pubsub.send_as(SubscriptionKind::Plain, &responses, answer) {
                tracing::debug!(reason = why.as_str(), "a client's answer was not sent to another server");
            }
        }
    }

    fn answer(&self, space: &NamespaceChannels, answer: &RequestAnswer) {
        if let Err(why) = self.wire.pubsub.send_as(SubscriptionKind::Plain, &space.responses, answer.to_text().into()) {
            tracing::debug!(reason = why.as_str(), "an answer was not sent to another server");
        }
    }

    /// The clients of this node that the request selects.
    pub(super) fn members(&self, space: &NamespaceChannels, targets: &Targets) -> Vec<Arc<Session>> {
        let here = |list: &[String]| names::here(&self.rooms, &space.namespace, list);
        let rooms = here(&targets.rooms);
        if rooms.is_empty() && !targets.rooms.is_empty() {
            return Vec::new();
        }
        self.rooms.recipients(&space.namespace, &rooms, &here(&targets.except))
    }

    fn all_rooms(&self, space: &NamespaceChannels) -> Vec<String> {
        let rooms = self.rooms.rooms(&space.namespace).into_iter().map(|room| room.name.to_string());
        let own = self.rooms.sessions(&space.namespace).into_iter().map(|session| session.id().to_owned());
        rooms.chain(own).collect()
    }

    /// Applies the action without checking any rule of a contract, because a process that can write to Redis is
    /// trusted.
    pub(super) fn act(&self, sessions: &[Arc<Session>], act: &ServerAction) {
        let rooms: Vec<RoomName> = match act {
            ServerAction::Join(names) | ServerAction::Leave(names) => {
                let free = names.iter().filter(|name| !name.is_empty() && !is_reserved_room(name));
                free.map(|name| name.as_str().into()).collect()
            }
            ServerAction::Disconnect { .. } => Vec::new(),
        };
        for session in sessions {
            match act {
                ServerAction::Join(_) => rooms.iter().for_each(|room| {
                    self.rooms.join(session, room);
                }),
                ServerAction::Leave(_) => {
                    rooms.iter().for_each(|room| self.publisher.take_out(&self.rooms, session, room))
                }
                ServerAction::Disconnect { close: true } => session.close(Close::Transport),
                ServerAction::Disconnect { close: false } => session.close(Close::Namespace),
            }
        }
    }
}
