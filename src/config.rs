//! The settings of an operator: defaults, then `roomcast.toml`, then environment variables.
//!
//! Each section is one struct in a file of its own, and each part of the node receives its own struct.

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
mod recovery;
mod secret;
mod size;

mod check;
mod draft;
mod files;
pub mod keys;
mod layer;
mod load;
mod mistake;
mod origin;
#[cfg(test)]
mod reference;
mod renamed;
pub(crate) mod schema;
mod show;
mod tree;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use api::{ApiKeySettings, ApiSettings};
pub use auth::{Algorithm, AuthKeySettings, AuthSettings, JwksSettings};
pub use cluster::{ClusterSettings, ClusterTlsSettings};
pub use compression::CompressionSettings;
pub use contracts::ContractsSettings;
pub use drain::DrainSettings;
pub use hooks::{BreakerSettings, HookSettings};
pub use limits::LimitsSettings;
pub use load::{DEFAULT_FILE, LoadedConfig, Sources, load};
pub use log::{LogFormat, LogSettings};
pub use mistake::{ConfigError, SettingMistake};
pub use network::Network;
pub use node::NodeSettings;
pub use origin::SettingOrigins;
pub use period::Period;
pub use presence::PresenceSettings;
pub use recovery::RecoverySettings;
pub use redis::{ReadyWithoutRedis, ReconnectSettings, RedisSettings, RedisTlsSettings, SentinelSettings, WireFormat};
pub use redis_address::{RedisAddress, RedisKind};
pub use secret::{Secret, Url};
pub use server::{EngineKind, ForwardedHeader, ServerSettings};
pub use size::Size;

/// The whole configuration. Only `node` sees it; every part receives its own section.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This process: its id and its mode.
    pub node: NodeSettings,
    /// The public listener: Socket.IO, `/live`, `/ready`.
    pub server: ServerSettings,
    /// The applications.
    pub contracts: ContractsSettings,
    /// The listener for backends and operators.
    pub api: ApiSettings,
    /// The keys that verify tokens.
    pub auth: AuthSettings,
    /// The Redis that connects the nodes. Without `redis.url` a node works alone and keeps everything in memory.
    pub redis: RedisSettings,
    /// How nodes forward requests of long-polling sessions to each other.
    pub cluster: ClusterSettings,
    /// Presence: which users are in which rooms, over all nodes.
    pub presence: PresenceSettings,
    /// Limits on recovery, which gives a returning client its session and the events that it missed.
    pub recovery: RecoverySettings,
    /// Limits that apply to every contract.
    pub limits: LimitsSettings,
    /// How a node hands over its clients before it ends.
    pub drain: DrainSettings,
    /// Backends that contracts may call, by the name that contracts use.
    pub hooks: BTreeMap<String, HookSettings>,
    /// The log's format and levels. Logs go to standard error.
    pub log: LogSettings,
}

#[cfg(test)]
mod tests;
