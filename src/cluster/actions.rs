//! Joins, leaves and disconnects by user, socket or room, on every node.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::questions::OpenQuestions;
use super::{Cluster, MessageHandlers};
use crate::directory::{AckQuestion, Acknowledged, ActionResult, Actions, DirectoryFuture, Selection};
use crate::protocol::{socket_room, user_room};
use crate::publish::Publisher;
use crate::session::{Close, RoomName, Session};

const TOPIC: &str = "act";

/// An action on clients, as the other nodes receive it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ActionMessage {
    namespace: Arc<str>,
    /// The action applies to the members of any of these rooms.
    rooms: Vec<RoomName>,
    what: ActionKind,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActionKind {
    Join(RoomName),
    Leave(RoomName),
    Disconnect { transport: bool },
}

/// Acts on clients on every node, and asks clients on every node to acknowledge an event.
pub struct ClusterActions {
    pub(super) cluster: Arc<Cluster>,
    publisher: Arc<Publisher>,
    pub(super) questions: OpenQuestions,
}

impl ClusterActions {
    /// Creates the actions of a node. `publisher` publishes the undo events of clients that are taken out of a room.
    pub fn new(cluster: &Arc<Cluster>, publisher: &Arc<Publisher>) -> Arc<Self> {
        let (cluster, publisher) = (cluster.clone(), publisher.clone());
        Arc::new(Self { cluster, publisher, questions: OpenQuestions::default() })
    }

    /// Adds the handlers of the actions and questions of other nodes.
    #[must_use]
    pub fn handle(self: &Arc<Self>, handlers: MessageHandlers) -> MessageHandlers {
        let acting = self.clone();
        self.handle_questions(handlers.on(TOPIC, move |_, act: ActionMessage| {
            act.apply_here(&acting);
        }))
    }

    fn act<'a>(&'a self, selection: &Selection, what: ActionKind) -> DirectoryFuture<'a, ActionResult> {
        let act = ActionMessage { namespace: selection.namespace.as_str().into(), rooms: rooms_of(selection), what };
        Box::pin(async move {
            let local = act.apply_here(self);
            if let ActionKind::Join(room) = &act.what {
                self.cluster.rooms.settled(&act.namespace, room).await;
            }
            let remote = self.cluster.tell(TOPIC, &act).await;
            Ok(ActionResult { local, remote })
        })
    }
}

impl Actions for ClusterActions {
    fn join<'a>(&'a self, selection: &'a Selection, room: &'a str) -> DirectoryFuture<'a, ActionResult> {
        self.act(selection, ActionKind::Join(room.into()))
    }

    fn leave<'a>(&'a self, selection: &'a Selection, room: &'a str) -> DirectoryFuture<'a, ActionResult> {
        self.act(selection, ActionKind::Leave(room.into()))
    }

    fn disconnect<'a>(&'a self, selection: &'a Selection, transport: bool) -> DirectoryFuture<'a, ActionResult> {
        self.act(selection, ActionKind::Disconnect { transport })
    }

    fn ask<'a>(&'a self, question: AckQuestion) -> DirectoryFuture<'a, Acknowledged> {
        Box::pin(async move { Ok(self.ask_everywhere(question).await) })
    }
}

/// The rooms whose members are selected: the selected rooms, and the rooms that contain only one selected user or
/// socket. Empty if nothing is selected.
pub(super) fn rooms_of(selection: &Selection) -> Vec<RoomName> {
    let users = selection.users.iter().map(|id| user_room(id));
    let sockets = selection.sockets.iter().map(|id| socket_room(id));
    users.chain(sockets).chain(selection.rooms.iter().map(|room| room.as_str().into())).collect()
}

// === impl Act ===

impl ActionMessage {
    /// Applies the action to the selected clients of this node. Returns the number of these clients.
    fn apply_here(&self, actions: &ClusterActions) -> usize {
        // An empty selection means no client, but `recipients` would treat an empty list as every client.
        if self.rooms.is_empty() {
            return 0;
        }
        let sessions = actions.cluster.rooms.recipients(&self.namespace, &self.rooms, &[]);
        sessions.iter().for_each(|session| self.what.apply(actions, session));
        sessions.len()
    }
}

impl ActionKind {
    fn apply(&self, ClusterActions { cluster, publisher, .. }: &ClusterActions, session: &Arc<Session>) {
        match self {
            Self::Join(room) => drop(cluster.rooms.join(session, room)),
            Self::Leave(room) => publisher.take_out(&cluster.rooms, session, room),
            Self::Disconnect { transport: true } => session.close(Close::Transport),
            Self::Disconnect { transport: false } => session.close(Close::Namespace),
        }
    }
}
