//! A client comes back to its session.
//!
//! ```text
//! claim          before CONNECT: the session is taken, and everything that it missed is read; if that is not proven
//!                whole, the client gets a new session
//! begin_replay   every live event of the session waits from here on
//! join           live events of its rooms come in, and wait
//! send           what it missed
//! read, send     what was published between the claim and the join
//! end_replay     what waited and was not shown follows, in order
//! ```

use std::sync::Arc;

use tokio::time::Instant;

use super::replay::{PATIENCE, RETRY};
use super::{Client, Gateway};
use crate::auth::Handshake;
use crate::contract::model::Namespace;
use crate::recovery::{self, Missed, Pid, Returned};
use crate::room::RESERVED_PREFIX;
use crate::session::trail::{Hearing, Trail};
use crate::session::{Close, Release, SendError, Session};
use crate::user::User;

/// How a client may come back, and whether it has.
#[derive(Debug)]
pub(super) enum Ticket {
    /// It cannot.
    None,
    /// It may.
    New(recovery::Ticket),
    /// It has.
    Back(Box<Returned>),
}

/// As Socket.IO's own server: clients that were lost come back to their session, those that went or were sent away do not.
pub(super) fn may_return(reason: &str) -> bool {
    const LOST: [&str; 5] =
        ["transport close", "transport error", "ping timeout", "server transport close", "server shutting down"];
    LOST.contains(&reason)
}

impl Ticket {
    /// The id of the session that the client gets back, and the secret that it can come back with.
    pub(super) fn pass(&self) -> (Option<String>, Option<Pid>) {
        match self {
            Self::None => (None, None),
            Self::New(ticket) => (None, Some(ticket.pid.clone())),
            Self::Back(returned) => (Some(returned.kept.id.clone()), Some(returned.ticket.pid.clone())),
        }
    }

    /// What the session will have had of its rooms.
    pub(super) fn trail(&self, hearing: &Hearing) -> Option<Box<Trail>> {
        match self {
            Self::None => None,
            Self::New(ticket) => Some(Trail::new(ticket.key.clone(), 0, hearing.clone())),
            Self::Back(returned) => {
                let trail = Trail::new(returned.ticket.key.clone(), returned.kept.generation, hearing.clone());
                for cursor in &returned.cursors {
                    trail.resume(&cursor.room, cursor.had.clone());
                }
                Some(trail)
            }
        }
    }
}

impl Gateway {
    /// Looks for the session that a client names, after it was authenticated anew.
    pub(super) async fn ticket(&self, namespace: &Namespace, handshake: &Handshake, user: &User) -> Ticket {
        if !handshake.recoverable || namespace.recovery().is_none() {
            return Ticket::None;
        }
        let member = |name| handshake.auth.as_ref()?.get(name)?.as_str();
        if let Some(pid) = member("pid") {
            match Box::pin(self.parts.recovery.claim(&namespace.path, pid, member("offset"), user)).await {
                Ok(returned) => return Ticket::Back(Box::new(returned)),
                Err(failure) => tracing::debug!(namespace = %namespace.path, %failure, "a client was not recovered"),
            }
        }
        Ticket::New(recovery::Ticket::new(&namespace.path))
    }

    /// Keeps a session's rooms where a return finds them.
    pub(super) async fn settle_trail(&self, client: &Client) {
        self.parts.recovery.settle(&client.session).await;
    }

    /// Puts a session back into its rooms. Live events wait from here on.
    pub(super) fn restore(&self, client: &Arc<Client>, returned: &Returned) {
        let (rooms, session) = (&self.parts.rooms, &client.session);
        session.begin_replay();
        rooms.add(session);
        rooms.merge_metadata(session, &returned.kept.metadata);
        for cursor in returned.cursors.iter().filter(|cursor| !cursor.room.starts_with(RESERVED_PREFIX)) {
            rooms.join(session, &cursor.room);
        }
    }

    /// Gives a client what it has missed, and then what has waited meanwhile.
    pub(super) async fn bring_back(&self, client: &Arc<Client>, mut returned: Returned) {
        let session = &client.session;
        let until = Instant::now() + PATIENCE;
        let ((), whole) =
            tokio::join!(self.parts.recovery.settle(session), self.catch_up(session, &mut returned, until));
        let shown = returned.cursors.iter().filter_map(|cursor| Some((cursor.room.clone(), cursor.replayed()?)));
        let mut release = session.end_replays(shown);
        while release == Release::Blocked && Instant::now() < until {
            tokio::time::sleep(RETRY).await;
            release = session.release_held();
        }
        let released = match release {
            Release::Done { lost } => lost == 0,
            Release::Blocked => session.drop_held() == 0,
            Release::Closed => true,
        };
        if !(whole && released) {
            // It knows how far it is, and comes back once more.
            self.parts.recovery.note_failed(session.namespace());
            session.close(Close::Transport);
        }
    }

    async fn catch_up(&self, session: &Session, returned: &mut Returned, until: Instant) -> bool {
        if !self.give(session, &returned.missed, until).await {
            return false;
        }
        let recovery = &self.parts.recovery;
        let hearing = recovery.hearing()();
        // What is appended from here on arrives live, or the client would have a gap between what it is shown and what follows.
        for cursor in &returned.cursors {
            if !self.rooms().settled(session.namespace(), &cursor.room).await {
                return false;
            }
        }
        match recovery.read_on(session.namespace(), &mut returned.cursors, &mut returned.shown).await {
            Ok(more) => self.give(session, &more, until).await && hearing.is_some() && hearing == recovery.hearing()(),
            Err(_) => false,
        }
    }

    /// False when the client is too slow, or gone.
    async fn give(&self, session: &Session, missed: &[Missed], until: Instant) -> bool {
        let mut given = 0;
        for event in missed {
            if !event.wanted {
                session.pass_over(&event.stamps);
                continue;
            }
            loop {
                match session.send_placed(&event.event, &event.stamps) {
                    Ok(()) => break,
                    Err(SendError::Full) if Instant::now() < until => tokio::time::sleep(RETRY).await,
                    Err(_) => return false,
                }
            }
            given += 1;
        }
        self.parts.recovery.note_given(session.namespace(), given);
        true
    }
}
