//! One hook: its HTTP client, circuit breaker, concurrency limit and retries.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use prometheus::{Histogram, IntCounter};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode, Url};
use tokio::time::{Instant, sleep, timeout_at};

use super::answer::{HookAnswer, MAX_ANSWER_BYTES};
use super::breaker::{BackendHealth, Breaker};
use super::client;
use super::concurrency::ConcurrencyLimit;
use super::error::{Denial, HookError, HooksSetupError};
use super::request::EncodedRequest;
use super::retry;
use super::signature::{ID_HEADER, RequestSigner, SIGNATURE_HEADER};
use crate::config;
use crate::telemetry::TRACE_HEADER;
use crate::telemetry::log_limit::LogLimit;
use crate::telemetry::metrics::Metrics;

/// One hook of the configuration.
pub(super) struct Backend {
    name: String,
    client: Client,
    url: Url,
    signer: RequestSigner,
    timeout: Duration,
    retries: u32,
    gate: ConcurrencyLimit,
    breaker: Arc<Breaker>,
    metrics: Arc<Metrics>,
    seconds: Histogram,
    retried: IntCounter,
    /// Limits how often failures are logged. Each hook has its own limit, so that one hook does not hide the failures
    /// of another.
    failures: LogLimit,
}

impl Backend {
    /// Sets up a hook. Opens no connection.
    pub(super) fn new(name: &str, hook: &config::HookSettings, metrics: Arc<Metrics>) -> Result<Self, HooksSetupError> {
        let (client, url) = client::build(name, hook)?;
        let secrets = [&hook.secret, &hook.previous_secret].into_iter().flatten();
        let secrets: Vec<_> = secrets.filter(|secret| !secret.is_empty()).map(|s| s.expose().as_bytes()).collect();
        if secrets.is_empty() {
            tracing::warn!(hook = name, "the hook has no secret: its requests are not signed");
        }
        let open = metrics.hook_breaker_open.with_label_values(&[name]);
        Ok(Self {
            name: name.to_owned(),
            client,
            url,
            signer: RequestSigner::new(secrets),
            timeout: hook.timeout.get(),
            retries: hook.retries,
            gate: ConcurrencyLimit::new(hook.concurrency, hook.queue, metrics.hook_queue.with_label_values(&[name])),
            breaker: Breaker::new(hook.breaker.failures, hook.breaker.open.get(), open),
            seconds: metrics.hook_seconds.with_label_values(&[name]),
            retried: metrics.hook_retries_total.with_label_values(&[name]),
            failures: LogLimit::new(1, 1),
            metrics,
        })
    }

    /// Calls the backend. The time-out covers everything: waiting for a slot, all attempts, and the pauses between
    /// them.
    pub(super) async fn call(
        &self,
        envelope: &EncodedRequest,
        idempotent: bool,
        timeout: Option<Duration>,
    ) -> Result<HookAnswer, HookError> {
        let started = Instant::now();
        let timeout = timeout.unwrap_or(self.timeout);
        let answer = self.attempts(envelope, idempotent, started + timeout, timeout).await;
        self.seconds.observe(started.elapsed().as_secs_f64());
        self.note(answer.as_ref().err());
        answer
    }

    /// Tries once to deliver a notice. The attempt needs no slot of the gate, because only one notice of a hook is
    /// delivered at a time.
    pub(super) async fn deliver(&self, envelope: &EncodedRequest) -> Result<(), HookError> {
        let started = Instant::now();
        let outcome = self.attempt(envelope, started + self.timeout, self.timeout).await;
        self.seconds.observe(started.elapsed().as_secs_f64());
        // Any 2xx means that the notice was received, whatever the body says and however large it is.
        let outcome = match outcome {
            Ok(_) | Err(HookError::BadAnswer(_)) => Ok(()),
            Err(error) => Err(error),
        };
        self.note(outcome.as_ref().err());
        outcome
    }

