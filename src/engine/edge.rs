//! The checks that a request passes before an engine sees it: which address the client has, whether it may connect,
//! and which session the request belongs to.

mod binding;
pub mod forwarded;
mod hub;
mod listening;
mod origin;
mod query;
mod refusal;
mod session;
mod sids;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use tower::{Service, ServiceExt};

use binding::Binding;
pub use binding::ClientFingerprint;
use forwarded::Proxies;
pub use hub::Hub;
pub(super) use listening::{options, with_cors};
use origin::AllowedOrigins;
pub(super) use query::EngineQuery;
pub(super) use refusal::RequestRefusal;
pub use session::{Connection, EngineSession};
use sids::SidLookup;

use super::EngineContext;
use super::incompatible::{self, Incompatible};
use super::listener::RequestConnection;
use crate::auth::Handshake;
use crate::config;
use crate::contract::handshake::HandshakePart;
use crate::contract::model::TokenSource;
use crate::forward::{Forwarder, NodeKey};
use crate::session::ClientFacts;
use crate::telemetry::audit::{self, AuditEvent, AuditRecord};
use crate::telemetry::metrics::Metrics;

/// The client's address in a request that another node forwarded, as that node determined it. It is among the
/// request's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct FromNode {
    /// The client's address.
    pub(super) client: IpAddr,
}
/// The maximum length of a `User-Agent` that is kept, in bytes.
const MAX_USER_AGENT: usize = 256;

/// An engine behind the edge. It opens a session for each client that the edge has admitted, and serves the requests
/// of these sessions.
pub trait SessionService: Send + Sync {
    /// Opens a session, and answers the handshake.
    fn open(&self, request: Request<Body>, opening: AdmittedHandshake) -> ResponseFuture;

    /// Answers a request of a session. The edge has verified that the session's own client sent it.
    fn serve(
        &self,
        request: Request<Body>,
        session: Arc<EngineSession>,
        arrival: Option<RequestConnection>,
    ) -> ResponseFuture;
}

/// The engines behind the edge, by the version of Engine.IO that a client speaks.
#[derive(Clone)]
pub struct Services {
    /// Serves clients of Engine.IO 4.
    pub current: Arc<dyn SessionService>,
    /// Serves clients of Engine.IO 3. `None`: `server.allow_eio3` is off, and these clients are refused.
    pub legacy: Option<Arc<dyn SessionService>>,
}

impl Services {
    /// Returns the engine that serves a version of Engine.IO, if there is one.
    fn of(&self, protocol: u8) -> Option<&Arc<dyn SessionService>> {
        match protocol {
            4 => Some(&self.current),
            3 => self.legacy.as_ref(),
            _ => None,
        }
    }
}

/// The future of an answer.
pub type ResponseFuture = BoxFuture<'static, Response<Body>>;

/// A handshake that the edge has admitted.
pub struct AdmittedHandshake {
    /// The new session, which is already counted among the node's connections.
    pub session: Arc<EngineSession>,
    /// The fingerprint that all later requests of the session must have.
    pub fingerprint: ClientFingerprint,
    /// The TCP connection on which the handshake arrived.
    pub arrival: Option<RequestConnection>,
}

/// Checks the requests to an engine, and passes all other requests of the public listener to their routes.
#[derive(Clone)]
pub struct Edge {
    shared: Arc<EdgeState>,
    services: Services,
    routes: Router,
}

struct EdgeState {
    path: String,
    origins: AllowedOrigins,
    proxies: Proxies,
    binding: Binding,
    /// The places where the contracts look for tokens.
    tokens: Vec<TokenSource>,
    /// The parts of the handshake that the contracts use.
    handshake: Vec<HandshakePart>,
    max_connections: u64,
    /// How long a client may take to send the body of a request. A client that takes longer would miss its heartbeat,
    /// too.
    body_timeout: Duration,
    hub: Arc<Hub>,
    forwarder: Arc<Forwarder>,
    metrics: Arc<Metrics>,
}

