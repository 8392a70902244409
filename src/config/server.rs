//! `[server]`

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::SectionCheck;
use super::{CompressionSettings, Network, Period, Size};

/// Maximum of `max_payload`, in bytes.
const LARGEST_PAYLOAD: u64 = 1 << 30;
/// Maximum of `queue`, in packets.
const LONGEST_QUEUE: usize = 1_000_000;
/// Maximum of `queue_bytes`, in bytes.
const LARGEST_QUEUE: u64 = 1 << 40;
/// Minimum of the default of `queue_bytes`, in bytes.
const LEAST_QUEUE_BYTES: usize = 4 << 20;
/// How many messages of `max_payload` bytes the default of `queue_bytes` holds.
const QUEUED_PAYLOADS: usize = 4;
/// Allowance for what surrounds a message, in bytes: the headers of its frames, or of its request.
const FRAMES: usize = 64 << 10;

/// Minimum of the intervals and time limits that concern a client's answers.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// The public listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Server")]
pub struct ServerSettings {
    /// The address where clients connect, as `ADDRESS:PORT`. Port 0 takes any free port.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The path of Socket.IO. It starts and ends with a slash.
    pub path: String,
    /// Origins of web pages that may connect, such as `https://app.example.com`, or `capacitor://localhost`, `file://`
    /// and `null` for apps; `*` permits all. Empty: the same origin only.
    pub cors_origins: Vec<String>,
    /// Proxies in front of the node, as addresses or networks (`10.0.0.0/8`). The node believes only these about a
    /// client's address.
    pub trusted_proxies: Vec<Network>,
    /// The header in which trusted proxies give the client's address. They must set it or append to it. The node
    /// ignores the other header.
    pub forwarded_header: ForwardedHeader,
    /// Whether connections of trusted proxies begin with a header of the PROXY protocol (version 1 or 2). Trusted
    /// connections without the header are closed; connections of others need none.
    pub proxy_protocol: bool,
    /// Whether a long-polling session can be used only from the address that opened it (IPv6: its /64).
    pub bind_sessions_to_ip: bool,
    /// How often the node pings a client.
    pub ping_interval: Period,
    /// How long the node waits for a client's pong.
    pub ping_timeout: Period,
    /// How long a client may accept no bytes while some are being written to it. After that it is disconnected. Not
    /// set: `ping_timeout`.
    pub write_timeout: Option<Period>,
    /// How long a new TCP connection may take to send the head of its first request.
    pub handshake_timeout: Period,
    /// How long a client may take to connect to a namespace.
    pub connect_timeout: Period,
    /// Maximum size of a client's message, on every transport.
    pub max_payload: Size,
    /// How many clients may be connected to this node. 0: no limit.
    pub max_connections: u64,
    /// How many packets may wait in the write queue of one client.
    pub queue: usize,
    /// How many bytes of packets may wait in the write queue of one client. Not set: four messages of `max_payload`,
    /// but at least 4 MiB.
    pub queue_bytes: Option<Size>,
    /// The engine that speaks Socket.IO: `native`, roomcast's own, or `socketioxide`, the library.
    pub engine: EngineKind,
    /// Whether clients that speak Engine.IO 3 may connect, such as those of Socket.IO 2. The library socketioxide
    /// serves them, whichever engine is set.
    pub allow_eio3: bool,
    /// Compression of WebSocket messages. Off unless set (`{}` uses the defaults).
    pub compression: Option<CompressionSettings>,
}

/// The engine that speaks Socket.IO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Engine")]
pub enum EngineKind {
    /// The library socketioxide.
    Socketioxide,
    /// Roomcast's own engine.
    #[default]
    Native,
}

impl EngineKind {
    /// The name of the engine in the configuration, in metrics and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Socketioxide => "socketioxide",
            Self::Native => "native",
        }
    }
}

/// The header in which a trusted proxy gives the client's address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// No header.
    None,
}

impl Default for ServerSettings {
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
            engine: EngineKind::default(),
            allow_eio3: false,
            compression: None,
        }
    }
}

impl ServerSettings {
    /// How long a client may accept no bytes while the node writes to it.
    pub fn stall(&self) -> Duration {
        self.write_timeout.unwrap_or(self.ping_timeout).get()
    }

    /// How many bytes the node reads from a client while a write to it waits: one whole message and its frames.
    pub fn read_ahead(&self) -> usize {
        self.max_payload.as_usize().saturating_add(FRAMES)
    }

    /// How many bytes may wait in the write queue of one client.
    pub fn queued_bytes(&self) -> usize {
        let usual = || self.max_payload.as_usize().saturating_mul(QUEUED_PAYLOADS).max(LEAST_QUEUE_BYTES);
        self.queue_bytes.map_or_else(usual, Size::as_usize)
    }

    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
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
        check.must(
            spoken,
            "proxy_protocol",
            "needs server.trusted_proxies: only connections of trusted proxies carry the header",
        );
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

/// Whether the text is `*`, `null`, or a scheme and a host with an optional port. `file://` has no host.
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
