//! Clients of this node that were asked something, and what they say to it.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;

use crate::directory::Acknowledgement;
use crate::event::Event;
use crate::session::Session;

/// At most so many clients of a node are asked at once.
pub(super) const MAX_CLIENTS: usize = 1000;

/// Clients that were asked and have not answered.
pub(super) struct Asked {
    waiting: FuturesUnordered<BoxFuture<'static, Option<Acknowledgement>>>,
}

impl Asked {
    /// Asks these, as far as they are not too many, and read.
    pub(super) fn of(sessions: &[Arc<Session>], event: &Event) -> Self {
        let ask = |session: &Arc<Session>| -> Option<BoxFuture<'static, _>> {
            let (reply, said) = oneshot::channel();
            session.ask(event, reply).ok()?;
            let socket_id = Some(session.id().to_owned());
            Some(Box::pin(async move { said.await.ok().map(|args| Acknowledgement { socket_id, args }) }))
        };
        Self { waiting: sessions.iter().take(MAX_CLIENTS).filter_map(ask).collect() }
    }

    /// How many have not answered.
    pub(super) fn count(&self) -> usize {
        self.waiting.len()
    }

    /// What the next one says. `None`: nobody is left who could.
    pub(super) async fn next(&mut self) -> Option<Acknowledgement> {
        loop {
            // Who is gone says nothing.
            if let Some(said) = self.waiting.next().await? {
                return Some(said);
            }
        }
    }
}
