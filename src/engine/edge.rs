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
pub use binding::Mark;
use forwarded::Proxies;
pub use hub::Hub;
pub(super) use listening::{around, manners};
use origin::Origins;
pub(super) use query::Query;
pub(super) use refusal::TurnedAway;
pub use session::{Connection, EngineSession};
use sids::Named;

use super::Terms;
use super::incompatible::{self, Incompatible};
use super::listener::Arrival;
use crate::auth::Handshake;
use crate::config;
use crate::contract::model::TokenSource;
use crate::forward::{Forwarder, NodeKey};
use crate::session::Peer;
use crate::telemetry::audit::{self, Kind, Record};
use crate::telemetry::metrics::Metrics;

/// The client's address in a request that another node forwarded, as that node determined it. It is among the
/// request's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct FromNode {
    /// The client's address.
    pub(super) client: IpAddr,
}
/// The version of Engine.IO that this node speaks.
const VERSION: &str = "4";

/// The maximum length of a `User-Agent` that is kept, in bytes.
const MAX_USER_AGENT: usize = 256;

/// An engine behind the edge. It opens a session for each client that the edge has admitted, and serves the requests
/// of these sessions.
pub trait SessionService: Send + Sync {
    /// Opens a session, and answers the handshake.
    fn open(&self, request: Request<Body>, opening: Opening) -> Answering;

    /// Answers a request of a session. The edge has verified that the session's own client sent it.
    fn serve(&self, request: Request<Body>, session: Arc<EngineSession>, arrival: Option<Arrival>) -> Answering;
}

/// The future of an answer.
pub type Answering = BoxFuture<'static, Response<Body>>;

/// A handshake that the edge has admitted.
pub struct Opening {
    /// The new session, which is already counted among the node's connections.
    pub session: Arc<EngineSession>,
    /// The fingerprint that all later requests of the session must have.
    pub mark: Mark,
    /// The TCP connection on which the handshake arrived.
    pub arrival: Option<Arrival>,
}

/// Checks the requests to an engine, and passes all other requests of the public listener to their routes.
#[derive(Clone)]
pub struct Edge {
    shared: Arc<Shared>,
    service: Arc<dyn SessionService>,
    routes: Router,
}

struct Shared {
    path: String,
    origins: Origins,
    proxies: Proxies,
    binding: Binding,
    /// The places where the contracts look for tokens.
    tokens: Vec<TokenSource>,
    max_connections: u64,
    /// How long a client may take to send a body. A client that takes longer would miss its heartbeat, too.
    body_timeout: Duration,
    hub: Arc<Hub>,
    forwarder: Arc<Forwarder>,
    metrics: Arc<Metrics>,
}

impl Shared {
    /// Admits a client if its handshake passes every check, and counts it among the node's connections.
    fn admit(
        &self,
        headers: &HeaderMap,
        query: &str,
        ip: IpAddr,
        websocket: bool,
    ) -> Result<Arc<EngineSession>, TurnedAway> {
        if !self.origins.permit(headers) {
            audit::record(Kind::OriginRefused, Record { ip: Some(ip), ..Record::default() });
            return Err(TurnedAway::Origin);
        }
        if !self.hub.accepts() {
            return Err(TurnedAway::Leaving);
        }
        let place = self.hub.take_place(ip, self.max_connections)?;
        let handshake = Handshake::of_request(&self.tokens, headers, query);
        Ok(EngineSession::new(peer(headers, ip, websocket), handshake, place))
    }

    /// Whether a request comes from the session's own client.
    fn permits(&self, session: &EngineSession, request: &Request<Body>, ip: IpAddr, websocket: bool) -> bool {
        if !self.origins.permit(request.headers()) {
            audit::record(Kind::OriginRefused, Record { ip: Some(ip), ..Record::default() });
            return false;
        }
        let mark = self.binding.mark(ip, request.uri(), request.headers());
        let permits = session.permits(mark, websocket);
        if !permits {
            // The audit log may show the Socket.IO id, but not the Engine.IO session id, which is a secret.
            let socket = session.public_id();
            audit::record(Kind::BindingFailed, Record { ip: Some(ip), socket: socket.as_deref(), ..Record::default() });
        }
        permits
    }