impl EdgeState {
    /// Admits a client if its handshake passes every check, and counts it among the node's connections.
    fn admit(&self, headers: &HeaderMap, query: &str, peer: ClientFacts) -> Result<Arc<EngineSession>, RequestRefusal> {
        if !self.origins.permit(headers) {
            audit::record(AuditEvent::OriginRefused, AuditRecord { ip: Some(peer.ip), ..AuditRecord::default() });
            return Err(RequestRefusal::Origin);
        }
        if !self.hub.accepts() {
            return Err(RequestRefusal::Leaving);
        }
        let permit = self.hub.take_permit(peer.ip, self.max_connections)?;
        let handshake = Handshake::of_request(&self.tokens, &self.handshake, headers, query);
        Ok(EngineSession::new(peer, handshake, permit))
    }

    /// Whether a request comes from the session's own client.
    fn permits(&self, session: &EngineSession, request: &Request<Body>, ip: IpAddr, websocket: bool) -> bool {
        if !self.origins.permit(request.headers()) {
            audit::record(AuditEvent::OriginRefused, AuditRecord { ip: Some(ip), ..AuditRecord::default() });
            return false;
        }
        let fingerprint = self.binding.fingerprint(ip, request.uri(), request.headers());
        let permits = session.permits(fingerprint, websocket);
        if !permits {
            // The audit log may show the Socket.IO id, but not the Engine.IO session id, which is a secret.
            let socket = session.public_id();
            audit::record(
                AuditEvent::BindingFailed,
                AuditRecord { ip: Some(ip), socket: socket.as_deref(), ..AuditRecord::default() },
            );
        }
        permits
    }

    fn refuse(&self, refusal: RequestRefusal) -> Response<Body> {
        if let RequestRefusal::Limited(refusal) = &refusal {
            self.hub.limits().count_refused(refusal.code);
        }
        self.count(&refusal);
        refusal.answer()
    }

    fn count(&self, refusal: &RequestRefusal) {
        self.metrics.handshakes_refused_total.with_label_values(&[refusal.reason()]).inc();
    }
}

/// Applies the checks of [`Edge`] to WebSocket handshakes that the native engine reads itself, without HTTP.
#[derive(Clone)]
pub struct HandshakeChecks(Arc<EdgeState>);

impl HandshakeChecks {
    /// The parts of a handshake that the contracts use.
    pub fn named(&self) -> &[HandshakePart] {
        &self.0.handshake
    }

    /// Admits a client, and counts it among the node's connections. Returns `None` if it is refused; [`Edge`] answers
    /// such a request with the reason.
    pub fn admit(&self, address: IpAddr, headers: &HeaderMap, query: &str) -> Option<Arc<EngineSession>> {
        let ip = self.0.proxies.client(address, headers);
        self.0.admit(headers, query, peer(headers, (ip, "websocket"), 4)).ok()
    }
}

impl Edge {
    /// Builds an edge that checks the requests to `server.path`, and passes all other requests to `routes`.
    pub fn new(
        config: &config::ServerSettings,
        context: &EngineContext,
        hub: Arc<Hub>,
        services: Services,
        routes: Router,
    ) -> Self {
        let shared = EdgeState {
            path: config.path.clone(),
            origins: AllowedOrigins::new(&config.cors_origins),
            proxies: Proxies { trusted: config.trusted_proxies.clone(), header: config.forwarded_header },
            binding: Binding::new(config.bind_sessions_to_ip, &context.tokens),
            tokens: context.tokens.clone(),
            handshake: context.handshake.clone(),
            max_connections: config.max_connections,
            body_timeout: config.ping_interval.get() + config.ping_timeout.get(),
            hub,
            forwarder: context.forwarder.clone(),
            metrics: context.metrics.clone(),
        };
        Self { shared: Arc::new(shared), services, routes }
    }

