//! `[server]`

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Period, Size};

/// The public listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Where clients connect, as `ADDRESS:PORT`. Port 0 takes any free one.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The path of Socket.IO; starts and ends with a slash.
    pub path: String,
    /// Origins of web pages that may connect, such as `https://app.example.com`; `*` permits all. Empty: the same origin only.
    pub cors_origins: Vec<String>,
    /// How often a client is asked whether it is there.
    pub ping_interval: Period,
    /// How long its answer is waited for.
    pub ping_timeout: Period,
    /// How long a client may take to connect to a namespace.
    pub connect_timeout: Period,
    /// The largest message of a client, over every transport.
    pub max_payload: Size,
    /// How many clients may be connected to this node; 0: no limit.
    pub max_connections: u64,
    /// How many packets may wait for one client.
    pub queue: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            path: "/socket.io/".into(),
            cors_origins: Vec::new(),
            ping_interval: Period::from_secs(25),
            ping_timeout: Period::from_secs(20),
            connect_timeout: Period::from_secs(45),
            max_payload: Size::from_bytes(1_000_000),
            max_connections: 0,
            queue: 1024,
        }
    }
}
