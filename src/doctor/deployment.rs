//! The HTTP client of the doctor, which keeps no connections, and the deployment's URLs.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Method, Response, Url, redirect};
use serde::Deserialize;

use super::{DoctorError, DoctorOptions};

/// How long a server may take to begin an answer that it could give at once.
pub(super) const PROMPT: Duration = Duration::from_secs(5);
/// Maximum size of an answer that is read, in bytes.
const MOST: usize = 256 * 1024;

/// Access to the deployment: an HTTP client and the Socket.IO URL.
pub(super) struct Deployment {
    pub(super) client: Client,
    /// The URL with the Socket.IO path.
    pub(super) socket: Url,
}

/// A session, as its open packet describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OpenedSession {
    pub(super) sid: String,
    #[serde(default)]
    pub(super) upgrades: Vec<String>,
    ping_interval: u64,
    ping_timeout: u64,
    #[serde(default)]
    pub(super) max_payload: u64,
    #[serde(skip)]
    pub(super) cookies: Option<HeaderValue>,
}

impl OpenedSession {
    /// Parses an open packet.
    pub(super) fn read(packet: &str) -> Option<Self> {
        serde_json::from_str(packet.strip_prefix('0')?).ok()
    }

    pub(super) fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval)
    }

    pub(super) fn ping_timeout(&self) -> Duration {
        Duration::from_millis(self.ping_timeout)
    }
}

/// A complete HTTP answer.
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    /// How long the request took.
    pub(super) took: Duration,
}

impl HttpAnswer {
    /// A one-line description of the answer.
    pub(super) fn told(&self) -> String {
        let line = self.body.lines().next().unwrap_or_default();
        let start: String = line.chars().take(120).collect();
        if start.is_empty() { format!("{}", self.status) } else { format!("{}: {start}", self.status) }
    }
}

impl Deployment {
    pub(super) fn new(options: &DoctorOptions) -> Result<Self, DoctorError> {
        // Fails if another part of the process has already installed a provider of cryptography for rustls. Any
        // provider serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            // Each request uses a new connection, so that the checks also see how connections are balanced.
            .pool_max_idle_per_host(0)
            .http1_only()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(PROMPT)
            .user_agent(concat!("roomcast-doctor/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &options.ca {
            for certificate in authorities(path)? {
                client = client.tls_certs_merge([certificate]);
            }
        } else if options.target.scheme() == "http" && options.api.as_ref().is_none_or(|api| api.scheme() == "http") {
            // Without TLS, the system's certificates are not needed, and need not be installed.
            client = client.tls_certs_only([]);
        }
        let mut socket = options.target.clone();
        if socket.path() == "/" {
            socket.set_path("/socket.io/");
        } else if !socket.path().ends_with('/') {
            socket.set_path(&format!("{}/", options.target.path()));
        }
        Ok(Self { client: client.build().map_err(DoctorError::Client)?, socket })
    }

    /// The deployment's URL with another path.
    pub(super) fn with_path(&self, path: &str) -> Url {
        let mut url = self.socket.clone();
        url.set_path(path);
        url.set_query(None);
        url
    }

    /// The Socket.IO URL for a transport, with the session's id if there is a session.
    pub(super) fn session(&self, transport: &str, sid: Option<&str>) -> Url {
        let mut url = self.socket.clone();
        url.query_pairs_mut().append_pair("EIO", "4").append_pair("transport", transport);
        if let Some(sid) = sid {
            url.query_pairs_mut().append_pair("sid", sid);
        }
        url
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        url: Url,
        headers: &[(HeaderName, HeaderValue)],
        body: &'static str,
        within: Duration,
    ) -> Result<HttpAnswer, String> {
        let mut request = self.client.request(method, url).timeout(within);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "text/plain;charset=UTF-8").body(body);
        }
        let began = Instant::now();
        let response = request.send().await.map_err(|error| causes(&error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = text(response).await?;
        Ok(HttpAnswer { status, headers, body, took: began.elapsed() })
    }

    /// Opens a long-polling session.
    pub(super) async fn open(
        &self,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<(OpenedSession, HttpAnswer), String> {
        let answer = self.ask(Method::GET, self.session("polling", None), headers, "", PROMPT).await?;
        // The open packet may be followed by a separator and further packets.
        let first = answer.body.split('\u{1e}').next().unwrap_or_default();
        let Some(mut opened) = (answer.status == 200).then(|| OpenedSession::read(first)).flatten() else {
            return Err(format!("no session was opened: {}", answer.told()));
        };
        opened.cookies = cookies(&answer.headers);
        Ok((opened, answer))
    }

    /// The headers that a client which keeps cookies sends in this session.
    pub(super) fn kept(opened: &OpenedSession) -> Vec<(HeaderName, HeaderValue)> {
        opened.cookies.iter().map(|cookies| (header::COOKIE, cookies.clone())).collect()
    }
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, DoctorError> {
    let fault = |problem: String| DoctorError::Authority { path: path.to_owned(), problem };
    let pem = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(fault("contains no certificate in PEM format".into())),
    }
}

/// The cookies that an answer sets, as a `Cookie` header.
fn cookies(headers: &HeaderMap) -> Option<HeaderValue> {
    let set = headers.get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    let kept: Vec<&str> = set.filter_map(|value| value.split(';').next()).map(str::trim).collect();
    if kept.is_empty() { None } else { HeaderValue::from_str(&kept.join("; ")).ok() }
}

async fn text(mut response: Response) -> Result<String, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| causes(&error))? {
        let room = MOST - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The text of an error with its causes, in one line.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        next = cause.source();
    }
    text
}

/// Returns the time in seconds of Unix time.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_sent_back_without_their_attributes() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookies(&headers), None);
        headers.append(header::SET_COOKIE, HeaderValue::from_static("roomcast=abc; Path=/; HttpOnly"));
        headers.append(header::SET_COOKIE, HeaderValue::from_static("AWSALB=x y; Expires=never"));
        assert_eq!(cookies(&headers).unwrap(), "roomcast=abc; AWSALB=x y");
    }

    #[test]
    fn an_open_packet_is_read_and_nothing_else() {
        let opened = OpenedSession::read(
            r#"0{"sid":"a","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#,
        );
        assert_eq!(opened.unwrap().ping_interval(), Duration::from_secs(25));
        for other in ["", "0", "1", "<html>", r#"{"sid":"a"}"#, r#"0{"sid":"a"}"#] {
            assert!(OpenedSession::read(other).is_none(), "{other}");
        }
    }
}
