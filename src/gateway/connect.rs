//! Connecting and disconnecting clients.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use super::call::{caller, tuned};
use super::context::scope_of;
use super::handlers::Handlers;
use super::queue::QueueItem;
use super::recover::{RecoveryChance, may_return};
use super::{Gateway, GatewayClient, error_contract};
use crate::auth::Handshake;
use crate::contract::model::{Contract, Namespace, RejectPolicy, Reply};
use crate::error::{Code, Refusal};
use crate::hooks::{Caller, HookAnswer, HookRequest};
use crate::limits::SessionLimits;
use crate::recovery::Pid;
use crate::session::{ClientFacts, Close, Link, Session};
use crate::telemetry::audit::{self, AuditEvent, AuditRecord};
use crate::user::User;

/// The answer to a handshake.
pub struct ConnectDecision {
    namespace: Arc<Namespace>,
    handlers: Arc<Handlers>,
    user: Arc<User>,
    /// The session's event rate limits. While this value exists, the socket counts among those of its user.
    limits: SessionLimits,
    /// The answers of the connect hooks, which are performed once the session is open.
    answers: Vec<(Arc<Contract>, HookAnswer)>,
    /// The reason for which the client is refused, if the client is let in only to get an event with this reason.
    rejected: Option<(Arc<Contract>, Refusal)>,
    /// Whether the client recovers an earlier session, or may recover this one later.
    ticket: RecoveryChance,
    /// The parts of the handshake that the contracts use.
    kept: Option<Arc<Value>>,
}

impl ConnectDecision {
    /// Whether the client is let in only to get the contract's error event, and is then disconnected.
    pub fn is_rejection(&self) -> bool {
        self.rejected.is_some()
    }

    /// The id of the session that the client recovers, and the secret with which it can recover this session later.
    pub fn pass(&self) -> (Option<String>, Option<Pid>) {
        self.ticket.pass()
    }
}

/// A client that passed all checks of the handshake.
struct CheckedClient {
    user: Arc<User>,
    limits: SessionLimits,
    answers: Vec<(Arc<Contract>, HookAnswer)>,
    ticket: RecoveryChance,
    kept: Option<Arc<Value>>,
}

impl Gateway {
    /// Decides whether a client may connect, before CONNECT is acknowledged.
    ///
    /// If the contract says `auth.reject = "event"`, a rejected client is let in and gets the reason as an event.
    ///
    /// # Errors
    /// Returns the refusal that the client gets as CONNECT_ERROR. Its message begins with the code.
    pub async fn admit(
        &self,
        namespace: &str,
        id: &str,
        handshake: &Handshake,
        peer: &ClientFacts,
    ) -> Result<ConnectDecision, Refusal> {
        let found = self.namespaces.get(namespace).cloned();
        let (namespace, handlers) = found.ok_or_else(|| Refusal::new(Code::NotFound, "no such namespace"))?;
        match self.check_client(&namespace, id, handshake, peer).await {
            Ok(CheckedClient { user, limits, answers, ticket, kept }) => {
                Ok(ConnectDecision { namespace, handlers, user, limits, answers, rejected: None, ticket, kept })
            }
            Err(refusal) => {
                let code = refusal.code.as_str();
                tracing::debug!(socket.id = id, nsp = %namespace.path, code, "a client was refused");
                let labels = [namespace.path.as_ref(), code];
                self.parts.metrics.connections_refused_total.with_label_values(&labels).inc();
                if refusal.code != Code::AuthenticationFailed {
                    let reason = Some(refusal.code.as_str());
                    let about =
                        AuditRecord { nsp: Some(&namespace.path), ip: Some(peer.ip), reason, ..AuditRecord::default() };
                    let limited = refusal.code == Code::RateLimitExceeded;
                    audit::record(if limited { AuditEvent::LimitHit } else { AuditEvent::ConnectRefused }, about);
                }
                let contract = error_contract(&namespace).clone();
                match namespace.auth().reject {
                    RejectPolicy::ConnectError => {
                        let shown = contract.errors.shown(&refusal);
                        let (code, message) = (shown.code.to_owned(), shown.message.to_owned());
                        Err(refusal.shown_as(code, message))
                    }
                    RejectPolicy::Event => {
                        let user = User::nobody();
                        let limits = self.parts.limits.session(&user.id)?;
                        let (answers, rejected) = (Vec::new(), Some((contract, refusal)));
                        Ok(ConnectDecision {
                            namespace,
                            handlers,
                            user,
                            limits,
                            answers,
                            rejected,
                            ticket: RecoveryChance::None,
                            kept: None,
                        })
                    }
                }
            }
        }
    }

