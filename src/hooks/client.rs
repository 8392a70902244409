//! The HTTP client of one hook.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Url, redirect};

use super::error::HooksSetupError;
use super::request;
use crate::config;

/// How long an idle connection is kept. Shorter than the 5 s after which Node.js closes an idle connection: a request
/// on a connection that is just being closed fails, and may not be safe to repeat.
const KEEP_IDLE: Duration = Duration::from_secs(4);

/// How often a ping is sent on an HTTP/2 connection that has calls under way.
const HTTP2_PING: Duration = Duration::from_secs(10);

/// Builds the HTTP client of a hook, and parses the hook's URL.
///
/// The client uses HTTP/1.1 with keep-alive, or HTTP/2 where TLS negotiates it. The client follows no redirects and
/// uses no proxy, so that a signed request goes only to the configured address.
///
/// # Errors
/// Returns a [`HooksSetupError`] that names the key: an address that is no http(s) URL, files that cannot be read or
/// used.
pub(super) fn build(name: &str, hook: &config::HookSettings) -> Result<(Client, Url), HooksSetupError> {
    let setup = Setup { name, hook };
    let url = setup.url()?;
    // Fails if another part of the process has already installed a provider of cryptography for rustls. Any provider
    // serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = Client::builder()
        .default_headers(headers())
        .redirect(redirect::Policy::none())
        .no_proxy()
        .pool_idle_timeout(KEEP_IDLE)
        .pool_max_idle_per_host(hook.concurrency)
        .http2_keep_alive_interval(HTTP2_PING)
        .http2_adaptive_window(true);
    client = setup.trust(&url, client)?;
    client = setup.identify(client)?;
    let client =
        client.build().map_err(|error| setup.fault("url", "TLS cannot be set up for it", Some(error.into())))?;
    Ok((client, url))
}

fn headers() -> HeaderMap {
    let agent = concat!("roomcast/", env!("CARGO_PKG_VERSION"));
    HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("application/json")),
        (CONTENT_TYPE, HeaderValue::from_static(request::CONTENT_TYPE)),
        (USER_AGENT, HeaderValue::from_static(agent)),
    ])
}

struct Setup<'a> {
    name: &'a str,
    hook: &'a config::HookSettings,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Setup<'_> {
    fn url(&self) -> Result<Url, HooksSetupError> {
        let fault = |problem| Err(self.fault("url", problem, None));
        let Ok(url) = Url::parse(self.hook.url.expose()) else {
            return fault("not a URL; write one such as https://backend.example/hooks");
        };
        if !matches!(url.scheme(), "http" | "https") {
            return fault("neither http:// nor https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return fault("holds a user name or password; requests are signed with `secret` instead");
        }
        if url.fragment().is_some() {
            return fault("has a fragment, which is never sent; remove it");
        }
        Ok(url)
    }

    /// Trusts only the certificate authority in `ca_file` if this file is set, else the authorities of the system.
    fn trust(&self, url: &Url, client: ClientBuilder) -> Result<ClientBuilder, HooksSetupError> {
        let Some(path) = &self.hook.ca_file else {
            // Without TLS, the system's certificates are not needed, and need not be installed.
            return Ok(if url.scheme() == "http" { client.tls_certs_only([]) } else { client });
        };
        let pem = self.read("ca_file", path)?;
        let authorities = Certificate::from_pem_bundle(&pem)
            .map_err(|error| self.fault("ca_file", "not certificates in PEM", Some(error.into())))?;
        if authorities.is_empty() {
            return Err(self.fault("ca_file", "contains no certificate in PEM format", None));
        }
        Ok(client.tls_certs_only(authorities))
    }

    fn identify(&self, client: ClientBuilder) -> Result<ClientBuilder, HooksSetupError> {
        let (cert, key) = match (&self.hook.cert_file, &self.hook.key_file) {
            (None, None) => return Ok(client),
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => return Err(self.fault("key_file", "missing beside cert_file", None)),
            (None, Some(_)) => return Err(self.fault("cert_file", "missing beside key_file", None)),
        };
        let mut pem = self.read("cert_file", cert)?;
        pem.push(b'\n');
        pem.extend(self.read("key_file", key)?);
        let identity = Identity::from_pem(&pem)
            .map_err(|error| self.fault("cert_file", "not a certificate in PEM with its key", Some(error.into())))?;
        Ok(client.identity(identity))
    }

    fn read(&self, key: &'static str, path: &Path) -> Result<Vec<u8>, HooksSetupError> {
        std::fs::read(path)
            .map_err(|error| self.fault(key, &format!("{} cannot be read", path.display()), Some(error.into())))
    }

    fn fault(&self, key: &'static str, problem: &str, source: Option<BoxError>) -> HooksSetupError {
        HooksSetupError { hook: self.name.to_owned(), key, problem: problem.to_owned(), source }
    }
}
