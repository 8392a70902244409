//! Redis: connections that come back by themselves, their health, and every name that is used there.
//!
//! Two connections: one for commands and publishes, one that only listens. Connecting never holds the
//! node up; a node whose Redis is away serves its own clients and says so.

pub mod budget;
pub mod cause;
pub mod health;
pub mod keys;

mod connect;
pub mod examine;
mod probe;
mod proof;
mod report;
pub mod script;
mod subscriber;

use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, WithOptions};
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::config::Options;
use fred::types::{ClusterHash, CustomCommand};
use tokio_util::task::TaskTracker;

pub use budget::{Budget, Taken};
pub use cause::{Cause, CauseKind};
pub use health::Health;
pub use keys::{Keys, SocketIoKeys};
pub use subscriber::{Kind, Losses, Message, Sink, Subscriber};

use crate::config;
use crate::telemetry::metrics::Metrics;
use connect::Link;
use health::{Part, State};
use proof::Proofs;

/// Why the clients could not be built. Never because Redis is away.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The configuration names no Redis.
    #[error("redis.url is not set")]
    NoUrl,
    /// The URL is not understood. Neither text holds a secret.
    #[error("redis.url {problem}; {remedy}")]
    Url {
        /// What is wrong.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// An option is not understood.
    #[error("the Redis configuration is not usable: {0}")]
    Config(#[from] fred::error::Error),
    /// A certificate or key cannot be used.
    #[error("redis.tls: {0}")]
    Tls(String),
}

/// At most this many bytes wait to be published, or are on their way. One larger message has the way for itself.
pub const MAX_PUBLISH_BYTES: usize = 64 << 20;

/// At most this many bytes are in scripts that Redis has not answered.
pub const MAX_SCRIPT_BYTES: usize = 64 << 20;

/// At most this many bytes of other nodes and servers wait to be delivered or published here.
pub const MAX_RECEIVE_BYTES: usize = 64 << 20;

/// The node's Redis. Cloning shares the connections.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    listener: Client,
    /// Of `client` and `listener`.
    links: [Arc<Link>; 2],
    commands: WithOptions<Client>,
    subscriber: Subscriber,
    proofs: Proofs,
    keys: Keys,
    state: Arc<State>,
    command_timeout: Duration,
    scripts: Budget,
    tasks: TaskTracker,
}

impl Redis {
    /// Builds the clients and begins to connect, without waiting for Redis.
    ///
    /// `node` names this process; it is part of the channel that only this node listens to.
    ///
    /// # Errors
    /// When the configuration cannot be used; see [`RedisError`].
    pub fn connect(config: &config::Redis, node: &str, metrics: Arc<Metrics>) -> Result<Self, RedisError> {
        let client = connect::commands(config)?;
        let listener = connect::listener(config)?;
        let tasks = TaskTracker::new();
        let state = Arc::new(State::new(metrics.clone()));
        let keys = Keys::new(&config.prefix);
        let subscriber = Subscriber::start(&listener, state.clone(), metrics, &tasks);
        let links = [Arc::new(Link::default()), Arc::new(Link::default())];
        let parts = [Part::Commands, Part::Listener];
        for ((client, link), part) in [&client, &listener].into_iter().zip(&links).zip(parts) {
            let noted = (state.clone(), part);
            tasks.spawn(connect::keep_connected(client.clone(), config.reconnect.clone(), noted.clone()));
            tasks.spawn(connect::note_events(client.clone(), link.clone(), noted));
        }
        let (proofs, asked) = Proofs::new();
        let fail_fast = Options { fail_fast: true, max_attempts: Some(1), ..Options::default() };
        let commands = client.with_options(&fail_fast);
        let inner = Inner {
            client,
            listener,
            links,
            commands,
            subscriber,
            proofs,
            keys,
            state,
            command_timeout: config.command_timeout.get(),
            scripts: Budget::new(MAX_SCRIPT_BYTES),
            tasks,
        };
        let redis = Self { inner: Arc::new(inner) };
        probe::start(&redis, node, config.probe_interval.get());
        redis.tasks().spawn(proof::run(redis.clone(), asked, node.to_owned()));
        Ok(redis)
    }

    /// For commands and scripts. Each fails at once while Redis is known to be away, and after
    /// `redis.command_timeout` at the latest; none is sent twice.
    pub fn client(&self) -> &WithOptions<Client> {
        &self.inner.commands
    }

    /// The connection that listens.
    pub fn subscriber(&self) -> &Subscriber {
        &self.inner.subscriber
    }

