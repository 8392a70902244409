//! A published key set (RFC 7517): fetches it repeatedly, and keeps the last valid one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::AuthSetupError;
use super::key::{self, KeySet};
use crate::config::{self, Algorithm};
use crate::telemetry::metrics::Metrics;

/// Maximum size of the fetched document, in bytes.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// Maximum number of keys in a set.
const MAX_KEYS: usize = 64;
/// The minimum time between two extra fetches that tokens with an unknown key trigger.
const MIN_EXTRA_INTERVAL: Duration = Duration::from_secs(30);
/// The pause between fetches until the first one succeeds.
const FIRST_INTERVAL: Duration = Duration::from_secs(5);

/// Fetches a key set again and again, until this value is dropped.
pub(super) struct KeySetFetcher {
    extra: Arc<ExtraFetch>,
    /// The number of fetches of the key set that have completed, successful or not. The fetch in
    /// [`KeySetFetcher::start`] does not count.
    fetched: watch::Receiver<u64>,
    patience: Duration,
    _task: AbortOnDropHandle<()>,
}

/// A request for an extra fetch, because of a token whose key is not known.
#[derive(Default)]
struct ExtraFetch {
    wanted: Notify,
    /// Whether an extra fetch is requested and has not completed.
    pending: AtomicBool,
    /// The earliest time at which the next extra fetch may start.
    next: Mutex<Option<Instant>>,
}

