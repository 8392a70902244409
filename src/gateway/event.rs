//! Handles one event of a client, from finding its handler to answering it.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use serde_json::value::RawValue;

use super::context::{EventContext, audit_record, scope_of};
use super::queue::RefusedEvent;
use super::{Gateway, GatewayClient, RequestedAck, error_contract};
use crate::contract::digits::is_exact;
use crate::contract::model::{ClientEvent, UnknownEvent};
use crate::error::{Code, Refusal};
use crate::event::Event;
use crate::session::{AckId, Close};
use crate::telemetry::audit::{self, AuditEvent, AuditRecord};

/// Maximum length of an unknown event's name that an answer repeats, in bytes.
const SHOWN_NAME_BYTES: usize = 64;

impl Gateway {
    pub(super) async fn handle(
        &self,
        client: &Arc<GatewayClient>,
        event: &Event,
        ack: Option<AckId>,
        received_at: Instant,
    ) {
        if !client.admitted {
            return;
        }
        if client.namespace.auth().expiry.refresh.as_deref() == Some(event.name()) {
            return Box::pin(self.refresh(client, event, ack.map(|id| (id, received_at)))).await;
        }
        let Some(handler) = client.handlers.get(event.name()) else {
            return self.unknown(client, event, ack.map(|id| (id, received_at)));
        };
        self.take(&EventContext::new(client, handler, event, ack, received_at)).await;
        handler.counters.seconds.observe(received_at.elapsed().as_secs_f64());
    }

    async fn take(&self, context: &EventContext<'_>) {
        let &EventContext { client, def, event, .. } = context;
        let user = client.session.user();
        let (payload, text) = match read_payload(def, event) {
            Ok(read) => read,
            Err(refusal) => {
                return Box::pin(self.fail(context, &context.scope(&user, &Value::Null), &refusal)).await;
            }
        };
        let mut scope = context.scope(&user, &payload);
        scope.text = text.as_deref();
        scope.capabilities = Some(&*self.parts.auth);
        match self.check(context, &scope).await {
            Ok(plan) => {
                let done = self.perform(context, &scope, plan).await;
                self.succeed(context, &scope, &done);
            }
            Err(refusal) => Box::pin(self.fail(context, &scope, &refusal)).await,
        }
    }

    /// Answers an event that [`Gateway::permit`] refused, like an event that failed.
    pub(super) async fn refuse(&self, client: &Arc<GatewayClient>, refused: &RefusedEvent) {
        let RefusedEvent { event, ack, received_at, refusal } = refused;
        if !client.admitted {
            return;
        }
        let Some(handler) = client.handlers.get(event.name()) else {
            let refresh = client.namespace.auth().expiry.refresh.as_deref() == Some(event.name());
            if !refresh && client.ignores_unknown() {
                self.count_received("unknown", "unknown", "ignored");
                return;
            }
            return self.refuse_now(client, event, ack.map(|id| (id, *received_at)), refusal);
        };
        let context = EventContext::new(client, handler, event, *ack, *received_at);
        let user = client.session.user();
        self.fail(&context, &context.scope(&user, &Value::Null), refusal).await;
    }

    fn unknown(&self, client: &Arc<GatewayClient>, event: &Event, ack: Option<(AckId, Instant)>) {
        if client.ignores_unknown() {
            self.count_received("unknown", "unknown", "ignored");
            return;
        }
        let name: String = event.name().chars().take(SHOWN_NAME_BYTES).collect();
        let text = format!("no contract of this namespace knows the event {name:?}");
        self.refuse_now(client, event, ack, &Refusal::new(Code::UnknownEvent, text));
    }

    /// Answers a refused event at once, without waiting for the client's earlier events: in the acknowledgement, or by
    /// the contract's error event.
    pub(super) fn refuse_now(
        &self,
        client: &Arc<GatewayClient>,
        event: &Event,
        ack: Option<(AckId, Instant)>,
        refusal: &Refusal,
    ) {
        let user = client.session.user();
        let scope = scope_of(client, &user, &Value::Null);
        let known = client.handlers.get(event.name());
        let contract = known.map_or_else(|| error_contract(&client.namespace), |handler| &handler.contract);
        let labels = known.map_or(("unknown", "unknown"), |handler| (&handler.contract.name, &handler.def.name));
        self.count_received(labels.0, labels.1, refusal.code.as_str());
        match ack {
            Some((id, received_at)) => {
                let of = RequestedAck {
                    id,
                    received_at,
                    contract: labels.0,
                    event: labels.1,
                    result: "error",
                    counters: None,
                };
                self.ack_error(client, contract, of, &scope, refusal);
            }
            None => self.send_error_event(&client.session, contract, &Value::Null, refusal),
        }
    }

    pub(super) fn count_received(&self, contract: &str, event: &str, result: &str) {
        self.parts.metrics.events_received_total.with_label_values(&[contract, event, result]).inc();
    }
}

impl GatewayClient {
    /// Whether some contract of the namespace ignores events that no contract knows.
    fn ignores_unknown(&self) -> bool {
        self.namespace.contracts.iter().any(|contract| contract.unknown == UnknownEvent::Ignore)
    }
}

/// Counts the event against the client's rate limits before its payload is parsed. Disconnects a client that keeps
/// exceeding the limit, so that it reconnects later.
pub(super) fn check_rate(client: &GatewayClient, def: Option<&Arc<ClientEvent>>) -> Result<(), Refusal> {
    client.limits.check(def).map_err(|limited| {
        let user = client.session.user();
        let reason = Some(if limited.disconnect { "disconnected" } else { Code::RateLimitExceeded.as_str() });
        let name = def.map(|def| def.name.as_str());
        audit::record(AuditEvent::LimitHit, AuditRecord { name, reason, ..audit_record(&client.session, &user) });
        if limited.disconnect {
            client.session.close(Close::Transport);
        }
        limited.refusal
    })
}

/// Decodes the payload if the contract reads it; else returns `Null` and does not parse the bytes. The second value is
/// the payload's text if the decoded payload lacks digits of a number.
fn read_payload(def: &ClientEvent, event: &Event) -> Result<(Value, Option<Box<RawValue>>), Refusal> {
    if !def.reads_payload {
        return Ok((Value::Null, None));
    }
    let args = event.args().map_err(|error| Refusal::new(Code::InvalidPayload, error.to_string()))?;
    let payload = def.payload.payload(&args)?;
    let text = if is_exact(&payload) { None } else { def.payload.raw(&args, &payload) };
    Ok((payload, text))
}
