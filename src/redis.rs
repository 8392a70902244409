//! Redis: connections that reconnect by themselves, the health of these connections, and the name of every key and
//! channel.
//!
//! A node has two connections to Redis: one for commands and publishes, and one that only receives messages. The node
//! never waits for a connection. While Redis is unreachable, the node serves its own clients and reports the failure.

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
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::Options;
use fred::types::{ClusterHash, CustomCommand};
use tokio_util::task::TaskTracker;

pub use budget::{Budget, Metered, ReservedBytes};
pub use cause::{Cause, CauseKind};
pub use health::RedisHealth;
pub use keys::{Keys, SocketIoKeys};
pub use subscriber::{ChannelMessage, Losses, Sink, Subscriber, SubscriptionKind};

use crate::config;
use crate::telemetry::metrics::Metrics;
use connect::ConnectionStatus;
use health::{RedisPart, RedisState};
use proof::Proofs;

/// Why the clients could not be built. An unreachable Redis is never the reason.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The configuration names no Redis.
    #[error("redis.url is not set")]
    NoUrl,
    /// The URL cannot be read. Neither `problem` nor `remedy` contains a secret.
    #[error("redis.url {problem}; {remedy}")]
    Url {
        /// The problem with the URL.
        problem: String,
        /// The remedy.
        remedy: String,
    },
    /// An option of the Redis configuration is invalid.
    #[error("the Redis configuration is invalid: {0}")]
    Config(#[from] fred::error::Error),
    /// A certificate or key cannot be used.
    #[error("redis.tls: {0}")]
    Tls(String),
}

/// Maximum number of bytes of messages that wait to be published or for Redis' answer. A larger message is accepted
/// when no other message waits.
pub const MAX_PUBLISH_BYTES: usize = 64 << 20;

/// Maximum number of bytes in scripts that Redis has not answered yet.
pub const MAX_SCRIPT_BYTES: usize = 64 << 20;

/// Maximum number of bytes from other nodes and servers that wait to be delivered or published on this node.
pub const MAX_RECEIVE_BYTES: usize = 64 << 20;

/// The node's Redis. Cloning shares the connections.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<RedisClients>,
}

struct RedisClients {
    client: Client,
    listener: Client,
    /// The states of the connections of `client` and `listener`.
    links: [Arc<ConnectionStatus>; 2],
    commands: WithOptions<Client>,
    subscriber: Subscriber,
    proofs: Proofs,
    keys: Keys,
    state: Arc<RedisState>,
    command_timeout: Duration,
    scripts: Budget,
    tasks: TaskTracker,
}