    /// Returns a copy of this edge for requests that other nodes forward. The copy has no other routes.
    pub fn for_nodes(&self) -> Self {
        Self { routes: Router::new(), ..self.clone() }
    }

    /// Returns this edge's checks, for handshakes that are read without HTTP.
    pub fn checks(&self) -> HandshakeChecks {
        HandshakeChecks(self.shared.clone())
    }

    /// Checks a request, and returns the future of its answer. A poll may wait for a long time, so the returned future
    /// keeps no copy of the request.
    fn answer(
        &self,
        request: Request<Body>,
        arrival: Option<RequestConnection>,
        ip: IpAddr,
        from_node: bool,
    ) -> ResponseFuture {
        let query = EngineQuery::read(request.uri());
        if query.ambiguous {
            return self.refuse(RequestRefusal::Malformed);
        }
        let websocket = query.transport == Some("websocket");
        if websocket && request.version() < Version::HTTP_11 {
            return self.refuse(RequestRefusal::OldHttp);
        }
        if query.jsonp {
            return self.refuse(RequestRefusal::Jsonp);
        }
        match query.sid.map(str::to_owned) {
            // Nodes forward only requests of existing sessions, and this node does not forward a request again.
            None if from_node => self.refuse(RequestRefusal::UnknownSession),
            None => self.handshake(request, arrival, ip),
            Some(sid) => match self.shared.hub.sids().find(&sid) {
                SidLookup::Unknown if !from_node => self.forward(request, arrival, (sid, ip, websocket)),
                named => self.go_on(request, arrival, (ip, websocket), &sid, named),
            },
        }
    }

    /// Opens a session for a request without a session id.
    fn handshake(&self, request: Request<Body>, arrival: Option<RequestConnection>, ip: IpAddr) -> ResponseFuture {
        let query = EngineQuery::read(request.uri());
        let transport = match query.transport {
            Some("polling") => "polling",
            Some("websocket") => "websocket",
            _ => return self.refuse(RequestRefusal::OtherTransport),
        };
        let peer = peer(request.headers(), (ip, transport), query.protocol());
        let Some(service) = self.services.of(peer.protocol) else {
            incompatible::note(Incompatible::Protocol, &peer, &self.shared.metrics);
            return self.refuse(RequestRefusal::OtherVersion);
        };
        let query = request.uri().query().unwrap_or("");
        let session = match self.shared.admit(request.headers(), query, peer) {
            Ok(session) => session,
            Err(refusal) => return self.refuse(refusal),
        };
        let fingerprint = self.shared.binding.fingerprint(ip, request.uri(), request.headers());
        let pending = arrival.as_ref().map(|arrival| arrival.pending.clone());
        let opening = service.open(request, AdmittedHandshake { session, fingerprint, arrival });
        let shared = self.shared.clone();
        Box::pin(async move {
            let response = opening.await;
            match response.status() {
                // The node keeps the engine's answer as it is, because clients know it. Only count it.
                StatusCode::BAD_REQUEST => shared.count(&RequestRefusal::Malformed),
                // The session is open, so the connection is no longer pending. A refused client has no session.
                StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS => {
                    if let Some(pending) = pending {
                        pending.leave();
                    }
                }
                _ => {}
            }
            response
        })
    }

