//! The checks that a request passes before an engine sees it: who the client is, whether it may connect at all, and how much of
//! the request is kept for the life of its connection.

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

/// The client's address as far as trusted proxies say; among the extensions of requests that go to the routes.
#[derive(Debug, Clone, Copy)]
pub struct ClientIp(pub IpAddr);

/// Among the extensions of a request that another node brought: its client's address, as that node's trusted proxies say.
#[derive(Debug, Clone, Copy)]
pub(super) struct FromNode {
    /// The client's address.
    pub(super) client: IpAddr,
}
/// The version of Engine.IO.
const VERSION: &str = "4";

/// The longest `User-Agent` that is kept, in bytes.
const MAX_USER_AGENT: usize = 256;

/// An engine behind the edge: it opens a session for a client that the edge has let in, and serves the requests of its sessions.
pub trait SessionService: Clone + Send + Sync + 'static {
    /// Answers a handshake.
    fn open(&self, request: Request<Body>, opening: Opening) -> Answering;

    /// Answers a request that its session's own client has sent.
    fn serve(&self, request: Request<Body>, session: Arc<EngineSession>, arrival: Option<Arrival>) -> Answering;
}

/// An answer under way.
pub type Answering = BoxFuture<'static, Response<Body>>;

/// A client that the edge has let in, and that has no session yet.
pub struct Opening {
    /// Its place among the connections.
    pub session: Arc<EngineSession>,
    /// The requests of its session have the same mark.
    pub mark: Mark,
    /// The connection that the handshake came on.
    pub arrival: Option<Arrival>,
}

/// The door in front of an engine and the other routes of the public listener.
#[derive(Clone)]
pub struct Edge<S> {
    shared: Arc<Shared>,
    service: S,
    routes: Router,
}

struct Shared {
    path: String,
    origins: Origins,
    proxies: Proxies,
    binding: Binding,
    /// Where the contracts look for tokens.
    tokens: Vec<TokenSource>,
    max_connections: u64,
    /// A client whose body takes longer would be given up for its heartbeat, too.
    body_timeout: Duration,
    hub: Arc<Hub>,
    forwarder: Arc<Forwarder>,
    metrics: Arc<Metrics>,
}

impl Shared {
    /// Gives a client a place among the connections, if its handshake may have one.
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

    /// Whether a request is of the session's own client.
    fn permits(&self, session: &EngineSession, request: &Request<Body>, ip: IpAddr, websocket: bool) -> bool {
        if !self.origins.permit(request.headers()) {
            audit::record(Kind::OriginRefused, Record { ip: Some(ip), ..Record::default() });
            return false;
        }
        let mark = self.binding.mark(ip, request.uri(), request.headers());
        let permits = session.permits(mark, websocket);
        if !permits {
            // The Socket.IO id may be shown; the one on the wire may not.
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

/// The same door for handshakes of WebSockets that do not come through HTTP's hands.
#[derive(Clone)]
pub struct Entrance(Arc<Shared>);

impl Entrance {
    /// Gives a client a place among the connections. `None`: [`Edge`] can say why not.
    pub fn admit(&self, address: IpAddr, headers: &HeaderMap, query: &str) -> Option<Arc<EngineSession>> {
        let ip = self.0.proxies.client(address, headers);
        self.0.admit(headers, query, ip, true).ok()
    }
}

impl<S: SessionService> Edge<S> {
    /// A door for requests to `server.path`; all others go to `routes`.
    pub fn new(config: &config::Server, terms: &Terms, hub: Arc<Hub>, service: S, routes: Router) -> Self {
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

    /// The same edge for requests that other nodes bring: it has no other routes.
    pub fn for_nodes(&self) -> Self {
        Self { routes: Router::new(), ..self.clone() }
    }

    /// The same door for those who do not come through HTTP's hands.
    pub fn entrance(&self) -> Entrance {
        Entrance(self.shared.clone())
    }

    /// Judges a request, and has it answered. A poll may wait for long: what is returned keeps nothing of its request.
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
            // A node brings requests of sessions only, and what it brings goes no further.
            None if from_node => self.turn_away(TurnedAway::UnknownSession),
            None => self.handshake(request, arrival, ip, websocket),
            Some(sid) => match self.shared.hub.sids().find(&sid) {
                Named::Unknown if !from_node => self.forward(request, arrival, (sid, ip, websocket)),
                named => self.go_on(request, arrival, (ip, websocket), &sid, named),
            },
        }
    }

    /// A request without a session opens one.
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
                // The engine's own words stay as they are: clients know them.
                StatusCode::BAD_REQUEST => shared.count(&TurnedAway::Malformed),
                // A client that was refused has no session.
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

    /// A request of a session: only its own client's reaches the engine.
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

    /// Has the node that a session is on answer its request. Where that cannot be, the session is unknown.
    fn forward(
        &self,
        request: Request<Body>,
        arrival: Option<Arrival>,
        (sid, ip, websocket): (String, IpAddr, bool),
    ) -> Answering {
        let Some(node): Option<NodeKey> = self.shared.forwarder.names(&sid) else {
            return self.turn_away(TurnedAway::UnknownSession);
        };
        // No node gives such an id to a client that has no session.
        if let Some(arrival) = &arrival {
            arrival.guest.leave();
        }
        let shared = self.shared.clone();
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

impl<S: SessionService> Service<Request<Body>> for Edge<S> {
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
            request.extensions_mut().insert(ClientIp(ip));
            return Box::pin(self.routes.clone().oneshot(request));
        }
        let answering = self.answer(request, arrival, ip, from_node.is_some());
        Box::pin(async move { Ok(uncached(answering.await)) })
    }
}

/// An answer that is there already.
pub fn ready(response: Response<Body>) -> Answering {
    Box::pin(std::future::ready(response))
}

/// No cache may keep what a client was sent.
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
    // A header is ASCII where `to_str` reads it, so any byte is a boundary.
    Some(text[..text.len().min(MAX_USER_AGENT)].into())
}
