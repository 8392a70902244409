//! Builds the two Redis clients from the configuration, and keeps both clients connected.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::RespVersion;
use fred::types::config::{
    ClusterDiscoveryPolicy, Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, ServerConfig,
    TcpConfig, TlsConfig, TlsConnector, TlsHostMapping, UnresponsiveConfig,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::broadcast::error::RecvError;

use super::RedisError;
use super::cause::{Cause, CauseKind};
use super::health::{RedisPart, RedisState};
use crate::config::{self, RedisAddress, RedisKind};

/// Capacity of the channel between fred's reader and ours, in messages. Our reader moves messages into the buffers of
/// `redis.receive_buffer` at once, so the channel only needs space for the messages of one read from the socket. fred
/// creates nine such channels for each client and allocates them at the start: 16,384 messages cost about 10 MiB.
const LISTENER_CHANNEL: usize = 16 * 1024;

/// The client for commands and publishes.
pub(super) fn commands(config: &config::RedisSettings) -> Result<Client, RedisError> {
    build(config, 32)
}

/// The client that only receives messages.
pub(super) fn listener(config: &config::RedisSettings) -> Result<Client, RedisError> {
    build(config, LISTENER_CHANNEL)
}

/// Keeps a client connected until the client is closed. fred reconnects by itself after a lost connection. This loop
/// also tries again when the first attempt fails, or when fred stops reconnecting because fred considers an error as
/// final.
pub(super) async fn keep_connected(client: Client, pauses: config::ReconnectSettings, (state, part): HealthNotes) {
    let mut delay = pauses.min.get();
    loop {
        match client.connect().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => state.failed(part, cause_of_attempt(&client, &error)),
            Err(_) => return,
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(pauses.max.get());
    }
}

/// Why an attempt to connect failed. If a sentinel does not know the name of the primary, fred waits for an answer
/// until the time-out.
fn cause_of_attempt(client: &Client, error: &Error) -> Cause {
    let cause = Cause::of(error);
    let asks_sentinels = client.client_config().server.is_sentinel();
    if asks_sentinels && cause.kind == CauseKind::Timeout {
        return Cause { kind: CauseKind::Sentinel, ..cause };
    }
    cause
}

/// The state in which a client's successes and failures are recorded, and the part of Redis that the client stands for.
pub(super) type HealthNotes = (Arc<RedisState>, RedisPart);

/// Whether a client is connected. fred reports `Connected` until its first attempt to reconnect begins, so a lost
/// connection is recognised by fred's errors.
#[derive(Debug, Default)]
pub(super) struct ConnectionStatus {
    broken: AtomicBool,
    connections: AtomicU64,
}

impl ConnectionStatus {
    pub(super) fn is_up(&self, client: &Client) -> bool {
        client.is_connected() && !self.broken.load(Ordering::Relaxed)
    }

    /// How many connections have been made.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Counts reconnections and records errors.
pub(super) async fn note_events(client: Client, link: Arc<ConnectionStatus>, (state, part): HealthNotes) {
    let mut errors = client.error_rx();
    let mut reconnects = client.reconnect_rx();
    let mut first = true;
    loop {
        tokio::select! {
            biased;
            () = state.stopped() => return,
            error = errors.recv() => match error {
                Ok((error, server)) => {
                    // When the connection to one server of a Redis Cluster is lost, the other servers can still be
                    // used.
                    link.broken.store(server.is_some() && !client.is_clustered(), Ordering::Relaxed);
                    let cause = if server.is_some() { Cause::of(&error) } else { cause_of_attempt(&client, &error) };
                    state.failed(part, cause);
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            server = reconnects.recv() => {
                if matches!(server, Err(RecvError::Closed)) {
                    return;
                }
                link.broken.store(false, Ordering::Relaxed);
                link.connections.fetch_add(1, Ordering::Relaxed);
                state.mended(part);
                if !std::mem::take(&mut first) {
                    state.count_reconnect();
                }
            }
        }
    }
}

fn build(config: &config::RedisSettings, channel: usize) -> Result<Client, RedisError> {
    let performance = PerformanceConfig {
        default_command_timeout: config.command_timeout.get(),
        broadcast_channel_capacity: channel,
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: config.connect_timeout.get(),
        internal_command_timeout: config.connect_timeout.get(),
        // No command is sent a second time, because Redis may already have executed the publish or the script.
        max_command_attempts: 1,
        // The command buffer has no limit, because fred ends the client if its own request to reconnect finds the
        // buffer full. The senders limit what is being sent, and each command has a time-out.
        max_command_buffer_len: 0,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(config.command_timeout.get() * 2),
            interval: config.command_timeout.get() / 2,
        },
        // fred's task is blocked while a write to the socket is blocked, so the operating system closes a connection
        // whose peer accepts no data for this time.
        tcp: TcpConfig { user_timeout: Some(config.command_timeout.get() * 2), ..TcpConfig::default() },
        reconnect_on_auth_error: true,
        ..ConnectionConfig::default()
    };
    let mut policy =
        ReconnectPolicy::new_exponential(0, millis(config.reconnect.min.get()), millis(config.reconnect.max.get()), 2);
    policy.set_jitter(millis(config.reconnect.min.get()));
    Ok(Client::new(options(config)?, Some(performance), Some(connection), Some(policy)))
}

fn options(config: &config::RedisSettings) -> Result<Config, RedisError> {
    let url = config.url.as_ref().ok_or(RedisError::NoUrl)?;
    let address = RedisAddress::read(url).map_err(|(problem, remedy)| RedisError::Url { problem, remedy })?;
    let bytes = |text: &str| text.as_bytes().to_vec();
    let username = config.username.as_deref().map(bytes).or_else(|| address.username.clone());
    let password = config.password.as_ref().map(|secret| bytes(secret.expose())).or_else(|| address.password.clone());
    Ok(Config {
        // RESP3 is needed for sharded pub/sub on a connection that also answers commands.
        version: RespVersion::RESP3,
        // The first attempt to connect fails at once, and `keep_connected` tries again. Without this setting, fred
        // would wait before the first attempt.
        fail_fast: true,
        username: username.as_deref().map(inline),
        password: password.as_deref().map(inline),
        database: config.database.or(address.database),
        tls: if address.tls { Some(tls(&config.tls)?) } else { None },
        server: server(address, &config.sentinel),
        ..Config::default()
    })
}

fn server(address: RedisAddress, sentinel: &config::SentinelSettings) -> ServerConfig {
    let hosts: Vec<Server> = address.hosts.into_iter().map(|(host, port)| Server::new(host, port)).collect();
    match address.kind {
        RedisKind::Single => ServerConfig::Centralized { server: hosts.into_iter().next().expect("a URL has a host") },
        RedisKind::Cluster => ServerConfig::Clustered { hosts, policy: ClusterDiscoveryPolicy::default() },
        RedisKind::Sentinel => ServerConfig::Sentinel {
            hosts,
            service_name: sentinel.service.clone().or(address.service).unwrap_or_default(),
            username: sentinel.username.clone().or(address.sentinel_username),
            password: sentinel.password.as_ref().map(|secret| secret.expose().to_owned()).or(address.sentinel_password),
        },
    }
}

/// Writes a user name or a password in the form in which fred must send it. HELLO goes out as an inline command: Redis
/// splits it at spaces, and reads a text in quotation marks as a C string.
fn inline(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"'\\".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return bytes.iter().map(|byte| *byte as char).collect();
    }
    let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("\"{escaped}\"")
}

/// TLS by rustls with ring. Servers of a cluster that are known only by their address must have a certificate for the
/// host name in the configuration.
fn tls(config: &config::RedisTlsSettings) -> Result<TlsConfig, RedisError> {
    let connector = match (&config.ca_file, &config.cert_file, &config.key_file) {
        (None, None, None) => TlsConnector::default_rustls()?,
        (ca, cert, key) => rustls_config(ca.as_deref(), cert.as_deref(), key.as_deref())?.into(),
    };
    Ok(TlsConfig { connector, hostnames: TlsHostMapping::DefaultHost })
}

fn rustls_config(
    ca: Option<&Path>,
    cert: Option<&Path>,
    key: Option<&Path>,
) -> Result<rustls::ClientConfig, RedisError> {
    let mut roots = rustls::RootCertStore::empty();
    match ca {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| RedisError::Tls(format!("{}: {error}", file.display())))?;
            }
        }
        None => return Err(RedisError::Tls("cert_file needs ca_file beside it".to_owned())),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| RedisError::Tls(error.to_string()))?
        .with_root_certificates(roots);
    match (cert, key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| RedisError::Tls(format!("{}: {error}", key.display())))?;
            builder
                .with_client_auth_cert(certificates(cert)?, private)
                .map_err(|error| RedisError::Tls(format!("{}: {error}", cert.display())))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(RedisError::Tls("cert_file and key_file belong together".to_owned())),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, RedisError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| RedisError::Tls(format!("{}: {error}", file.display())))
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_word_of_an_inline_command() {
        assert_eq!(inline(b"pl%in@#1"), "pl%in@#1");
        assert_eq!(inline(b"a b"), r#""\x61\x20\x62""#);
        assert_eq!(inline(b"a\"\\"), r#""\x61\x22\x5c""#);
        assert_eq!(inline("\u{e9}".as_bytes()), r#""\xc3\xa9""#);
        assert_eq!(inline(b""), r#""""#);
    }

    #[test]
    fn sentinels_are_asked_for_the_service_of_the_settings_or_of_the_url() {
        let service = |url: &str, service: Option<&str>| {
            let sentinel =
                config::SentinelSettings { service: service.map(str::to_owned), ..config::SentinelSettings::default() };
            let url = Some(config::Url::new(url));
            let config = config::RedisSettings { url, sentinel, ..config::RedisSettings::default() };
            match options(&config).unwrap().server {
                ServerConfig::Sentinel { service_name, .. } => service_name,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(service("redis-sentinel://h", Some("main")), "main");
        assert_eq!(service("redis-sentinel://h?sentinelServiceName=main", None), "main");
        assert_eq!(service("redis-sentinel://h?sentinelServiceName=other", Some("main")), "main");
    }
}
