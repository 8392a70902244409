//! `[redis]`

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::SectionCheck;
use super::{Period, RedisAddress, RedisKind, Secret, Url};

/// Minimum time limit of a command or a connection attempt.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(50);

/// Minimum time between two probes, canaries or connection attempts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// The Redis that connects the nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Redis")]
pub struct RedisSettings {
    /// `redis://`, `rediss://` (TLS), `redis-cluster://`, `rediss-cluster://`, `redis-sentinel://` or
    /// `rediss-sentinel://`. In a password `%`, `/`, `?`, `#` and `@` are percent-encoded. Not set: the node works
    /// alone.
    pub url: Option<Url>,
    /// The ACL user. It replaces the user in the URL.
    pub username: Option<String>,
    /// The password of the ACL user. It replaces the password in the URL.
    pub password: Option<Secret>,
    /// The number of the database. It replaces the number in the URL. A Redis Cluster has only database 0.
    pub database: Option<u8>,
    /// Certificates for TLS, if `rediss://` alone is not enough.
    pub tls: RedisTlsSettings,
    /// Settings for Redis Sentinel.
    pub sentinel: SentinelSettings,
    /// The prefix of every key and channel of roomcast. All nodes of a cluster use the same prefix.
    pub prefix: String,
    /// The prefix of the Redis channels of other Socket.IO programs: the emitters for Node.js, Python, Rust and other
    /// languages, and the Redis adapters of Node.js and socketioxide servers. Events that they send there reach the
    /// node's clients (`docs/emitter.md`). Empty: the node does not listen to them.
    pub socketio_key: String,
    /// The format in which nodes send each other events. Every node understands both formats.
    pub wire: WireFormat,
    /// How long a command may take.
    pub command_timeout: Period,
    /// How long a connection attempt may take.
    pub connect_timeout: Period,
    /// How soon the node tries again after it loses a connection.
    pub reconnect: ReconnectSettings,
    /// How many events may wait to be sent to the other nodes.
    pub publish_buffer: usize,
    /// How many messages from other nodes may wait to be delivered.
    pub receive_buffer: usize,
    /// How often the node checks Redis by sending itself a message through it.
    pub probe_interval: Period,
    /// How often the node sends the other nodes a canary, a message by which they measure loss and delay.
    pub canary_interval: Period,
    /// The node's answer on `/ready` while Redis is away, even if only writes fail: `degraded` stays ready and takes
    /// new clients; `not_ready` answers 503.
    pub when_away: ReadyWithoutRedis,
}

/// The node's answer on `/ready` while Redis is away, once it has worked with Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "WhenAway")]
pub enum ReadyWithoutRedis {
    /// `/ready` says ready, so that the node serves its own clients. All nodes share one Redis, so otherwise no node
    /// would be ready.
    #[default]
    Degraded,
    /// `/ready` says not ready: a load balancer sends new clients to other nodes, if any are ready.
    NotReady,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: None,
            username: None,
            password: None,
            database: None,
            tls: RedisTlsSettings::default(),
            sentinel: SentinelSettings::default(),
            prefix: "roomcast".into(),
            socketio_key: "socket.io".into(),
            wire: WireFormat::default(),
            command_timeout: Period::from_secs(2),
            connect_timeout: Period::from_secs(5),
            reconnect: ReconnectSettings::default(),
            publish_buffer: 16_384,
            receive_buffer: 65_536,
            probe_interval: Period::from_secs(1),
            canary_interval: Period::from_secs(1),
            when_away: ReadyWithoutRedis::default(),
        }
    }
}

/// The format in which nodes send each other events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Wire")]
pub enum WireFormat {
    /// Roomcast's own frames over sharded pub/sub, which carry payloads unchanged. Node.js servers do not understand
    /// them.
    #[default]
    Compact,
    /// The format of `@socket.io/redis-adapter`: Node.js servers on the same Redis receive the node's events, and the
    /// node answers their requests.
    Socketio,
}

/// Certificates for TLS, if `rediss://` alone is not enough.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "RedisTls")]
pub struct RedisTlsSettings {
    /// PEM file of the authority that signed Redis' certificate. Not set: the system's authorities.
    #[schemars(with = "Option<String>")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of the node's own certificate, if Redis asks for one.
    #[schemars(with = "Option<String>")]
    pub cert_file: Option<PathBuf>,
    /// PEM file of the private key of the node's certificate.
    #[schemars(with = "Option<String>")]
    pub key_file: Option<PathBuf>,
}

/// Settings for Redis Sentinel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Sentinel")]
pub struct SentinelSettings {
    /// The name of the primary that the sentinels watch. It replaces the name in the URL.
    pub service: Option<String>,
    /// The user for the sentinels.
    pub username: Option<String>,
    /// The password for the sentinels.
    pub password: Option<Secret>,
}

/// How soon the node tries again after it loses a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Reconnect")]
pub struct ReconnectSettings {
    /// The first pause between two attempts. It doubles with every failure.
    pub min: Period,
    /// The longest pause between two attempts.
    pub max: Period,
}

