//! A client recovers its earlier session.
//!
//! ```text
//! claim          before CONNECT: the session is taken, and the events that its client missed are read; if it is not
//!                proven that none is missing, the client gets a new session
//! begin_replay   from here on, live events of the session are held
//! join           live events of the session's rooms arrive, and are held
//! send           the events that the client missed
//! read, send     the events published between the claim and the join
//! end_replay     the held events that were not sent above follow, in order
//! ```

use std::sync::Arc;

use tokio::time::Instant;

use super::replay::{PATIENCE, RETRY};
use super::{Gateway, GatewayClient};
use crate::auth::Handshake;
use crate::contract::model::Namespace;
use crate::protocol::is_reserved_room;
use crate::recovery::{self, MissedEvent, Pid, RecoveredSession};
use crate::session::offsets::{ReceptionRun, SessionOffsets};
use crate::session::{Close, HeldRelease, SendError, Session};
use crate::user::User;

/// Whether a client recovers a session, or may do so later.
#[derive(Debug)]
pub(super) enum RecoveryChance {
    /// The client can never recover this session.
    None,
    /// The client has a new session, which it may recover after a disconnect.
    New(recovery::RecoveryTicket),
    /// The client has recovered its earlier session.
    Back(Box<RecoveredSession>),
}

/// Whether a client that disconnected for this reason may recover its session. As in Socket.IO's own server, a client
/// whose connection was lost may; a client that left or was disconnected may not.
pub(super) fn may_return(reason: &str) -> bool {
    const LOST: [&str; 5] =
        ["transport close", "transport error", "ping timeout", "server transport close", "server shutting down"];
    LOST.contains(&reason)
}

impl RecoveryChance {
    /// The id of the session that the client recovers, and the secret with which it can recover this session later.
    pub(super) fn pass(&self) -> (Option<String>, Option<Pid>) {
        match self {
            Self::None => (None, None),
            Self::New(ticket) => (None, Some(ticket.pid.clone())),
            Self::Back(returned) => (Some(returned.kept.id.clone()), Some(returned.ticket.pid.clone())),
        }
    }

    /// Stores the session that was taken again, because the client does not get it.
    pub(super) async fn give_back(self) {
        if let Self::Back(returned) = self {
            returned.claim.give_back().await;
        }
    }

    /// Creates the record of the events that the client has received in each room; `None` if the session cannot be
    /// recovered.
    pub(super) fn offsets(&self, hearing: &ReceptionRun) -> Option<Box<SessionOffsets>> {
        match self {
            Self::None => None,
            Self::New(ticket) => Some(SessionOffsets::new(ticket.key.clone(), 0, hearing.clone())),
            Self::Back(returned) => {
                let offsets =
                    SessionOffsets::new(returned.ticket.key.clone(), returned.kept.generation, hearing.clone());
                for cursor in &returned.cursors {
                    offsets.resume(&cursor.room, cursor.had.clone(), &cursor.unsure);
                }
                Some(offsets)
            }
        }
    }
}

impl Gateway {
    /// Looks up the session that a client wants to recover. The client's token was verified before, as in every
    /// handshake.
    pub(super) async fn ticket(&self, namespace: &Namespace, handshake: &Handshake, user: &User) -> RecoveryChance {
        let Some(policy) = namespace.recovery().filter(|_| handshake.recoverable) else { return RecoveryChance::None };
        let member = |name| handshake.auth.as_ref()?.get(name)?.as_str();
        if let Some(pid) = member("pid") {
            let secret = (pid, member("offset"));
            match Box::pin(self.parts.recovery.claim(&namespace.path, secret, user, policy.window)).await {
                Ok(returned) => return RecoveryChance::Back(Box::new(returned)),
                Err(failure) => tracing::debug!(namespace = %namespace.path, %failure, "a client was not recovered"),
            }
        }
        RecoveryChance::New(recovery::RecoveryTicket::new(&namespace.path))
    }

    /// Stores the session's rooms, so that a recovery finds them.
    pub(super) async fn settle_trail(&self, client: &GatewayClient) {
        self.parts.recovery.settle(&client.session).await;
    }

    /// Puts a session back into its rooms. From this call on, live events are held back.
    pub(super) fn restore(&self, client: &Arc<GatewayClient>, returned: &RecoveredSession) {
        let (rooms, session) = (&self.parts.rooms, &client.session);
        session.begin_replay();
        rooms.add(session);
        for (by, members) in returned.kept.metadata_by_setter() {
            rooms.merge_metadata(session, &members, by);
        }
        for cursor in returned.cursors.iter().filter(|cursor| !is_reserved_room(&cursor.room)) {
            rooms.join(session, &cursor.room);
        }
    }

    /// Sends a client the events that it missed, then the live events that were held back during the recovery.
    pub(super) async fn send_missed(&self, client: &Arc<GatewayClient>, mut returned: RecoveredSession) {
        let session = &client.session;
        let until = Instant::now() + PATIENCE;
        let ((), whole) =
            tokio::join!(self.parts.recovery.settle(session), self.catch_up(session, &mut returned, until));
        let shown = returned.cursors.iter().filter_map(|cursor| Some((cursor.room.clone(), cursor.replayed()?)));
        session.note_shown(returned.shown.newest());
        let mut release = session.end_replays(shown);
        while release == HeldRelease::Blocked && Instant::now() < until {
            tokio::time::sleep(RETRY).await;
            release = session.release_held();
        }
        let released = match release {
            HeldRelease::Done { lost } => lost == 0,
            HeldRelease::Blocked => session.drop_held() == 0,
            HeldRelease::Closed => true,
        };
        if !(whole && released) {
            // The client has the offset that it reached, so it can reconnect and try to recover its session once more.
            self.parts.recovery.note_failed(session.namespace());
            session.close(Close::Transport);
        }
    }

    async fn catch_up(&self, session: &Session, returned: &mut RecoveredSession, until: Instant) -> bool {
        if !self.send_events(session, &returned.missed, until).await {
            return false;
        }
        let recovery = &self.parts.recovery;
        let hearing = recovery.hearing()();
        // The node waits until it is subscribed to the rooms. Otherwise an event published now could be missing both in
        // the history that was read and among the live events.
        for cursor in &returned.cursors {
            if !self.rooms().settled(session.namespace(), &cursor.room).await {
                return false;
            }
        }
        match recovery.read_on(session.namespace(), &mut returned.cursors, &mut returned.shown).await {
            Ok(more) => {
                self.send_events(session, &more, until).await && hearing.is_some() && hearing == recovery.hearing()()
            }
            Err(_) => false,
        }
    }

    /// Sends missed events. Returns false when the client is too slow or gone.
    async fn send_events(&self, session: &Session, missed: &[MissedEvent], until: Instant) -> bool {
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
        self.parts.recovery.count_given(session.namespace(), given);
        true
    }
}