    fn turn_away(&self, turned: TurnedAway) -> Response<Body> {
        if let TurnedAway::Limited(refusal) = &turned {
            self.hub.limits().count_refused(refusal.code);
        }
        self.count(&turned);
        turned.answer()
    }

    fn count(&self, turned: &TurnedAway) {
        self.metrics.handshakes_refused_total.with_label_values(&[turned.reason()]).inc();
    }
}

/// Applies the checks of [`Edge`] to WebSocket handshakes that the native engine reads itself, without HTTP.
#[derive(Clone)]
pub struct Entrance(Arc<Shared>);

impl Entrance {
    /// Admits a client, and counts it among the node's connections. Returns `None` if it is refused; [`Edge`] answers
    /// such a request with the reason.
    pub fn admit(&self, address: IpAddr, headers: &HeaderMap, query: &str) -> Option<Arc<EngineSession>> {
        let ip = self.0.proxies.client(address, headers);
        self.0.admit(headers, query, ip, true).ok()
    }
}

impl Edge {
    /// Builds an edge that checks the requests to `server.path`, and passes all other requests to `routes`.
    pub fn new(
        config: &config::Server,
        terms: &Terms,
        hub: Arc<Hub>,
        service: Arc<dyn SessionService>,
        routes: Router,
    ) -> Self {
        let shared = Shared {
            path: config.path.clone(),
            origins: Origins::new(&config.cors_origins),
            proxies: Proxies { trusted: config.trusted_proxies.clone(), header: config.forwarded_header },
            binding: Binding::new(config.bind_sessions_to_ip, &terms.tokens),
            tokens: terms.tokens.clone(),
            max_connections: config.max_connections,
            body_timeout: config.ping_interval.get() + config.ping_timeout.get(),
            hub,
            forwarder: terms.forwarder.clone(),
            metrics: terms.metrics.clone(),
        };
        Self { shared: Arc::new(shared), service, routes }
    }

    /// Returns a copy of this edge for requests that other nodes forward. The copy has no other routes.
    pub fn for_nodes(&self) -> Self {
        Self { routes: Router::new(), ..self.clone() }
    }

    /// Returns this edge's checks, for handshakes that are read without HTTP.
    pub fn entrance(&self) -> Entrance {
        Entrance(self.shared.clone())
    }

    /// Checks a request, and returns the future of its answer. A poll may wait for a long time, so the returned future
    /// keeps no copy of the request.
    fn answer(&self, request: Request<Body>, arrival: Option<Arrival>, ip: IpAddr, from_node: bool) -> Answering {
        let query = Query::read(request.uri());
        if query.ambiguous {
            return self.turn_away(TurnedAway::Malformed);
        }
        let websocket = query.transport == Some("websocket");
        if websocket && request.version() < Version::HTTP_11 {
            return self.turn_away(TurnedAway::OldHttp);
        }
        if matches!(query.transport, Some("polling" | "websocket")) && query.version != Some(VERSION) {
            incompatible::note(Incompatible::Protocol, &peer(request.headers(), ip, websocket), &self.shared.metrics);
            return self.turn_away(TurnedAway::OtherVersion);
        }
        match query.sid.map(str::to_owned) {
            // Nodes forward only requests of existing sessions, and this node does not forward them again.
            None if from_node => self.turn_away(TurnedAway::UnknownSession),
            None => self.handshake(request, arrival, ip, websocket),
            Some(sid) => match self.shared.hub.sids().find(&sid) {
                Named::Unknown if !from_node => self.forward(request, arrival, (sid, ip, websocket)),
                named => self.go_on(request, arrival, (ip, websocket), &sid, named),
            },
        }
    }

