//! Ends the sessions whose token is revoked or has expired, unless the client has sent a newer token before.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::context::{EventRoom, audit_record, scope_of};
use super::deadlines::TokenAction;
use super::{Gateway, GatewayClient, RequestedAck, error_contract};
use crate::auth::AuthError;
use crate::contract::model::AtExpiry;
use crate::error::{Code, Refusal};
use crate::event::{Args, Event};
use crate::protocol::is_reserved_room;
use crate::session::{AckId, Close, RoomName, Session};
use crate::telemetry::audit::{self, AuditEvent, AuditRecord};
use crate::time::{iso8601, unix_millis};
use crate::user::User;

/// How often the node looks for tokens that have ended.
const TICK: Duration = Duration::from_millis(250);

/// Maximum number of clients that one tick warns or disconnects. After that the task yields, so that other tasks can
/// run.
const SLICE: usize = 128;

impl Gateway {
    /// Starts the task that warns and disconnects clients whose tokens end. Must be called in a Tokio runtime.
    pub fn keep_time(self: &Arc<Self>) {
        let gateway = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                let Some(gateway) = gateway.upgrade() else { return };
                while gateway.tick(SystemTime::now()) {
                    tokio::task::yield_now().await;
                }
            }
        });
    }

    /// Warns and disconnects the clients that are due at `now`. Returns true when more clients are due.
    pub(super) fn tick(&self, now: SystemTime) -> bool {
        let due = self.clock.take(unix_millis(now), SLICE);
        for (client, what) in &due {
            match what {
                TokenAction::Warning => self.warn(client, now),
                TokenAction::End => {
                    let close = match client.namespace.auth().expiry.then {
                        AtExpiry::Disconnect => Close::Namespace,
                        AtExpiry::Reconnect => Close::Transport,
                    };
                    self.refuse_and_close(&client.session, &AuthError::TokenExpired.into(), "expired", close);
                }
            }
        }
        due.len() == SLICE
    }

    /// Schedules the warning, or the end, of a client's token.
    pub(super) fn watch_end(&self, client: &Arc<GatewayClient>) {
        let user = client.session.user();
        let Some((warning, end)) = self.times(client, &user) else { return };
        match warning {
            Some(at) => self.clock.add(at, TokenAction::Warning, client),
            None => self.clock.add(end, TokenAction::End, client),
        }
        // The client may have disconnected before the entry was added. Nothing else would remove the entry then.
        if client.session.is_closed() {
            self.forget_end(client, &user);
        }
    }

    /// Removes the schedule of a client's token.
    pub(super) fn forget_end(&self, client: &Arc<GatewayClient>, user: &User) {
        let Some((warning, end)) = self.times(client, user) else { return };
        self.clock.remove(end, client);
        if let Some(at) = warning {
            self.clock.remove(at, client);
        }
    }

    /// Returns when the client is warned (if the contract asks for a warning) and when its token ends, both as Unix
    /// time in milliseconds.
    fn times(&self, client: &GatewayClient, user: &User) -> Option<(Option<u64>, u64)> {
        let end = unix_millis(self.parts.auth.ends_at(user)?);
        let warning = client.namespace.auth().expiry.warn.as_ref().map(|(before, _)| {
            let at = user.expires_at.and_then(|at| at.checked_sub(*before)).map_or(0, unix_millis);
            // The warning is at least 1 ms before the end, because a client can have only one entry for each
            // millisecond.
            at.min(end.saturating_sub(1))
        });
        Some((warning, end))
    }

    fn warn(&self, client: &Arc<GatewayClient>, now: SystemTime) {
        let user = client.session.user();
        let Some((_, end)) = self.times(client, &user) else { return };
        self.clock.add(end, TokenAction::End, client);
        if let (Some((_, name)), Some(at)) = (&client.namespace.auth().expiry.warn, user.expires_at) {
            let left = at.duration_since(now).unwrap_or_default();
            let data = json!({ "expiresAt": iso8601(at), "expiresIn": left.as_secs() });
            if let Ok(event) = Event::encode(name, &[data]) {
                self.send(&client.session, &event);
            }
        }
        if client.session.is_closed() {
            self.forget_end(client, &user);
        }
    }

    /// Disconnects a session whose token was revoked. Only its namespace is closed, so that the official client does
    /// not reconnect by itself.
    pub fn end_revoked(&self, session: &Arc<Session>) {
        self.refuse_and_close(session, &AuthError::Revoked.into(), "revoked", Close::Namespace);
    }

    /// Sends the session the contract's error event with this refusal, then disconnects it.
    pub(super) fn refuse_and_close(&self, session: &Session, refusal: &Refusal, reason: &'static str, close: Close) {
        if let Some((namespace, _)) = self.namespaces.get(session.namespace()) {
            self.send_error_event(session, error_contract(namespace), &Value::Null, refusal);
        }
        let labels = [session.namespace().as_ref(), reason];
        self.parts.metrics.sessions_ended_total.with_label_values(&labels).inc();
        audit::record(
            AuditEvent::SessionEnded,
            AuditRecord { reason: Some(reason), ..audit_record(session, &session.user()) },
        );
        session.close(close);
    }

    /// Handles a client's refresh event: replaces the session's token by a newer one of the same user.
    pub(super) async fn refresh(&self, client: &Arc<GatewayClient>, event: &Event, ack: Option<(AckId, Instant)>) {
        let contract = error_contract(&client.namespace).clone();
        let outcome = self.try_refresh(client, event).await;
        let (result, reason) = match &outcome {
            Ok(_) => ("ok", None),
            Err(refusal) => (refusal.code.as_str(), Some(refusal.code.as_str())),
        };
        self.parts.metrics.refreshes_total.with_label_values(&[result]).inc();
        self.count_received(&contract.name, event.name(), result);
        let kind = if reason.is_some() { AuditEvent::RefreshRefused } else { AuditEvent::TokenRefreshed };
        audit::record(kind, AuditRecord { reason, ..audit_record(&client.session, &client.session.user()) });
        let name = event.name();
        let asked = |(id, received_at), result| RequestedAck {
            id,
            received_at,
            contract: &contract.name,
            event: name,
            result,
            counters: None,
        };
        match (outcome, ack) {
            (Ok(done), Some(of)) => {
                if let Ok(args) = Args::encode(&[done]) {
                    self.ack(client, asked(of, "ok"), &args);
                }
            }
            (Ok(_), None) => {}
            (Err(refusal), Some(of)) => {
                let user = client.session.user();
                self.ack_error(client, &contract, asked(of, "error"), &scope_of(client, &user, &Value::Null), &refusal);
            }
            (Err(refusal), None) => self.send_error_event(&client.session, &contract, &Value::Null, &refusal),
        }
    }

    async fn try_refresh(&self, client: &Arc<GatewayClient>, event: &Event) -> Result<Value, Refusal> {
        let token = token_of(event)
            .ok_or_else(|| Refusal::new(Code::InvalidPayload, "send the token as a string, or as { token }"))?;
        let user = self.parts.auth.user_or_refresh(&token, client.namespace.auth()).await?;
        let before = client.session.user();
        if before.anonymous || user.anonymous || user.id != before.id {
            let text = "the token belongs to another user; reconnect to use it";
            return Err(Refusal::new(Code::AuthorizationFailed, text));
        }
        let user = Arc::new(user);
        self.forget_end(client, &before);
        client.session.set_user(user.clone());
        self.watch_end(client);
        // The token may have been revoked after it was verified and before the session stored it.
        if self.parts.auth.is_revoked(&user) {
            self.end_revoked(&client.session);
            return Err(AuthError::Revoked.into());
        }
        let left = self.leave_closed_rooms(client, &before, &user).await;
        let mut done = json!({ "success": true });
        if let Some(at) = user.expires_at {
            done["expiresAt"] = iso8601(at).into();
        }
        if !left.is_empty() {
            done["left"] = left.iter().map(|room| Value::from(&**room)).collect();
        }
        Ok(done)
    }

    /// Leaves the rooms whose join rule was true for the old token and is false for the new one. Rooms that the client
    /// is in for another reason (a backend put it there, or a capability in a payload) are kept.
    async fn leave_closed_rooms(&self, client: &Arc<GatewayClient>, before: &User, now: &User) -> Vec<RoomName> {
        let mut left = Vec::new();
        for name in client.session.rooms() {
            if is_reserved_room(&name) {
                continue;
            }
            let Some((def, vars)) = client.namespace.room_of(&name) else { continue };
            let Some(rule) = &def.join else { continue };
            let place = EventRoom { def: def.clone(), name: name.clone(), vars };
            let held = self.ask(client, rule, &place, &scope_of(client, before, &Value::Null)).await;
            let holds = self.ask(client, rule, &place, &scope_of(client, now, &Value::Null)).await;
            if matches!((held, holds), (Ok(true), Ok(false))) {
                self.take_out(&client.session, &name);
                audit::record(
                    AuditEvent::RoomLost,
                    AuditRecord { room: Some(&name), ..audit_record(&client.session, now) },
                );
                left.push(name);
            }
        }
        left
    }
}

/// Returns the token in a refresh event: the first argument, or the member of it that carries the token.
fn token_of(event: &Event) -> Option<String> {
    let args = event.args().ok()?;
    match crate::json::read(args.first()?.get()).ok()? {
        Value::String(token) => Some(token),
        Value::Object(mut members) => match members.remove("token")? {
            Value::String(token) => Some(token),
            _ => None,
        },
        _ => None,
    }
}