/// Why the key set was not replaced.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the request failed")]
    Request(#[from] reqwest::Error),
    #[error("the file cannot be read")]
    File(#[from] std::io::Error),
    #[error("the answer is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    #[error("the answer is not a key set")]
    NotASet(#[from] serde_json::Error),
    #[error("the set has no usable key")]
    Empty,
}

impl KeySetFetcher {
    /// Fetches the key set once, then starts the task that fetches it again and again.
    pub(super) async fn start(
        config: &config::JwksSettings,
        set: Arc<ArcSwap<KeySet>>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AuthSetupError> {
        let origin = KeySource::new(config)?;
        let extra = Arc::new(ExtraFetch::default());
        let (done, fetched) = watch::channel(0);
        let keeper = KeySetRefresher {
            origin,
            algorithms: config.algorithms.clone(),
            refresh: config.refresh.get(),
            set,
            metrics,
            extra: extra.clone(),
            done,
        };
        match keeper.fetch().await {
            Err(error) if config.url.is_none() => return Err(AuthSetupError::File(chain(&error))),
            Err(error) => keeper.complain(&error),
            Ok(keys) => keeper.replace(keys),
        }
        let patience = config.timeout.get();
        let task = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        Ok(Self { extra, fetched, patience, _task: task })
    }

    /// The number of fetches of the key set that have completed, successful or not. The fetch in
    /// [`KeySetFetcher::start`] does not count.
    pub(super) fn fetches(&self) -> u64 {
        *self.fetched.borrow()
    }

    /// Requests an extra fetch, unless one was requested within [`MIN_EXTRA_INTERVAL`].
    pub(super) fn ask_for_refresh(&self) {
        let mut next = self.extra.next.lock().expect("no thread panics while it holds this lock");
        let now = Instant::now();
        if next.is_none_or(|next| now >= next) {
            *next = Some(now + MIN_EXTRA_INTERVAL);
            self.extra.pending.store(true, Ordering::Release);
            self.extra.wanted.notify_one();
        }
    }

    /// Whether more than `known` fetches of the key set have completed. Waits for a requested fetch, at most as long as
    /// a fetch may take.
    pub(super) async fn is_newer_than(&self, known: u64) -> bool {
        let mut fetched = self.fetched.clone();
        let is_pending = self.extra.pending.load(Ordering::Acquire);
        if !is_pending && *fetched.borrow() == known {
            return false;
        }
        let newer = fetched.wait_for(|count| *count != known);
        matches!(tokio::time::timeout(self.patience, newer).await, Ok(Ok(_)))
    }
}

/// The URL or the file that the key set is read from.
enum KeySource {
    Url { client: reqwest::Client, url: String },
    File(PathBuf),
}

impl KeySource {
    fn new(config: &config::JwksSettings) -> Result<Self, AuthSetupError> {
        let Some(url) = &config.url else { return Ok(Self::File(config.file.clone().unwrap_or_default())) };
        // Sets the cryptography provider of rustls, unless this process has one already. All parts of the node choose
        // the same provider.
        _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(config.timeout.get())
            // Redirects may not lead from https to http.
            .https_only(url.scheme() == Some("https"))
            .redirect(reqwest::redirect::Policy::limited(3))
            .user_agent(concat!("roomcast/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(AuthSetupError::Client)?;
        Ok(Self::Url { client, url: url.expose().to_owned() })
    }

    async fn read(&self) -> Result<Vec<u8>, FetchError> {
        match self {
            Self::File(path) => {
                let body = tokio::fs::read(path).await?;
                if body.len() > MAX_BODY_BYTES { Err(FetchError::TooLarge) } else { Ok(body) }
            }
            Self::Url { client, url } => {
                // The error does not contain the URL, because a URL may hold a secret.
                let request = client.get(url).header("accept", "application/json");
                let answer = request.send().await.and_then(reqwest::Response::error_for_status);
                let mut answer = answer.map_err(reqwest::Error::without_url)?;
                let mut body = Vec::new();
                while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
                    if body.len() + chunk.len() > MAX_BODY_BYTES {
                        return Err(FetchError::TooLarge);
                    }
                    body.extend_from_slice(&chunk);
                }
                Ok(body)
            }
        }
    }
}

/// Fetches a key set again and again, and replaces the previous set.
struct KeySetRefresher {
    origin: KeySource,
    algorithms: Vec<Algorithm>,
    refresh: Duration,
    set: Arc<ArcSwap<KeySet>>,
    metrics: Arc<Metrics>,
    extra: Arc<ExtraFetch>,
    done: watch::Sender<u64>,
}

impl KeySetRefresher {
    async fn run(self) {
        let mut next = Instant::now() + self.pause();
        loop {
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.extra.wanted.notified() => {}
            }
            match self.fetch().await {
                Ok(keys) => self.replace(keys),
                Err(error) => self.complain(&error),
            }
            // `done` changes before `pending`, so that a caller that sees no pending fetch also sees the new count.
            self.done.send_modify(|count| *count += 1);
            self.extra.pending.store(false, Ordering::Release);
            next = Instant::now() + self.pause();
        }
    }

    fn pause(&self) -> Duration {
        if self.set.load().is_empty() { self.refresh.min(FIRST_INTERVAL) } else { self.refresh }
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        read_set(&self.origin.read().await?, &self.algorithms)
    }

    fn replace(&self, keys: KeySet) {
        self.metrics.jwks_refreshes_total.with_label_values(&["ok"]).inc();
        self.metrics.jwks_keys.with_label_values::<&str>(&[]).set(i64::try_from(keys.len()).unwrap_or(i64::MAX));
        tracing::debug!(keys = keys.len(), "the published key set was loaded");
        self.set.store(Arc::new(keys));
    }

    fn complain(&self, error: &FetchError) {
        self.metrics.jwks_refreshes_total.with_label_values(&["failed"]).inc();
        let kept = self.set.load().len();
        tracing::warn!(
            kept,
            error = chain(error),
            "the published key set cannot be loaded; the last valid one stays in use"
        );
    }
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<Value>,
}

/// Reads a key set. A key that cannot be used is skipped, as RFC 7517, section 5 requires.
fn read_set(body: &[u8], algorithms: &[Algorithm]) -> Result<KeySet, FetchError> {
    let raw: RawSet = serde_json::from_slice(body)?;
    let mut keys = Vec::new();
    for value in raw.keys.into_iter().take(MAX_KEYS) {
        let kid = value.get("kid").and_then(Value::as_str).map(str::to_owned);
        let jwk = serde_json::from_value::<Jwk>(value).map_err(|_| "malformed");
        match jwk.and_then(|jwk| key::published(&jwk, algorithms)) {
            Ok(key) => keys.push(key),
            Err(problem) => tracing::debug!(kid, problem, "a key of the published set is not used"),
        }
    }
    if keys.is_empty() { Err(FetchError::Empty) } else { Ok(KeySet::published(keys)) }
}

/// The text of an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
