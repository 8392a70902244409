//! What happens to a request before an engine sees it: who the client is, whether it may connect at all, and how much of
//! the request is kept for the life of its connection.

mod binding;
pub mod forwarded;
mod hub;
mod origin;
mod query;
mod refusal;

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use tower::{Service, ServiceExt};

use binding::Binding;
use forwarded::Proxies;
pub use hub::{Backlog, EngineSession, Hub};
pub(super) use origin::Origins;
use query::Query;
use refusal::TurnedAway;

use super::Terms;
use super::conn::KillSwitch;
use super::listener::Arrival;
use crate::config;
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

/// What is kept of a handshake's headers for as long as its connection lives. All others are dropped: each would hold
/// the whole buffer that it was read into.
const KEPT: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::USER_AGENT,
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::HOST,
];

/// The longest `User-Agent` that is kept, in bytes.
const MAX_USER_AGENT: usize = 256;

/// The door in front of an engine and the other routes of the public listener.
#[derive(Clone)]
pub struct Edge<S> {
    shared: Arc<Shared>,
    engine: S,
    routes: Router,
}

struct Shared {
    path: String,
    origins: Origins,
    proxies: Proxies,
    binding: Binding,
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
        ip: IpAddr,
        websocket: bool,
        kill: Option<Arc<KillSwitch>>,
    ) -> Result<Arc<EngineSession>, TurnedAway> {
        if !self.origins.permit(headers) {
            audit::record(Kind::OriginRefused, Record { ip: Some(ip), ..Record::default() });
            return Err(TurnedAway::Origin);
        }
        if !self.hub.accepts() {
            return Err(TurnedAway::Leaving);
        }
        let place = self.hub.take_place(ip, self.max_connections)?;
        let transport = if websocket { "websocket" } else { "polling" };
        let peer = Peer { ip, transport, user_agent: user_agent(headers) };
        Ok(EngineSession::new(peer, kill, place))
    }

    /// The id that the engine knows a session by, if this request is of its own client.
    fn inner_sid<'s>(
        &self,
        session: &'s EngineSession,
        request: &Request<Body>,
        ip: IpAddr,
        websocket: bool,
    ) -> Option<&'s str> {
        if !self.origins.permit(request.headers()) {
            audit::record(Kind::OriginRefused, Record { ip: Some(ip), ..Record::default() });
            return None;
        }
        let mark = self.binding.mark(ip, request.uri(), request.headers());
        let inner = session.inner_sid(mark, websocket);
        if inner.is_none() {
            // The Socket.IO id may be shown; the one on the wire may not.
            let socket = session.public_id();
            audit::record(Kind::BindingFailed, Record { ip: Some(ip), socket, ..Record::default() });
        }
        inner
    }

    /// Has the node that a session is on answer its request. Where that cannot be, the session is unknown.
    async fn forward(
        &self,
        node: NodeKey,
        request: Request<Body>,
        arrival: Option<Arrival>,
        (sid, ip, websocket): (&str, IpAddr, bool),
    ) -> Response<Body> {
        // No node gives such an id to a client that has no session.
        if let Some(arrival) = &arrival {
            arrival.guest.leave();
        }
        match self.forwarder.forward(node, request, sid, ip, websocket).await {
            Ok(answer) => answer,
            Err(why) => self.turn_away(why.into()),
        }
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
    pub fn admit(&self, address: IpAddr, headers: &HeaderMap, kill: Arc<KillSwitch>) -> Option<Arc<EngineSession>> {
        let ip = self.0.proxies.client(address, headers);
        self.0.admit(headers, ip, true, Some(kill)).ok()
    }
}