    /// Every name in Redis.
    pub fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// Whether commands are answered now, by a primary, as far as is known.
    pub fn is_up(&self) -> bool {
        self.can_publish() && !self.inner.state.is_read_only()
    }

    /// Whether publishes are answered now, as far as is known, also by a server that takes no writes.
    pub fn can_publish(&self) -> bool {
        self.is_connected() && self.inner.state.answers()
    }

    /// Whether writes are accepted now, as far as is known. What the nodes keep in Redis is old, or incomplete, when they
    /// are not.
    pub fn takes_writes(&self) -> bool {
        self.is_up() && !self.inner.state.refuses_writes()
    }

    /// Whether a write was refused within this time.
    pub fn refused_within(&self, time: Duration) -> bool {
        self.inner.state.refused_last().is_some_and(|last| last.elapsed() < time)
    }

    /// Resolves when a primary has answered something that was sent after this call: what was sent before it, and was taken,
    /// was taken by a primary.
    ///
    /// # Errors
    /// A replica has answered, or nobody.
    pub async fn proves_primary(&self) -> Result<(), Error> {
        self.inner.proofs.next().await
    }

    /// Notes when Redis has refused a command, so that the refusal reaches `/ready`, the log and the metrics. `about` names
    /// the command and its key; it holds no payload.
    pub fn notice(&self, error: &Error, about: &str) {
        let cause = Cause::of(error);
        if cause.kind == CauseKind::Timeout {
            // Nothing more is handed to it until it answers again: what it does not take, fred keeps.
            self.inner.state.doubt();
        }
        if cause.kind.refuses_writes() || cause.kind == CauseKind::NoRight {
            self.inner.state.refused(cause.about(about), self.is_clustered());
        }
    }

    /// Waits for a command; see [`Redis::notice`].
    ///
    /// # Errors
    /// Those of the command.
    pub async fn noticed<T>(
        &self,
        about: impl FnOnce() -> String + Send,
        command: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let answer = command.await;
        if let Err(error) = &answer {
            self.notice(error, &about());
        }
        answer
    }

    /// Whether it is a Redis Cluster, where keys that are used together must share a slot.
    pub fn is_clustered(&self) -> bool {
        self.inner.client.is_clustered()
    }

    /// How many connections for commands there have been: whoever sees another number than before knows that Redis was away.
    pub fn connections(&self) -> u64 {
        self.inner.links[0].connections()
    }

    /// A number that changes each time that messages of other nodes may have been lost; `None` while this node does not
    /// listen to all that it wants. What was published while the number stayed the same has come or will come.
    pub fn hearing(&self) -> Option<u64> {
        let listens = self.is_listening() && self.inner.subscriber.is_complete();
        listens.then(|| self.inner.subscriber.generation() + self.inner.subscriber.losses().count())
    }

    /// What is known of the connections.
    pub fn health(&self) -> Health {
        self.inner.state.health(self.is_connected(), self.is_listening())
    }

    /// Asks Redis for an answer now. False: there was none in this time.
    pub async fn answers(&self, within: Duration) -> bool {
        if !self.can_publish() {
            return false;
        }
        let echo = CustomCommand::new_static("ECHO", ClusterHash::Random, false);
        let answer = self.inner.commands.custom::<fred::types::Value, _>(echo, vec!["?"]);
        tokio::time::timeout(within, answer).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Whether [`Redis::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.inner.state.is_stopped()
    }

    /// How long a command is waited for.
    pub fn command_timeout(&self) -> Duration {
        self.inner.command_timeout
    }

    /// Closes the connections. What is in flight may be lost.
    pub async fn close(&self) {
        self.inner.subscriber.stop();
        self.inner.state.stop();
        for client in [&self.inner.listener, &self.inner.client] {
            // An error means that there was no connection to close.
            let _ = client.quit().await;
        }
        self.inner.tasks.close();
        let _ = tokio::time::timeout(self.inner.command_timeout, self.inner.tasks.wait()).await;
    }

    fn is_connected(&self) -> bool {
        self.inner.links[0].is_up(&self.inner.client)
    }

    fn is_listening(&self) -> bool {
        self.inner.links[1].is_up(&self.inner.listener)
    }

    fn scripts(&self) -> &Budget {
        &self.inner.scripts
    }

    fn state(&self) -> &Arc<State> {
        &self.inner.state
    }

    fn commands(&self) -> &Client {
        &self.inner.client
    }

    fn listener(&self) -> &Client {
        &self.inner.listener
    }

    fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("keys", &self.inner.keys).field("health", &self.health()).finish_non_exhaustive()
    }
}