impl Redis {
    /// Builds the clients and starts to connect, without waiting for Redis.
    ///
    /// `node` is this node's id. The id is part of the name of a channel that only this node listens to.
    ///
    /// # Errors
    /// Fails if the configuration cannot be used; see [`RedisError`].
    pub fn connect(config: &config::RedisSettings, node: &str, metrics: Arc<Metrics>) -> Result<Self, RedisError> {
        let client = connect::commands(config)?;
        let listener = connect::listener(config)?;
        let tasks = TaskTracker::new();
        let state = Arc::new(RedisState::new(metrics.clone()));
        let keys = Keys::new(&config.prefix);
        let subscriber = Subscriber::start(&listener, state.clone(), metrics, &tasks);
        let links = [Arc::new(ConnectionStatus::default()), Arc::new(ConnectionStatus::default())];
        let parts = [RedisPart::Commands, RedisPart::Listener];
        for ((client, link), part) in [&client, &listener].into_iter().zip(&links).zip(parts) {
            let noted = (state.clone(), part);
            tasks.spawn(connect::keep_connected(client.clone(), config.reconnect.clone(), noted.clone()));
            tasks.spawn(connect::note_events(client.clone(), link.clone(), noted));
        }
        let (proofs, asked) = Proofs::new();
        let fail_fast = Options { fail_fast: true, max_attempts: Some(1), ..Options::default() };
        let commands = client.with_options(&fail_fast);
        let inner = RedisClients {
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

    /// The client for commands and scripts. A command fails at once while Redis is known to be away, and otherwise
    /// within `redis.command_timeout`. No command is sent twice.
    pub fn client(&self) -> &WithOptions<Client> {
        &self.inner.commands
    }

    /// The connection that receives messages.
    pub fn subscriber(&self) -> &Subscriber {
        &self.inner.subscriber
    }

    /// The name of every key and channel in Redis.
    pub fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// Whether a primary answers commands now, as far as this node knows.
    pub fn is_up(&self) -> bool {
        self.can_publish() && !self.inner.state.is_read_only()
    }

    /// Whether a server answers publishes now, as far as this node knows. The server may be one that refuses writes.
    pub fn can_publish(&self) -> bool {
        self.is_connected() && self.inner.state.answers()
    }

    /// Whether Redis accepts writes now, as far as this node knows. Otherwise the data that nodes keep in Redis is out
    /// of date or incomplete.
    pub fn takes_writes(&self) -> bool {
        self.is_up() && !self.inner.state.refuses_writes()
    }

    /// Whether a write was refused within this time.
    pub fn refused_within(&self, time: Duration) -> bool {
        self.inner.state.refused_last().is_some_and(|last| last.elapsed() < time)
    }

    /// Resolves when the server has answered a write that was sent after this call and has not refused the write as a
    /// replica. This answer proves that a primary accepted all commands that were sent before. In a Redis Cluster no
    /// write is sent, because replicas redirect commands.
    ///
    /// # Errors
    /// Fails if a replica refuses the write, or if no server answers.
    pub async fn proves_primary(&self) -> Result<(), Error> {
        self.inner.proofs.next().await
    }

    /// Records an error that Redis returned, so that a refusal appears in `/ready`, the log and the metrics. `about`
    /// names the command and its key, and contains no payload.
    pub fn notice(&self, error: &Error, about: &str) {
        let cause = Cause::of(error);
        if cause.kind == CauseKind::Timeout {
            // No command is sent until Redis answers again, because fred keeps in memory the commands that Redis does
            // not read.
            self.inner.state.doubt();
        }
        if cause.kind.refuses_writes() || cause.kind == CauseKind::NoRight {
            self.inner.state.refused(cause.about(about), self.is_clustered());
        }
    }

    /// Waits for the answer to a command, and records an error; see [`Redis::notice`].
    ///
    /// # Errors
    /// Returns the error of the command.
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

    /// Runs a command, unless no primary answers commands now.
    ///
    /// # Errors
    /// The error of the command. [`ErrorKind::Routing`] if the command was not sent.
    pub async fn when_up<T>(&self, command: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        if !self.is_up() {
            return Err(Error::new(ErrorKind::Routing, "Redis is away"));
        }
        command.await
    }

    /// Whether Redis is a Redis Cluster. In a Redis Cluster, keys that are used together must share a slot.
    pub fn is_clustered(&self) -> bool {
        self.inner.client.is_clustered()
    }

    /// How many times the connection for commands has been made. If the number changes, Redis was unreachable.
    pub fn connections(&self) -> u64 {
        self.inner.links[0].connections()
    }

    /// A number that changes each time messages of other nodes may have been lost. `None` while a subscription that
    /// this node needs is missing. Every message that is published while the number stays the same arrives.
    pub fn hearing(&self) -> Option<u64> {
        let listens = self.is_listening() && self.inner.subscriber.is_complete();
        listens.then(|| self.inner.subscriber.generation() + self.inner.subscriber.losses().count())
    }

    /// The state of the connections, as far as this node knows it.
    pub fn health(&self) -> RedisHealth {
        self.inner.state.health(self.is_connected(), self.is_listening())
    }

    /// Sends a command to Redis now. Returns false if no answer comes within this time.
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

    /// How long the node waits for the answer to a command.
    pub fn command_timeout(&self) -> Duration {
        self.inner.command_timeout
    }

    /// Closes the connections. Commands without an answer may be lost.
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

    fn state(&self) -> &Arc<RedisState> {
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
