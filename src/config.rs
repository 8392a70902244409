//! What an operator sets: defaults, then `roomcast.toml`, then the environment.
//!
//! One struct for each section, in a file of its own; each part of the node receives its own struct.

mod api;
mod auth;
mod cluster;
mod compression;
mod contracts;
mod drain;
mod hooks;
pub mod limits;
mod log;
mod network;
mod node;
mod redis;
mod redis_address;
mod server;

mod period;
mod presence;
mod rate;
mod recovery;
mod secret;
mod size;

mod check;
mod files;
pub mod keys;
mod layer;
mod load;
mod mistake;
mod origin;
#[cfg(test)]
mod reference;
mod renamed;
mod show;
mod tree;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use api::{Api, ApiKey};
pub use auth::{Algorithm, Auth, AuthKey, Jwks};
pub use cluster::{Cluster, ClusterTls};
pub use compression::Compression;
pub use contracts::Contracts;
pub use drain::Drain;
pub use hooks::{Breaker, Hook};
pub use limits::Limits;
pub use load::{DEFAULT_FILE, Loaded, Sources, load};
pub use log::{Log, LogFormat};
pub use mistake::{ConfigError, Mistake};
pub use network::Network;
pub use node::Node;
pub use origin::Origins;
pub use period::Period;
pub use presence::Presence;
pub use recovery::Recovery;
pub use redis::{Reconnect, Redis, RedisTls, Sentinel, WhenAway, Wire};
pub use redis_address::{RedisAddress, RedisKind};
pub use secret::{Secret, Url};
pub use server::{Engine, ForwardedHeader, Server};
pub use size::Size;

/// The whole configuration. Only `node` sees it; every part receives its own section.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This process: its id and its mode.
    pub node: Node,
    /// The public listener: Socket.IO, `/live`, `/ready`.
    pub server: Server,
    /// The applications.
    pub contracts: Contracts,
    /// The listener for backends and operators.
    pub api: Api,
    /// Keys that tokens are verified with.
    pub auth: Auth,
    /// The Redis that connects the nodes. Without `redis.url` a node works alone and keeps everything in memory.
    pub redis: Redis,
    /// How nodes forward requests of long-polling sessions to each other.
    pub cluster: Cluster,
    /// Presence: which users are in which rooms, over all nodes.
    pub presence: Presence,
    /// Limits on recovery, which gives a returning client its session and the events that it missed.
    pub recovery: Recovery,
    /// Limits that apply to every contract.
    pub limits: Limits,
    /// How a node hands over its clients before it ends.
    pub drain: Drain,
    /// Backends that contracts may call, by the name that contracts use.
    pub hooks: BTreeMap<String, Hook>,
    /// The log's format and levels. Logs go to standard error.
    pub log: Log,
}

#[cfg(test)]
mod tests;
