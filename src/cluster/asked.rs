//! Asks clients of this node to acknowledge an event, and collects their answers.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;

use crate::directory::Acknowledgement;
use crate::event::Event;
use crate::session::Session;

/// Maximum number of clients that a node asks for one question.
pub(super) const MAX_CLIENTS: usize = 1000;

/// Clients that were asked and have not answered yet.
pub(super) struct AskedClients {
    waiting: FuturesUnordered<BoxFuture<'static, Option<Acknowledgement>>>,
}

impl AskedClients {
    /// Asks at most [`MAX_CLIENTS`] of the sessions. A session that cannot receive an event now is left out.
    pub(super) fn of(sessions: &[Arc<Session>], event: &Event) -> Self {
        let ask = |session: &Arc<Session>| -> Option<BoxFuture<'static, _>> {
            let (reply, said) = oneshot::channel();
            session.ask(event, reply).ok()?;
            let socket_id = Some(session.id().to_owned());
            Some(Box::pin(async move { said.await.ok().map(|args| Acknowledgement { socket_id, args }) }))
        };
        Self { waiting: sessions.iter().take(MAX_CLIENTS).filter_map(ask).collect() }
    }

    /// How many of the asked clients have not answered yet.
    pub(super) fn count(&self) -> usize {
        self.waiting.len()
    }

    /// Waits for the next answer. Returns `None` when every client has answered or disconnected.
    pub(super) async fn next(&mut self) -> Option<Acknowledgement> {
        loop {
            // A client that disconnects gives no answer.
            if let Some(said) = self.waiting.next().await? {
                return Some(said);
            }
        }
    }
}