    /// Opens a session for a request without a session id.
    fn handshake(&self, request: Request<Body>, arrival: Option<Arrival>, ip: IpAddr, websocket: bool) -> Answering {
        let query = request.uri().query().unwrap_or("");
        let session = match self.shared.admit(request.headers(), query, ip, websocket) {
            Ok(session) => session,
            Err(turned) => return self.turn_away(turned),
        };
        let mark = self.shared.binding.mark(ip, request.uri(), request.headers());
        let guest = arrival.as_ref().map(|arrival| arrival.guest.clone());
        let opening = self.service.open(request, Opening { session, mark, arrival });
        let shared = self.shared.clone();
        Box::pin(async move {
            let response = opening.await;
            match response.status() {
                // Keep the engine's answer as it is, because clients know it. Only count it.
                StatusCode::BAD_REQUEST => shared.count(&TurnedAway::Malformed),
                // The session is open, so the connection is no longer pending. A refused client has no session.
                StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS => {
                    if let Some(guest) = guest {
                        guest.leave();
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
        arrival: Option<Arrival>,
        (ip, websocket): (IpAddr, bool),
        sid: &str,
        named: Named,
    ) -> Answering {
        let shared = &self.shared;
        let session = match named {
            Named::Closed if !websocket => {
                if request.method() == Method::GET {
                    shared.hub.sids().told(sid);
                }
                return ready(query::close_packet(request.method()));
            }
            Named::Open(session) if shared.permits(&session, &request, ip, websocket) => session,
            _ => return self.turn_away(TurnedAway::UnknownSession),
        };
        if let Some(arrival) = &arrival {
            arrival.guest.leave();
            arrival.note_poll(&request, websocket);
        }
        if websocket || request.method() != Method::POST {
            return self.service.serve(request, session, arrival);
        }
        let Ok(posting) = session.posting() else {
            return self.turn_away(TurnedAway::Overlap);
        };
        let serving = self.service.serve(request, session, arrival);
        let shared = shared.clone();
        Box::pin(async move {
            let _posting = posting;
            let served = tokio::time::timeout(shared.body_timeout, serving).await;
            served.unwrap_or_else(|_| shared.turn_away(TurnedAway::SlowBody))
        })
    }

    /// Forwards a request to the node that has its session. If the other node gives no valid answer, the client
    /// is told that the session is unknown. A request that exceeds a limit gets the answer for this limit.
    fn forward(
        &self,
        request: Request<Body>,
        arrival: Option<Arrival>,
        (sid, ip, websocket): (String, IpAddr, bool),
    ) -> Answering {
        let Some(node): Option<NodeKey> = self.shared.forwarder.names(&sid) else {
            return self.turn_away(TurnedAway::UnknownSession);
        };
        // Only a client with a session learns an id with the key of a node, so the connection is no longer pending.
        if let Some(arrival) = &arrival {
            arrival.guest.leave();
            arrival.note_poll(&request, websocket);
        }
        let shared = self.shared.clone();
        if websocket && !shared.hub.accepts() {
            // This node takes no new clients, so it will soon cut the tunnel to the other node. The official client
            // never polls again if its WebSocket breaks while it pauses polling for the upgrade. A refused upgrade is
            // harmless: proxies ask another node.
            return self.turn_away(TurnedAway::Leaving);
        }
        Box::pin(async move {
            match shared.forwarder.forward(node, request, &sid, ip, websocket).await {
                Ok(answer) => answer,
                Err(why) => shared.turn_away(why.into()),
            }
        })
    }

    fn turn_away(&self, turned: TurnedAway) -> Answering {
        ready(self.shared.turn_away(turned))
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
        let arrival = request.extensions_mut().remove::<Arrival>();
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
pub fn ready(response: Response<Body>) -> Answering {
    Box::pin(std::future::ready(response))
}

/// Tells caches not to store an answer to a client.
fn uncached(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn peer(headers: &HeaderMap, ip: IpAddr, websocket: bool) -> Peer {
    let transport = if websocket { "websocket" } else { "polling" };
    Peer { ip, transport, user_agent: user_agent(headers) }
}

fn user_agent(headers: &HeaderMap) -> Option<Arc<str>> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    // `to_str` succeeds for ASCII only, so every byte is a character boundary.
    Some(text[..text.len().min(MAX_USER_AGENT)].into())
}
