//! A backend for one test: a real HTTP server on loopback that answers as the test says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use hmac::{Hmac, Mac};
use http::{HeaderMap, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use sha2::Sha256;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A request that the backend received.
#[derive(Clone)]
pub struct Seen {
    pub headers: HeaderMap,
    pub version: Version,
    pub body: Bytes,
}

impl Seen {
    pub fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// Whether the request is signed with this secret and was sent now, as backends check it (`docs/hooks.md`).
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let header = self.header("roomcast-signature");
        let (at, signatures) = header.strip_prefix("t=").and_then(|rest| rest.split_once(',')).expect("t=…,v1=…");
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{at}.").as_bytes());
        mac.update(&self.body);
        let right: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let is_fresh = at.parse::<u64>().unwrap().abs_diff(now) <= 300;
        is_fresh && signatures.split(',').any(|signature| signature == format!("v1={right}"))
    }
}

/// An answer, and the delay before the backend sends it.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub body: Bytes,
    pub headers: Vec<(&'static str, String)>,
    pub delay: Duration,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, body: body.into(), headers: Vec::new(), delay: Duration::ZERO }
    }

    pub fn json(value: Value) -> Self {
        Self::new(200, value.to_string())
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

type Plan = Box<dyn FnMut(usize, &Seen) -> Reply + Send>;

struct Shared {
    plan: Mutex<Plan>,
    seen: Mutex<Vec<Seen>>,
    tls: Option<TlsAcceptor>,
    connections: AtomicUsize,
}

/// The server. It stops when it is dropped.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// The TLS certificates that a backend has and requires.
pub enum Tls {
    None,
    Server,
    Mutual,
}

impl Backend {
    /// Starts a backend that answers request number `n` (from 1) with the result of `plan`.
    pub async fn start(plan: impl FnMut(usize, &Seen) -> Reply + Send + 'static) -> Self {
        Self::start_with(Tls::None, plan).await
    }

    pub async fn start_with(tls: Tls, plan: impl FnMut(usize, &Seen) -> Reply + Send + 'static) -> Self {
        let tls = match tls {
            Tls::None => None,
            Tls::Server => Some(acceptor(false)),
            Tls::Mutual => Some(acceptor(true)),
        };
        let shared = Arc::new(Shared {
            plan: Mutex::new(Box::new(plan)),
            seen: Mutex::default(),
            tls,
            connections: AtomicUsize::new(0),
        });
        let mut backend = Self { address: ([127, 0, 0, 1], 0).into(), shared, accepting: None };
        backend.restart().await;
        backend
    }

    /// Listens (again) on the same port.
    pub async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        self.accepting = Some(tokio::spawn(accept(listener, self.shared.clone())));
    }

    /// Closes the listener and every connection at once.
    pub async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}/hooks", self.address.port())
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Number of connections that clients have opened so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    pub fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

/// The path of a file in `tests/keys`.
pub fn key_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // All connections end when this task ends.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(serve(stream, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let app = Router::new().fallback(answer).with_state(shared.clone());
    let service = TowerToHyperService::new(app);
    let server = auto::Builder::new(TokioExecutor::new());
    // An error here only means that the client has disconnected, so it is ignored.
    let _ = match &shared.tls {
        None => server.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
    };
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 16 << 20).await.unwrap_or_default();
    let seen = Seen { headers: parts.headers, version: parts.version, body };
    let number = {
        let mut all = shared.seen.lock().unwrap();
        all.push(seen.clone());
        all.len()
    };
    let reply = (shared.plan.lock().unwrap())(number, &seen);
    tokio::time::sleep(reply.delay).await;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}

fn acceptor(mutual: bool) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(key_file("ca.pem")).unwrap()).unwrap();
    let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let config = if mutual {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        config.with_client_cert_verifier(verifier)
    } else {
        config.with_no_client_auth()
    };
    let certificate = CertificateDer::from_pem_file(key_file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(key_file("server-key.pem")).unwrap();
    let mut config = config.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