impl Default for ReconnectSettings {
    fn default() -> Self {
        Self { min: Period::from_millis(100), max: Period::from_secs(1) }
    }
}

impl RedisSettings {
    /// The kind of Redis, for the log: `memory` (no Redis is configured), `single`, `sentinel` or `cluster`.
    pub fn mode(&self) -> &'static str {
        match self.url.as_ref().map(|url| url.scheme().unwrap_or_default()) {
            None => "memory",
            Some(scheme) if scheme.ends_with("-sentinel") => "sentinel",
            Some(scheme) if scheme.ends_with("-cluster") => "cluster",
            Some(_) => "single",
        }
    }

    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
        match self.url.as_ref().map(RedisAddress::read) {
            Some(Ok(address)) => self.check_address(&address, check),
            Some(Err((problem, remedy))) => check.refuse("url", &problem, &remedy),
            None => {}
        }
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.".contains(&b));
        let holds = (1..=64).contains(&self.prefix.len()) && plain(&self.prefix);
        check.must(holds, "prefix", "must be 1 to 64 letters, digits, colons, dots, hyphens or underscores");
        let key = self.socketio_key.as_str();
        let holds = key.len() <= 64 && plain(key) && key != self.prefix;
        check.must(
            holds,
            "socketio_key",
            "must be at most 64 letters, digits, colons, dots, hyphens or underscores, and not `prefix`",
        );
        let holds = self.wire == WireFormat::Compact || !key.is_empty();
        check.must(holds, "wire", "needs `socketio_key` to be \"socketio\"");
        check.at_least("command_timeout", *self.command_timeout, SHORTEST_TIMEOUT);
        check.at_least("connect_timeout", *self.connect_timeout, SHORTEST_TIMEOUT);
        check.at_least("probe_interval", *self.probe_interval, SHORTEST_PAUSE);
        check.at_least("canary_interval", *self.canary_interval, SHORTEST_PAUSE);
        check.at_least("reconnect.min", *self.reconnect.min, SHORTEST_PAUSE);
        check.must(self.reconnect.max >= self.reconnect.min, "reconnect.max", "must not be shorter than `min`");
        check.count("publish_buffer", self.publish_buffer);
        check.count("receive_buffer", self.receive_buffer);
        let RedisTlsSettings { ca_file, cert_file, key_file } = &self.tls;
        check.within("tls", |check| {
            check.tls_files([
                ("ca_file", ca_file.as_ref()),
                ("cert_file", cert_file.as_ref()),
                ("key_file", key_file.as_ref()),
            ]);
        });
    }

    /// Checks the settings that depend on the kind of Redis at the address.
    fn check_address(&self, address: &RedisAddress, check: &mut SectionCheck<'_>) {
        let holds = address.kind != RedisKind::Cluster || self.database.is_none_or(|database| database == 0);
        check.must(holds, "database", "a Redis Cluster has only the database 0");
        if !address.tls {
            for (key, file) in self.tls.files() {
                if file.is_some() {
                    let problem = "has no effect: redis.url does not use TLS, so nothing would be encrypted";
                    check.refuse(&format!("tls.{key}"), problem, "write rediss://… in redis.url, or remove redis.tls");
                }
            }
        }
        let SentinelSettings { service, username, password } = &self.sentinel;
        let set = [("service", service.is_some()), ("username", username.is_some()), ("password", password.is_some())];
        match address.kind {
            RedisKind::Sentinel if service.as_ref().or(address.service.as_ref()).is_none_or(String::is_empty) => {
                let remedy = "set redis.sentinel.service, as in `sentinel monitor NAME …`";
                check.refuse("sentinel.service", "is missing: redis.url names sentinels", remedy);
            }
            RedisKind::Sentinel => {}
            _ => {
                for (key, _) in set.into_iter().filter(|(_, is_set)| *is_set) {
                    let remedy = "write redis-sentinel://… in redis.url, or remove redis.sentinel";
                    check.refuse(&format!("sentinel.{key}"), "has no effect: redis.url names no sentinels", remedy);
                }
            }
        }
        let has_user = self.username.is_some() || address.username.is_some();
        let has_password = self.password.is_some() || address.password.is_some();
        if has_user && !has_password {
            check.refuse("password", "is missing: a user needs one", "set redis.password or redis.password_file");
        }
        for (key, is_empty) in [
            ("username", self.username.as_ref().is_some_and(String::is_empty)),
            ("password", self.password.as_ref().is_some_and(Secret::is_empty)),
        ] {
            check.must(!is_empty, key, "must not be empty");
        }
    }
}

impl RedisTlsSettings {
    fn files(&self) -> [(&'static str, &Option<PathBuf>); 3] {
        [("ca_file", &self.ca_file), ("cert_file", &self.cert_file), ("key_file", &self.key_file)]
    }
}
