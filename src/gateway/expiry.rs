//! Tokens that end: before their time (revoked), or at it.

use std::sync::Arc;

use serde_json::Value;

use super::{Gateway, spokesman};
use crate::auth::AuthError;
use crate::error::Refusal;
use crate::session::{Close, Session};

impl Gateway {
    /// Disconnects a session whose token was revoked: its namespace ends, so that the official client does not return by
    /// itself.
    pub fn end_revoked(&self, session: &Arc<Session>) {
        self.put_out(session, &AuthError::Revoked.into(), "revoked");
    }

    /// Tells a session why it may not stay, by the contract's error event, and disconnects it.
    pub(super) fn put_out(&self, session: &Session, refusal: &Refusal, reason: &str) {
        if let Some(namespace) = self.namespaces.get(session.namespace()) {
            self.send_error_event(session, spokesman(namespace), &Value::Null, refusal);
        }
        let labels = [session.namespace().as_ref(), reason];
        self.parts.metrics.sessions_ended_total.with_label_values(&labels).inc();
        session.close(Close::Namespace);
    }
}