    /// Checks the connection rate, the token, the number of the user's sockets and the contracts' connect hooks. The
    /// cheapest check comes first.
    async fn check_client(
        &self,
        namespace: &Namespace,
        id: &str,
        handshake: &Handshake,
        peer: &ClientFacts,
    ) -> Result<CheckedClient, Refusal> {
        self.parts.limits.check_connection(&namespace.path, peer.ip)?;
        let user = self.parts.auth.authenticate_or_refresh(namespace.auth(), handshake).await.inspect_err(|error| {
            let reason = Some(error.reason());
            let about = AuditRecord { nsp: Some(&namespace.path), ip: Some(peer.ip), reason, ..AuditRecord::default() };
            audit::record(AuditEvent::TokenRejected, about);
        })?;
        let user = if user.anonymous { User::nobody() } else { Arc::new(user) };
        let mut parts = namespace.handshake().peekable();
        let kept = if parts.peek().is_some() { Some(Arc::new(handshake.named(parts)?)) } else { None };
        let limits = self.parts.limits.session(&user.id)?;
        let ticket = self.ticket(namespace, handshake, &user).await;
        let back = ticket.pass().0;
        let mut answers = Vec::new();
        for contract in &namespace.contracts {
            let Some(call) = &contract.connect.call else { continue };
            let caller = Caller {
                contract: contract.name.clone(),
                namespace: namespace.path.clone(),
                user: user.clone(),
                socket_id: back.as_deref().unwrap_or(id).to_owned(),
                ip: peer.ip,
                connected_at: SystemTime::now(),
                rooms: Vec::new(),
                metadata: serde_json::Map::new(),
            };
            // The future is boxed, because only some clients have a connect hook: inline, it would enlarge the future
            // of every handshake.
            match Box::pin(self.parts.hooks.call(&call.hook, tuned(HookRequest::connect(caller), call))).await {
                Ok(answer) => answers.push((contract.clone(), answer)),
                Err(refusal) => {
                    // The client may be let in at its next attempt, and can then recover its session.
                    Box::pin(ticket.give_back()).await;
                    return Err(refusal.into());
                }
            }
        }
        Ok(CheckedClient { user, limits, answers, ticket, kept })
    }

    /// Creates the session of an admitted client, sends its greeting, and joins the rooms that the contracts name.
    ///
    /// Called after CONNECT was acknowledged and before the client's first event is dispatched.
    pub fn open(
        self: &Arc<Self>,
        admission: ConnectDecision,
        id: &str,
        peer: ClientFacts,
        link: Box<dyn Link>,
    ) -> Arc<GatewayClient> {
        let ConnectDecision { namespace, handlers, user, limits, mut answers, rejected, mut ticket, kept } = admission;
        let peer = ClientFacts { handshake: kept, ..peer };
        let transport = peer.transport;
        let session = Session::with_trail(
            id,
            namespace.path.clone(),
            user,
            peer,
            link,
            ticket.offsets(self.parts.recovery.hearing()),
        );
        let admitted = rejected.is_none();
        let client = Arc::new(GatewayClient { session, namespace, handlers, queue: Arc::default(), limits, admitted });
        if let Some((contract, refusal)) = rejected {
            self.send_error_event(&client.session, &contract, &Value::Null, &refusal);
            client.session.close(Close::Namespace);
            return client;
        }
        let path = client.namespace.path.as_ref();
        self.parts.metrics.connections_opened_total.with_label_values(&[path, transport]).inc();
        match &mut ticket {
            RecoveryChance::Back(returned) => {
                returned.claim.accept();
                self.restore(&client, returned);
            }
            RecoveryChance::None | RecoveryChance::New(_) => self.parts.rooms.add(&client.session),
        }
        // The token may have been revoked after it was verified and before the room index knew the session.
        if self.parts.auth.is_revoked(&client.session.user()) {
            self.end_revoked(&client.session);
            return client;
        }
        tracing::debug!(socket.id = client.session.id(), nsp = %client.namespace.path, "a client connected");
        self.watch_end(&client);
        if let Some(policy) = client.namespace.recovery() {
            self.parts.recovery.opened(&client.session, &policy);
        }
        let first = match ticket {
            RecoveryChance::Back(returned) => QueueItem::Back(returned),
            RecoveryChance::None | RecoveryChance::New(_) => {
                for (contract, answer) in &mut answers {
                    self.merge_metadata(&client, contract, answer);
                }
                self.greet(&client);
                QueueItem::Opened(answers)
            }
        };
        self.notify_connect(&client);
        // Sending the greeting cannot fail, because the queue of a new client is empty. The item comes before the
        // client's first event.
        let _ = self.enqueue(&client, first);
        client
    }

