//! Forwards each request to the node that has the request's session.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::NotForwarded;
use super::bodies::Bodies;
use super::connect::NodeConnector;
use super::counters::{ForwardCounters, ForwardedKind};
use super::liveness::{LOOK, PROBE, QUIET};
use super::peers::{Peer, Peers};
use super::stamp::{ANSWERED, CARRIED, ForwardStamp, STAMP, Signature, digest};
use super::tls::NodeTls;
use super::tunnel::{Tunnel, Tunnels};
use super::{ClusterKeys, NodeKey, SidMint};
use crate::config;
use crate::telemetry::metrics::{Metrics, count};
use crate::time::unix_millis;

/// How long a connection to another node may be idle. This time must be shorter than the time for which the other node
/// keeps an idle connection open.
const KEEP_IDLE: Duration = Duration::from_secs(60);

/// Maximum number of idle connections to one node.
const MAX_IDLE: usize = 256;

/// Forwards requests to other nodes.
pub struct Forwarder {
    own: NodeKey,
    keys: ClusterKeys,
    mint: SidMint,
    peers: Arc<Peers>,
    client: Client<NodeConnector, Full<Bytes>>,
    /// The number of the next request. No number is used for two requests.
    number: AtomicU64,
    permits: Arc<Semaphore>,
    most: usize,
    bodies: Bodies,
    /// Maximum time until the head of an answer arrives. A long poll may wait until the next ping of its session.
    patience: Duration,
    counters: ForwardCounters,
    tunnels: Tunnels,
}

/// The permits that a request holds while it is being forwarded.
struct ForwardPermits {
    _all: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

impl Forwarder {
    /// Creates the forwarder of the node with the key `own`, which forwards to `peers`.
    pub fn new(
        (cluster, server): (&config::ClusterSettings, &config::ServerSettings),
        (own, keys): (NodeKey, ClusterKeys),
        peers: Arc<Peers>,
        tls: Option<NodeTls>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let patience = server.ping_interval.get() + server.ping_timeout.get();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(NodeConnector { within: cluster.connect_timeout.get(), tls });
        let forwarder = Arc::new(Self {
            own,
            mint: SidMint::new(keys.clone(), own),
            keys,
            peers,
            client,
            number: AtomicU64::new(0),
            permits: Arc::new(Semaphore::new(cluster.max_forwarded)),
            most: cluster.max_forwarded,
            bodies: Bodies::new(server.max_payload.as_usize(), patience),
            patience,
            counters: ForwardCounters(metrics.clone()),
            tunnels: Tunnels::default(),
        });
        let measured = Arc::downgrade(&forwarder);
        metrics.measure(move |metrics| {
            if let Some(forwarder) = measured.upgrade() {
                let (all, tunnels) = (forwarder.most - forwarder.permits.available_permits(), forwarder.tunnels.open());
                metrics.forward_in_flight.with_label_values(&["request"]).set(count(all.saturating_sub(tunnels)));
                metrics.forward_in_flight.with_label_values(&["tunnel"]).set(count(tunnels));
            }
        });
        forwarder
    }

    /// Creates a forwarder that knows no other node, so it forwards nothing.
    pub fn alone(metrics: Arc<Metrics>) -> Arc<Self> {
        let (cluster, server) = (config::ClusterSettings::default(), config::ServerSettings::default());
        let peers = Arc::new(Peers::new(None, cluster.max_forwarded_per_node));
        Self::new((&cluster, &server), (NodeKey::random(), ClusterKeys::default()), peers, None, metrics)
    }

    /// The WebSocket tunnels through this node to other nodes.
    pub fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// Makes a new session id that names this node.
    pub fn new_sid(&self) -> String {
        self.mint.mint()
    }

    /// The node that a session id names. `None` if the id names this node, or if no node of the cluster made the id.
    pub fn names(&self, sid: &str) -> Option<NodeKey> {
        self.mint.other_node(sid)
    }

    /// Forwards a request to the node that has its session, and returns that node's answer.
    ///
    /// # Errors
    /// Returns why that node did not answer.
    pub async fn forward(
        &self,
        node: NodeKey,
        request: Request<Body>,
        sid: &str,
        client: IpAddr,
        websocket: bool,
    ) -> Result<Response<Body>, NotForwarded> {
        let kind = ForwardedKind::of(request.method(), websocket);
        let forwarding = async {
            let peer = self.peers.find(node, Instant::now()).ok_or(NotForwarded::Gone)?;
            let permits = self.take_permits(&peer)?;
            let _posting = match kind {
                ForwardedKind::Post => Some(self.bodies.post(sid).ok_or(NotForwarded::Overlap)?),
                ForwardedKind::Poll | ForwardedKind::Upgrade => None,
            };
            self.exchange(&peer, permits, request, client, kind).await
        };
        forwarding.await.inspect_err(|why| {
            tracing::debug!(%node, kind = ?kind, why = why.as_str(), "a request was not forwarded");
            self.counters.failed(kind, *why);
        })
    }

    fn take_permits(&self, peer: &Peer) -> Result<ForwardPermits, NotForwarded> {
        let take = |permits: &Arc<Semaphore>| permits.clone().try_acquire_owned().map_err(|_| NotForwarded::Busy);
        Ok(ForwardPermits { _all: take(&self.permits)?, _node: take(&peer.permits)? })
    }