    /// The hook's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How long a call may last.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn attempts(
        &self,
        envelope: &EncodedRequest,
        idempotent: bool,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<HookAnswer, HookError> {
        if let Some(wait) = self.breaker.refuses() {
            return Err(HookError::Open(wait));
        }
        let _slot = match timeout_at(deadline, self.gate.enter()).await {
            Ok(Ok(slot)) => slot,
            Ok(Err(full)) => return Err(HookError::Overloaded { waiting: full.bound }),
            Err(_) => return Err(HookError::Timeout(timeout)),
        };
        let mut failed = 0;
        loop {
            let error = match self.attempt(envelope, deadline, timeout).await.and_then(HookResponse::read) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            failed += 1;
            let pause = error.retry_after().unwrap_or_default().max(retry::CALL.after(failed));
            let may_repeat = idempotent && failed <= self.retries && error.is_repeatable();
            if !may_repeat || Instant::now() + pause >= deadline {
                return Err(error);
            }
            self.retried.inc();
            sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        envelope: &EncodedRequest,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<HookResponse, HookError> {
        let admission = self.breaker.admit().map_err(HookError::Open)?;
        let outcome = match timeout_at(deadline, self.exchange(envelope)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(HookError::Timeout(timeout)),
        };
        let ill = outcome.as_ref().is_err_and(HookError::is_illness);
        admission.report(if ill { BackendHealth::Fails } else { BackendHealth::Works });
        outcome
    }

    async fn exchange(&self, envelope: &EncodedRequest) -> Result<HookResponse, HookError> {
        let mut request = self
            .client
            .post(self.url.clone())
            .header(ID_HEADER, &envelope.id)
            .header(TRACE_HEADER, &envelope.traceparent)
            .body(envelope.body.clone());
        if let Some(signature) = self.signer.sign(&envelope.body, SystemTime::now()) {
            request = request.header(SIGNATURE_HEADER, signature);
        }
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let retry_after = retry_after(&response);
        let body = self.read(response).await;
        if status.is_success() {
            return Ok(HookResponse(body?));
        }
        let denial = body.ok().filter(|_| status.is_client_error()).and_then(|body| HookAnswer::parse_refusal(&body));
        Err(failure(status, denial, retry_after))
    }

    async fn read(&self, mut response: Response) -> Result<Bytes, HookError> {
        let too_large = || HookError::BadAnswer(format!("it is larger than {MAX_ANSWER_BYTES} bytes"));
        if response.content_length().is_some_and(|len| len > MAX_ANSWER_BYTES as u64) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn unreachable(&self, error: reqwest::Error) -> HookError {
        // The URL may contain a secret in its query, so it stays out of the log.
        let error = error.without_url();
        tracing::debug!(hook = self.name, error = &error as &dyn std::error::Error, "the backend cannot be reached");
        HookError::Unreachable
    }

    fn note(&self, error: Option<&HookError>) {
        let result = error.map_or("ok", HookError::as_str);
        self.metrics.hook_requests_total.with_label_values(&[self.name.as_str(), result]).inc();
        let Some(error) = error.filter(|error| !matches!(error, HookError::Refused(_))) else { return };
        if let Some(suppressed) = self.failures.pass() {
            let suppressed = (suppressed > 0).then_some(suppressed);
            tracing::warn!(suppressed, hook = self.name, %error, "a call of the hook failed");
        }
    }
}

/// The body of a 2xx response.
struct HookResponse(Bytes);

impl HookResponse {
    fn read(self) -> Result<HookAnswer, HookError> {
        HookAnswer::parse(&self.0)
    }
}

fn failure(status: StatusCode, denial: Option<Denial>, retry_after: Option<Duration>) -> HookError {
    match denial {
        // The statuses 408, 425 and 429 mean "try again later", whatever the body says, so they are not refusals.
        Some(denial) if !matches!(status.as_u16(), 408 | 425 | 429) => HookError::Refused(denial),
        _ => HookError::Status { status: status.as_u16(), retry_after },
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
