//! The context of one event: who sent it, what the contract says of it, and the scope of its rules.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::Value;

use super::GatewayClient;
use super::handlers::{EventHandler, HandlerCounters};
use crate::contract::model::{ClientEvent, Contract, RoomDef};
use crate::contract::scope::{Scope, SocketScope};
use crate::event::Event;
use crate::session::{AckId, RoomName, Session};
use crate::telemetry::audit::AuditRecord;
use crate::user::User;

/// The context of one event: the client, the contract, the handler, and the acknowledgement that the client asked for.
pub(super) struct EventContext<'a> {
    pub(super) client: &'a Arc<GatewayClient>,
    pub(super) contract: &'a Arc<Contract>,
    pub(super) def: &'a Arc<ClientEvent>,
    pub(super) counters: &'a HandlerCounters,
    pub(super) event: &'a Event,
    pub(super) ack: Option<AckId>,
    pub(super) received_at: Instant,
}

impl<'a> EventContext<'a> {
    pub(super) fn new(
        client: &'a Arc<GatewayClient>,
        handler: &'a EventHandler,
        event: &'a Event,
        ack: Option<AckId>,
        received_at: Instant,
    ) -> Self {
        let EventHandler { contract, def, counters } = handler;
        Self { client, contract, def, counters, event, ack, received_at }
    }

    /// The scope in which the event's rules and templates are evaluated.
    pub(super) fn scope(&self, user: &'a User, payload: &'a Value) -> Scope<'a> {
        Scope { event_name: Some(self.event.name()), ..scope_of(self.client, user, payload) }
    }
}

/// A room that an event is about.
#[derive(Clone)]
pub(super) struct EventRoom {
    pub(super) def: Arc<RoomDef>,
    pub(super) name: RoomName,
    pub(super) vars: Vec<(String, String)>,
}

/// The scope in which rules and templates are evaluated for a client.
pub(super) fn scope_of<'a>(client: &'a GatewayClient, user: &'a User, payload: &'a Value) -> Scope<'a> {
    scope_of_session(&client.session, user, payload)
}

/// Returns the same scope as [`scope_of`], for a session.
pub(super) fn scope_of_session<'a>(session: &'a Session, user: &'a User, payload: &'a Value) -> Scope<'a> {
    let mut scope = Scope::new(user, payload, SystemTime::now());
    scope.socket = Some(SocketScope { id: session.id(), connected_at: session.connected_at(), state: Some(session) });
    scope
}

/// Returns a copy of the scope that also has a room and the variables of its name.
pub(super) fn with_room<'a>(scope: &Scope<'a>, room: &'a str, vars: &'a [(String, String)]) -> Scope<'a> {
    Scope { room: Some(room), vars, ..scope.clone() }
}

/// Returns the audit record of a session.
pub(super) fn audit_record<'a>(session: &'a Session, user: &'a User) -> AuditRecord<'a> {
    AuditRecord {
        nsp: Some(session.namespace()),
        user: (!user.anonymous).then_some(&*user.id),
        socket: Some(session.id()),
        ip: Some(session.peer().ip),
        ..AuditRecord::default()
    }
}
