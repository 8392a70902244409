//! Builds the clients from the configuration, and keeps them connected.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::RespVersion;
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, ServerConfig, TcpConfig, TlsConfig, TlsConnector,
    TlsHostMapping, UnresponsiveConfig,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::broadcast::error::RecvError;

use super::RedisError;
use super::health::State;
use crate::config;

/// fred keeps so many messages between its reader and ours. Ours empties it at once into the buffers of
/// `redis.receive_buffer`, so it has to hold only what one read of the socket can bring.
/// fred makes nine such channels a client, filled at the start: 16384 cost about 10 MiB.
const LISTENER_CHANNEL: usize = 16 * 1024;

/// The client for commands and publishes.
pub(super) fn commands(config: &config::Redis) -> Result<Client, RedisError> {
    build(config, 32)
}

/// The client that only listens.
pub(super) fn listener(config: &config::Redis) -> Result<Client, RedisError> {
    build(config, LISTENER_CHANNEL)
}

/// Drives a client until it is told to quit. fred's own policy reconnects after a lost connection; this
/// loop also begins again when the first attempt fails or fred gives up on an error it holds to be final.
pub(super) async fn keep_connected(client: Client, min: Duration, max: Duration) {
    let mut delay = min;
    loop {
        match client.connect().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::debug!(redis.error = %error, "connecting to Redis failed"),
            Err(_) => return,
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(max);
    }
}

/// Whether a client's connection is there. fred says `Connected` until the first attempt to reconnect begins, so a
/// loss is taken from its errors.
#[derive(Debug, Default)]
pub(super) struct Link {
    broken: AtomicBool,
    connections: AtomicU64,
}

impl Link {
    pub(super) fn is_up(&self, client: &Client) -> bool {
        client.is_connected() && !self.broken.load(Ordering::Relaxed)
    }

    /// How many connections there have been.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Counts reconnections and remembers errors.
pub(super) async fn note_events(client: Client, link: Arc<Link>, state: Arc<State>) {
    let mut errors = client.error_rx();
    let mut reconnects = client.reconnect_rx();
    let mut first = true;
    loop {
        tokio::select! {
            biased;
            () = state.stopped() => return,
            error = errors.recv() => match error {
                Ok((error, server)) => {
                    // A lost server of a Redis Cluster leaves the others.
                    link.broken.store(server.is_some() && !client.is_clustered(), Ordering::Relaxed);
                    state.unheard(&error.to_string());
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
                if !std::mem::take(&mut first) {
                    state.count_reconnect();
                }
            }
        }
    }
}

fn build(config: &config::Redis, channel: usize) -> Result<Client, RedisError> {
    let performance = PerformanceConfig {
        default_command_timeout: config.command_timeout.get(),
        broadcast_channel_capacity: channel,
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: config.connect_timeout.get(),
        internal_command_timeout: config.connect_timeout.get(),
        // A publish or a script that may have been carried out is not sent again.
        max_command_attempts: 1,
        // Unbounded here, because fred ends the client when its own request to reconnect finds the buffer full.
        // What is in flight is bounded by its senders, and each command by its time-out.
        max_command_buffer_len: 0,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(config.command_timeout.get() * 2),
            interval: config.command_timeout.get() / 2,
        },
        // fred's task waits for as long as a write takes: the operating system ends a connection that takes nothing.
        tcp: TcpConfig { user_timeout: Some(config.command_timeout.get() * 2), ..TcpConfig::default() },
        reconnect_on_auth_error: true,
        ..ConnectionConfig::default()
    };
    let mut policy =
        ReconnectPolicy::new_exponential(0, millis(config.reconnect.min.get()), millis(config.reconnect.max.get()), 2);
    policy.set_jitter(millis(config.reconnect.min.get()));
    Ok(Client::new(options(config)?, Some(performance), Some(connection), Some(policy)))
}

fn options(config: &config::Redis) -> Result<Config, RedisError> {
    let url = config.url.as_ref().ok_or(RedisError::NoUrl)?;
    let mut options = Config::from_url(url.expose())?;
    // Sharded pub/sub on the connection that also answers needs RESP3.
    options.version = RespVersion::RESP3;
    // The first connection fails at once, and `keep_connected` tries again: fred would wait before the first attempt.
    options.fail_fast = true;
    if let Some(username) = &config.username {
        options.username = Some(username.clone());
    }
    if let Some(password) = &config.password {
        options.password = Some(password.expose().to_owned());
    }
    if let Some(database) = config.database {
        options.database = Some(database);
    }
    if let ServerConfig::Sentinel { service_name, username, password, .. } = &mut options.server {
        let sentinel = &config.sentinel;
        if let Some(service) = &sentinel.service {
            service_name.clone_from(service);
        }
        if sentinel.username.is_some() {
            username.clone_from(&sentinel.username);
        }
        if let Some(secret) = &sentinel.password {
            *password = Some(secret.expose().to_owned());
        }
    }
    if options.tls.is_some() {
        options.tls = Some(tls(&config.tls)?);
    }
    Ok(options)
}

/// TLS by rustls with ring. Hosts of a cluster that are known by address only are taken to have the name that the
/// configuration gave.
fn tls(config: &config::RedisTls) -> Result<TlsConfig, RedisError> {
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