    /// Serves a request that names a session of this node. The engine gets the request only if the session's own client
    /// sent it.
    fn go_on(
        &self,
        request: Request<Body>,
        arrival: Option<RequestConnection>,
        (ip, websocket): (IpAddr, bool),
        sid: &str,
        named: SidLookup,
    ) -> ResponseFuture {
        let shared = &self.shared;
        let protocol = EngineQuery::read(request.uri()).protocol();
        let session = match named {
            SidLookup::Closed if !websocket => {
                if request.method() == Method::GET {
                    shared.hub.sids().told(sid);
                }
                return ready(query::close_packet(request.method(), protocol));
            }
            SidLookup::Open(session) if shared.permits(&session, &request, ip, websocket) => session,
            _ => return self.refuse(RequestRefusal::UnknownSession),
        };
        let Some(service) = self.services.of(protocol).filter(|_| protocol == session.peer().protocol) else {
            return self.refuse(RequestRefusal::OtherVersion);
        };
        if let Some(arrival) = &arrival {
            arrival.pending.leave();
            arrival.note_poll(&request, websocket);
        }
        if websocket || request.method() != Method::POST {
            return service.serve(request, session, arrival);
        }
        let Ok(posting) = session.posting() else {
            return self.refuse(RequestRefusal::Overlap);
        };
        let serving = service.serve(request, session, arrival);
        let shared = shared.clone();
        Box::pin(async move {
            let _posting = posting;
            let served = tokio::time::timeout(shared.body_timeout, serving).await;
            served.unwrap_or_else(|_| shared.refuse(RequestRefusal::SlowBody))
        })
    }

    /// Forwards a request to the node that has its session. If the other node gives no valid answer, the client
    /// is told that the session is unknown. A request that exceeds a limit gets the answer for this limit.
    fn forward(
        &self,
        request: Request<Body>,
        arrival: Option<RequestConnection>,
        (sid, ip, websocket): (String, IpAddr, bool),
    ) -> ResponseFuture {
        let Some(node): Option<NodeKey> = self.shared.forwarder.names(&sid) else {
            return self.refuse(RequestRefusal::UnknownSession);
        };
        // Only a client with a session learns an id that names a node, so the connection is no longer pending.
        if let Some(arrival) = &arrival {
            arrival.pending.leave();
            arrival.note_poll(&request, websocket);
        }
        let shared = self.shared.clone();
        if websocket && !shared.hub.accepts() {
            // A node that takes no new clients will soon cut the tunnel to the other node. The official client never
            // polls again if its WebSocket breaks while it pauses polling for the upgrade. A refused upgrade is
            // harmless: proxies ask another node.
            return self.refuse(RequestRefusal::Leaving);
        }
        Box::pin(async move {
            match shared.forwarder.forward(node, request, &sid, ip, websocket).await {
                Ok(answer) => answer,
                Err(why) => shared.refuse(why.into()),
            }
        })
    }

    fn refuse(&self, refusal: RequestRefusal) -> ResponseFuture {
        ready(self.shared.refuse(refusal))
    }
}

impl Service<Request<Body>> for Edge {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let arrival = request.extensions_mut().remove::<RequestConnection>();
        let address = arrival.as_ref().map_or(IpAddr::from([0, 0, 0, 0]), |arrival| arrival.address.ip());
        let from_node = request.extensions_mut().remove::<FromNode>();
        let ip = match from_node {
            Some(from_node) => from_node.client,
            None => self.shared.proxies.client(address, request.headers()),
        };
        if !request.uri().path().starts_with(&self.shared.path) {
            return Box::pin(self.routes.clone().oneshot(request));
        }
        let answering = self.answer(request, arrival, ip, from_node.is_some());
        Box::pin(async move { Ok(uncached(answering.await)) })
    }
}

/// An answer that is already complete.
pub fn ready(response: Response<Body>) -> ResponseFuture {
    Box::pin(std::future::ready(response))
}

/// Tells caches not to store an answer to a client.
fn uncached(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn peer(headers: &HeaderMap, (ip, transport): (IpAddr, &'static str), protocol: u8) -> ClientFacts {
    ClientFacts { ip, transport, protocol, user_agent: user_agent(headers), handshake: None }
}

fn user_agent(headers: &HeaderMap) -> Option<Arc<str>> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    // `to_str` succeeds for ASCII only, so every byte is a character boundary.
    Some(text[..text.len().min(MAX_USER_AGENT)].into())
}