impl<S, B> Edge<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    B: HttpBody<Data = bytes::Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    /// A door for requests to `server.path`; all others go to `routes`.
    pub fn new(config: &config::Server, terms: &Terms, hub: Arc<Hub>, engine: S, routes: Router) -> Self {
        let (closer, path) = (engine.clone(), config.path.clone());
        hub.close_polling_by(move |sid| {
            let (closer, request) = (closer.clone(), query::close_request(&path, sid));
            Box::pin(async move {
                let _ = closer.oneshot(request).await;
            })
        });
        let shared = Shared {
            path: config.path.clone(),
            origins: Origins::new(&config.cors_origins),
            proxies: Proxies { trusted: config.trusted_proxies.clone(), header: config.forwarded_header },
            binding: Binding::new(config.bind_sessions_to_ip, &terms.tokens),
            max_connections: config.max_connections,
            body_timeout: config.ping_interval.get() + config.ping_timeout.get(),
            hub,
            forwarder: terms.forwarder.clone(),
            metrics: terms.metrics.clone(),
        };
        Self { shared: Arc::new(shared), engine, routes }
    }

    /// The same edge for requests that other nodes bring: it has no other routes.
    pub fn for_nodes(&self) -> Self {
        Self { routes: Router::new(), ..self.clone() }
    }

    /// The same door for those who do not come through HTTP's hands.
    pub fn entrance(&self) -> Entrance {
        Entrance(self.shared.clone())
    }

    async fn handle(self, mut request: Request<Body>) -> Response<Body> {
        let arrival = request.extensions_mut().remove::<Arrival>();
        let address = arrival.as_ref().map_or(IpAddr::from([0, 0, 0, 0]), |arrival| arrival.address.ip());
        let from_node = request.extensions_mut().remove::<FromNode>();
        let ip = match from_node {
            Some(from_node) => from_node.client,
            None => self.shared.proxies.client(address, request.headers()),
        };
        if !request.uri().path().starts_with(&self.shared.path) {
            request.extensions_mut().insert(ClientIp(ip));
            let Ok(response) = self.routes.oneshot(request).await;
            return response;
        }
        let query = Query::read(request.uri());
        match query.sid {
            _ if query.ambiguous => self.shared.turn_away(TurnedAway::Malformed),
            // A node brings requests of sessions only, and what it brings goes no further.
            None if from_node.is_some() => self.shared.turn_away(TurnedAway::UnknownSession),
            None => self.handshake(request, arrival, ip, query.websocket).await,
            Some(sid) if from_node.is_none() && !self.shared.hub.knows(&sid) => match self.shared.forwarder.names(&sid)
            {
                Some(node) => self.shared.forward(node, request, arrival, (&sid, ip, query.websocket)).await,
                None => self.shared.turn_away(TurnedAway::UnknownSession),
            },
            Some(sid) => self.go_on(request, arrival, ip, query.websocket, &sid).await,
        }
    }

    /// A request of a session: only its own client's reaches the engine. What is not known here is not known there; the
    /// engine itself would end the session of whose id somebody opens a WebSocket for.
    async fn go_on(
        self,
        mut request: Request<Body>,
        arrival: Option<Arrival>,
        ip: IpAddr,
        websocket: bool,
        sid: &str,
    ) -> Response<Body> {
        let shared = &self.shared;
        let polls = !websocket && request.method() == Method::GET;
        if !websocket && shared.hub.was_closed(sid, polls) {
            return query::close_packet(request.method());
        }
        let session = shared.hub.session(sid);
        let inner = session.as_ref().and_then(|session| shared.inner_sid(session, &request, ip, websocket));
        let Some(uri) = inner.and_then(|inner| query::with_sid(request.uri(), inner)) else {
            return shared.turn_away(TurnedAway::UnknownSession);
        };
        *request.uri_mut() = uri;
        if let Some(arrival) = &arrival {
            arrival.guest.leave();
        }
        let posts = !websocket && request.method() == Method::POST;
        let posting = session.as_ref().filter(|_| posts).map(|session| session.posting());
        let Ok(posting) = posting.transpose() else {
            return shared.turn_away(TurnedAway::Overlap);
        };
        let polling = session.clone().filter(|_| polls);
        let _polling = polling.as_ref().map(|session| session.polling());
        if let (true, Some(arrival), Some(session)) = (websocket, arrival, session) {
            session.upgrading(&arrival.kill);
            shared.metrics.transport_upgrades_total.with_label_values::<&str>(&[]).inc();
        }
        let response = match posting {
            Some(_) => match tokio::time::timeout(shared.body_timeout, self.clone().pass(request)).await {
                Ok(response) => response,
                Err(_) => shared.turn_away(TurnedAway::SlowBody),
            },
            None => self.clone().pass(request).await,
        };
        if let Some(session) = polling.filter(|_| response.status() == StatusCode::OK) {
            session.fetched(response.body().size_hint().exact());
        }
        response
    }

    /// A request without a session opens one.
    async fn handshake(
        self,
        request: Request<Body>,
        arrival: Option<Arrival>,
        ip: IpAddr,
        websocket: bool,
    ) -> Response<Body> {
        let shared = &self.shared;
        let kill = arrival.as_ref().filter(|_| websocket).map(|arrival| arrival.kill.clone());
        let session = match shared.admit(request.headers(), ip, websocket, kill) {
            Ok(session) => session,
            Err(turned) => return shared.turn_away(turned),
        };
        let mark = shared.binding.mark(ip, request.uri(), request.headers());
        let hub = shared.hub.clone();
        let Some(slim) = slim(request, &session) else {
            return shared.turn_away(TurnedAway::Malformed);
        };
        let response = self.clone().pass(slim).await;
        // The engine's own words stay as they are: clients know them.
        if response.status() == StatusCode::BAD_REQUEST {
            shared.count(&TurnedAway::Malformed);
        }
        // Who was refused has no session.
        let taken = matches!(response.status(), StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS);
        if let Some(arrival) = arrival.filter(|_| taken) {
            arrival.guest.leave();
        }
        if websocket || response.status() != StatusCode::OK {
            return response;
        }
        query::exchange_sid(response, |inner| hub.remember(inner, mark, &session)).await
    }

    async fn pass(self, request: Request<Body>) -> Response<Body> {
        let Ok(response) = self.engine.oneshot(request).await;
        response.map(Body::new)
    }
}

impl<S, B> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    B: HttpBody<Data = bytes::Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let edge = self.clone();
        Box::pin(async move { Ok(edge.handle(request).await) })
    }
}

fn user_agent(headers: &HeaderMap) -> Option<Arc<str>> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    // A header is ASCII where `to_str` reads it, so any byte is a boundary.
    Some(text[..text.len().min(MAX_USER_AGENT)].into())
}

/// The same request without its buffers: copied, and only what is needed.
fn slim(request: Request<Body>, session: &Arc<EngineSession>) -> Option<Request<Body>> {
    let (mut parts, _) = request.into_parts();
    let mut slim = Request::new(Body::empty());
    *slim.method_mut() = parts.method;
    *slim.uri_mut() = parts.uri.path_and_query()?.as_str().to_owned().parse::<Uri>().ok()?;
    *slim.version_mut() = parts.version;
    for name in KEPT {
        if let Some(value) = parts.headers.get(&name) {
            slim.headers_mut().insert(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
    }
    if let Some(upgrade) = parts.extensions.remove::<hyper::upgrade::OnUpgrade>() {
        slim.extensions_mut().insert(upgrade);
    }
    slim.extensions_mut().insert(session.clone());
    (slim.method() == Method::GET || slim.method() == Method::POST).then_some(slim)
}