    async fn exchange(
        &self,
        peer: &Peer,
        permits: ForwardPermits,
        request: Request<Body>,
        client: IpAddr,
        kind: ForwardedKind,
    ) -> Result<Response<Body>, NotForwarded> {
        let (mut parts, body) = request.into_parts();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let body = self.bodies.read(body).await?;
        let (sent, signature) = self.signed(peer, carried(&parts, peer, kind)?, body.bytes.clone(), client)?;
        let began = Instant::now();
        let answer = tokio::select! {
            answer = tokio::time::timeout(self.patience, self.client.request(sent)) => answer,
            () = self.silence(peer) => return Err(NotForwarded::Silent),
        };
        let mut answer = answer
            .map_err(|_| NotForwarded::Timeout)?
            .map_err(|error| if error.is_connect() { NotForwarded::Unreachable } else { NotForwarded::Cut })?;
        self.judge(signature, &mut answer)?;
        peer.liveness.note(Instant::now());
        self.counters.answered(kind, began.elapsed());
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let node = hyper::upgrade::on(&mut answer);
            tokio::spawn(tunnel(self.tunnels.begin(), permits, upgrade, node));
            return Ok(answer.map(|_| Body::empty()));
        }
        answer.headers_mut().remove(CONNECTION);
        answer.headers_mut().remove(TRANSFER_ENCODING);
        Ok(answer.map(|body| Body::new(PermitBody { body, _places: permits })))
    }

    /// Signs a request to another node.
    fn signed(
        &self,
        peer: &Peer,
        mut head: Parts,
        body: Bytes,
        client: IpAddr,
    ) -> Result<(Request<Full<Bytes>>, Signature), NotForwarded> {
        let stamp = ForwardStamp {
            from: self.own,
            to: peer.key,
            number: self.number.fetch_add(1, Ordering::Relaxed),
            at_ms: unix_millis(SystemTime::now()),
            client,
            digest: digest(&body),
        };
        let signature = stamp.sign(&self.keys, &mut head).ok_or(NotForwarded::Refused)?;
        Ok((Request::from_parts(head, Full::new(body)), signature))
    }

    /// Returns when the node has sent neither a heartbeat nor an answer for [`QUIET`] and does not answer a probe. All
    /// requests to a node share the probes of that node.
    async fn silence(&self, peer: &Peer) {
        let since = Instant::now();
        let liveness = &peer.liveness;
        loop {
            let quiet = liveness.quiet(Instant::now());
            if quiet < QUIET {
                tokio::time::sleep(QUIET - quiet).await;
            } else if let Some(_probing) = liveness.probe() {
                if !self.probe(peer).await {
                    liveness.note_failed(Instant::now());
                    return;
                }
                liveness.note(Instant::now());
            } else {
                tokio::time::sleep(LOOK).await;
                if liveness.has_failed_since(since) {
                    return;
                }
            }
        }
    }

    /// Asks a node for a page that does not exist, to see whether the node answers. Returns whether it has answered.
    async fn probe(&self, peer: &Peer) -> bool {
        // The host is signed, so this code adds the header before the HTTP client would add it.
        let request = Request::get(format!("http://{}/", peer.address)).header(HOST, &peer.address).body(());
        let Ok(request) = request else { return false };
        let own = IpAddr::from([0, 0, 0, 0]);
        let Ok((request, signature)) = self.signed(peer, request.into_parts().0, Bytes::new(), own) else {
            return false;
        };
        match tokio::time::timeout(PROBE, self.client.request(request)).await {
            Ok(Ok(answer)) => signature.is_answered(&self.keys, answer.headers()),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Checks that the answer comes from the node that was asked. Another process may now use that node's address.
    fn judge<B>(&self, signature: Signature, answer: &mut Response<B>) -> Result<(), NotForwarded> {
        if !signature.is_answered(&self.keys, answer.headers()) {
            return Err(NotForwarded::Refused);
        }
        answer.headers_mut().remove(ANSWERED);
        Ok(())
    }
}

/// The head of the request as the other node receives it. This node's listener has already limited the size of the
/// head.
fn carried(parts: &Parts, peer: &Peer, kind: ForwardedKind) -> Result<Parts, NotForwarded> {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let uri: Uri = format!("http://{}{target}", peer.address).parse().map_err(|_| NotForwarded::TooLarge)?;
    let mut head = Request::new(()).into_parts().0;
    (head.method, head.uri) = (parts.method.clone(), uri);
    for name in CARRIED {
        for value in parts.headers.get_all(&name) {
            head.headers.append(name.clone(), value.clone());
        }
    }
    // This header belongs to the connection, not to the request.
    head.headers.remove(CONNECTION);
    match kind {
        ForwardedKind::Upgrade => switch(&mut head.headers),
        ForwardedKind::Poll | ForwardedKind::Post => drop(head.headers.remove(UPGRADE)),
    }
    head.headers.remove(STAMP);
    Ok(head)
}

fn switch(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
}

/// Passes the bytes of a WebSocket in both directions once both sides have switched to the WebSocket protocol.
async fn tunnel(tunnel: Tunnel, permits: ForwardPermits, client: Option<OnUpgrade>, node: OnUpgrade) {
    let Some(client) = client else { return };
    match futures_util::future::try_join(client, node).await {
        Ok((client, node)) => tunnel.carry(TokioIo::new(client), TokioIo::new(node)).await,
        Err(error) => tracing::debug!(%error, "a tunnel did not open"),
    }
    drop(permits);
}

/// The body of an answer. The body holds the request's permits until the body is sent.
struct PermitBody<B> {
    body: B,
    _places: ForwardPermits,
}

impl<B: http_body::Body + Unpin> http_body::Body for PermitBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<B::Data>, B::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
