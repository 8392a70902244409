//! Joins, leaves and disconnects by user, socket or room, on every node.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Cluster, Leaver};
use crate::directory::{AckQuestion, Acknowledged, ActionResult, Actions, DirectoryFuture, Selection};
use crate::protocol::{socket_room, user_room};
use crate::session::{Close, RoomName, Session};

const TOPIC: &str = "act";

/// An action as the other nodes receive it.
#[derive(Debug, Serialize, Deserialize)]
struct ActionMessage {
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

impl Cluster {
    /// Lets this node execute the actions, and answer the questions, that other nodes send. To be called once, before
    /// clients connect.
    pub fn obey(self: &Arc<Self>) {
        self.answer_questions();
        let cluster = Arc::downgrade(self);
        self.on(TOPIC, move |node, data| match (serde_json::from_value::<ActionMessage>(data), cluster.upgrade()) {
            (Ok(act), Some(cluster)) => {
                act.apply_here(&cluster);
            }
            (Ok(_), None) => {}
            (Err(error), _) => tracing::debug!(node, %error, "ignored an action of another node"),
        });
    }

    /// Sets the function that removes a session from a room and announces the leave. Without this function, the session
    /// is only removed from the index of rooms, and the leave is not announced. To be called once, before clients
    /// connect.
    pub fn leave_by(&self, leave: impl Fn(&Arc<Session>, &RoomName) + Send + Sync + 'static) {
        let leave: Leaver = Arc::new(leave);
        if let Some(wire) = self.wire() {
            wire.leave_by(leave.clone());
        }
        let _ = self.leaver.set(leave);
    }

    fn act<'a>(&'a self, selection: &Selection, what: ActionKind) -> DirectoryFuture<'a, ActionResult> {
        let act = ActionMessage { namespace: selection.namespace.as_str().into(), rooms: rooms_of(selection), what };
        Box::pin(async move {
            let local = act.apply_here(self);
            if let ActionKind::Join(room) = &act.what {
                self.rooms.settled(&act.namespace, room).await;
            }
            let remote = self.tell(TOPIC, &act).await;
            Ok(ActionResult { local, remote })
        })
    }
}

impl Actions for Cluster {
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
    fn apply_here(&self, cluster: &Cluster) -> usize {
        // An empty selection means no client, but `recipients` would treat an empty list as every client.
        if self.rooms.is_empty() {
            return 0;
        }
        let sessions = cluster.rooms.recipients(&self.namespace, &self.rooms, &[]);
        sessions.iter().for_each(|session| self.what.apply(cluster, session));
        sessions.len()
    }
}

impl ActionKind {
    fn apply(&self, cluster: &Cluster, session: &Arc<Session>) {
        match self {
            Self::Join(room) => {
                cluster.rooms.join(session, room);
            }
            Self::Leave(room) => match cluster.leaver.get() {
                Some(leave) => leave(session, room),
                None => {
                    cluster.rooms.leave(session, room);
                }
            },
            Self::Disconnect { transport: true } => session.close(Close::Transport),
            Self::Disconnect { transport: false } => session.close(Close::Namespace),
        }
    }
}
