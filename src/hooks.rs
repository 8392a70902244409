//! Calls backends: asks them for decisions (calls), and informs them of events (notices).
//!
//! A hook is an HTTP address in the node's configuration. A call is a signed POST of one CloudEvents 1.0 event in
//! structured JSON. The answer agrees or refuses, and may ask the node for more. `docs/hooks.md` describes this for
//! backends.
//!
//! ```text
//! call → breaker → gate (concurrency, queue) → attempt → answer
//!                                     ↑           │ idempotent only: backoff, within the time-out
//!                                     └───────────┘
//! notice → outbox (memory or Redis, bounded) → courier, one at a time, until 2xx
//! ```
//!
//! A call lasts no longer than its time-out. A call that its contract does not declare idempotent is sent at most
//! once. A notice is delivered at least once, as long as its outbox keeps it. Notices of a hook are delivered in the
//! order in which they arrived in the outbox. Calls start in the order in which their futures are first polled, at most
//! `concurrency` at a time; a caller that needs an order waits for each answer.

pub mod outbox;

mod answer;
mod backend;
mod breaker;
mod cache;
mod client;
mod concurrency;
mod error;
mod request;
mod retry;
mod signature;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use tracing::Instrument as _;

use crate::config;
use crate::telemetry::metrics::Metrics;
use backend::Backend;
use cache::{DecisionCache, MAX_DECISIONS};

pub use answer::{HookAnswer, HookPublish, HookReply, MAX_ANSWER_BYTES, MAX_ANSWER_ENTRIES, MAX_TTL};
pub use error::{Denial, HookError, HooksSetupError};
pub use outbox::{MAX_NOTICE_BYTES, Notices};
pub use request::{CONTENT_TYPE, Caller, EncodedRequest, HookKind, HookRequest};
pub use signature::{ID_HEADER, RequestSigner, SIGNATURE_HEADER};

/// All hooks of the configuration, ready to be called.
pub struct Hooks {
    node: Arc<str>,
    backends: HashMap<String, Arc<Backend>>,
    decisions: DecisionCache<DecisionKey, Decision>,
    metrics: Arc<Metrics>,
}

/// The question that a remembered decision answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DecisionKey {
    hook: String,
    contract: Arc<str>,
    namespace: Arc<str>,
    room: Arc<str>,
    who: CallSubject,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum CallSubject {
    User(Arc<str>),
    // An anonymous user is identified by the socket, because all anonymous users have the same empty id.
    Socket(String),
}

type Decision = Result<(), Denial>;

impl Hooks {
    /// Sets up every hook. The node opens no connection to a backend before the first call.
    ///
    /// # Errors
    /// Returns the first [`HooksSetupError`]: an address or file that cannot be used.
    pub fn new(
        node: &str,
        hooks: &BTreeMap<String, config::HookSettings>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, HooksSetupError> {
        let mut backends = HashMap::with_capacity(hooks.len());
        for (name, hook) in hooks {
            backends.insert(name.clone(), Arc::new(Backend::new(name, hook, metrics.clone())?));
        }
        Ok(Self { node: node.into(), backends, decisions: DecisionCache::new(MAX_DECISIONS), metrics })
    }

    /// Whether the configuration has the hook.
    pub fn has(&self, hook: &str) -> bool {
        self.backends.contains_key(hook)
    }

    /// Returns the hooks' names, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.backends.keys().map(String::as_str)
    }

    /// Calls a hook and waits for its answer. The time-out is the request's own, or the hook's if the request has none.
    ///
    /// Dropping the future frees the call's concurrency slot and abandons the call. The backend may nevertheless have
    /// received the request.
    ///
    /// # Errors
    /// Returns [`HookError::Refused`] when the backend refuses; any other variant says why there is no answer. Each
    /// converts to a [`Refusal`](crate::error::Refusal) for the client.
    pub async fn call(&self, hook: &str, request: HookRequest) -> Result<HookAnswer, HookError> {
        let backend = self.backends.get(hook).ok_or_else(|| HookError::Unknown(hook.to_owned()))?;
        let span = request.span(hook);
        let request = request.within(&span);
        let envelope = self.seal(&request);
        let answer = backend.call(&envelope, request.idempotent, request.timeout).instrument(span).await;
        answer.map_err(|error| error.about(request.kind))
    }

    /// Asks whether a client may join a room, or returns the remembered answer for this user and room.
    ///
    /// A positive or negative answer is remembered for the `ttl` that the backend gave with it. A remembered yes is an
    /// empty [`HookAnswer`]. A yes that asks for more is remembered by [`Hooks::remember`] once that has been
    /// performed; until then the backend is asked again.
    ///
    /// # Errors
    /// Returns the same errors as [`Hooks::call`].
    pub async fn may_join(&self, hook: &str, request: HookRequest) -> Result<HookAnswer, HookError> {
        let Some(question) = DecisionKey::of(hook, &request) else { return self.call(hook, request).await };
        if let Some(decision) = self.decisions.get(&question) {
            self.count_question(hook, "hit");
            return decision.map(|()| HookAnswer::default()).map_err(HookError::Refused);
        }
        self.count_question(hook, "miss");
        let mut answer = self.call(hook, request).await;
        match &mut answer {
            Ok(HookAnswer { ttl: None, .. }) => {}
            Ok(answer) if !answer.is_bare() => {
                answer.unremembered = answer.ttl.map(|ttl| Box::new((question, ttl)));
            }
            Ok(HookAnswer { ttl: Some(ttl), .. }) => self.decisions.put(question, Ok(()), *ttl),
            Err(HookError::Refused(denial)) => {
                if let Some(ttl) = denial.ttl {
                    self.decisions.put(question, Err(denial.clone()), ttl);
                }
            }
            Err(_) => {}
        }
        answer
    }

    /// Remembers the backend's agreement for the `ttl` of the answer. Call this once everything else that the answer
    /// asks for has been performed.
    pub fn remember(&self, answer: &mut HookAnswer) {
        if let Some((question, ttl)) = answer.unremembered.take().map(|kept| *kept) {
            self.decisions.put(question, Ok(()), ttl);
        }
    }

    fn seal(&self, request: &HookRequest) -> request::EncodedRequest {
        request::EncodedRequest::seal(&self.node, request, SystemTime::now())
    }

    fn count_question(&self, hook: &str, result: &str) {
        if self.has(hook) {
            self.metrics.hook_cache_total.with_label_values(&[hook, result]).inc();
        }
    }
}

impl DecisionKey {
    fn of(hook: &str, request: &HookRequest) -> Option<Self> {
        let caller = &request.caller;
        let who = if caller.user.anonymous {
            CallSubject::Socket(caller.socket_id.clone())
        } else {
            CallSubject::User(caller.user.id.clone())
        };
        Some(Self {
            hook: hook.to_owned(),
            contract: caller.contract.clone(),
            namespace: caller.namespace.clone(),
            room: request.room.clone()?,
            who,
        })
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