    /// Joins the rooms of `connect.join`, and performs what the connect hooks' answers ask for.
    pub(super) async fn settle_in(&self, client: &Arc<GatewayClient>, answers: Vec<(Arc<Contract>, HookAnswer)>) {
        // The node waits until other nodes can reach the client: another process that learns of the client from its
        // first event may publish to it.
        let session = &client.session;
        for room in session.rooms() {
            self.rooms().settled(session.namespace(), &room).await;
        }
        if client.namespace.contracts.iter().any(|contract| !contract.connect.join.is_empty()) {
            Box::pin(self.auto_join(client)).await;
        }
        for (contract, answer) in answers {
            Box::pin(self.settle_answer(client, &contract, answer)).await;
        }
        if session.offsets().is_some() {
            Box::pin(self.settle_trail(client)).await;
        }
    }

    /// Performs what the answer of a connect hook asks for.
    async fn settle_answer(&self, client: &Arc<GatewayClient>, contract: &Arc<Contract>, answer: HookAnswer) {
        let user = client.session.user();
        let mut scope = scope_of(client, &user, &Value::Null);
        scope.capabilities = Some(&*self.parts.auth);
        let plan = self.plan_answer(client, contract, answer, &scope).await;
        self.perform_answer(client, plan).await;
    }

    fn greet(&self, client: &GatewayClient) {
        if client.namespace.contracts.iter().all(|contract| contract.connect.greet.is_empty()) {
            return;
        }
        let user = client.session.user();
        let scope = scope_of(client, &user, &Value::Null);
        for contract in &client.namespace.contracts {
            let holds = |greet: &&Reply| greet.when.as_ref().is_none_or(|rule| rule.holds(&scope));
            for greet in contract.connect.greet.iter().filter(holds) {
                if let Some(event) = self.reply_event(greet, &scope, None) {
                    self.send(&client.session, &event);
                }
            }
        }
    }

    /// Joins the rooms of `connect.join` that the client's rules and hooks permit. Skips a refused room, without an
    /// error to the client.
    async fn auto_join(&self, client: &Arc<GatewayClient>) {
        let user = client.session.user();
        let mut scope = scope_of(client, &user, &Value::Null);
        scope.capabilities = Some(&*self.parts.auth);
        for contract in &client.namespace.contracts {
            for of in &contract.connect.join {
                let Ok(Some(place)) = self.place(client, of, &scope) else { continue };
                if let Ok(permit) = self.permit_join(client, contract, place, &scope).await {
                    self.join(client, permit, &scope).await;
                }
            }
        }
    }

    /// Cleans up after a client that disconnected: leaves its rooms, sends its undo events, and notifies backends.
    pub fn closed(self: &Arc<Self>, client: &Arc<GatewayClient>, reason: &'static str) {
        if !client.admitted || client.session.is_closed() {
            return;
        }
        tracing::debug!(socket.id = client.session.id(), nsp = %client.namespace.path, reason, "a client disconnected");
        let undone = client.session.take_undo(None);
        self.notify_disconnect(client, reason);
        self.forget_end(client, &client.session.user());
        self.parts.rooms.remove(&client.session);
        self.parts.metrics.connections_closed_total.with_label_values(&[client.namespace.path.as_ref(), reason]).inc();
        for (room, undo) in undone {
            self.parts.publisher.undo(&client.session, room, undo);
        }
        self.parts.recovery.ended(&client.session, may_return(reason));
    }

    fn notify_connect(&self, client: &GatewayClient) {
        for contract in &client.namespace.contracts {
            if let Some(hook) = &contract.connect.notify {
                self.parts.notices.send(hook, HookRequest::connected(caller(client, &contract.name)));
            }
        }
    }

    fn notify_disconnect(&self, client: &GatewayClient, reason: &'static str) {
        for contract in &client.namespace.contracts {
            if let Some(call) = &contract.disconnect {
                let request = HookRequest::disconnect(caller(client, &contract.name), reason);
                self.parts.notices.send(&call.hook, request);
            }
        }
    }
}
