//! `[server]`

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::{Compression, Network, Period, Size};

/// More than any message should be.
const LARGEST_PAYLOAD: u64 = 1 << 30;
/// More than any client should be behind.
const LONGEST_QUEUE: usize = 1_000_000;
/// More than any node should keep for one client.
const LARGEST_QUEUE: u64 = 1 << 40;
/// Where it is not said how many bytes may wait for a client, at least so many may.
const LEAST_QUEUE_BYTES: usize = 4 << 20;
/// Where it is not said, so many messages of the largest size may wait.
const QUEUED_PAYLOADS: usize = 4;
/// The bytes around a message: the heads of its frames, or of its request.
const FRAMES: usize = 64 << 10;

/// No client can be asked, or waited for, in a shorter time.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// The public listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Where clients connect, as `ADDRESS:PORT`. Port 0 takes any free one.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The path of Socket.IO; starts and ends with a slash.
    pub path: String,
    /// Origins of web pages that may connect, such as `https://app.example.com`, or `capacitor://localhost`, `file://` and `null` for apps; `*` permits all. Empty: the same origin only.
    pub cors_origins: Vec<String>,
    /// Proxies in front of the node, as addresses or networks (`10.0.0.0/8`): only they are believed about who a client
    /// is.
    pub trusted_proxies: Vec<Network>,
    /// The header in which trusted proxies say who a client is. They must set it, or append to it; the other one is not read.
    pub forwarded_header: ForwardedHeader,
    /// Whether connections of trusted proxies begin with a header of the PROXY protocol (version 1 or 2). Without one they
    /// are closed; connections of others begin as always.
    pub proxy_protocol: bool,
    /// Whether a long-polling session can be used from the address that opened it only (IPv6: its /64).
    pub bind_sessions_to_ip: bool,
    /// How often a client is asked whether it is there.
    pub ping_interval: Period,
    /// How long its answer is waited for.
    pub ping_timeout: Period,
    /// A client that takes nothing of what is written to it for so long is gone; without it, `ping_timeout`.
    pub write_timeout: Option<Period>,
    /// How long a new TCP connection may take for its first request's head.
    pub handshake_timeout: Period,
    /// How long a client may take to connect to a namespace.
    pub connect_timeout: Period,
    /// The largest message of a client, over every transport.
    pub max_payload: Size,
    /// How many clients may be connected to this node; 0: no limit.
    pub max_connections: u64,
    /// How many packets may wait for one client.
    pub queue: usize,
    /// How many bytes of packets may wait for one client; without it, four messages of `max_payload`, at least 4 MiB.
    pub queue_bytes: Option<Size>,
    /// Who serves the clients: sessions of our own, or the library of this name.
    pub engine: Engine,
    /// Compression of WebSocket messages; none unless set (`{}` takes its defaults).
    pub compression: Option<Compression>,
}

/// What speaks Socket.IO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The library of this name.
    Socketioxide,
    /// The lean engine of our own.
    #[default]
    Native,
}

impl Engine {
    /// As configured, and as metrics and the log name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Socketioxide => "socketioxide",
            Self::Native => "native",
        }
    }
}

/// Where a trusted proxy says who a client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// In none.
    None,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            path: "/socket.io/".into(),
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            proxy_protocol: false,
            bind_sessions_to_ip: true,
            ping_interval: Period::from_secs(25),
            ping_timeout: Period::from_secs(20),
            write_timeout: None,
            handshake_timeout: Period::from_secs(15),
            connect_timeout: Period::from_secs(45),
            max_payload: Size::from_bytes(1_000_000),
            max_connections: 0,
            queue: 1024,
            queue_bytes: None,
            engine: Engine::default(),
            compression: None,
        }
    }
}

impl Server {
    /// How long a client may take nothing of what is written to it.
    pub fn stall(&self) -> Duration {
        self.write_timeout.unwrap_or(self.ping_timeout).get()
    }

    /// How many bytes are read from a client while a write to it waits: a whole message and its frames.
    pub fn read_ahead(&self) -> usize {
        self.max_payload.as_usize().saturating_add(FRAMES)
    }

    /// How many bytes may wait for one client.
    pub fn queued_bytes(&self) -> usize {
        let usual = || self.max_payload.as_usize().saturating_mul(QUEUED_PAYLOADS).max(LEAST_QUEUE_BYTES);
        self.queue_bytes.map_or_else(usual, Size::as_usize)
    }

    pub(super) fn check(&self, check: &mut Check<'_>) {
        let path = self.path.as_str();
        let is_path = path.len() > 2 && path.starts_with('/') && path.ends_with('/') && !path.contains("//");
        let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.~".contains(&b));
        check.must(is_path && plain, "path", "must be a path such as \"/socket.io/\", with a slash at both ends");
        for (index, origin) in self.cors_origins.iter().enumerate() {
            check.must(
                is_origin(origin),
                &format!("cors_origins.{index}"),
                "must be *, null or an origin such as https://app.example.com, without a path",
            );
        }
        let spoken = !self.proxy_protocol || !self.trusted_proxies.is_empty();
        check.must(spoken, "proxy_protocol", "needs server.trusted_proxies: only they are believed");
        check.at_least("ping_interval", *self.ping_interval, SHORTEST_WAIT);
        check.at_least("ping_timeout", *self.ping_timeout, SHORTEST_WAIT);
        if let Some(write_timeout) = self.write_timeout {
            check.at_least("write_timeout", *write_timeout, SHORTEST_WAIT);
        }
        check.at_least("handshake_timeout", *self.handshake_timeout, SHORTEST_WAIT);
        check.at_least("connect_timeout", *self.connect_timeout, SHORTEST_WAIT);
        check.must((1..=LARGEST_PAYLOAD).contains(&self.max_payload.bytes()), "max_payload", "must be 1B to 1GiB");
        if let Some(compression) = &self.compression {
            check.within("compression", |check| compression.check(check));
        }
        check.must((1..=LONGEST_QUEUE).contains(&self.queue), "queue", "must be 1 to 1000000");
        let bounded = self.queue_bytes.is_none_or(|size| (1..=LARGEST_QUEUE).contains(&size.bytes()));
        check.must(bounded, "queue_bytes", "must be 1B to 1TiB");
    }
}

/// `*`, `null`, or a scheme and a host, perhaps with a port. Files have no host.
fn is_origin(text: &str) -> bool {
    let plain = |host: &str| !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' ', ',']);
    let port = |host: &str| match host.rsplit_once(':') {
        Some((_, port)) => port.ends_with(']') || port.parse::<u16>().is_ok(),
        None => true,
    };
    matches!(text, "*" | "null" | "file://")
        || text.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && plain(host) && port(host))
}

#[cfg(test)]
mod tests {
    use super::is_origin;

    #[test]
    fn origin_has_no_path_and_no_pattern() {
        for good in [
            "*",
            "https://app.example.com",
            "http://localhost:8080",
            "http://[::1]:80",
            "http://[::1]",
            "capacitor://localhost",
            "null",
            "file://",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "app.example.com",
            "https://",
            "https://a/",
            "https://*.example.com",
            "https://a, https://b",
            "https://a:b",
            "https://a:99999",
            "NULL",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
